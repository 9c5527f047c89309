//! A progress bar on standard error, on a terminal only.

use core::fmt::Write;
use core::time::Duration;
use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use terminal_size::{Width, terminal_size_of};
use vram_residency::ByteLen;

use crate::output::notes_are_printed;
use crate::table;

/// The progress of one phase. Without a terminal it shows nothing. Dropping it removes its line.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar for a phase of `total` bytes.
    pub(crate) fn new(phase: &'static str, total: ByteLen) -> Self {
        let target = if stderr().is_terminal() && notes_are_printed() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total.get()), target);
        // The template is a constant. If it were refused, the bar would only look plainer.
        if let Ok(style) = ProgressStyle::with_template("{line}") {
            let draw = move |state: &ProgressState, to: &mut dyn Write| {
                // Read for each drawing: people resize their windows.
                let columns = terminal_size_of(stderr()).map_or(80, |(Width(columns), _)| columns);
                let shown = Shown {
                    phase,
                    done: state.pos(),
                    total: state.len().unwrap_or_default(),
                    elapsed: state.elapsed(),
                    left: state.eta(),
                };
                // A terminal that takes no more shows the line at the next drawing.
                let _ = to.write_str(&shown.line(usize::from(columns)));
            };
            bar.set_style(style.with_key("line", draw));
        }
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

/// What a line of progress shows. Lengths are in bytes.
#[derive(Clone, Copy, Debug)]
struct Shown {
    phase: &'static str,
    done: u64,
    total: u64,
    elapsed: Duration,
    left: Duration,
}

impl Shown {
    /// As much as fits into so many columns, the most important first. Every character takes one
    /// column.
    fn line(&self, columns: usize) -> String {
        /// Columns of the bar between its brackets.
        const BAR_MIN: usize = 10;
        const BAR_MAX: usize = 40;

        let size = |len| table::size(ByteLen::new(len));
        let percent = format!("{:>3}%", self.percent());
        let phase = format!("{:>8} {percent}", self.phase);
        let figures = format!(
            "{phase} {:>10} of {} {:>6.2} GB/s",
            size(self.done),
            size(self.total),
            table::gb_per_s(ByteLen::new(self.done), self.elapsed),
        );
        let time = format!("{:>5} s left", self.left.as_secs());
        // A space and two brackets besides.
        let rest = figures.len().saturating_add(time.len()).saturating_add(4);
        let bar = columns.saturating_sub(rest).min(BAR_MAX);
        if bar >= BAR_MIN {
            return format!("{figures} {time} [{}]", self.bar(bar));
        }
        let shorter = [figures, phase, percent];
        shorter.into_iter().find(|line| line.len() <= columns).unwrap_or_default()
    }

    /// Whole percent that are done, rounded down.
    fn percent(&self) -> u64 {
        let hundredfold = u128::from(self.done.min(self.total)).saturating_mul(100);
        hundredfold
            .checked_div(u128::from(self.total))
            .and_then(|percent| u64::try_from(percent).ok())
            .unwrap_or_default()
    }

    fn bar(&self, columns: usize) -> String {
        let percent = usize::try_from(self.percent()).unwrap_or_default();
        let filled = columns.saturating_mul(percent) / 100;
        let mut bar = "=".repeat(filled);
        if filled < columns {
            bar.push('>');
        }
        format!("{bar:columns$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_any_width_and_shows_more_the_wider_it_is() {
        for (done, total) in [(0, 0), (0, 1), (5 << 30, 12 << 30), (u64::MAX, u64::MAX), (9, 3)] {
            let elapsed = Duration::from_secs(3);
            let shown = Shown { phase: "verify", done, total, elapsed, left: Duration::MAX };
            let mut longest = 0;
            for columns in 0..=500 {
                let line = shown.line(columns);
                assert!(line.is_ascii() && line.len() <= columns, "{columns}: {line:?}");
                assert!(line.len() >= longest, "{columns}: {line:?}");
                assert_eq!(line.contains('%'), columns >= 4, "{columns}: {line:?}");
                longest = line.len();
            }
        }
        let elapsed = Duration::from_secs(2);
        let left = Duration::from_secs(7);
        let shown = Shown { phase: "seal", done: 1 << 30, total: 4 << 30, elapsed, left };
        assert_eq!(shown.line(13), "    seal  25%");
        assert_eq!(
            shown.line(80),
            "    seal  25%    1.0 GiB of 4.0 GiB   0.54 GB/s     7 s left [====>            ]"
        );
    }
}
