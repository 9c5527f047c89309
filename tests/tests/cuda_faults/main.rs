//! Faults of a CUDA device, over the simulated driver and the real cust: the errors that the caller
//! gets, the state that remains, and that nothing leaks.
//!
//! Each part that the device needs was removed, one line at a time, to see which test fails:
//!
//! | removed | fails |
//! |---|---|
//! | a wait of a write, a read, a fill or a queued copy | the contract on CUDA devices (`bytes_come_back_as_written`, `fill_…`, `queued_copies_…`) |
//! | the wait of a copy inside a device | `a_write_has_happened_when_it_returns` |
//! | the wait of a copy between devices | `peers_that_copy_both_ways_at_once_do_not_wait_for_each_other` |
//! | the wait for queued copies before a free | the contract (`memory_may_be_freed_under_a_queued_copy`) |
//! | the wait after a copy that failed halfway | `what_passed_through_host_memory_is_wiped` |
//! | binding the context | the contract, every check |
//! | restoring the thread's own context | `calls_come_from_threads_…`, `opening_and_resetting_leave_…` |
//! | the bounds check | the contract (`ranges_outside_are_refused_…`) |
//! | the check whether the device is lost | `after_a_sticky_error_no_call_reaches_the_driver_until_a_reset` |
//! | the check whether the allocation is of this epoch | the contract (`a_reset_empties_…`) |
//! | the check of where the memory lies | `memory_that_is_not_video_memory_is_refused_and_given_back` |
//! | wiping the bounce buffers | `what_passed_through_host_memory_is_wiped` |

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
extern crate vram_testkit;

mod copies;
mod devices;
mod host;
mod lost;
mod peers;

use std::sync::Arc;

use cuda_sim::{CallKind, DeviceSpec, Fault, Sim};
use vram_alloc::{ByteLen, DeviceRange, GpuIndex};
use vram_gpu::{CudaDevice, Device, DeviceMemory, GpuError, Sharing, Staging, codes};

const GPU: GpuIndex = GpuIndex::new(4);
const CAPACITY: u64 = 64 << 20;
const LEN: usize = 3 << 20;

/// One simulated device, opened.
struct Bench {
    ordinal: u32,
    device: Arc<CudaDevice>,
}

impl Bench {
    fn new() -> Self {
        Self::with(DeviceSpec::default())
    }

    fn with(spec: DeviceSpec) -> Self {
        cuda_sim::install();
        let ordinal = Sim::add_device(DeviceSpec { capacity: CAPACITY, ..spec });
        let device = CudaDevice::open(ordinal, GPU).unwrap().shared(Sharing::Alone);
        Self { ordinal, device }
    }

    /// An allocation full of one value.
    fn filled(&self, value: u8) -> Box<dyn DeviceMemory> {
        let memory = self.device.allocate(ByteLen::from_usize(LEN)).unwrap();
        memory.fill(whole(), value).unwrap();
        memory
    }

    fn staging(&self, value: u8) -> Staging {
        let mut staging = self.device.staging(ByteLen::from_usize(LEN)).unwrap();
        staging.as_mut_slice().fill(value);
        staging
    }

    fn next(&self, kind: CallKind, fault: Fault) {
        Sim::faults(self.ordinal).next(kind, fault);
    }

    /// Counted driver calls of any kind so far.
    fn calls(&self) -> u64 {
        Sim::faults(self.ordinal).all_calls()
    }

    /// Drops the device and checks that nothing is left and nothing was misused.
    fn finish(self) {
        let Self { ordinal, device } = self;
        drop(device);
        Sim::assert_clean(ordinal);
        Sim::retire_device(ordinal);
    }
}

fn whole() -> DeviceRange {
    DeviceRange::whole(ByteLen::from_usize(LEN))
}

fn bytes(memory: &dyn DeviceMemory) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    memory.read(whole(), &mut bytes).unwrap();
    bytes
}

fn odd_ones(bytes: &[u8], value: u8) -> usize {
    bytes.iter().filter(|&&byte| byte != value).count()
}

fn sticky(code: u32) -> GpuError {
    GpuError::Driver { gpu: GPU, code, name: codes::name(code), sticky: true }
}

fn lost(code: u32) -> GpuError {
    GpuError::Lost { gpu: GPU, code, name: codes::name(code) }
}
