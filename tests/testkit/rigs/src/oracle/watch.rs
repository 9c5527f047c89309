//! The limit of each call.

use core::time::Duration;
use std::io::Write as _;
use std::sync::Weak;
use std::thread;

use vram_testkit::setting;

use super::{Live, Oracle};

/// Ends the process when a call of this journal does not answer in time.
pub(super) fn watch(oracle: Weak<Oracle>) {
    let limit = Duration::from_secs_f64(setting("VRAM_CALL_LIMIT_SECONDS").unwrap_or(60.0));
    let pause = (limit / 4).min(Duration::from_millis(200));
    let started = thread::Builder::new().name("call-limit".to_owned());
    let watch = move || {
        while let Some(oracle) = oracle.upgrade() {
            let running = oracle.journal().running.clone();
            if running.iter().any(|live| live.since.elapsed() > limit) {
                end(&running, limit);
            }
            drop(oracle);
            thread::sleep(pause);
        }
    };
    let _watch = started.spawn(watch).expect("the suite can start a thread");
}

/// A thread cannot be stopped, and may be waited for: ends the process, without its destructors.
fn end(running: &[Live], limit: Duration) -> ! {
    let lines = running.iter().map(|Live { name, hand, since, waits, .. }| {
        let late = if since.elapsed() > limit { "no answer from" } else { "also running:" };
        let may = if *waits { " (may wait for others)" } else { "" };
        format!("\n{late} {name} of thread {hand}, for {:.1} s{may}", since.elapsed().as_secs_f64())
    });
    let text: String = lines.chain(["\n".to_owned()]).collect();
    // Not by a macro: what this thread prints would be captured.
    let _unwritable = std::io::stderr().write_all(text.as_bytes());
    std::process::abort()
}
