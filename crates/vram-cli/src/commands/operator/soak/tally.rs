//! What a soak has done so far: how often, how many bytes, how long; and what it found.

use core::time::Duration;

use serde::Serialize;
use vram_residency::ByteLen;

use crate::table;

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Fill,
    Verify,
    Fingerprint,
    Read,
    Flip,
    Move,
    Park,
    Wake,
    Free,
}

impl Step {
    pub(super) const ALL: [Self; 9] = [
        Self::Fill,
        Self::Verify,
        Self::Fingerprint,
        Self::Read,
        Self::Flip,
        Self::Move,
        Self::Park,
        Self::Wake,
        Self::Free,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fill => "fill",
            Self::Verify => "verify",
            Self::Fingerprint => "fingerprint",
            Self::Read => "read",
            Self::Flip => "flip",
            Self::Move => "move",
            Self::Park => "park",
            Self::Wake => "wake",
            Self::Free => "free",
        }
    }
}

/// How often a step was made, and what it cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Tally {
    pub(super) step: &'static str,
    pub(super) count: u64,
    /// Content of the shards, which is less than they take of a device.
    pub(super) bytes: u64,
    seconds: f64,
    gb_per_s: f64,
}

/// The tallies of all steps.
#[derive(Debug)]
pub(super) struct Tallies([(Step, u64, ByteLen, Duration); 9]);

impl Tallies {
    pub(super) fn new() -> Self {
        Self(Step::ALL.map(|step| (step, 0, ByteLen::ZERO, Duration::ZERO)))
    }

    /// Counts one step.
    pub(super) fn add(&mut self, step: Step, bytes: ByteLen, took: Duration) {
        for (of, count, all, time) in &mut self.0 {
            if *of == step {
                *count = count.saturating_add(1);
                *all = all.saturating_add(bytes);
                *time = time.saturating_add(took);
            }
        }
    }

    /// How often a step was made.
    pub(super) fn count(&self, step: Step) -> u64 {
        self.0.iter().find(|(of, ..)| *of == step).map_or(0, |(_, count, ..)| *count)
    }

    /// Bytes of these steps together.
    pub(super) fn bytes(&self, steps: &[Step]) -> ByteLen {
        let of = self.0.iter().filter(|(of, ..)| steps.contains(of));
        of.fold(ByteLen::ZERO, |sum, (_, _, bytes, _)| sum.saturating_add(*bytes))
    }

    /// The steps that were made.
    pub(super) fn made(&self) -> Vec<Tally> {
        let made = self.0.iter().filter(|(_, count, ..)| *count > 0);
        made.map(|&(step, count, bytes, time)| Tally {
            step: step.name(),
            count,
            bytes: bytes.get(),
            seconds: time.as_secs_f64(),
            gb_per_s: table::gb_per_s(bytes, time),
        })
        .collect()
    }

    /// The steps as a table.
    pub(super) fn table(&self) -> String {
        let mut shown = table::Table::new(1, &["step", "times", "bytes", "GB/s"]);
        for tally in self.made() {
            // Of flips, nothing but their number means something.
            let has_bytes = tally.step != Step::Flip.name();
            let cell = |text: String| if has_bytes { text } else { "-".to_owned() };
            shown.row([
                tally.step.to_owned(),
                tally.count.to_string(),
                cell(table::size(ByteLen::new(tally.bytes))),
                cell(format!("{:.2}", tally.gb_per_s)),
            ]);
        }
        shown.render()
    }
}

/// Bytes that were found altered though nothing here altered them.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Alteration {
    pub(super) round: u64,
    /// The step that found it.
    pub(super) step: &'static str,
    pub(super) gpu: u32,
    pub(super) shard: String,
    /// Where the shard lay, in bytes from the beginning of the device's region; `None` if that is not
    /// known.
    pub(super) offset: Option<u64>,
    pub(super) len: u64,
    /// The altered segments, or the error that says so.
    pub(super) what: String,
}
