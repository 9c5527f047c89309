//! The kernels of this library on this card: how long they take to load, that they compute what the
//! host computes, and how fast they are.

mod correct;
mod raw;
mod speed;

use core::fmt::Display;
use core::time::Duration;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};
use vram_gpu::CudaDevice;
use vram_gpu::kernels::{CipherSpan, FingerprintKey, HashSpan, Kernels};

use crate::machine;
use crate::measure::{noise, timed};
use crate::rows::row;

/// How long a driver may take to compile all kernels.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prints a row of the speed table.
fn told(device: &CudaDevice, size: &str, what: &str, cells: [&dyn Display; 4]) {
    let [rate, range, share, predicted] = cells;
    row("kernel", &[&machine::name(device), &size, &what, rate, range, share, predicted]);
}

/// The first thing that this process asks of the kernels, so that nothing is loaded yet.
#[test]
fn a_first_loading_takes_this_long_and_all_kernels_pass_their_trial() {
    for device in machine::devices() {
        let mut loaded = None;
        let time = timed(|| loaded = Some(device.wait_for_kernels(PATIENCE)));
        loaded.unwrap().unwrap_or_else(|why| panic!("no kernels: {why}"));
        let time = format!("{:.3} s", time.as_secs_f64());
        let what = "all kernels loaded and tried: compiled, or from the driver's cache";
        told(&device, "", what, [&time, &"", &"", &"0.5 to 2 s"]);
    }
}

/// The kernels of a device, all of them.
fn kernels(device: &CudaDevice) -> Arc<dyn Kernels> {
    device.wait_for_kernels(PATIENCE).unwrap_or_else(|why| panic!("no kernels: {why}"))
}

/// Bytes of the large measurements and the most of a check, from `VRAM_GPU_KERNEL_BYTES`; no more
/// than two fifths of what is free.
fn most(device: &CudaDevice) -> ByteLen {
    let text = std::env::var("VRAM_GPU_KERNEL_BYTES").unwrap_or_else(|_unset| "8GiB".to_owned());
    let wanted: ByteLen = text.parse().unwrap();
    let room = machine::free(device).get() / 5 * 2;
    // Whole items.
    ByteLen::new(wanted.get().min(room) >> 18 << 18)
}

fn range(start: u64, len: u64) -> DeviceRange {
    let all = ByteLen::new(u64::MAX);
    DeviceRange::checked(DeviceOffset::new(start), ByteLen::new(len), all).unwrap()
}

fn hash_span(start: u64, len: u64, first_chunk: u64, root: bool) -> HashSpan {
    HashSpan { range: range(start, len), first_chunk, root }
}

fn cipher_span(start: u64, len: u64, target: u64, index: u32) -> CipherSpan {
    let (source, target) = (range(start, len), DeviceOffset::new(target));
    CipherSpan { source, target, index, last: index.is_multiple_of(7) }
}

fn fingerprint_key(seed: u8) -> FingerprintKey {
    let mut random = noise(ByteLen::from_usize(FingerprintKey::LEN));
    for byte in &mut random {
        *byte ^= seed;
    }
    FingerprintKey::from_random(random.into_boxed_slice().try_into().unwrap())
}

fn cipher_keys(count: usize) -> Vec<[u8; 32]> {
    (0..count)
        .map(|at| {
            noise(ByteLen::new(32))
                .try_into()
                .map(|key: [u8; 32]| key.map(|byte| byte ^ at as u8))
                .unwrap()
        })
        .collect()
}
