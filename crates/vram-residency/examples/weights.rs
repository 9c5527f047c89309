//! From a model file to tensors that kernels may read, in five lines.
//!
//! `cargo run -p vram-residency --features models --example weights [FILE…]`; without a file, of a
//! model that it makes up.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use core::error::Error;
use std::path::PathBuf;

use vram_residency::model::synth::{LlamaShape, SynthModel};
use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, ModelFiles, Protection, VramError, VramManager,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let folder = tempfile::tempdir()?;
    if paths.is_empty() {
        let path = folder.path().join("llama.safetensors");
        SynthModel::llama(&LlamaShape::about(ByteLen::MIB), 1)?.write_file(&path)?;
        paths.push(path);
    }
    let manager = VramManager::builder().host_device(ByteLen::from_mib_saturating(1024)).build()?;

    let files = ModelFiles::open(paths)?;
    let request = AdmitRequest::new("llama", GpuChoice::MostRoomFirst);
    let request = request.protection(Protection::Authenticated).holder("worker-1");
    let (model, leases) = manager.admit_leased(request, files.plan(), &files)?;
    let weights = model.pieces.iter().zip(&leases).map(|(piece, lease)| (&piece.piece, lease));

    for (tensor, lease) in weights.take(3) {
        println!("{}: {:?} at {:?}", tensor.name, tensor.shape, lease.device_pointer());
    }
    // Nothing takes the weights away while they are leased.
    assert!(matches!(manager.free_model(&model), Err(VramError::InUse { .. })));
    drop(leases);
    println!("{} tensors freed", manager.free_model(&model)?.len());
    Ok(())
}
