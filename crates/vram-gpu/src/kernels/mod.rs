//! Work over device memory that is done where the bytes lie: hashing, fingerprints, sealing and
//! opening of segments.
//!
//! A card reads its own memory tens of times faster than its bus gives it to the host. What the
//! kernels compute is judged by the caller: no kernel decides that bytes are sound.

pub(crate) mod blake3;
pub(crate) mod chacha;
pub(crate) mod check;
mod fingerprint;
#[cfg(any(feature = "cuda", test))]
#[cfg_attr(
    not(any(test, feature = "cuda")),
    expect(dead_code, reason = "for devices that are not trusted with their kernels")
)]
pub(crate) mod known;
mod poly1305;

use core::fmt;

use thiserror::Error;
pub use vram_alloc::Site;
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};

pub use self::fingerprint::{Fingerprint, FingerprintKey, Fingerprints, Form};
use crate::{DeviceMemory, GpuError, codes};

/// The longest span of [`Kernels::fingerprint`]: 256 KiB.
pub const FINGERPRINT_SPAN_MAX: ByteLen = ByteLen::new(256 << 10);

/// The longest span of [`Kernels::hash`] and of the ciphers: 16 MiB, the longest segment of a seal.
pub const SEGMENT_MAX: ByteLen = ByteLen::new(16 << 20);

/// The alignment of every span, in bytes, on the device.
pub const SPAN_ALIGNMENT: u64 = 16;

/// Bytes to hash, and their place in the tree of what they are a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSpan {
    /// Which bytes: 1 to [`SEGMENT_MAX`]. Starts at a multiple of [`SPAN_ALIGNMENT`].
    pub range: DeviceRange,
    /// The number of the first chunk of 1024 bytes, counted from the start of the whole. The span
    /// is a subtree: it has a power of two of chunks, or is the end of the whole.
    pub first_chunk: u64,
    /// Whether the span is the whole, so that its value is the BLAKE3 hash of it.
    pub root: bool,
}

/// A segment to seal or to open, with ChaCha20-Poly1305 (RFC 8439, no associated data).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSpan {
    /// Which bytes: 0 to [`SEGMENT_MAX`]. Starts at a multiple of [`SPAN_ALIGNMENT`].
    pub source: DeviceRange,
    /// Where the result starts: the same place as the source, or one that shares no byte with it.
    /// It shares none with other segments of the call either. A multiple of [`SPAN_ALIGNMENT`].
    pub target: DeviceOffset,
    /// The number of the segment.
    pub index: u32,
    /// Whether it is the last segment. The nonce is this as a byte, three zeros, and the number as
    /// eight bytes in big-endian order.
    pub last: bool,
}

/// Kernels over the memory of one device.
///
/// Each call blocks until its results are there, and works on as many spans as it is given, in one
/// launch or several. Results stand in the order of the spans. Memory that is written meanwhile
/// gives some value, and no other harm. Calls may come from many threads.
pub trait Kernels: Send + Sync + fmt::Debug {
    /// Where they compute.
    fn site(&self) -> Site;

    /// The BLAKE3 chaining value of each span, or its hash if it is the whole.
    ///
    /// # Source
    ///
    /// O'Connor, Aumasson, Neves, Wilcox-O'Hearn, *BLAKE3: one function, fast everywhere* (2020),
    /// sections 2.1 to 2.5.
    ///
    /// # Errors
    ///
    /// [`KernelError`]. After [`KernelError::Unfit`] the caller computes on the host.
    fn hash(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[HashSpan],
    ) -> Result<Vec<[u8; 32]>, KernelError>;

    /// The fingerprint of each span under `key`, and under `renewed` too if it is given, in one
    /// pass over the bytes.
    ///
    /// # Arguments
    ///
    /// * `spans`: 1 to [`FINGERPRINT_SPAN_MAX`] bytes each, starting at multiples of
    ///   [`SPAN_ALIGNMENT`].
    ///
    /// # Errors
    ///
    /// As [`hash`](Self::hash).
    fn fingerprint(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[DeviceRange],
        key: &FingerprintKey,
        renewed: Option<&FingerprintKey>,
    ) -> Result<Vec<Fingerprints>, KernelError>;

