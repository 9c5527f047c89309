#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod aead;
mod chain;
mod context;
mod digest;
mod error;
mod fields;
mod hashes;
mod header;
mod hex;
pub mod image;
mod key;
mod key_ring;
mod layout;
mod open;
pub mod parallel;
mod params;
mod seal;
mod secret;
mod segment_span;
#[cfg(feature = "serde")]
mod serde;
mod subkey;
mod table;
mod ticket;
mod whole;
mod wipe;

pub use chain::{SegmentHash, merge_digest};
pub use context::{Expected, MODEL_ID_LEN_MAX, SealContext};
pub use digest::{ContentDigest, ContentHasher, HashKind, ParseDigestError};
pub use error::{ContextField, SealError};
pub use fields::RecordFields;
pub use hashes::{Hashes, open_and_hash};
pub use header::SealRecord;
pub use image::ImageLayout;
pub use key::{KeyError, KeyId, SealKey};
pub use key_ring::KeyRing;
pub use layout::{PLAINTEXT_LEN_MAX, SegmentLayout, SegmentSize};
pub use open::{OpenLimits, OpenedRecord, Opener, open_record, open_record_in};
pub use parallel::Threads;
pub use params::{Protection, SealParams, SivScope, Suite};
pub use seal::{Sealed, SealedSegment, Sealer, SegmentCollector};
pub use segment_span::SegmentSpan;
pub use table::SegmentTags;
pub use ticket::{SignatureMismatch, TicketKey};
pub use whole::{hash_all, seal, seal_in_place, unseal, unseal_in_place, verify, verify_content};
