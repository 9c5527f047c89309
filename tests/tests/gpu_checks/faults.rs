//! Faults that can be provoked on a real GPU: a full device, and a device that others use too.

use vram_alloc::{ByteLen, DeviceOffset};
use vram_gpu::fault::FaultPlan;
use vram_gpu::{CudaDevice, Device, DeviceMemory, FaultDevice, GpuError};
use vram_residency::{Budget, VramError, VramManager};

use crate::machine;
use crate::measure::noise;
use crate::rows::row;

fn told(device: &CudaDevice, provoked: &str, answer: impl core::fmt::Display) {
    row("fault", &[&machine::name(device), &provoked, &answer]);
}

/// A manager over the device, with this budget.
fn manager(device: &CudaDevice, budget: Budget) -> Result<VramManager, VramError> {
    VramManager::builder().device(machine::open(device.ordinal(), 0)).budget(0, budget).build()
}

/// The maximum that a driver may keep of freed memory: blocks for small allocations, and code that
/// it loads on first use.
const KEPT: ByteLen = ByteLen::from_mib_saturating(32);

/// Checks that the device's free memory is as before, except for what a driver keeps; returns that
/// difference.
#[track_caller]
fn came_back(device: &CudaDevice, before: ByteLen) -> String {
    let missing = before.saturating_sub(machine::free(device));
    assert!(missing <= KEPT, "{missing} of {before} did not come back");
    format!("all of it came back but {} bytes", missing.get())
}

/// Allocates free memory in ever smaller blocks, until even the smallest is refused.
fn fill_up(device: &CudaDevice) -> (Vec<Box<dyn DeviceMemory>>, GpuError) {
    let mut taken = Vec::new();
    let mut wanted = machine::free(device).get().next_power_of_two();
    loop {
        match device.allocate(ByteLen::new(wanted)) {
            Ok(memory) => taken.push(memory),
            Err(error) if wanted <= 1 << 20 => return (taken, error),
            Err(error) => {
                assert!(error.is_out_of_memory(), "{error}");
                wanted /= 2;
            }
        }
    }
}

#[test]
fn more_than_is_free_is_refused_by_the_driver_and_costs_nothing() {
    for device in machine::devices() {
        // Kept alive, so that not all memory can be free.
        let _held = device.allocate(ByteLen::MIB).unwrap();
        let before = device.memory().unwrap();
        let error = device.allocate(before.total).unwrap_err();
        assert!(matches!(error, GpuError::OutOfMemory { .. }) && !error.is_sticky(), "{error}");
        came_back(&device, before.free);
        assert!(device.state().is_ready());
        told(&device, "an allocation of all its memory", error);
    }
}

#[test]
fn a_region_that_does_not_fit_is_refused_and_costs_nothing() {
    for device in machine::devices() {
        let _held = device.allocate(ByteLen::MIB).unwrap();
        let before = device.memory().unwrap();
        let error = manager(&device, Budget::Bytes(before.total)).unwrap_err();
        assert!(error.is_capacity(), "{error}");
        came_back(&device, before.free);
        told(&device, "a manager with a budget of all its memory", &error);
    }
}

