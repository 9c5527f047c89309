#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod error;
mod fetch;
mod manifest;
mod naming;
mod options;
mod pull;
mod push;
mod read;
mod store;
mod upkeep;

pub use error::{Cause, Lie, Part, Room, StoreError};
pub use manifest::{
    MANIFEST_LEN_MAX, Manifest, ManifestError, SHARDS_MAX, ShardEntry, SourceInfo, Trusted,
    Unproven, Wanted, created_at,
};
pub use naming::id::{ImageId, ManifestId, ParseIdError};
pub use naming::layout::{image_key, manifest_key, model_folder, parts_key};
pub use naming::parts::{PART_LEN, Parts};
pub use naming::revision::{ParseRevisionError, Revision};
pub use options::{StoreEvent, StoreOptions};
pub use pull::{Cache, LoadError, Pull};
pub use push::{Push, Pushed, WrongManifest};
pub use read::{SealedReader, StoreContent, VerifiedImage};
pub use store::Store;
pub use upkeep::{
    Collected, Finding, Listed, Sample, StoreCheck, StoreVerdict, Trial, VerifyMeans,
};

// In the public API: a caller can bring a store of its own.
pub use object_store;
