//! Where each tensor would go: the parts of one that lie behind one another are one place.

use serde::Serialize;
use vram_model::TensorFormat;
use vram_residency::{Piece, PlannedPlace};

/// A tensor, or a part of one, in one run of bytes of a GPU, as JSON shows it. Lengths are in bytes.
#[derive(Debug, Serialize)]
pub(super) struct Place {
    pub(super) tensor: String,
    /// As safetensors or ggml name it.
    pub(super) format: Option<&'static str>,
    /// Of the whole tensor, outermost first.
    pub(super) shape: Vec<u64>,
    pub(super) gpu: u32,
    /// From the start of the program's region on that GPU; null for an empty tensor.
    pub(super) offset: Option<u64>,
    pub(super) len: u64,
    pub(super) footprint: u64,
    /// Pieces in which it lies there, each sealed by itself.
    pub(super) piece_count: u64,
    /// Whether this is all of the tensor.
    pub(super) whole: bool,
    #[serde(skip)]
    part_end: u32,
}

/// The places of the pieces that find one, in the order of the plan.
pub(super) fn of(pieces: &[Piece], places: &[PlannedPlace]) -> Vec<Place> {
    let mut found: Vec<Place> = Vec::new();
    for (piece, place) in pieces.iter().zip(places) {
        let offset = place.offset.map(vram_residency::DeviceOffset::get);
        let (len, footprint) = (piece.len.get(), place.footprint.get());
        let next = piece.part.saturating_add(1);
        if let Some(last) = found.last_mut().filter(|last| {
            let end = last.offset.and_then(|start| start.checked_add(last.footprint));
            piece.part > 0 && last.part_end == piece.part && last.gpu == place.gpu && end == offset
        }) {
            last.len = last.len.saturating_add(len);
            last.footprint = last.footprint.saturating_add(footprint);
            last.piece_count = last.piece_count.saturating_add(1);
            last.part_end = next;
            last.whole = u64::from(piece.part_count) == last.piece_count;
            continue;
        }
        found.push(Place {
            tensor: piece.name.clone(),
            format: piece.format.map(TensorFormat::name),
            shape: piece.shape.clone(),
            gpu: place.gpu,
            offset,
            len,
            footprint,
            piece_count: 1,
            whole: piece.part_count <= 1,
            part_end: next,
        });
    }
    found
}
