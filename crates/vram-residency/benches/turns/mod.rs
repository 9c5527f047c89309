//! What the benches share that let everything take turns in one process: a shared machine changes
//! its speed from one second to the next.

use core::time::Duration;
use std::time::Instant;

/// Bytes that repeat nowhere, others for each seed.
pub(crate) fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut data = vec![0; len];
    for chunk in data.chunks_mut(8) {
        chunk.iter_mut().zip(dice.roll().to_le_bytes()).for_each(|(target, byte)| *target = byte);
    }
    data
}

/// Marsaglia's xorshift64.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ seed)
    }

    pub(crate) const fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Times one turn of something, and nothing of what it takes to repeat it.
pub(crate) type Turn<'a> = (&'a str, Box<dyn FnMut() -> Duration + 'a>);

/// Lets everything take turns, and prints how long each took, and as a share of that how long the
/// reference took: the slowest of these rows.
pub(crate) fn compare(what: &str, rounds: usize, references: &[&str], turns: &mut [Turn<'_>]) {
    let mut took = vec![Vec::new(); turns.len()];
    for _ in 0..rounds {
        for ((_, turn), took) in turns.iter_mut().zip(&mut took) {
            took.push(turn());
        }
    }
    for took in &mut took {
        took.sort_unstable();
    }
    let figures: Vec<_> = took.iter().map(|took| (took[took.len() / 2], took[0])).collect();
    let of = |name: &str| figures[turns.iter().position(|(other, _)| *other == name).unwrap()];
    let reference = references.iter().max_by_key(|name| of(name).0).unwrap();
    let (median_of, best_of) = of(reference);
    println!("\n{what}, {rounds} turns each, as a share of `{reference}`");
    for ((name, _), (median, best)) in turns.iter().zip(&figures) {
        println!(
            "  {name:34} median {:7.1} ms {:5.2}   best {:7.1} ms {:5.2}",
            median.as_secs_f64() * 1e3,
            median_of.as_secs_f64() / median.as_secs_f64(),
            best.as_secs_f64() * 1e3,
            best_of.as_secs_f64() / best.as_secs_f64(),
        );
    }
}

/// True unless the bench was asked for its figures: with `--quick`, or by `cargo test --benches`.
pub(crate) fn is_quick() -> bool {
    let asked = |flag: &str| std::env::args().any(|arg| arg == flag);
    asked("--quick") || !asked("--bench")
}

pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}
