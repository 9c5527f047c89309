//! Plans, reserves and places a model; a second model is refused, and the error says what it needs.
//!
//! ```sh
//! cargo run -p vram-alloc --example plan_and_place
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;

use vram_alloc::{
    Alignment, Arena, BlockFormat, ByteLen, Dtype, Fit, Ledger, ModelPlan, Piece, TensorFormat,
    fits, tensor_bytes,
};

/// An embedding in bfloat16 and eight layers in `Q4_K`, as a file header would describe them.
fn plan() -> Result<ModelPlan, Box<dyn Error>> {
    let mut pieces = Vec::new();
    let mut offset = 0_u64;
    let mut push = |name: String, format, shape: [u64; 2]| -> Result<(), Box<dyn Error>> {
        let len = tensor_bytes(format, &shape)?;
        pieces.push(Piece::new(name, 0, offset, len).stored_as(format, shape));
        offset = offset.checked_add(len.get()).ok_or("the file is too long")?;
        Ok(())
    };
    push("embed.weight".into(), TensorFormat::Plain(Dtype::BF16), [32_000, 4096])?;
    for layer in 0..8 {
        push(format!("layer.{layer}.up"), TensorFormat::Block(BlockFormat::Q4K), [11_008, 4096])?;
        push(format!("layer.{layer}.down"), TensorFormat::Block(BlockFormat::Q4K), [4096, 11_008])?;
    }
    Ok(ModelPlan::new(pieces)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let budget = ByteLen::GIB;
    let ledger = Ledger::new(budget)?;
    let mut arena = Arena::new(budget)?;
    ledger.set_headroom("64 MiB".parse()?);

    let plan = plan()?.split("64 MiB".parse()?)?;
    println!("{} pieces, {}", plan.pieces().len(), plan.total());

    // First where, then how much; a refusal at any point drops what was taken so far.
    let mut model = Vec::new();
    for piece in plan.pieces() {
        let placement = arena.place(piece.len, Alignment::GRANULE)?;
        let charge = ledger.reserve(placement.footprint())?.commit();
        model.push((placement, charge));
    }
    println!("{}\n{}", arena.report(), ledger.capacity());

    match fits(&plan, &arena, ledger.capacity().room(), Alignment::GRANULE) {
        Fit::Fits { .. } => return Err("a second copy cannot fit".into()),
        answer => println!("a second copy: {answer}"),
    }

    for (placement, charge) in model {
        arena.release(placement)?;
        charge.release();
    }
    println!("{}\n{}", arena.report(), ledger.capacity());
    Ok(())
}