#[test]
fn a_full_device_serves_what_it_holds_and_refuses_the_rest() {
    for device in machine::devices() {
        let manager = manager(&device, Budget::Bytes(ByteLen::from_mib_saturating(8))).unwrap();
        let data = noise(ByteLen::new(3 << 20));
        // Every operation ran once: code that a driver loads late is loaded.
        let rehearsal = manager.seal_model("rehearsal", 0, &data).unwrap();
        assert_eq!(manager.unseal_and_free(&rehearsal).unwrap(), data);
        let shard = manager.seal_model("before", 0, &data).unwrap();
        let before = machine::free(&device);

        let (mut taken, error) = fill_up(&device);
        let held = before.saturating_sub(machine::free(&device));
        assert!(!taken.is_empty() && error.is_out_of_memory(), "{error}");
        told(&device, &format!("{} blocks, {} MiB", taken.len(), held.get() >> 20), error);
        // A driver needs some memory for itself, for page locks and its own fills.
        taken.retain(|memory| memory.len() >= ByteLen::from_mib_saturating(64));
        let left = machine::free(&device);
        let error = device.allocate(left.saturating_add(ByteLen::MIB)).unwrap_err();
        assert!(error.is_out_of_memory(), "{error}");
        // The region belongs to the manager, so a full device does not affect it.
        assert_eq!(manager.unseal_model(&shard).unwrap(), data);
        let second = manager.seal_model("while-full", 0, &data).unwrap();
        let books = manager.capacity(0).unwrap();
        let refused = manager.seal_model("too-much", 0, &data).unwrap_err();
        assert!(matches!(refused, VramError::InsufficientVram(_)), "{refused}");
        assert_eq!(manager.capacity(0).unwrap(), books, "a refused seal left a trace");
        told(&device, "a shard with no room in its region", &refused);

        for memory in taken {
            memory.free().unwrap();
        }
        told(&device, "all blocks freed", came_back(&device, before));
        assert_eq!(manager.unseal_and_free(&shard).unwrap(), data);
        assert_eq!(manager.unseal_and_free(&second).unwrap(), data);
        assert!(manager.capacity(0).unwrap().used.is_zero());
    }
}

#[test]
fn what_others_hold_is_seen_and_a_share_of_what_is_free_shrinks() {
    for device in machine::devices() {
        let tenth = Budget::FractionOfFree(0.1);
        let alone = manager(&device, tenth).unwrap().capacity(0).unwrap().total;
        let before = machine::free(&device);
        // Allocated directly from the driver, which the library sees as another process's memory.
        let _context = crate::plain::context(device.ordinal());
        let len = (before.get() / 2) as usize;
        // SAFETY: never read.
        let foreign = unsafe { cust::memory::DeviceBuffer::<u8>::uninitialized(len) }.unwrap();
        let during = machine::free(&device);
        assert!(before.saturating_sub(during) >= ByteLen::new(before.get() / 2));
        let beside = manager(&device, tenth).unwrap().capacity(0).unwrap().total;
        assert!(beside < alone, "{beside} beside others, {alone} alone");
        cust::memory::DeviceBuffer::drop(foreign).unwrap_or_else(|(error, _)| panic!("{error}"));
        let came_back = came_back(&device, before);
        let mib = |len: ByteLen| len.get() >> 20;
        let what = format!("{} MiB taken past the library", len >> 20);
        let answer = format!(
            "free fell from {} to {} MiB, a tenth of what is free from {} to {} MiB; {came_back}",
            mib(before),
            mib(during),
            mib(alone),
            mib(beside)
        );
        told(&device, &what, answer);
    }
}

#[test]
fn a_bit_that_flips_in_device_memory_is_found_and_nothing_of_it_is_served() {
    for device in machine::devices() {
        let len = ByteLen::new(8 << 20);
        // Changes the manager's memory directly, with the device's own copies.
        let watched = FaultDevice::new(machine::open(device.ordinal(), 0), FaultPlan::new(1));
        let builder = VramManager::builder().device(watched.clone());
        let manager = builder.budget(0, Budget::Bytes(len)).build().unwrap();
        let shard = manager.seal_model("altered", 0, &noise(ByteLen::MIB)).unwrap();
        assert!(manager.verify_shard_integrity(&shard).unwrap());

        let offset = (0..len.get())
            .step_by(128 << 10)
            .find(|offset| {
                watched.flip_bit_at(None, DeviceOffset::new(*offset), 3).unwrap();
                !manager.verify_shard_integrity(&shard).unwrap()
            })
            .unwrap();
        let refused = manager.unseal_model(&shard).unwrap_err();
        assert!(refused.is_integrity(), "{refused}");
        told(&device, &format!("one bit at byte {offset} of the region"), &refused);
    }
}
