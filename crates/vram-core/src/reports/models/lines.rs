//! Models as lines of a printed table.

use core::fmt;
use core::time::Duration;

use vram_alloc::ByteLen;

use crate::reports::models::ModelReport;
use crate::reports::table::{Clipped, Short, row};

/// The most models that are printed.
const LINES_MAX: usize = 100;

const WIDTH: [usize; 10] = [28, 14, 6, 12, 10, 10, 20, 7, 11, 10];

/// Prints a line for each model, and a count of those beyond the first hundred.
pub(crate) fn write(models: &[ModelReport], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if models.is_empty() {
        return f.write_str("no shard is resident or parked\n");
    }
    let heads = [
        "model",
        "owner",
        "gpus",
        "pieces",
        "parked",
        "bytes",
        "leases",
        "pinned",
        "unverified",
        "state",
    ];
    row(f, &WIDTH, &heads)?;
    for model in models.iter().take(LINES_MAX) {
        line(model, f)?;
    }
    let rest = models.get(LINES_MAX..).unwrap_or_default();
    if !rest.is_empty() {
        let add = |sum: ByteLen, model: &ModelReport| sum.saturating_add(model.bytes);
        let bytes = rest.iter().fold(ByteLen::ZERO, add);
        writeln!(f, "… and {} more, with {} on GPUs", rest.len(), Short(bytes))?;
    }
    Ok(())
}

fn line(model: &ModelReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let owner = model.owner.as_deref().map_or_else(String::new, |owner| clipped(owner, 12));
    let gpus: Vec<String> = model.gpus.iter().map(u32::to_string).collect();
    let leases = match &model.oldest_lease {
        Some(oldest) => {
            let holder =
                oldest.holder.as_deref().map_or_else(|| "?".to_owned(), |name| clipped(name, 16));
            format!("{}, {} {holder}", model.lease_count, Age(oldest.age))
        }
        None => model.lease_count.to_string(),
    };
    let mut state = model.state.name().to_owned();
    for (count, what) in [(model.lost, "lost"), (model.quarantined, "altered")] {
        if count > 0 {
            for part in [", ", &count.to_string(), " ", what] {
                state.push_str(part);
            }
        }
    }
    let cells = [
        clipped(&model.model_id, 26),
        owner,
        gpus.join(","),
        format!("{}/{}", model.resident, model.pieces),
        model.parked.to_string(),
        Short(model.bytes).to_string(),
        leases,
        model.pinned.to_string(),
        model.oldest_unverified.map_or_else(String::new, |age| Age(age).to_string()),
        state,
    ];
    row(f, &WIDTH, &cells.each_ref().map(String::as_str))
}

fn clipped(text: &str, len: usize) -> String {
    Clipped(text, len).to_string()
}

/// An age for a narrow column, in the largest unit that it fills.
struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 => f.write_str("<1s"),
            seconds @ 1..=59 => write!(f, "{seconds}s"),
            seconds @ 60..=3599 => write!(f, "{}m", seconds / 60),
            seconds @ 3600..=172_799 => write!(f, "{}h", seconds / 3600),
            seconds => write!(f, "{}d", seconds / 86_400),
        }
    }
}
