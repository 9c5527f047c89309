//! A progress bar on standard error, on a terminal only.

use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vram_residency::ByteLen;

/// The progress of one phase. Without a terminal it shows nothing. Dropping it removes its line.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar for a phase of `total` bytes.
    pub(crate) fn new(phase: &'static str, total: ByteLen) -> Self {
        let target = if stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total.get()), target);
        // The template is a constant. If it were refused, the bar would only look plainer.
        if let Ok(style) = ProgressStyle::with_template(
            "{msg:>8} [{bar:32}] {bytes:>11}/{total_bytes} {binary_bytes_per_sec:>14} {eta}",
        ) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(phase);
        Self(bar)
    }

    /// Shows `done` as the bytes done so far.
    pub(crate) fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Sets the total, for work that learns it on the way.
    pub(crate) fn set_total(&self, total: u64) {
        if self.0.length() != Some(total) {
            self.0.set_length(total);
        }
    }

    /// Adds `more` to the bytes done so far.
    pub(crate) fn advance(&self, more: u64) {
        self.0.inc(more);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
