//! A time limit on each test: a test that hangs ends its binary, with its name.
//!
//! The attribute `test` of this crate calls [`limit`] at the start of each test. One thread of the
//! test binary looks at the tests that run. It cannot stop a thread, so it ends the process: the
//! other binaries of the run are not affected (`cargo test --no-fail-fast`).

use core::time::Duration;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Instant;

use crate::setting;

/// The limit in seconds. The slowest test of a plain run takes a quarter of this on two cores.
const DEFAULT_SECONDS: f64 = 180.0;

/// Ten times what a case of the slowest property takes.
const SECONDS_A_CASE: f64 = 0.2;

/// The variable that replaces it.
const VARIABLE: &str = "VRAM_TEST_LIMIT_SECONDS";

/// The tests that run.
static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());

#[derive(Clone, Copy)]
struct Running {
    name: &'static str,
    since: Instant,
}

/// A test that runs. It must be dropped before the limit has passed.
#[derive(Debug)]
#[must_use = "the limit holds until this is dropped"]
pub struct Limit {
    name: &'static str,
}

/// Starts the time of the test `name`.
pub fn limit(name: &'static str) -> Limit {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let limit = limit_of_each();
        let started = thread::Builder::new().name("test-limit".to_owned());
        // Without a thread for this there is none for the test either, which then fails by itself.
        let _watch = started.spawn(move || watch(limit));
    });
    running().push(Running { name, since: Instant::now() });
    Limit { name }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let mut running = running();
        if let Some(at) = running.iter().position(|test| test.name == self.name) {
            running.swap_remove(at);
        }
    }
}

/// Time that a test was asked to take comes on top: the duration of a stress test, the cases of a
/// property.
fn limit_of_each() -> Duration {
    let seconds = setting(VARIABLE).unwrap_or(DEFAULT_SECONDS);
    let stress = setting("VRAM_STRESS_SECONDS").unwrap_or(0.0);
    let cases = setting::<f64>("PROPTEST_CASES").unwrap_or(0.0);
    // What is no number of seconds (negative, too large) sets no limit.
    Duration::try_from_secs_f64(seconds + stress + cases * SECONDS_A_CASE).unwrap_or(Duration::MAX)
}

fn running() -> MutexGuard<'static, Vec<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process when a test exceeds the limit.
fn watch(limit: Duration) {
    let pause = limit.min(Duration::from_secs(1));
    loop {
        thread::sleep(pause);
        let running: Vec<_> = running().clone();
        if running.iter().any(|test| test.since.elapsed() > limit) {
            end(&running, limit);
        }
    }
}

/// Names the tests that exceed the limit, and ends the process without its destructors, which could
/// wait for the threads that hang.
fn end(running: &[Running], limit: Duration) -> ! {
    let seconds = limit.as_secs_f64();
    let lines = running.iter().map(|Running { name, since }| {
        if since.elapsed() > limit {
            format!("\ntest {name} did not finish within {seconds} s ({VARIABLE})")
        } else {
            format!("\n  also running: {name}")
        }
    });
    let text: String = lines.chain(["\n".to_owned()]).collect();
    // Not by a macro: what this thread prints would go to the captured output of the first test.
    let _unwritable = std::io::stderr().write_all(text.as_bytes());
    std::process::abort()
}
