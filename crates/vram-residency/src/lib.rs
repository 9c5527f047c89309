//! Placeholder.
mod cancel;
mod keys;
mod progress;
mod regular_file;
mod source;
mod whole_file;
pub use cancel::CancelToken;
pub use keys::{KeySource, KeySourceError, create_key_file};
pub use progress::Progress;
pub use source::{Access, FileSource, ReaderSource, SliceSource, Source, SourceError};
pub use vram_seal::SealKey;
pub use whole_file::Overwrite;
