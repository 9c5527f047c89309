//! The bound of `docs/fingerprint.md` for a missed change, shown on keys so small that misses happen.
//!
//! Method: the sums are those of the library; only the key is smaller. With bytes of one bit a column
//! misses the changes below with a chance of exactly a half, eight columns with 2^-8; with the prime 13
//! both sums of the second level miss what is left with 1/169. Over many keys the number of misses has
//! to be the expected one within four standard deviations, from both sides: a construction in which
//! two columns or the two sums depend on each other misses more, and is shown to fail here too.

#![expect(clippy::arithmetic_side_effects, reason = "small numbers")]

use super::sums::{COLUMNS, Column, Sums, columns, folded, portable};
use crate::dice::mix;

/// Keys of each kind of change.
const KEYS: u32 = 6_000;

/// A prime in place of 2^61 - 1.
const SMALL_PRIME: u64 = 13;

/// Repeatable random numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        mix(mix(self.0))
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

/// A kind of change: of which places, and by how much.
struct Change {
    name: &'static str,
    len: usize,
    places: fn(&mut Random) -> Vec<(usize, i8)>,
}

/// Each of them is missed by a column of one-bit keys with a chance of exactly a half: one byte of the
/// key has to be zero, or two have to be equal.
const CHANGES: [Change; 6] = [
    Change { name: "one byte", len: 192, places: |random| vec![(random.below(192), 1)] },
    Change {
        name: "two bytes of one half of a row",
        len: 64,
        places: |random| {
            let [first, second] = [random.below(16), random.below(15)];
            let second = if second < first { second } else { second + 1 };
            let [first, second] = [first, second].map(|at| at / 4 * 16 + at % 4);
            vec![(first, 1), (second, -1)]
        },
    },
    Change {
        name: "the same place of three rows, which has one byte of the key",
        len: 192,
        places: |random| {
            let at = random.below(64);
            vec![(at, 1), (at + 64, -1), (at + 128, 1)]
        },
    },
    Change {
        name: "the same place of a row in two steps",
        len: 4160,
        places: |random| {
            let at = random.below(64);
            vec![(at, 1), (at + 4096, -1)]
        },
    },
    Change { name: "the last byte of a tail", len: 77, places: |_| vec![(76, -1)] },
    Change { name: "one byte by much", len: 256, places: |random| vec![(random.below(256), 100)] },
];

/// How a smaller construction is made of the random numbers of a key.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Sound,
    /// Two columns have the same bytes.
    EqualColumns,
    /// The second sum has the numbers of the first.
    EqualSums,
}

/// The number of keys under which a change is missed by the first level, and by both.
fn misses(change: &Change, kind: Kind, seed: u64) -> (u32, u32) {
    let mut random = Random(seed << 40);
    let (mut first, mut both) = (0, 0);
    for _ in 0..KEYS {
        let before: Vec<u8> =
            (0..change.len).map(|_| random.next().to_le_bytes()[0] % 150 + 1).collect();
        let mut after = before.clone();
        for (at, by) in (change.places)(&mut random) {
            after[at] = after[at].wrapping_add_signed(by);
        }
        let steps = change.len.div_ceil(4096);
        let mut key: Vec<[Column; COLUMNS]> = Vec::new();
        key.resize_with(steps, || one_bit_columns(&mut random));
        if kind == Kind::EqualColumns {
            for columns in &mut key {
                columns[5] = columns[2];
            }
        }
        let [before, after] = [before, after].map(|bytes| portable(&bytes, &key));
        if before == after {
            first += 1;
            both += 1;
            continue;
        }
        let seeds = if kind == Kind::EqualSums { [1, 1] } else { [1, 2] };
        let base = random.next();
        let value = |sums: &Sums, seed: u64| {
            folded(sums, SMALL_PRIME, |at| {
                mix(base ^ (seed << 32 | u64::try_from(at).unwrap())) % SMALL_PRIME
            })
        };
        both += u32::from(seeds.iter().all(|seed| value(&before, *seed) == value(&after, *seed)));
    }
    (first, both)
}

/// The columns of a step of which each byte is 0 or 1.
fn one_bit_columns(random: &mut Random) -> [Column; COLUMNS] {
    let bits: [u64; 4] = core::array::from_fn(|_| random.next());
    columns(|row, column| {
        let at = row * COLUMNS + column;
        i8::try_from(bits[at / 64] >> (at % 64) & 1).unwrap()
    })
}

