//! Prints the content of a model file, and the memory that it needs on a device.
//!
//! ```sh
//! cargo run -p vram-model --example plan -- model.safetensors
//! cargo run -p vram-model --example plan             # plans a generated model of 64 MiB
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use core::error::Error;

use vram_alloc::ByteLen;
use vram_model::synth::{LlamaShape, SynthModel};
use vram_model::{FileHeader, Limits, ModelFile, plan_of};

fn main() -> Result<(), Box<dyn Error>> {
    let limits = Limits::default();
    let mut headers = Vec::new();
    for path in std::env::args_os().skip(1) {
        headers.push(ModelFile::read(path, &limits)?);
    }
    if headers.is_empty() {
        let shape = LlamaShape::about(ByteLen::from_mib_saturating(64));
        let mut file = Vec::new();
        SynthModel::llama(&shape, 1)?.write_to(&mut file)?;
        headers.push(FileHeader::read("a made-up model", &file, &limits.into())?);
    }

    let plan = plan_of(&headers)?;
    for header in &headers {
        println!("{}: {} tensors, {}", header.file(), header.tensors().len(), header.file_len());
    }
    println!("tensors     {}", plan.total());
    println!("on a device {}", plan.footprint());
    println!("largest     {}", plan.largest());
    let pieces = plan.split(ByteLen::from_mib_saturating(64))?;
    println!("pieces      {} of at most 64 MiB", pieces.pieces().len());
    Ok(())
}
