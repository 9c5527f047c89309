//! How the calls on a whole model grow with the number of its pieces. A model of n pieces of 16
//! bytes is admitted, parked, woken and freed; the time per piece shall not grow with n.
//!
//! ```text
//! cargo bench -p vram-residency --bench tiny_pieces -- [--quick] [n …]
//! ```
//!
//! Without numbers: 1,000, 10,000, 100,000 and 160,000 pieces; with `--quick` the first two.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and may panic"
)]

use core::time::Duration;
use std::time::Instant;

use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, ModelPlan, Piece, SliceSource, VramManager,
};

const PIECE_LEN: u64 = 16;
/// A granule of the arena, which is what a piece takes of the device.
const GRANULE: u64 = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut sizes: Vec<u64> = arguments.iter().filter_map(|n| n.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1_000, 10_000, 100_000, 160_000];
        if arguments.iter().any(|argument| argument == "--quick") {
            sizes.truncate(2);
        }
    }
    println!("{:>9}{:>20}{:>20}{:>20}{:>20}", "pieces", "admit", "park", "wake", "free");
    for pieces in sizes {
        row(pieces);
    }
}

/// Times each call once on a model of so many pieces.
fn row(pieces: u64) {
    let name = |index: u64| format!("t{index}");
    let plan = (0..pieces)
        .map(|index| Piece::new(name(index), 0, index * PIECE_LEN, ByteLen::new(PIECE_LEN)));
    let plan = ModelPlan::new(plan).unwrap();
    let file = vec![7; usize::try_from(pieces * PIECE_LEN).unwrap()];
    let source = vec![SliceSource::new(&file)];
    let room = ByteLen::new(pieces * GRANULE);
    let manager = VramManager::builder().host_device(room).build().unwrap();

    let gpus = GpuChoice::One(0);
    let (model, admitted) =
        timed(|| manager.admit(AdmitRequest::new("tiny", gpus), &plan, &source).unwrap());
    let (model, parked) = timed(|| manager.park_model(&model).unwrap());
    let (model, woken) = timed(|| manager.wake_model(model, gpus).unwrap());
    let (receipts, freed) = timed(|| manager.free_model(&model).unwrap());
    assert_eq!(receipts.len(), plan.pieces().len());

    print!("{pieces:>9}");
    for took in [admitted, parked, woken, freed] {
        let each = took.as_secs_f64() * 1e6 / f64::from(u32::try_from(pieces).unwrap());
        print!("{:>9.3} s {each:>6.1} us", took.as_secs_f64());
    }
    println!();
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}