/// Whether a count is what a chance gives, within four standard deviations.
fn is_expected(count: u32, trials: u32, chance: f64) -> bool {
    let mean = f64::from(trials) * chance;
    let deviation = (mean * (1.0 - chance)).sqrt();
    (f64::from(count) - mean).abs() <= 4.0 * deviation
}

const FIRST: f64 = 1.0 / 256.0;
const BOTH: f64 = FIRST + (1.0 - FIRST) / 169.0;

#[test]
fn changes_are_missed_as_rarely_as_the_bound_says() {
    let (mut first_all, mut both_all) = (0, 0);
    for (seed, change) in (1..).zip(&CHANGES) {
        let (first, both) = misses(change, Kind::Sound, seed);
        assert!(is_expected(first, KEYS, FIRST), "{}: the first level missed {first}", change.name);
        assert!(is_expected(both, KEYS, BOTH), "{}: {both} were missed", change.name);
        first_all += first;
        both_all += both;
    }
    let trials = KEYS * 6;
    assert!(is_expected(first_all, trials, FIRST), "the first level missed {first_all}");
    assert!(is_expected(both_all, trials, BOTH), "{both_all} were missed of {trials}");
}

/// Tests the test: it would notice a construction that is weaker by a little.
#[test]
fn a_weaker_construction_is_seen_to_miss_more() {
    let sums = |kind| {
        let all =
            (1..).zip(CHANGES.iter().take(4)).map(|(seed, change)| misses(change, kind, seed));
        all.fold((0, 0), |sum, (first, both)| (sum.0 + first, sum.1 + both))
    };
    let trials = KEYS * 4;
    let (first, both) = sums(Kind::EqualColumns);
    assert!(!is_expected(first, trials, FIRST) && !is_expected(both, trials, BOTH));
    assert!(is_expected(first, trials, 1.0 / 128.0), "seven columns miss twice as much: {first}");
    let (first, both) = sums(Kind::EqualSums);
    assert!(is_expected(first, trials, FIRST) && !is_expected(both, trials, BOTH));
    assert!(is_expected(both, trials, FIRST + (1.0 - FIRST) / 13.0), "one sum: {both}");
}

/// With whole bytes in the key a column misses one change in 256, whichever column it is.
#[test]
fn a_column_of_whole_bytes_misses_one_change_in_256() {
    let mut random = Random(1 << 50);
    let mut missed = [0; COLUMNS];
    let trials = 20_000;
    for _ in 0..trials {
        let before: Vec<u8> = (0..64).map(|_| random.next().to_le_bytes()[0]).collect();
        let mut after = before.clone();
        let at = random.below(64);
        after[at] = after[at].wrapping_add(random.next().to_le_bytes()[0] | 1);
        let bytes: [u64; 32] = core::array::from_fn(|_| random.next());
        let key = columns(|row, column| bytes[row].to_le_bytes()[column].cast_signed());
        let [before, after] = [before, after].map(|bytes| portable(&bytes, &[key]));
        for half in 0..2 {
            for (column, missed) in missed.iter_mut().enumerate() {
                // Only the half that has the byte can tell.
                let has_it = at / 4 % 2 == half;
                *missed += u32::from(has_it && before[0][half][column] == after[0][half][column]);
            }
        }
    }
    for (column, missed) in missed.into_iter().enumerate() {
        assert!(is_expected(missed, trials, FIRST), "column {column} missed {missed}");
    }
    assert!(is_expected(missed.iter().sum(), trials * 8, FIRST), "{missed:?}");
}

/// Arbitrary differences in many places at once are missed no more often than the bound says.
#[test]
fn no_difference_in_many_places_is_missed_more_often() {
    let mut random = Random(1 << 51);
    let (mut missed, trials) = (0, 10_000);
    for _ in 0..trials {
        let [before, mut after]: [Vec<u8>; 2] =
            [0, 1].map(|_| (0..200).map(|_| random.next().to_le_bytes()[0] % 2).collect());
        after[0] = 1 - before[0];
        let key = [one_bit_columns(&mut random)];
        missed += u32::from(portable(&before, &key) == portable(&after, &key));
    }
    // Every row and half of it that differs would have to be missed.
    assert!(f64::from(missed) < f64::from(trials) * FIRST, "{missed}");
}
