//! What a soak shows while it runs: a line on a terminal; without one, a note each minute.

use core::cell::Cell;
use core::time::Duration;
use std::io::{IsTerminal as _, stderr};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tally::{Step, Tallies};
use crate::output::{note, notes_are_printed};
use crate::table;

/// The time between two notes.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// The line, and when it began.
pub(super) struct Live {
    line: Option<ProgressBar>,
    began: Instant,
    time: Duration,
    noted: Cell<Instant>,
}

impl Live {
    /// For a soak of so much time.
    pub(super) fn new(time: Duration) -> Self {
        let line = (stderr().is_terminal() && notes_are_printed()).then(|| {
            let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // A constant. If it were refused, the line would only look plainer.
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                line.set_style(style);
            }
            line
        });
        let now = Instant::now();
        Self { line, began: now, time, noted: Cell::new(now) }
    }

    /// Shows what is done now, and what was done so far.
    pub(super) fn show(&self, step: Step, rounds: u64, tallies: &Tallies, altered: usize) {
        let is_due = self.noted.get().elapsed() >= NOTE_EVERY;
        if self.line.is_none() && !is_due {
            return;
        }
        let size = |steps: &[Step]| table::size(tallies.bytes(steps));
        let text = format!(
            "{} of {}  altered {altered}  round {} {:<11} written {}  checked {}",
            clock(self.began.elapsed()),
            clock(self.time),
            rounds.saturating_add(1),
            step.name(),
            size(&WRITTEN),
            size(&CHECKED),
        );
        match &self.line {
            Some(line) => line.set_message(text),
            None => note(&text),
        }
        if is_due {
            self.noted.set(Instant::now());
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}

/// Steps that write device memory.
pub(super) const WRITTEN: [Step; 3] = [Step::Fill, Step::Move, Step::Wake];
/// Steps that look at all bytes of a shard.
pub(super) const CHECKED: [Step; 3] = [Step::Verify, Step::Fingerprint, Step::Read];

/// A time span as a clock shows it: `1:02:03`.
pub(super) fn clock(time: Duration) -> String {
    let all = time.as_secs();
    let (hours, minutes, seconds) = (all / 3600, (all / 60) % 60, all % 60);
    format!("{hours}:{minutes:02}:{seconds:02}")
}
