//! Why sealing, opening or verifying failed.

use vram_alloc::ByteLen;

use crate::key::id::KeyId;
use crate::record::protection::Protection;

/// The part of the expected context that the record does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContextField {
    /// The model id, or the caller's context: the record holds one code over both.
    ModelAndContext,
    /// The caller's metadata.
    Metadata,
    /// The shard index.
    ShardIndex,
    /// The revision.
    Revision,
    /// The scope of the synthetic IV.
    Scope,
    /// The cipher.
    Suite,
}

impl core::fmt::Display for ContextField {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::ModelAndContext => "model id or context",
            Self::Metadata => "metadata",
            Self::ShardIndex => "shard index",
            Self::Revision => "revision",
            Self::Scope => "scope of the synthetic IV",
            Self::Suite => "cipher",
        })
    }
}

/// Why bytes, a record or a request were not accepted.
///
/// Every variant says what is wrong and where. No variant contains key, tag, digest or content
/// bytes, so an error can be logged unchanged. Key ids are public.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The bytes do not begin with the magic of a seal record.
    #[error("not a seal record: the first eight bytes are not its magic")]
    NotASeal,
    /// The record is of a format version that this code does not know.
    #[error("seal format version {found} is not supported, only version 1")]
    UnsupportedVersion {
        /// The version the record states.
        found: u16,
    },
    /// The record uses a hash and key derivation profile that this code does not know.
    #[error("hash profile {found} is not supported, only profile 1 (BLAKE3 and HMAC-SHA256)")]
    UnsupportedHash {
        /// The profile the record states, its byte 13.
        found: u8,
    },
    /// The record was sealed under another key than the one given.
    #[error("sealed under key {found}, but the key given is {expected}")]
    WrongKey {
        /// The id of the key that was given.
        expected: KeyId,
        /// The key id that the record states.
        found: KeyId,
    },
    /// No key of the ring has the id that the record states.
    #[error("sealed under key {id}, which is not in the key ring")]
    UnknownKey {
        /// The key id that the record states.
        id: KeyId,
    },
    /// The record's code does not match: a field was changed, or the key is not the one that its id
    /// names.
    #[error("the seal record was altered, or its key is not the one it was sealed under")]
    RecordMismatch,
    /// A field of the record has a value that the format does not allow.
    #[error("the seal record has an invalid {field}")]
    MalformedRecord {
        /// The field, as named in the format's table.
        field: &'static str,
    },
    /// The record is valid, but is bound to another value than the caller expects.
    #[error("the seal record has another {field} than expected")]
    ContextMismatch {
        /// The part that differs.
        field: ContextField,
    },
    /// The record is valid, but plaintext lies where the caller expects ciphertext, or the reverse.
    #[error(
        "the shard is sealed as {found:?}, and {expected:?} is expected: name {found:?}, or any \
         protection, to accept it"
    )]
    ProtectionMismatch {
        /// The protection that the caller expects; Encrypted unless another was named.
        expected: Protection,
        /// The protection that the record states.
        found: Protection,
    },
    /// Metadata is known only by its code, which was computed with another key than the seal's.
    #[error(
        "the metadata is known only by its code under key {found}: sealing under key {expected} \
         needs the metadata itself"
    )]
    MetadataKey {
        /// The id of the key of the seal.
        expected: KeyId,
        /// The id of the key of the code.
        found: KeyId,
    },
    /// The segment table is not the one that belongs to the record.
    #[error("the segment table does not belong to the seal record, or was altered")]
    TableMismatch,
    /// The bytes of a segment are not those that were sealed.
    #[error("segment {segment} was altered")]
    SegmentMismatch {
        /// Index of the segment, from 0.
        segment: u64,
    },
    /// The content as a whole is not the one that was sealed.
    #[error("the content digest does not match the seal record")]
    DigestMismatch,
    /// The bytes of a segment are no longer those that were hashed before.
    #[error("segment {segment} of the source changed while it was being sealed")]
    SourceChanged {
        /// Index of the segment, from 0.
        segment: u64,
    },
    /// A buffer, table or image has the wrong length.
    #[error("{what} must have {expected} bytes, and has {found}")]
    WrongLength {
        /// The name of what was measured.
        what: &'static str,
        /// The required length, in bytes.
        expected: u64,
        /// The actual length, in bytes.
        found: u64,
    },
    /// A list of segment hashes has the wrong length.
    #[error("{expected} segment hashes are needed, and {found} were given")]
    WrongHashCount {
        /// The required count: one for each segment.
        expected: u64,
        /// The actual count.
        found: u64,
    },
    /// The shard has no segment with this index.
    #[error("there is no segment {segment}: the shard has {count}")]
    NoSuchSegment {
        /// The requested index, from 0.
        segment: u64,
        /// How many segments the shard has.
        count: u64,
    },
    /// A range lies beyond the shard.
    #[error("bytes {start}..{end} lie beyond the shard's {len}")]
    OutOfBounds {
        /// First byte of the request.
        start: u64,
        /// End of the request.
        end: u64,
        /// Length of the shard.
        len: ByteLen,
    },
    /// In scope Shard all segments must be hashed before the first one is sealed.
    #[error("the digest over all segments is needed before the first one can be sealed")]
    NotFixed,
    /// The call belongs to another mode or scope than the record's.
    #[error("{call} is not possible with this mode and scope of seal")]
    NotInThisScope {
        /// The name of the call.
        call: &'static str,
    },
    /// Some segments were not put into the collector.
    #[error("{missing} segments are missing from the seal")]
    Incomplete {
        /// How many are missing.
        missing: u64,
    },
    /// A segment was put into the collector twice.
    #[error("segment {segment} was handed in twice")]
    DuplicateSegment {
        /// Index of the segment, from 0.
        segment: u64,
    },
    /// A sealed segment was put into the collector of another seal, or in the place of another
    /// segment.
    #[error("segment {segment} is not one of this seal, or stands in the place of another")]
    ForeignSegment {
        /// Index of the segment, from 0.
        segment: u64,
    },
    /// The content is longer than is allowed.
    #[error("a shard of {len} is longer than the allowed {max}")]
    TooLong {
        /// The requested or stated length.
        len: ByteLen,
        /// The longest allowed.
        max: ByteLen,
    },
    /// The content would have more than 2^24 segments.
    #[error(
        "{len} in segments of {segment} are more than 16777216 segments: segments of {enough} \
         would do"
    )]
    TooManySegments {
        /// The requested length.
        len: ByteLen,
        /// The requested segment size.
        segment: ByteLen,
        /// The smallest segment size that would do.
        enough: ByteLen,
    },
    /// The model id is empty or too long.
    #[error("a model id has 1 to 1024 bytes, not {len}")]
    ModelId {
        /// Its length in bytes.
        len: u64,
    },
    /// The context or the metadata is too long to be sealed in.
    #[error("the {what} of a seal has at most {max} bytes, not {len}")]
    ContextTooLong {
        /// Which of the two.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The longest allowed.
        max: u64,
    },
    /// The segment size is not one that the format allows.
    #[error("a segment has a power of two of bytes from 4096 to 16777216, not {found}")]
    SegmentSize {
        /// The requested size, in bytes; 0 where the logarithm was beyond all sizes.
        found: u64,
    },
    /// The padding between table and data of an image contains a byte that is not zero.
    #[error("the padding of the sealed image is not zero at byte {offset}")]
    Padding {
        /// Offset in the image of the first byte that is not zero.
        offset: u64,
    },
    /// The host does not have enough memory.
    #[error("the host refused {wanted} of memory")]
    HostMemory {
        /// The requested length.
        wanted: ByteLen,
    },
    /// A key could not be read, created or found.
    #[error(transparent)]
    Key(#[from] crate::key::id::KeyError),
    /// The cipher failed; no input that passes the checks before it can cause this.
    #[error("the cipher refused segment {segment}")]
    Cipher {
        /// Index of the segment, from 0.
        segment: u64,
    },
}

