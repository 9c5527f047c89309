//! The made-up model of the demonstration, as a file.

use std::fs::File;
use std::io::{self, Write};

use vram_model::synth::{LlamaShape, SynthModel};
use vram_residency::{ByteLen, CancelToken};

use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Bar;
use crate::table;

/// Fixed, so that every run makes the same model.
const SEED: u64 = 0x5eed;

/// Step 1: a file with the tensor names and proportions of a Llama model. It has no name, so that
/// nothing of it is left however the program ends.
pub(super) fn write(
    size: ByteLen,
    token: &CancelToken,
    output: &mut Output,
) -> Result<(File, SynthModel), Failure> {
    const ELSEWHERE: &str = "make room, or set TMPDIR to a folder that can be written";

    let model = SynthModel::llama(&LlamaShape::about(size), SEED)?;
    let folder = std::env::temp_dir();
    let failed = |error: io::Error| {
        if token.is_cancelled() {
            return Failure::interrupted();
        }
        Failure::file("write a temporary file in", &folder, &error).hint(ELSEWHERE)
    };
    let mut file = tempfile::tempfile().map_err(failed)?;
    let bar = Bar::new("write", model.file_len());
    model.write_to(Stoppable { file: &mut file, bar: &bar, token }).map_err(failed)?;
    drop(bar);

    output.line("")?;
    output.line(format!(
        "1. A model: {} tensors with the names and proportions of Llama, {}",
        model.tensor_count(),
        table::size(model.file_len())
    ))?;
    output.line(format!("   in a file without a name in {}", folder.display()))?;
    Ok((file, model))
}

/// A file that shows the progress of writing, and fails once the user asked to stop.
struct Stoppable<'a> {
    file: &'a mut File,
    bar: &'a Bar,
    token: &'a CancelToken,
}

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.token.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        let written = self.file.write(bytes)?;
        self.bar.advance(ByteLen::from_usize(written).get());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
