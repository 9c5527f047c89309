//! Names of the driver result codes that this crate uses, and which of them are sticky.
//!
//! # Source
//!
//! `CUresult`, NVIDIA CUDA driver API,
//! <https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html>. A code is sticky where
//! that page says that the process must be ended, or that the context cannot be used any more.

/// `CUDA_ERROR_INVALID_VALUE`.
pub const INVALID_VALUE: u32 = 1;
/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub const OUT_OF_MEMORY: u32 = 2;
/// `CUDA_ERROR_ECC_UNCORRECTABLE`: sticky.
pub const ECC_UNCORRECTABLE: u32 = 214;
/// `CUDA_ERROR_ILLEGAL_ADDRESS`: sticky.
pub const ILLEGAL_ADDRESS: u32 = 700;
/// `CUDA_ERROR_LAUNCH_FAILED`: sticky.
pub const LAUNCH_FAILED: u32 = 719;

/// Code, name, and whether the error makes the device unusable until it is reset.
const CODES: &[(u32, &str, bool)] = &[
    (1, "CUDA_ERROR_INVALID_VALUE", false),
    (2, "CUDA_ERROR_OUT_OF_MEMORY", false),
    (3, "CUDA_ERROR_NOT_INITIALIZED", false),
    (4, "CUDA_ERROR_DEINITIALIZED", false),
    (34, "CUDA_ERROR_STUB_LIBRARY", false),
    (36, "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER", false),
    (46, "CUDA_ERROR_DEVICE_UNAVAILABLE", false),
    (100, "CUDA_ERROR_NO_DEVICE", false),
    (101, "CUDA_ERROR_INVALID_DEVICE", false),
    (102, "CUDA_ERROR_DEVICE_NOT_LICENSED", false),
    (200, "CUDA_ERROR_INVALID_IMAGE", false),
    (201, "CUDA_ERROR_INVALID_CONTEXT", false),
    (205, "CUDA_ERROR_MAP_FAILED", false),
    (206, "CUDA_ERROR_UNMAP_FAILED", false),
    (209, "CUDA_ERROR_NO_BINARY_FOR_GPU", false),
    (214, "CUDA_ERROR_ECC_UNCORRECTABLE", true),
    (217, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", false),
    (218, "CUDA_ERROR_INVALID_PTX", false),
    (220, "CUDA_ERROR_NVLINK_UNCORRECTABLE", true),
    (221, "CUDA_ERROR_JIT_COMPILER_NOT_FOUND", false),
    (222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", false),
    (223, "CUDA_ERROR_JIT_COMPILATION_DISABLED", false),
    (226, "CUDA_ERROR_CONTAINED", true),
    (400, "CUDA_ERROR_INVALID_HANDLE", false),
    (401, "CUDA_ERROR_ILLEGAL_STATE", false),
    (500, "CUDA_ERROR_NOT_FOUND", false),
    (600, "CUDA_ERROR_NOT_READY", false),
    (700, "CUDA_ERROR_ILLEGAL_ADDRESS", true),
    (701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", false),
    (702, "CUDA_ERROR_LAUNCH_TIMEOUT", true),
    (704, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", false),
    (705, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", false),
    (708, "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE", false),
    (709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", true),
    (710, "CUDA_ERROR_ASSERT", true),
    (711, "CUDA_ERROR_TOO_MANY_PEERS", false),
    (712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", false),
    (713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", false),
    (714, "CUDA_ERROR_HARDWARE_STACK_ERROR", true),
    (715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", true),
    (716, "CUDA_ERROR_MISALIGNED_ADDRESS", true),
    (717, "CUDA_ERROR_INVALID_ADDRESS_SPACE", true),
    (718, "CUDA_ERROR_INVALID_PC", true),
    (719, "CUDA_ERROR_LAUNCH_FAILED", true),
    (721, "CUDA_ERROR_TENSOR_MEMORY_LEAK", true),
    (800, "CUDA_ERROR_NOT_PERMITTED", false),
    (801, "CUDA_ERROR_NOT_SUPPORTED", false),
    (802, "CUDA_ERROR_SYSTEM_NOT_READY", false),
    (803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", false),
    (804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", false),
    (810, "CUDA_ERROR_MPS_CLIENT_TERMINATED", true),
    (999, "CUDA_ERROR_UNKNOWN", false),
];

/// The driver's name for a code, or `unknown`.
#[must_use]
pub fn name(code: u32) -> &'static str {
    CODES.iter().find(|(known, ..)| *known == code).map_or("unknown", |(_, name, _)| name)
}

/// Whether this code says nothing of the call that it answers: a device that has fallen off the bus
/// gives such a code to everything, and a working one hardly ever gives it.
#[must_use]
pub const fn is_no_answer(code: u32) -> bool {
    matches!(code, 3 | 4 | 46 | 101 | 802 | 999)
}

/// Whether an error of this code makes the device unusable until it is reset.
#[must_use]
pub fn is_sticky(code: u32) -> bool {
    CODES.iter().any(|&(known, _, sticky)| known == code && sticky)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_once_each_and_named() {
        assert!(CODES.is_sorted_by(|(a, ..), (b, ..)| a < b));
        assert_eq!(name(ECC_UNCORRECTABLE), "CUDA_ERROR_ECC_UNCORRECTABLE");
        assert_eq!(name(12_345), "unknown");
    }

    #[test]
    fn only_errors_that_end_a_context_are_sticky() {
        for code in [ECC_UNCORRECTABLE, ILLEGAL_ADDRESS, LAUNCH_FAILED] {
            assert!(is_sticky(code));
        }
        for code in [0, INVALID_VALUE, OUT_OF_MEMORY, 201, 600, 704, 801, 999, 12_345] {
            assert!(!is_sticky(code));
        }
        assert!(CODES.iter().all(|&(code, _, sticky)| !(sticky && is_no_answer(code))));
    }
}