impl SealError {
    /// A stable name of the kind of error, for logs and machine-readable output.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotASeal => "not-a-seal",
            Self::UnsupportedVersion { .. } => "unsupported-version",
            Self::UnsupportedHash { .. } => "unsupported-hash",
            Self::WrongKey { .. } => "wrong-key",
            Self::UnknownKey { .. } => "unknown-key",
            Self::RecordMismatch => "record-mismatch",
            Self::MalformedRecord { .. } => "malformed-record",
            Self::ContextMismatch { .. } => "context-mismatch",
            Self::ProtectionMismatch { .. } => "protection-mismatch",
            Self::MetadataKey { .. } => "metadata-key",
            Self::TableMismatch => "table-mismatch",
            Self::SegmentMismatch { .. } => "segment-mismatch",
            Self::DigestMismatch => "digest-mismatch",
            Self::SourceChanged { .. } => "source-changed",
            Self::WrongLength { .. } => "wrong-length",
            Self::WrongHashCount { .. } => "wrong-hash-count",
            Self::NoSuchSegment { .. } => "no-such-segment",
            Self::OutOfBounds { .. } => "out-of-bounds",
            Self::NotFixed => "not-fixed",
            Self::NotInThisScope { .. } => "not-in-this-scope",
            Self::Incomplete { .. } => "incomplete",
            Self::DuplicateSegment { .. } => "duplicate-segment",
            Self::ForeignSegment { .. } => "foreign-segment",
            Self::TooLong { .. } => "too-long",
            Self::TooManySegments { .. } => "too-many-segments",
            Self::ModelId { .. } => "model-id",
            Self::ContextTooLong { .. } => "context-too-long",
            Self::SegmentSize { .. } => "segment-size",
            Self::Padding { .. } => "padding",
            Self::HostMemory { .. } => "host-memory",
            Self::Key(_) => "key",
            Self::Cipher { .. } => "cipher",
        }
    }

    /// Whether the error says that bytes are not the sealed ones: the record, the table or the data
    /// was altered, or one object was presented as another.
    #[must_use]
    pub const fn is_integrity(&self) -> bool {
        matches!(
            self,
            Self::RecordMismatch
                | Self::MalformedRecord { .. }
                | Self::ContextMismatch { .. }
                | Self::ProtectionMismatch { .. }
                | Self::TableMismatch
                | Self::SegmentMismatch { .. }
                | Self::DigestMismatch
                | Self::SourceChanged { .. }
                | Self::Padding { .. }
        )
    }
}
