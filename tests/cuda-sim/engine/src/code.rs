//! The driver codes that the simulated driver returns itself.

pub(crate) const INVALID_VALUE: u32 = 1;
pub(crate) const OUT_OF_MEMORY: u32 = 2;
pub(crate) const NOT_INITIALIZED: u32 = 3;
pub(crate) const STUB_LIBRARY: u32 = 34;
pub(crate) const NO_DEVICE: u32 = 100;
pub(crate) const INVALID_DEVICE: u32 = 101;
pub(crate) const INVALID_CONTEXT: u32 = 201;
pub(crate) const MAP_FAILED: u32 = 205;
pub(crate) const NO_BINARY_FOR_GPU: u32 = 209;
pub(crate) const PEER_ACCESS_UNSUPPORTED: u32 = 217;
pub(crate) const INVALID_PTX: u32 = 218;
pub(crate) const INVALID_HANDLE: u32 = 400;
pub(crate) const NOT_FOUND: u32 = 500;
pub(crate) const NOT_READY: u32 = 600;
pub(crate) const ILLEGAL_ADDRESS: u32 = 700;
pub(crate) const LAUNCH_OUT_OF_RESOURCES: u32 = 701;
pub(crate) const LAUNCH_TIMEOUT: u32 = 702;
pub(crate) const PEER_ACCESS_ALREADY_ENABLED: u32 = 704;
pub(crate) const PEER_ACCESS_NOT_ENABLED: u32 = 705;
pub(crate) const CONTEXT_IS_DESTROYED: u32 = 709;
pub(crate) const HOST_MEMORY_ALREADY_REGISTERED: u32 = 712;
pub(crate) const HOST_MEMORY_NOT_REGISTERED: u32 = 713;
pub(crate) const MISALIGNED_ADDRESS: u32 = 716;
pub(crate) const LAUNCH_FAILED: u32 = 719;
pub(crate) const NOT_PERMITTED: u32 = 800;
pub(crate) const NOT_SUPPORTED: u32 = 801;
pub(crate) const UNKNOWN: u32 = 999;

/// Whether a failure with this code makes the context unusable until it is reset.
///
/// # Source
///
/// The codes whose description says "the context cannot be used" or "leaves the process in an
/// inconsistent state" in NVIDIA's driver API reference.
pub(crate) const fn is_sticky(code: u32) -> bool {
    matches!(code, 214 | 220 | 226 | 700 | 702 | 710 | 714..=719 | 721)
}
