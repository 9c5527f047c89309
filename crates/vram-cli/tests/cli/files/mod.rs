//! Files of models and images: many of them, parts of them, lists of their digests, and files that
//! change.

mod changing;
mod digests;
mod lists;
mod many;
mod models;
mod sealed;

use crate::support::Bench;
use vram_residency::{ContentDigest, ContentHasher, HashKind};

/// A sound file of one tensor with this name.
fn tensor(name: &str, bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len();
    let text = format!(r#"{{"{name}":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
    let mut file = u64::try_from(text.len()).unwrap().to_le_bytes().to_vec();
    file.extend_from_slice(text.as_bytes());
    file.extend_from_slice(bytes);
    file
}

/// Writes such a file, and returns its content.
fn write(bench: &Bench, name: &str) -> Vec<u8> {
    let file = tensor(name, name.as_bytes());
    bench.write(name, &file);
    file
}

pub(crate) fn sha256(bytes: &[u8]) -> ContentDigest {
    ContentHasher::digest(HashKind::Sha256, bytes)
}
