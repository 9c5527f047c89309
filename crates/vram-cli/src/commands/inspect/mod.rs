//! `vram inspect`: what a sealed image states about itself, without a key and unauthenticated; and
//! what a model file holds.

mod gguf;
mod model;
mod set;

use serde::Serialize;
use vram_residency::{
    ByteLen, ImageInfo, Protection, RecordFields, SivScope, Suite, inspect_image,
};

use crate::args::InspectArgs;
use crate::failure::Failure;
use crate::model::is_sealed_image;
use crate::output::Output;
use crate::{streams, table};

/// The record of an image, as JSON shows it. Lengths are in bytes.
#[derive(Debug, Serialize)]
struct Inspection<'a> {
    image: &'a str,
    /// Always false: nothing is proven without the key.
    authenticated: bool,
    version: u16,
    mode: &'static str,
    scope: Option<&'static str>,
    suite: Option<&'static str>,
    key_id: String,
    content_len: u64,
    segment_len: u64,
    segment_count: u64,
    table_len: u64,
    shard_index: u64,
    revision: u64,
    /// Keyed: without the key it confirms no guess of the two.
    model_and_context_keyed_code: String,
    /// Keyed as well.
    metadata_keyed_code: String,
    /// The file's length according to the record.
    image_len: u64,
    /// The file's actual length.
    file_len: u64,
}

/// Hexadecimal digits of a code.
fn hex(code: &[u8; 32]) -> String {
    code.iter().fold(String::with_capacity(64), |digits, byte| digits + &format!("{byte:02x}"))
}

/// Prints the record.
pub(crate) fn run(args: &InspectArgs, output: &mut Output) -> Result<(), Failure> {
    streams::output_is_none_of(&[streams::input_file(&args.image)])?;
    if set::is_set(&args.image) {
        return set::run(args, output);
    }
    let image = streams::Image::at(&args.image)?;
    if image.path().is_file() && !is_sealed_image(image.path()) {
        return model::run(args, &image, output);
    }
    let info = inspect_image(image.path());
    let info = info.map_err(|error| Failure::image(image.named(error)))?;
    let name = streams::input_name(&args.image);
    let inspection = Inspection::of(&name, &info);
    inspection.print(output)?;
    output.json(&inspection)
}

impl<'a> Inspection<'a> {
    fn of(image: &'a str, info: &ImageInfo) -> Self {
        let fields: &RecordFields = &info.fields;
        Self {
            image,
            authenticated: false,
            version: 1,
            mode: match fields.protection() {
                Protection::Encrypted => "encrypted",
                Protection::Authenticated => "authenticated",
                _ => "unknown",
            },
            scope: fields.scope().map(|scope| match scope {
                SivScope::Shard => "shard",
                SivScope::Segment => "segment",
                _ => "unknown",
            }),
            suite: fields.suite().map(|suite| match suite {
                Suite::Aes256Gcm => "aes-256-gcm",
                Suite::ChaCha20Poly1305 => "chacha20-poly1305",
                _ => "unknown",
            }),
            key_id: fields.key_id().to_string(),
            content_len: fields.plaintext_len().get(),
            segment_len: fields.segment().bytes().get(),
            segment_count: fields.segment_count(),
            table_len: fields.table_len().get(),
            shard_index: fields.shard_index(),
            revision: fields.revision(),
            model_and_context_keyed_code: hex(fields.binding_code()),
            metadata_keyed_code: hex(fields.metadata_code().as_bytes()),
            image_len: info.image_len.get(),
            file_len: info.file_len.get(),
        }
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        let bytes = |len| format!("{} ({len} bytes)", table::size(ByteLen::new(len)));
        let file = match self.file_len.cmp(&self.image_len) {
            core::cmp::Ordering::Equal => bytes(self.file_len),
            core::cmp::Ordering::Less => {
                format!("{}, CUT SHORT: should be {}", bytes(self.file_len), bytes(self.image_len))
            }
            core::cmp::Ordering::Greater => {
                format!("{}, TOO LONG: should be {}", bytes(self.file_len), bytes(self.image_len))
            }
        };
        let lines = [
            ("image", self.image.to_owned()),
            ("format", format!("vram-seal version {}", self.version)),
            ("mode", self.mode.to_owned()),
            ("scope", self.scope.unwrap_or("-").to_owned()),
            ("suite", self.suite.unwrap_or("-").to_owned()),
            ("key id", self.key_id.clone()),
            ("content", bytes(self.content_len)),
            ("segments", format!("{} of {}", self.segment_count, bytes(self.segment_len))),
            ("table", bytes(self.table_len)),
            ("file", file),
            ("shard index", self.shard_index.to_string()),
            ("revision", self.revision.to_string()),
            ("model, context", format!("keyed code {}", self.model_and_context_keyed_code)),
            ("metadata", format!("keyed code {}", self.metadata_keyed_code)),
        ];
        for (name, value) in lines {
            output.line(format!("{name:<15} {value}"))?;
        }
        output.line("Nothing of this is proven: `vram verify` with the key proves it.")
    }
}
