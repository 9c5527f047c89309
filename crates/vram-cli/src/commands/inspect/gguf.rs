//! `vram inspect` of a GGUF file: its tensors and its metadata, by its header alone.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use vram_model::{GgufHeader, GgufValue, shown_whole};
use vram_residency::ByteLen;

use super::model::{LISTED_MAX, Listed, Sum, cut, print_sums, print_tensors, sums};
use crate::failure::Failure;
use crate::output::Output;
use crate::table;

/// A GGUF file, as JSON shows it. Lengths are in bytes.
#[derive(Debug, Serialize)]
struct GgufInfo {
    file: String,
    format: &'static str,
    version: u32,
    alignment: u64,
    file_len: u64,
    header_len: u64,
    content_len: u64,
    /// Padding, and other bytes of no tensor.
    unused_len: u64,
    /// Which part of a model in several files it is, from 0, and of how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<Split>,
    tensor_count: usize,
    /// Tensors and bytes by type.
    dtypes: BTreeMap<&'static str, Sum>,
    tensors: Vec<Listed>,
    tensors_not_listed: usize,
    metadata: BTreeMap<String, Value>,
    metadata_not_listed: usize,
    #[serde(skip)]
    lines: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Split {
    number: u64,
    count: u64,
}

/// Prints what the header says.
pub(super) fn run(name: String, header: &GgufHeader, output: &mut Output) -> Result<(), Failure> {
    let info = GgufInfo::of(name, header);
    output.set_schema("inspect-gguf");
    info.print(output)?;
    output.json(&info)
}

impl GgufInfo {
    fn of(file: String, header: &GgufHeader) -> Self {
        let shown = || header.metadata().iter().take(LISTED_MAX);
        let tensors = header.tensors();
        let content_len = tensors.iter().map(|tensor| tensor.len.get());
        Self {
            file,
            format: "gguf",
            version: header.version(),
            alignment: header.alignment(),
            file_len: header.file_len().get(),
            header_len: header.header_len().get(),
            content_len: content_len.fold(0, u64::saturating_add),
            unused_len: header.unused().get(),
            split: header.split().map(|split| Split { number: split.number, count: split.count }),
            tensor_count: tensors.len(),
            dtypes: sums(tensors),
            tensors: tensors.iter().take(LISTED_MAX).map(Listed::of).collect(),
            tensors_not_listed: tensors.len().saturating_sub(LISTED_MAX),
            metadata: shown().map(|(key, value)| (cut(key), as_json(value))).collect(),
            metadata_not_listed: header.metadata().len().saturating_sub(LISTED_MAX),
            lines: shown().map(|(key, value)| (cut(key), cut(&value.to_string()))).collect(),
        }
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        let bytes = |len| format!("{} ({len} bytes)", table::size(ByteLen::new(len)));
        let mut lines = vec![
            ("model file", shown_whole(&self.file)),
            ("format", format!("GGUF version {}, alignment {}", self.version, self.alignment)),
            ("file", bytes(self.file_len)),
            ("header", format!("{} bytes", self.header_len)),
            ("of no tensor", format!("{} bytes", self.unused_len)),
        ];
        if let Some(Split { number, count }) = self.split {
            lines.push(("part", format!("{} of {count}", number.saturating_add(1))));
        }
        lines.push(("tensors", self.tensor_count.to_string()));
        for (name, value) in lines {
            output.line(format!("{name:<15} {value}"))?;
        }
        print_sums(&self.dtypes, output)?;
        for (key, value) in &self.lines {
            let (key, value) = (shown_whole(key), shown_whole(value));
            output.line(format!("{:<15} {key}: {value}", "metadata"))?;
        }
        if self.metadata_not_listed > 0 {
            output.line(format!("{:<15} not listed: {}", "metadata", self.metadata_not_listed))?;
        }
        print_tensors(&self.tensors, self.tensors_not_listed, output)
    }
}

/// A value, long texts cut, and of a list the first elements.
fn as_json(value: &GgufValue) -> Value {
    match value {
        GgufValue::Unsigned(value) => json!(value),
        GgufValue::Signed(value) => json!(value),
        // JSON has no infinities: those are texts.
        GgufValue::F32(float) if !float.is_finite() => json!(float.to_string()),
        GgufValue::F64(float) if !float.is_finite() => json!(float.to_string()),
        GgufValue::F32(float) => json!(float),
        GgufValue::F64(float) => json!(float),
        GgufValue::Bool(value) => json!(value),
        GgufValue::Text(text) => json!(cut(text)),
        GgufValue::Array(list) => json!({
            "type": list.of.name(),
            "len": list.len,
            "first": list.first.iter().map(as_json).collect::<Vec<_>>(),
        }),
        other => json!(cut(&other.to_string())),
    }
}
