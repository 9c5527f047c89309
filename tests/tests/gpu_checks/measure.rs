//! Times of several jobs, measured in turns so that all of them meet the same conditions.

use core::time::Duration;
use std::time::Instant;

use vram_alloc::ByteLen;
use vram_gpu::CudaDevice;

use crate::machine;
use crate::rows::row;

/// Measured rounds, after one round of warm-up.
const ROUNDS: usize = 5;

/// A job to be timed. It returns its own time: preparations are not included.
pub(crate) type Job<'a> = Box<dyn FnMut() -> Duration + 'a>;

/// The time that `work` takes.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// Times of one job, sorted.
pub(crate) struct Times([Duration; ROUNDS]);

/// Runs all jobs in turns: one round of warm-up, then the measured rounds.
pub(crate) fn in_turns(jobs: &mut [Job<'_>]) -> Vec<Times> {
    for job in &mut *jobs {
        job();
    }
    let mut times: Vec<_> = jobs.iter().map(|_| Times([Duration::ZERO; ROUNDS])).collect();
    for round in 0..ROUNDS {
        for (job, times) in jobs.iter_mut().zip(&mut times) {
            times.0[round] = job();
        }
    }
    for times in &mut times {
        times.0.sort_unstable();
    }
    times
}

impl Times {
    fn median(&self) -> Duration {
        self.0[ROUNDS / 2]
    }

    /// `median | slowest to fastest`, in GB/s of `len` bytes.
    pub(crate) fn rates(&self, len: ByteLen) -> [String; 2] {
        let rate = |time: Duration| len.get() as f64 / time.as_secs_f64().max(1e-9) / 1e9;
        let (fastest, slowest) = (rate(self.0[0]), rate(self.0[ROUNDS - 1]));
        [format!("{:.2}", rate(self.median())), format!("{slowest:.2} to {fastest:.2}")]
    }

    /// The ratio of this speed to the reference's, by medians.
    pub(crate) fn of(&self, reference: &Self) -> String {
        let ratio = reference.median().as_secs_f64() / self.median().as_secs_f64().max(1e-9);
        format!("{ratio:.3}")
    }
}

/// The sizes to measure, from `VRAM_GPU_SIZES` or the defaults.
fn sizes() -> Vec<ByteLen> {
    let text = std::env::var("VRAM_GPU_SIZES").unwrap_or_else(|_unset| "256MiB,1GiB".to_owned());
    text.split(',').map(|size| size.parse().unwrap()).collect()
}

/// Runs `measure` at each size for which the device has room `copies` times; a size that does not
/// fit gives a row that says so.
pub(crate) fn at_each_size(
    table: &str,
    device: &CudaDevice,
    copies: u64,
    mut measure: impl FnMut(ByteLen),
) {
    let mut measured = 0;
    for len in sizes() {
        let free = machine::free(device).get();
        if len.get().saturating_mul(copies) <= free {
            measure(len);
            measured += 1;
            continue;
        }
        let why = format!("not measured: {copies} of them do not fit, {} MiB are free", free >> 20);
        row(table, &[&machine::name(device), &mib(len), &why, &"", &"", &""]);
    }
    assert!(measured > 0, "no size fits {}", machine::name(device));
}

/// The text for a size in a table.
pub(crate) fn mib(len: ByteLen) -> String {
    format!("{} MiB", len.get() >> 20)
}

/// Bytes that cannot be compressed or deduplicated.
pub(crate) fn noise(len: ByteLen) -> Vec<u8> {
    let mut bytes = vec![0; len.to_usize().unwrap()];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    bytes
}
