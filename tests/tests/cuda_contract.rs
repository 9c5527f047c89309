//! The contract of every device, checked for CUDA devices over the simulated driver.
//!
//! The driver runs queued work only when a call waits for it, so a forgotten wait fails every time
//! here. It logs errors that would crash a real driver, and counts what is left at the end.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
extern crate vram_testkit;

use std::sync::Arc;

use cuda_sim::{DeviceSpec, Resets, Sim};
use vram_alloc::GpuIndex;
use vram_gpu::fault::FaultPlan;
use vram_gpu::{CudaDevice, Device, FaultDevice, Sharing, contract};

/// Devices of a simulated machine. Dropping it removes them with everything in them.
struct Machine {
    ordinals: Vec<u32>,
}

impl Machine {
    fn new(peer_groups: &[Option<u32>]) -> Self {
        Self::of(peer_groups, &DeviceSpec::default())
    }

    /// Devices of one kind, in these groups.
    fn of(peer_groups: &[Option<u32>], kind: &DeviceSpec) -> Self {
        cuda_sim::install();
        let add = |&peer_group: &Option<u32>| {
            // Part of the memory is taken from the start: no check may rely on an empty device.
            let (capacity, foreign, context_len) = (128 << 20, 5 << 20, 3 << 20);
            Sim::add_device(DeviceSpec {
                capacity,
                foreign,
                context_len,
                peer_group,
                ..kind.clone()
            })
        };
        Self { ordinals: peer_groups.iter().map(add).collect() }
    }

    fn devices(&self) -> Vec<Arc<CudaDevice>> {
        let open = |(index, &ordinal)| {
            let device = CudaDevice::open(ordinal, GpuIndex::new(index)).unwrap();
            device.shared(Sharing::Alone)
        };
        (0..).zip(&self.ordinals).map(open).collect()
    }

    /// Runs every check, then checks that nothing is left and nothing was misused.
    fn keeps_the_contract(&self, wrap: impl Fn(Arc<CudaDevice>) -> Arc<dyn Device>) {
        contract::run(&|| self.devices().into_iter().map(&wrap).collect());
        for &ordinal in &self.ordinals {
            Sim::assert_clean(ordinal);
            Sim::retire_device(ordinal);
        }
    }
}

#[test]
fn cuda_devices_keep_the_contract() {
    Machine::new(&[Some(1), Some(1)]).keeps_the_contract(|device| device);
}

/// P61: such a driver takes whole steps for streams, page tables and its own code, at first use,
/// and gives out memory in steps as large.
#[test]
fn cuda_devices_whose_driver_takes_memory_for_itself_keep_the_contract() {
    for granularity in [512, 2 << 20] {
        let kind = DeviceSpec { overhead: 2 << 20, granularity, ..DeviceSpec::default() };
        Machine::of(&[Some(1), Some(1)], &kind).keeps_the_contract(|device| device);
    }
}

/// The manual says that a reset does not release; a driver that did would destroy a context that is
/// released after it.
#[test]
fn cuda_devices_whose_reset_releases_the_context_keep_the_contract() {
    let kind = DeviceSpec { resets: Resets::HealAndRelease, ..DeviceSpec::default() };
    Machine::of(&[Some(1)], &kind).keeps_the_contract(|device| device);
}

#[test]
fn cuda_devices_that_cannot_reach_each_other_keep_the_contract() {
    Machine::new(&[Some(1), None, Some(2)]).keeps_the_contract(|device| device);
}

#[test]
fn cuda_devices_behind_a_fault_device_keep_the_contract() {
    Machine::new(&[Some(1), Some(1)])
        .keeps_the_contract(|device| FaultDevice::new(device, FaultPlan::new(1)));
}
