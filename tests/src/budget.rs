//! The duration of a stress test, and its seed.

use core::time::Duration;
use std::time::Instant;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use vram_test_rigs::setting;

/// `VRAM_STRESS_SECONDS` and `VRAM_STRESS_SEED`, or a second and a fixed seed.
#[derive(Debug)]
pub struct Budget {
    until: Instant,
    seed: u64,
    rounds: u64,
    name: &'static str,
}

impl Budget {
    /// Starts the clock of one test, and prints the variables that repeat it.
    #[must_use]
    pub fn start(name: &'static str) -> Self {
        let seconds = setting("VRAM_STRESS_SECONDS").unwrap_or(1.0);
        let seed = setting("VRAM_STRESS_SEED").unwrap_or(20_26);
        eprintln!("{name}: VRAM_STRESS_SEED={seed} VRAM_STRESS_SECONDS={seconds}");
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        Self { until, seed, rounds: 0, name }
    }

    /// The seed of the next round while time is left; at least one round is run.
    pub fn next_round(&mut self) -> Option<u64> {
        if self.rounds > 0 && Instant::now() >= self.until {
            eprintln!("{}: {} rounds", self.name, self.rounds);
            return None;
        }
        self.rounds += 1;
        Some(self.seed.wrapping_add(self.rounds - 1))
    }
}

/// Draws values from proptest strategies outside a property: the same seed draws the same values.
#[derive(Debug)]
pub struct Draw {
    runner: TestRunner,
}

impl Draw {
    /// A sequence of draws.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        Self { runner: TestRunner::new_with_rng(Config::default(), rng) }
    }

    /// The next value of a strategy.
    pub fn one<S: Strategy>(&mut self, strategy: &S) -> S::Value {
        strategy.new_tree(&mut self.runner).expect("the strategies reject nothing").current()
    }
}
