//! An orchestrator with three models and too little room: it asks before it loads, holds places
//! while it loads, is told who is in the way, and lets idle weights go to host memory and back.
//!
//! `cargo run -p vram-residency --example orchestrator`

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use core::error::Error;
use core::time::Duration;

use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, Lru, ModelHandle, ModelPlan, OnEviction, Piece, Protection,
    ReservePlanRequest, SliceSource, VramError, VramManager,
};

const GPU: GpuChoice = GpuChoice::One(0);

/// A model of tensors of one MiB, as its file header describes it.
fn header(tensors: u64) -> Result<ModelPlan, Box<dyn Error>> {
    let piece = |at: u64| Piece::new(format!("layer {at}"), 0, at << 20, ByteLen::MIB);
    Ok(ModelPlan::new((0..tensors).map(piece))?)
}

fn request(model: &str) -> AdmitRequest<'static> {
    AdmitRequest::new(model, GPU)
        .owner("serving")
        .protection(Protection::Authenticated)
        .on_eviction(OnEviction::Park)
}

/// Everything that a worker reads of a model.
fn content(manager: &VramManager, model: &ModelHandle) -> Result<Vec<u8>, VramError> {
    let mut bytes = Vec::new();
    for shard in model.shards() {
        bytes.extend(manager.unseal_model(shard)?);
    }
    Ok(bytes)
}

fn main() -> Result<(), Box<dyn Error>> {
    // One GPU of 24 MiB for models of 10, 10 and 8.
    let manager = VramManager::builder()
        .host_device(ByteLen::from_mib_saturating(24))
        .eviction(Lru)
        .build()?;
    let files: Vec<Vec<u8>> =
        [(10, 1), (10, 2), (8, 3)].map(|(tensors, byte)| vec![byte; tensors << 20]).into();
    let [llama_file, qwen_file, gemma_file] = files.as_slice() else { return Ok(()) };

    // Before a byte is loaded: would it fit? And nobody takes the places while it loads.
    let plan = header(10)?;
    println!("llama: {}", manager.fits(&plan, GPU)?);
    let terms = ReservePlanRequest::new(GPU).owner("serving").expires_in(Duration::from_mins(1));
    let mut places = manager.reserve_plan_with(&plan, terms)?;
    println!("held by {}: {}", places.id(), places.remaining());
    let llama = manager.admit_reserved(
        &mut places,
        request("llama"),
        &vec![SliceSource::new(llama_file)],
    )?;
    drop(places);

    let qwen = manager.admit(request("qwen"), &plan, &vec![SliceSource::new(qwen_file)])?;
    // A worker is busy with qwen: its weights stay where the kernels read them.
    let leases = manager.lease_model(&qwen)?;
    assert!(leases.iter().all(|lease| lease.device_pointer().is_some()));

    // The third does not fit. The answer says who holds what, and what would help.
    let gemma_plan = header(8)?;
    println!("gemma: {}", manager.fits(&gemma_plan, GPU)?);
    let gemma_source = vec![SliceSource::new(gemma_file)];
    let careful = request("gemma").evicts(false);
    let refused = manager.admit(careful, &gemma_plan, &gemma_source);
    let Err(VramError::InsufficientVram(shortfall)) = refused else {
        return Err("there was room for gemma".into());
    };
    println!("refused: {shortfall}");
    let way = shortfall.plan.ok_or("idle weights could go")?;
    assert!(way.evictions.iter().all(|eviction| &*eviction.model_id == "llama"));

    // Carried out, the same request succeeds. What went is encrypted in host memory.
    let mut report = manager.evict(&way)?;
    assert!(report.is_complete());
    let parked = report.models.pop().ok_or("llama was parked")?;
    println!(
        "{} of {} tensors parked, {} free",
        parked.model_id,
        parked.pieces.len(),
        report.bytes
    );
    let gemma = manager.admit(request("gemma"), &gemma_plan, &gemma_source)?;
    assert!(content(&manager, &gemma)? == *gemma_file);

    // Nobody could take what was leased.
    assert!(content(&manager, &qwen)? == *qwen_file);
    drop(leases);

    // Qwen is done, and llama comes back whole: verified, under its old handles.
    manager.free_model(&qwen)?;
    assert_eq!(manager.wake_model(parked, GPU)?, llama);
    assert!(content(&manager, &llama)? == *llama_file);
    println!("{}", manager.report());

    manager.free_model(&llama)?;
    manager.free_model(&gemma)?;
    assert_eq!(manager.get_used_vram(0)?, 0);
    Ok(())
}
