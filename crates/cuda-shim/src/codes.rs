//! Driver codes: those that `cust_raw` can hold, their names, and the last one of each thread.

use core::cell::Cell;
use core::ffi::CStr;

use crate::trampolines::KNOWN_CODES;

/// `CUDA_ERROR_UNKNOWN`: what a call returns for a code without a variant in `cust_raw`.
const UNKNOWN: u32 = 999;

/// Codes of newer drivers, which `cust_raw` cannot hold. For error texts only.
const NEWER_CODES: [(u32, &CStr); 14] = [
    (36, c"CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER"),
    (46, c"CUDA_ERROR_DEVICE_UNAVAILABLE"),
    (225, c"CUDA_ERROR_UNSUPPORTED_DEVSIDE_SYNC"),
    (226, c"CUDA_ERROR_CONTAINED"),
    (402, c"CUDA_ERROR_LOSSY_QUERY"),
    (721, c"CUDA_ERROR_TENSOR_MEMORY_LEAK"),
    (810, c"CUDA_ERROR_MPS_CLIENT_TERMINATED"),
    (811, c"CUDA_ERROR_CDP_NOT_SUPPORTED"),
    (812, c"CUDA_ERROR_CDP_VERSION_MISMATCH"),
    (912, c"CUDA_ERROR_INVALID_CLUSTER_SIZE"),
    (913, c"CUDA_ERROR_FUNCTION_NOT_LOADED"),
    (914, c"CUDA_ERROR_INVALID_RESOURCE_TYPE"),
    (915, c"CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION"),
    (916, c"CUDA_ERROR_KEY_ROTATION"),
];

thread_local! {
    // Const and without a destructor, so that a thread can use it while it ends.
    static LAST: Cell<u32> = const { Cell::new(0) };
}

/// The code of the last driver call on this thread that failed, exactly as the driver returned it.
///
/// `cust` maps many codes to `UnknownError`, and a code without a variant arrives as 999: this is
/// the code before that mapping. A later success does not clear it, so the drops between a failure
/// and the code that reports it do not lose it. [`clear_raw_code`] clears it.
///
/// # Returns
///
/// 0 if no call on this thread failed since the thread began or since [`clear_raw_code`].
#[must_use]
pub fn last_raw_code() -> u32 {
    LAST.get()
}

/// Forgets this thread's [`last_raw_code`].
pub fn clear_raw_code() {
    LAST.set(0);
}

/// The name of a code in NVIDIA's header, if it is known here.
///
/// # Examples
///
/// ```
/// assert_eq!(cuda_shim::code_name(2), Some("CUDA_ERROR_OUT_OF_MEMORY"));
/// assert_eq!(cuda_shim::code_name(46), Some("CUDA_ERROR_DEVICE_UNAVAILABLE"));
/// assert_eq!(cuda_shim::code_name(4_000_000_000), None);
/// ```
#[must_use]
pub fn code_name(code: u32) -> Option<&'static str> {
    code_name_c(code)?.to_str().ok()
}

pub(crate) fn code_name_c(code: u32) -> Option<&'static CStr> {
    known(code).or_else(|| NEWER_CODES.iter().find(|(at, _)| *at == code).map(|(_, name)| *name))
}

/// Keeps a failure's code for this thread, and returns it clamped to the codes of `cust_raw`'s
/// enum.
#[cold]
pub(crate) fn keep_and_clamp(code: u32) -> u32 {
    LAST.set(code);
    if known(code).is_some() { code } else { UNKNOWN }
}

fn known(code: u32) -> Option<&'static CStr> {
    let at = KNOWN_CODES.binary_search_by_key(&code, |(at, _)| *at).ok()?;
    KNOWN_CODES.get(at).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_codes_rise_so_that_binary_search_finds_each() {
        assert!(KNOWN_CODES.is_sorted_by(|(a, _), (b, _)| a < b));
        assert!(KNOWN_CODES.iter().all(|(code, name)| known(*code) == Some(*name)));
    }

    #[test]
    fn newer_codes_are_those_that_the_bindings_lack() {
        assert!(NEWER_CODES.iter().all(|(code, _)| known(*code).is_none()));
    }

    #[test]
    fn every_code_arrives_as_itself_or_as_999_and_is_kept_raw() {
        for code in (1..=1100).chain([u32::MAX]) {
            let clamped = keep_and_clamp(code);
            assert!(known(clamped).is_some(), "{code} arrived as {clamped}");
            assert!(clamped == code || known(code).is_none(), "{code} was lost");
            assert_eq!(last_raw_code(), code);
        }
        clear_raw_code();
        assert_eq!(last_raw_code(), 0);
    }

    #[test]
    fn a_code_is_kept_per_thread() {
        let _ = keep_and_clamp(46);
        let other = std::thread::spawn(last_raw_code).join().unwrap();
        assert_eq!((other, last_raw_code()), (0, 46));
    }
}
