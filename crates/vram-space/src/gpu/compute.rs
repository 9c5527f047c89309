//! What a device may compute, and what its kernels did: figures that the owner of a GPU sees.

use core::sync::atomic::AtomicU64;

use vram_alloc::ByteLen;
use vram_gpu::kernels::NoKernels;

use crate::sync::Mutex;

/// What the device that holds the bytes may compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Compute {
    /// Nothing: the host computes everything.
    Host,
    /// Hashes and fingerprints, where the device has kernels for them. No key of a seal is ever on
    /// the device.
    #[default]
    Checks,
    /// What [`Checks`](Self::Checks) may, and tags of segments with ChaCha20-Poly1305: the keys of
    /// segments lie on the device while it works, and are overwritten before the call returns.
    Card,
}

/// Why the kernels of a GPU are not used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelsIdle {
    /// The configuration says so.
    #[error("turned off")]
    Off,
    /// The device offers none at present.
    #[error(transparent)]
    Absent(NoKernels),
    /// They gave an answer that cannot be right, until the device is reset.
    #[error("they gave an answer that cannot be right")]
    WrongAnswer,
    /// The device refused a launch.
    #[error("the device refused a launch")]
    Refused,
}

/// What the kernels of a GPU did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KernelFigures {
    /// Whether they were used at the last opportunity.
    pub used: bool,
    /// Bytes of which they computed hashes.
    pub hashed: ByteLen,
    /// Bytes of which they computed fingerprints.
    pub fingerprinted: ByteLen,
    /// Bytes of which they computed tags.
    pub tagged: ByteLen,
    /// Segments that they reported as altered and the host found sound.
    pub disagreements: u64,
    /// How often they were wanted and gave nothing, so that the host computed instead.
    pub fallbacks: u64,
}

/// What a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelWork {
    /// Hashes.
    Hash,
    /// Fingerprints.
    Fingerprint,
    /// Tags.
    Tag,
}

/// The state of a GPU's kernels, as its owner knows it.
#[derive(Debug, Default)]
pub(crate) struct KernelPost {
    pub(crate) told: Mutex<Known>,
    pub(crate) done: [AtomicU64; 3],
    pub(crate) disagreements: AtomicU64,
    pub(crate) fallbacks: AtomicU64,
    pub(crate) turns: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing was told yet.
    #[default]
    Nothing,
    Used,
    Idle(KernelsIdle),
    /// Not used until the life of this epoch ends.
    Distrusted {
        epoch: u64,
    },
}
