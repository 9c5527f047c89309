//! In which smaller formats the same model would fit.

use serde::Serialize;
use vram_model::{FileHeader, QUANTISATIONS, quantised};
use vram_residency::{GpuChoice, VramManagerBuilder};

use crate::failure::Failure;
use crate::model::{Model, PIECE_LEN_MAX};

/// The same model in another format, as JSON shows it. Lengths are in bytes.
#[derive(Debug, Serialize)]
pub(super) struct Smaller {
    /// As ggml names it.
    pub(super) format: &'static str,
    pub(super) content_len: u64,
    pub(super) footprint: u64,
    pub(super) fits: bool,
    /// Tensors of integers, which are counted as they are.
    pub(super) kept_count: usize,
}

/// The formats in which the model would be smaller than it is, the largest first.
pub(super) fn estimates(
    model: &Model,
    builder: &VramManagerBuilder,
    choice: GpuChoice,
) -> Result<Vec<Smaller>, Failure> {
    let mut found = Vec::new();
    for format in QUANTISATIONS {
        let headers: Vec<&FileHeader> = model.files.iter().map(|file| &file.header).collect();
        let estimate = quantised(headers.iter(), format)?;
        if estimate.plan.total() >= model.plan.total() {
            continue;
        }
        let split = estimate.plan.split(PIECE_LEN_MAX);
        let plan = split.map_err(|error| Failure::input(error.to_string()))?;
        found.push(Smaller {
            format: format.name(),
            content_len: plan.total().get(),
            footprint: plan.footprint().get(),
            fits: builder.placements(&plan, choice)?.fit.is_yes(),
            kept_count: estimate.kept_count,
        });
    }
    Ok(found)
}
