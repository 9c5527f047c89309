#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod digest;
mod error;
mod hex;
pub mod image;
mod key;
mod limits;
mod open;
pub mod parallel;
mod pieces;
mod record;
mod seal;
mod segment;
#[cfg(feature = "serde")]
mod serde;
mod whole;
mod wipe;

pub use digest::{ContentDigest, ContentHasher, ExpectedDigest, HashKind, ParseDigestError};
pub use error::{ContextField, SealError};
pub use image::ImageLayout;
pub use key::id::{KeyError, KeyId};
pub use key::mac::MarkKey;
pub use key::manifest::ManifestKey;
pub use key::master::SealKey;
pub use key::ring::KeyRing;
pub use key::seed::Seed;
pub use key::ticket::{SignatureMismatch, TicketKey};
pub use limits::OpenLimits;
pub use open::{OpenedRecord, Opener, open_record, open_record_in};
pub use parallel::Threads;
pub use record::checked::{Checked, Evidence};
pub use record::context::{CONTEXT_LEN_MAX, MODEL_ID_LEN_MAX, SealContext};
pub use record::expected::Expected;
pub use record::fields::RecordFields;
pub use record::header::SealRecord;
pub use record::layout::{PLAINTEXT_LEN_MAX, SEGMENT_COUNT_MAX, SegmentLayout, SegmentSize};
pub use record::metadata::MetadataCode;
pub use record::params::{SealParams, SivScope, Suite};
pub use record::protection::Protection;
pub use seal::collector::{Opened, Sealed, SegmentCollector};
pub use seal::elsewhere::BegunSegment;
pub use seal::sealer::{Fresh, Ready, SealedSegment, Sealer};
pub use segment::ahead::read_ahead_len;
pub use segment::altered::AlteredSegments;
pub use segment::chain::{SegmentHash, merge_digest};
pub use segment::hashes::{Hashes, open_and_hash};
pub use segment::lent::SegmentKey;
pub use segment::span::SegmentSpan;
pub use segment::table::SegmentTags;
pub use whole::{hash_all, seal, seal_in_place, unseal, unseal_in_place, verify, verify_content};
pub use wipe::Scratch;