    /// The authentication tag of each sealed segment, which is not opened. Targets are not used.
    ///
    /// # Arguments
    ///
    /// * `keys`: the key of each segment. They are on the device for the launch, and overwritten
    ///   there before the call returns.
    ///
    /// # Errors
    ///
    /// As [`hash`](Self::hash).
    fn tags(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError>;

    /// Opens segments: checks each tag first, and decrypts to the target only where it is good.
    /// Returns which were.
    ///
    /// # Errors
    ///
    /// As [`hash`](Self::hash); the targets are then unspecified.
    fn open(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
        tags: &[[u8; 16]],
    ) -> Result<Vec<bool>, KernelError>;

    /// Seals segments to the target, and returns their tags.
    ///
    /// # Errors
    ///
    /// As [`hash`](Self::hash); the targets are then unspecified.
    fn seal(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError>;
}

/// Why kernels gave no results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The kernels do not apply to these spans: compute on the host.
    #[error("the kernels of {gpu} do not apply: {why}")]
    Unfit {
        /// The device.
        gpu: GpuIndex,
        /// What does not fit.
        why: Unfit,
    },
    /// The device refused, or is lost.
    #[error(transparent)]
    Device(#[from] GpuError),
}

/// What does not fit the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unfit {
    /// The memory is not of this device, or of another kind.
    #[error("the memory is of another device")]
    OtherMemory,
    /// A span does not start at a multiple of [`SPAN_ALIGNMENT`].
    #[error("a span starts at byte {at}, which is no multiple of {SPAN_ALIGNMENT}")]
    Unaligned {
        /// The start in its memory, in bytes.
        at: u64,
    },
    /// A span is empty or too long.
    #[error("a span has {len}, at most {max} and at least one byte fit")]
    Length {
        /// Bytes in the span.
        len: ByteLen,
        /// The most.
        max: ByteLen,
    },
    /// Two lists that belong together differ in length.
    #[error("{spans} spans with {others} keys or tags")]
    Lists {
        /// Number of spans.
        spans: usize,
        /// Number of keys or tags.
        others: usize,
    },
    /// The target of a cipher shares bytes with its source, and is not the same place.
    #[error("source and target share bytes")]
    Overlap,
    /// The device has the other kernels, and this one is not loaded, or the driver refused it.
    #[error("kernel {kernel} is not loaded")]
    NotLoaded {
        /// Which kernel.
        kernel: &'static str,
    },
    /// The span is no subtree: it has no power of two of chunks, starts at another place than a
    /// multiple of its size, or is the whole and starts in the middle.
    #[error("the span at chunk {first_chunk} is no subtree")]
    NoSubtree {
        /// The first chunk of the span.
        first_chunk: u64,
    },
}

/// Why a device offers no kernels at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoKernels {
    /// A device of this kind has none, or they were turned off.
    #[error("the device has no kernels")]
    NotOffered,
    /// They are being loaded: a driver compiles them at their first use.
    #[error("the kernels are being loaded")]
    Loading,
    /// The driver refused to load them, for example since the card is too old.
    #[error("the driver refused the kernels: error {code} ({})", codes::name(*.code))]
    Refused {
        /// The driver's code.
        code: u32,
    },
    /// A kernel computed something else than what is known to be right.
    #[error("kernel {kernel} computed a wrong value in its self-test")]
    WrongAnswer {
        /// Which kernel.
        kernel: &'static str,
    },
    /// The device is lost, or was reset and its kernels are not loaded again.
    #[error("the device is lost to driver error {code} ({})", codes::name(*.code))]
    Lost {
        /// The driver's code.
        code: u32,
    },
}
