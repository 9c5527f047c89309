//! A repeatable run: a seed and a clock that the caller moves give the same ids twice.
//!
//! ```sh
//! cargo run -p vram-id --example replay
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use vram_id::{Clock, IdSource, ShardId, Timestamp};

/// A clock that stands still until the caller moves it.
#[derive(Debug)]
struct Manual(AtomicU64);

impl Clock for Manual {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn run(seed: u64) -> Vec<ShardId> {
    let clock = Manual(AtomicU64::new(1_800_000_000_000));
    let ids = IdSource::seeded(seed);
    let mut made = vec![ids.next(&clock), ids.next(&clock)];
    // The clock is set back by an hour; the next id is still above the last.
    clock.0.fetch_sub(3_600_000, Ordering::Relaxed);
    made.push(ids.next(&clock));
    made
}

fn main() {
    let (first, again) = (run(7), run(7));
    for id in &first {
        println!("{id}");
    }
    assert!(first.is_sorted_by(|a, b| a < b), "ids rise");
    assert_eq!(first, again, "one seed, one clock, the same ids");
    assert_ne!(first, run(8), "another seed, other ids");
    println!("the same ids again from the same seed");
}
