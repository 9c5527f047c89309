//! The two levels of sums of a fingerprint, in plain Rust.
//!
//! ```text
//!   span     | step 0: 4096 bytes      | step 1 ...               up to 64 steps, the last one short
//!   step     | row 0: 64 bytes | row 1 | ... | row 63 |           a missing byte counts as zero
//!   row      0 0 0 0 1 1 1 1 0 0 0 0 1 1 1 1 ...                  words of 4 bytes, by turns of two halves
//! ```
//!
//! A half of a row is multiplied with eight columns of the step's key. The sums of equal rows and
//! halves of all steps are added: 64 × 2 × 8 sums.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "positions in a row, which has 64 bytes; sums of at most 2048 products"
)]

use super::STEPS;

/// Columns of a key.
pub(super) const COLUMNS: usize = 8;

/// Rows of a step, and bytes in each.
pub(super) const ROWS: usize = 64;
pub(super) const ROW_LEN: usize = 64;

/// Bytes in a step.
pub(super) const STEP_LEN: usize = ROWS * ROW_LEN;

/// A column of the key of a step, each byte at the place of the byte of a row that it multiplies.
/// It lies in one line of the cache, so that a vector of it is one load.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Column(pub(super) [i8; ROW_LEN]);

/// The sums of the first level: for each row and half of it one of each column.
pub(super) type Sums = [[[u32; COLUMNS]; 2]; ROWS];

// The longest span is all steps.
const _: () = assert!(STEPS * STEP_LEN == 256 << 10);

/// The columns of a step, out of the matrix of 32 × 8 bytes that a card multiplies with.
pub(super) fn columns(matrix: impl Fn(usize, usize) -> i8) -> [Column; COLUMNS] {
    core::array::from_fn(|column| {
        Column(core::array::from_fn(|at| {
            // A card's thread loads 16 bytes as four words: the first two are for rows 0 to 15 of
            // the matrix, the last two for the others.
            let (thread, word, byte) = (at / 16, at % 16 / 4, at % 4);
            matrix(word / 2 * 16 + thread * 4 + byte, column)
        }))
    })
}

/// The first level.
pub(super) fn portable(bytes: &[u8], columns: &[[Column; COLUMNS]]) -> Sums {
    let mut sums = [[[0; COLUMNS]; 2]; ROWS];
    for (step, columns) in bytes.chunks(STEP_LEN).zip(columns) {
        let (rows, rest) = step.as_chunks::<ROW_LEN>();
        let mut last = [0; ROW_LEN];
        for (byte, at) in rest.iter().zip(&mut last) {
            *at = *byte;
        }
        for (row, sums) in rows.iter().chain([&last]).zip(&mut sums) {
            add(row, columns, sums);
        }
    }
    sums
}

/// Adds the products of one row. No sum leaves 32 bits: it is one of at most 2048 products, and each
/// is below 2^15.
fn add(row: &[u8; ROW_LEN], columns: &[Column; COLUMNS], sums: &mut [[u32; COLUMNS]; 2]) {
    // Products of 16-bit numbers in pairs: compilers know an instruction for that.
    let row = row.map(i16::from);
    let [even, odd] = sums;
    for ((column, even), odd) in columns.iter().zip(even).zip(odd) {
        let keys = column.0.map(i16::from);
        let pairs: [i32; ROW_LEN / 2] = core::array::from_fn(|at| {
            let product = |at: usize| i32::from(row[at]) * i32::from(keys[at]);
            product(2 * at) + product(2 * at + 1)
        });
        let mut words = [0_i32; 4];
        for part in pairs.as_chunks::<4>().0 {
            for (word, pair) in words.iter_mut().zip(part) {
                *word += pair;
            }
        }
        let [a, b, c, d] = words;
        *even = even.wrapping_add((a + b).cast_unsigned());
        *odd = odd.wrapping_add((c + d).cast_unsigned());
    }
}

/// The second level: the sum of all sums, each times the number of its place, modulo a prime of at
/// most 61 bits.
///
/// `number` gives the number of one of 4 × 256 places: four of each of a card's 256 threads.
pub(super) fn folded(sums: &Sums, prime: u64, number: impl Fn(usize) -> u64) -> u64 {
    let mut total = 0_u128;
    for (row, halves) in sums.iter().enumerate() {
        for (half, columns) in halves.iter().enumerate() {
            for (column, sum) in columns.iter().enumerate() {
                let thread = row * 4 + column / 2;
                let place = half * 2 + column % 2;
                // Below 2^32 × 2^61, 1024 times: far below 2^128.
                let product =
                    u128::from(*sum).wrapping_mul(u128::from(number(place * 256 + thread)));
                total = total.wrapping_add(product);
            }
        }
    }
    u64::try_from(total.checked_rem(u128::from(prime)).unwrap_or(0)).unwrap_or_default()
}
