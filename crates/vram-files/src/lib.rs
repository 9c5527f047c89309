#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod cancel;
mod error;
mod feed;
pub mod folder;
mod image;
mod key;
mod progress;
pub mod regular_file;
mod source;
mod sync;
mod whole_file;

pub use cancel::CancelToken;
pub use error::FileError;
pub use feed::Feed;
pub use image::{
    ImageInfo, ImageOptions, ImageReport, ImageVerdict, PlainImage, inspect_image, seal_image,
    seal_image_nameless, seal_image_to, unseal_image, unseal_image_to, verify_image,
};
pub use key::{KeySource, KeySourceError, core_dumps_denied, create_key_file, deny_core_dumps};
pub use progress::{Progress, ProgressFn, Watch, WatchOptions};
pub use source::{
    Access, FileDifference, FilePool, FileSource, FileState, HashInOrder, ReaderSource,
    SliceSource, Source, SourceError,
};
pub use whole_file::{Inputs, Overwrite, WholeFile};

// What a publisher of models needs of the crate below, so that it depends on this one alone.
pub use vram_seal::{Expected, ExpectedDigest, KeyRing, SealContext, SealKey, SealParams};
