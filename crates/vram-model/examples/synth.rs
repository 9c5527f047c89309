//! Writes a generated model of about the requested size, with the tensor names and proportions of
//! Llama.
//!
//! ```sh
//! cargo run --release -p vram-model --example synth -- 1GiB target/llama-1g.safetensors
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use core::error::Error;

use vram_alloc::ByteLen;
use vram_model::synth::{LlamaShape, SynthModel};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [size, path] = &args[..] else {
        return Err("usage: synth SIZE FILE, for instance: synth 1GiB llama.safetensors".into());
    };
    let shape = LlamaShape::about(size.parse::<ByteLen>()?);
    let model = SynthModel::llama(&shape, 1)?;
    model.write_file(path)?;
    println!("{path}: {} tensors, {}", model.tensor_count(), model.file_len());
    Ok(())
}
