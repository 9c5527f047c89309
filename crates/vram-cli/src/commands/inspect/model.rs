//! `vram inspect` of a model file: its tensors and its metadata, by its header alone.

use std::collections::BTreeMap;

use serde::Serialize;
use vram_model::{FileHeader, ModelError, ModelFile, SafetensorsHeader, Tensor, shown_whole};
use vram_residency::{ByteLen, FileState, regular_file};

use super::gguf;
use crate::args::InspectArgs;
use crate::commands::load::tensors;
use crate::failure::Failure;
use crate::model::not_the_file;
use crate::output::Output;
use crate::{streams, table};

/// Tensors that are listed, and keys of metadata; the others are counted.
pub(super) const LISTED_MAX: usize = 100;
/// Longest text of a name or a value that is shown.
const SHOWN_MAX: usize = 120;

/// A model file, as JSON shows it. Lengths are in bytes.
#[derive(Debug, Serialize)]
struct ModelInfo {
    file: String,
    format: &'static str,
    file_len: u64,
    header_len: u64,
    content_len: u64,
    tensor_count: usize,
    /// Tensors and bytes by type.
    dtypes: BTreeMap<&'static str, Sum>,
    tensors: Vec<Listed>,
    tensors_not_listed: usize,
    metadata: BTreeMap<String, String>,
    metadata_not_listed: usize,
}

/// Tensors of one type.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Sum {
    pub(super) tensor_count: usize,
    pub(super) len: u64,
}

/// One tensor.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    name: String,
    dtype: &'static str,
    shape: Vec<u64>,
    len: u64,
    /// From the start of the file.
    offset: u64,
}

/// Prints what the header of a model file says.
pub(super) fn run(
    args: &InspectArgs,
    file: &streams::Image,
    output: &mut Output,
) -> Result<(), Failure> {
    let options = args.limits.options();
    let name = streams::input_name(&args.image);
    let header = if streams::is_dash(&args.image) {
        let opened = regular_file::open_regular(file.path());
        let failed = |error| Failure::input(format!("cannot read {name}: {error}"));
        let opened = opened.map_err(failed)?;
        let before = FileState::of(&opened).map_err(failed)?;
        let header = FileHeader::read(&name, &opened, &options);
        before.check(&opened, &name).map_err(|error| not_the_file(&error))?;
        header
    } else {
        ModelFile::read_with(file.path(), &options)
    };
    let header = match header.map_err(refused)? {
        FileHeader::Safetensors(header) => header,
        FileHeader::Gguf(header) => return gguf::run(name, &header, output),
        other => return Err(Failure::input(format!("{name} is of format {}", other.format()))),
    };
    let info = ModelInfo::of(name, &header);
    output.set_schema("inspect-model");
    info.print(output)?;
    output.json(&info)
}

impl ModelInfo {
    fn of(file: String, header: &SafetensorsHeader) -> Self {
        let shown = header.metadata().iter().take(LISTED_MAX);
        let metadata: BTreeMap<String, String> =
            shown.map(|(key, value)| (cut(key), cut(value))).collect();
        Self {
            file,
            format: "safetensors",
            file_len: header.file_len().get(),
            header_len: header.data_offset(),
            content_len: header.data_len().get(),
            tensor_count: header.tensors().len(),
            dtypes: sums(header.tensors()),
            tensors: header.tensors().iter().take(LISTED_MAX).map(Listed::of).collect(),
            tensors_not_listed: header.tensors().len().saturating_sub(LISTED_MAX),
            metadata_not_listed: header.metadata().len().saturating_sub(LISTED_MAX),
            metadata,
        }
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        let size = |len| table::size(ByteLen::new(len));
        output.line(format!("{:<15} {}", "model file", shown_whole(&self.file)))?;
        output.line(format!("{:<15} {}", "format", self.format))?;
        output.line(format!("{:<15} {} ({} bytes)", "file", size(self.file_len), self.file_len))?;
        output.line(format!("{:<15} {} bytes", "header", self.header_len))?;
        output.line(format!("{:<15} {}", "tensors", self.tensor_count))?;
        print_sums(&self.dtypes, output)?;
        for (key, value) in &self.metadata {
            output.line(format!(
                "{:<15} {}: {}",
                "metadata",
                shown_whole(key),
                shown_whole(value)
            ))?;
        }
        if self.metadata_not_listed > 0 {
            output.line(format!("{:<15} not listed: {}", "metadata", self.metadata_not_listed))?;
        }
        print_tensors(&self.tensors, self.tensors_not_listed, output)
    }
}

/// The failure for a file that is neither a sealed image nor a sound model file.
fn refused(error: ModelError) -> Failure {
    let other = matches!(&error, ModelError::OtherFormat { .. });
    let failure = Failure::of_whole(error);
    if other { failure.hint("give a sealed image or a model file") } else { failure }
}

/// Tensors and bytes by type.
pub(super) fn sums<'a>(
    tensors: impl IntoIterator<Item = &'a Tensor>,
) -> BTreeMap<&'static str, Sum> {
    let mut sums: BTreeMap<&'static str, Sum> = BTreeMap::new();
    for tensor in tensors {
        let sum = sums.entry(tensor.format.name()).or_default();
        sum.tensor_count = sum.tensor_count.saturating_add(1);
        sum.len = sum.len.saturating_add(tensor.len.get());
    }
    sums
}

/// Prints a line for each type.
pub(super) fn print_sums(
    sums: &BTreeMap<&'static str, Sum>,
    output: &mut Output,
) -> Result<(), Failure> {
    for (dtype, sum) in sums {
        let count = tensors(sum.tensor_count);
        let len = table::size(ByteLen::new(sum.len));
        output.line(format!("{:<15} {count}, {len}", format!("  {dtype}")))?;
    }
    Ok(())
}

/// Prints the tensors, and that there are no others or how many.
pub(super) fn print_tensors(
    listed: &[Listed],
    not_listed: usize,
    output: &mut Output,
) -> Result<(), Failure> {
    if listed.is_empty() {
        return output.line("The header is sound. The file holds no tensor.");
    }
    output.line("")?;
    let mut table = table::Table::new(3, &["tensor", "type", "shape", "bytes"]);
    for tensor in listed {
        table.row([
            shown_whole(&tensor.name),
            tensor.dtype.to_owned(),
            format!("{:?}", tensor.shape),
            tensor.len.to_string(),
        ]);
    }
    output.write(&table.render())?;
    if not_listed > 0 {
        output.line(format!("tensors not listed: {not_listed}"))?;
    }
    output.line("The header is sound. No tensor was read.")
}

impl Listed {
    pub(super) fn of(tensor: &Tensor) -> Self {
        Self {
            name: cut(&tensor.name),
            dtype: tensor.format.name(),
            shape: tensor.shape.clone(),
            len: tensor.len.get(),
            offset: tensor.file_offset,
        }
    }
}

/// A text of the file, cut if it is long.
pub(super) fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
