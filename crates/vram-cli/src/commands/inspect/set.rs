//! `vram inspect` of a folder or an index: the files of the model, and whether they agree.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use vram_model::{ModelSet, shown_whole};
use vram_residency::ByteLen;

use super::model::{Sum, print_sums, sums};
use crate::args::InspectArgs;
use crate::commands::load::tensors;
use crate::failure::Failure;
use crate::model::Model;
use crate::output::Output;
use crate::{streams, table};

/// A model in several files, as JSON shows it. Lengths are in bytes.
#[derive(Debug, Serialize)]
struct SetInfo {
    model: String,
    model_id: String,
    files: Vec<FileInfo>,
    content_len: u64,
    tensor_count: usize,
    /// Tensors and bytes by type.
    dtypes: BTreeMap<&'static str, Sum>,
}

#[derive(Debug, Serialize)]
struct FileInfo {
    path: String,
    format: &'static str,
    len: u64,
    tensor_count: usize,
}

/// Whether a path leads to a folder, or has the name of an index.
pub(super) fn is_set(path: &Path) -> bool {
    path.is_dir() || path.extension().is_some_and(|ending| ending == "json")
}

/// Prints the files of the model.
pub(super) fn run(args: &InspectArgs, output: &mut Output) -> Result<(), Failure> {
    let options = args.limits.options();
    let set = ModelSet::find([&args.image], &options).map_err(Failure::of_whole)?;
    let inputs: Vec<&Path> = set.files().iter().map(AsRef::as_ref).collect();
    streams::output_is_none_of(&inputs)?;
    let model = Model::open_or(&set, &options, Failure::of_whole)?;
    let info = SetInfo::of(args, &model);
    output.set_schema("inspect-set");
    info.print(output)?;
    output.json(&info)
}

impl SetInfo {
    fn of(args: &InspectArgs, model: &Model) -> Self {
        let files = model.files.iter().map(|file| FileInfo {
            path: file.path.display().to_string(),
            format: file.header.format(),
            len: file.header.file_len().get(),
            tensor_count: file.header.tensors().len(),
        });
        let tensors = || model.files.iter().flat_map(|file| file.header.tensors());
        Self {
            model: args.image.display().to_string(),
            model_id: model.id.clone(),
            files: files.collect(),
            content_len: model.plan.total().get(),
            tensor_count: tensors().count(),
            dtypes: sums(tensors()),
        }
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        output.line(format!("{:<15} {}", "model", shown_whole(&self.model)))?;
        output.line(format!(
            "{:<15} {}",
            "content",
            table::size(ByteLen::new(self.content_len))
        ))?;
        output.line(format!("{:<15} {}", "tensors", self.tensor_count))?;
        print_sums(&self.dtypes, output)?;
        output.line("")?;
        for file in &self.files {
            let (path, count) = (shown_whole(&file.path), tensors(file.tensor_count));
            let size = table::size(ByteLen::new(file.len));
            output.line(format!("{path}: {}, {size}, {count}", file.format))?;
        }
        output.line("All files are there, and their headers are sound. No tensor was read.")
    }
}
