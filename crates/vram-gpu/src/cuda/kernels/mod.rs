//! Kernels of this library on a CUDA device.
//!
//! - **Loading.** The first who asks for them starts a thread that loads them: a driver compiles
//!   PTX for 0.5 to 2 s when it sees it first. What verifies comes first, then the ciphers. Each
//!   kernel computes a known answer before it is offered. A reset destroys them; the next who asks
//!   has them loaded again. The thread ends before the last value of the device does.
//! - **Launches** run in streams of their own, of the lowest priority, in slices of at most
//!   256 MiB. A caller has two slices under way; who waits for a slot waits for one slice of each
//!   who came before.
//! - **Scratch memory** is one allocation. A slot has lists, keys and results of one launch, and is
//!   overwritten behind it, in the same stream, and on the host; a call returns after that.

mod cipher;
mod desk;
mod fingerprint;
mod hash;
mod job;
mod life;
mod loading;
mod module;
mod offer;
mod pool;
mod slot;

use vram_alloc::ByteLen;

use crate::DeviceInfo;

pub(super) use self::desk::Desk;

/// Device memory that the kernels of a device take: none where they can never be offered.
pub(super) fn scratch_len(info: &DeviceInfo) -> ByteLen {
    match loading::refusal(info) {
        None => ByteLen::from_usize(life::SCRATCH_LEN),
        Some(_for_good) => ByteLen::ZERO,
    }
}
