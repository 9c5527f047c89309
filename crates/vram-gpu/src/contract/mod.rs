//! The promises of every device, as checks that any test can run over its own devices.
//!
//! [`run`] runs all of them; each is also a function of its own. Where a device breaks a promise,
//! the check panics and names it. The factory returns fresh devices, or the same ones again with
//! nothing allocated: at least one, each with 16 MiB free. They are reset.
//!
//! ```
//! # use std::sync::Arc;
//! # use vram_alloc::ByteLen;
//! # use vram_gpu::{Device, HostDevice};
//! # #[cfg(feature = "contract")]
//! vram_gpu::contract::run(&|| {
//!     let devices = HostDevice::several(&[ByteLen::from_mib_saturating(64); 2]).unwrap();
//!     devices.into_iter().map(|device| -> Arc<dyn Device> { device }).collect()
//! });
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::missing_panics_doc,
    reason = "a check is a test body: it panics where a device breaks its word"
)]

mod capacity;
mod copies;
mod identity;
mod kernels;
mod queued;
mod sharing;

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};

pub use self::capacity::{
    addresses_of_live_allocations_are_apart, freeing_gives_the_bytes_back,
    memory_figures_follow_allocations, what_cannot_be_allocated_is_refused_and_changes_nothing,
};
pub use self::copies::{
    bytes_come_back_as_written, copies_between_devices_are_exact_or_refused,
    copies_inside_a_device_move_exact_bytes, empty_copies_are_fine_everywhere,
    fill_sets_its_range_and_no_other_byte, ranges_outside_are_refused_and_nothing_is_touched,
    unequal_lengths_are_refused_and_nothing_is_touched,
};
pub use self::identity::{
    identities_are_plausible_and_distinct, nothing_shows_addresses_or_content,
    staging_starts_as_zeros_and_has_its_length,
};
pub use self::kernels::{
    kernels_end_with_the_life_of_their_memory, kernels_fingerprint_as_the_host_does,
    kernels_hash_as_the_host_does, kernels_refuse_memory_of_other_devices,
    kernels_refuse_what_does_not_fit_and_change_nothing, kernels_seal_and_open_as_the_host_does,
    kernels_serve_many_threads_at_once,
};
pub use self::queued::{
    a_dropped_copy_is_finished_first, memory_may_be_freed_under_a_queued_copy,
    queued_copies_are_there_after_the_wait, queued_copies_refuse_bad_arguments_at_the_wait,
};
pub use self::sharing::{
    a_reset_empties_the_device_and_strands_what_was_before, many_threads_may_call_at_once,
    memory_is_shared_in_whole_units_or_not_at_all,
    memory_outlives_the_thread_and_the_handle_it_came_from,
};
use crate::{Device, DeviceMemory};

/// Creates the devices to check.
pub type Factory<'a> = &'a dyn Fn() -> Vec<Arc<dyn Device>>;

/// A check and its name.
pub type Check = (&'static str, fn(Factory<'_>));

/// Every check, in the order in which [`run`] runs them.
pub const CHECKS: &[Check] = &[
    ("identities_are_plausible_and_distinct", identities_are_plausible_and_distinct),
    ("memory_figures_follow_allocations", memory_figures_follow_allocations),
    (
        "what_cannot_be_allocated_is_refused_and_changes_nothing",
        what_cannot_be_allocated_is_refused_and_changes_nothing,
    ),
    ("addresses_of_live_allocations_are_apart", addresses_of_live_allocations_are_apart),
    ("bytes_come_back_as_written", bytes_come_back_as_written),
    (
        "ranges_outside_are_refused_and_nothing_is_touched",
        ranges_outside_are_refused_and_nothing_is_touched,
    ),
    (
        "unequal_lengths_are_refused_and_nothing_is_touched",
        unequal_lengths_are_refused_and_nothing_is_touched,
    ),
    ("empty_copies_are_fine_everywhere", empty_copies_are_fine_everywhere),
    ("fill_sets_its_range_and_no_other_byte", fill_sets_its_range_and_no_other_byte),
    ("copies_inside_a_device_move_exact_bytes", copies_inside_a_device_move_exact_bytes),
    ("copies_between_devices_are_exact_or_refused", copies_between_devices_are_exact_or_refused),
    ("staging_starts_as_zeros_and_has_its_length", staging_starts_as_zeros_and_has_its_length),
    ("queued_copies_are_there_after_the_wait", queued_copies_are_there_after_the_wait),
    (
        "queued_copies_refuse_bad_arguments_at_the_wait",
        queued_copies_refuse_bad_arguments_at_the_wait,
    ),
    ("a_dropped_copy_is_finished_first", a_dropped_copy_is_finished_first),
    ("memory_may_be_freed_under_a_queued_copy", memory_may_be_freed_under_a_queued_copy),
    ("freeing_gives_the_bytes_back", freeing_gives_the_bytes_back),
    ("many_threads_may_call_at_once", many_threads_may_call_at_once),
    (
        "memory_outlives_the_thread_and_the_handle_it_came_from",
        memory_outlives_the_thread_and_the_handle_it_came_from,
    ),
    (
        "memory_is_shared_in_whole_units_or_not_at_all",
        memory_is_shared_in_whole_units_or_not_at_all,
    ),
    ("nothing_shows_addresses_or_content", nothing_shows_addresses_or_content),
    ("kernels_hash_as_the_host_does", kernels_hash_as_the_host_does),
    ("kernels_fingerprint_as_the_host_does", kernels_fingerprint_as_the_host_does),
    ("kernels_seal_and_open_as_the_host_does", kernels_seal_and_open_as_the_host_does),
    (
        "kernels_refuse_what_does_not_fit_and_change_nothing",
        kernels_refuse_what_does_not_fit_and_change_nothing,
    ),
    ("kernels_refuse_memory_of_other_devices", kernels_refuse_memory_of_other_devices),
    ("kernels_serve_many_threads_at_once", kernels_serve_many_threads_at_once),
    ("kernels_end_with_the_life_of_their_memory", kernels_end_with_the_life_of_their_memory),
    (
        "a_reset_empties_the_device_and_strands_what_was_before",
        a_reset_empties_the_device_and_strands_what_was_before,
    ),
];

/// Runs every check over devices from the factory.
pub fn run(factory: Factory<'_>) {
    for (name, check) in CHECKS {
        tracing::info!(name, "contract check");
        check(factory);
    }
}

fn allocate(device: &dyn Device, len: usize) -> Box<dyn DeviceMemory> {
    let memory = device.allocate(ByteLen::from_usize(len)).unwrap();
    assert_eq!(memory.len(), ByteLen::from_usize(len));
    assert_eq!(memory.gpu(), device.info().index);
    memory
}

fn range(memory: &dyn DeviceMemory, start: usize, len: usize) -> DeviceRange {
    let (start, len) = (DeviceOffset::from_usize(start), ByteLen::from_usize(len));
    DeviceRange::checked(start, len, memory.len()).unwrap()
}

/// A range that was checked against a different capacity.
fn free_range(start: usize, len: usize) -> DeviceRange {
    let (start, len) = (DeviceOffset::from_usize(start), ByteLen::from_usize(len));
    DeviceRange::checked(start, len, ByteLen::new(u64::MAX)).unwrap()
}

fn read(memory: &dyn DeviceMemory, start: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read(range(memory, start, len), &mut bytes).unwrap();
    bytes
}

/// Bytes without a short period, different for each seed.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&dice.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A generator that is repeatable by seed (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        crate::dice::mix(self.0)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// A start and a length inside `len`; short lengths are as likely as long ones.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let start = self.below(len);
        let longest =
            if self.next().is_multiple_of(2) { len - start } else { 100.min(len - start) };
        (start, self.below(longest + 1))
    }
}

#[cfg(test)]
mod tests {
    use core::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;

    use vram_alloc::GpuIndex;

    use super::*;
    use crate::fault::{Action, FaultPlan, Op, When};
    use crate::kernels::Unfit;
    use crate::{FaultDevice, HostDevice};

    const TOTAL: ByteLen = ByteLen::new(64 << 20);

    fn hosts() -> Vec<Arc<dyn Device>> {
        let devices = HostDevice::several(&[TOTAL, TOTAL]).unwrap();
        devices.into_iter().map(|device| -> Arc<dyn Device> { device }).collect()
    }

    fn faulty(plan: &FaultPlan) -> Vec<Arc<dyn Device>> {
        let wrap = |inner| -> Arc<dyn Device> { FaultDevice::new(inner, plan.clone()) };
        with_kernels().into_iter().map(wrap).collect()
    }

    #[test]
    fn host_devices_keep_the_contract() {
        run(&hosts);
    }

    fn with_kernels() -> Vec<Arc<dyn Device>> {
        let device = |index| -> Arc<dyn Device> {
            Arc::new(HostDevice::builder(GpuIndex::new(index), TOTAL).kernels().build().unwrap())
        };
        vec![device(0), device(1)]
    }

    #[test]
    fn host_devices_with_kernels_keep_the_contract() {
        run(&with_kernels);
    }

    #[test]
    fn isolated_host_devices_keep_the_contract() {
        run(&|| {
            let lone = |index| -> Arc<dyn Device> {
                let device = HostDevice::builder(GpuIndex::new(index), TOTAL).isolated().build();
                Arc::new(device.unwrap())
            };
            vec![lone(0), lone(5)]
        });
    }

    #[test]
    fn a_fault_device_without_faults_keeps_the_contract() {
        run(&|| faulty(&FaultPlan::new(1)));
    }

    #[test]
    fn a_fault_device_that_copies_as_late_as_allowed_keeps_the_contract() {
        run(&|| faulty(&FaultPlan::new(1).deferred()));
    }

    #[test]
    fn wrapped_and_bare_devices_reach_each_other() {
        run(&|| {
            let mut devices = hosts();
            let wrapped = devices.pop().unwrap();
            devices.push(FaultDevice::new(wrapped, FaultPlan::new(1)));
            devices
        });
    }

    /// Tests the suite itself: a device with one planted fault fails at least the named check.
    #[test]
    fn each_lie_of_a_device_is_caught_by_a_check() {
        let always = When::From(1);
        let flip = Action::FlipBit { byte: 12_345, bit: 3 };
        let short = Action::ShortCopy { keep: 1 };
        for (op, action, check) in [
            (Op::Write, Action::DropCopy, "bytes_come_back_as_written"),
            (Op::Write, flip.clone(), "bytes_come_back_as_written"),
            (Op::Read, flip.clone(), "bytes_come_back_as_written"),
            (Op::Read, short.clone(), "bytes_come_back_as_written"),
            (Op::Fill, short.clone(), "fill_sets_its_range_and_no_other_byte"),
            (Op::Fill, Action::FlipAnyBit, "fill_sets_its_range_and_no_other_byte"),
            (Op::Copy, flip.clone(), "copies_inside_a_device_move_exact_bytes"),
            (Op::Copy, Action::DropCopy, "copies_inside_a_device_move_exact_bytes"),
            (Op::PeerCopy, Action::DropCopy, "copies_between_devices_are_exact_or_refused"),
            (Op::PeerCopy, short.clone(), "copies_between_devices_are_exact_or_refused"),
            (Op::QueueWrite, flip.clone(), "queued_copies_are_there_after_the_wait"),
            (Op::QueueWrite, Action::DropCopy, "queued_copies_are_there_after_the_wait"),
            (Op::QueueWrite, Action::DropCopy, "a_dropped_copy_is_finished_first"),
            (Op::QueueRead, short, "queued_copies_are_there_after_the_wait"),
            (Op::QueueRead, flip, "many_threads_may_call_at_once"),
            (Op::Free, Action::Driver(1), "freeing_gives_the_bytes_back"),
            (Op::Memory, Action::Driver(999), "memory_figures_follow_allocations"),
            (Op::Hash, Action::FlipResult { span: 40, bit: 255 }, "kernels_hash_as_the_host_does"),
            (Op::Hash, Action::FlipResults, "kernels_serve_many_threads_at_once"),
            (Op::Hash, Action::Driver(1), "kernels_end_with_the_life_of_their_memory"),
            (
                Op::Fingerprint,
                Action::FlipResult { span: 14, bit: 3 },
                "kernels_fingerprint_as_the_host_does",
            ),
            (
                Op::Fingerprint,
                Action::FlipResult { span: 0, bit: 200 },
                "kernels_fingerprint_as_the_host_does",
            ),
            (Op::Fingerprint, Action::FlipResults, "kernels_serve_many_threads_at_once"),
            (Op::Seal, Action::FlipResults, "kernels_seal_and_open_as_the_host_does"),
            (
                Op::Tags,
                Action::FlipResult { span: 12, bit: 127 },
                "kernels_seal_and_open_as_the_host_does",
            ),
            (
                Op::Open,
                Action::FlipResult { span: 3, bit: 0 },
                "kernels_seal_and_open_as_the_host_does",
            ),
            (Op::Open, Action::Unfit(Unfit::Overlap), "kernels_refuse_memory_of_other_devices"),
            (Op::Allocate, Action::OutOfMemory, "addresses_of_live_allocations_are_apart"),
        ] {
            let plan = FaultPlan::new(1).rule(op, always, action.clone()).unwrap();
            let (_, run) = CHECKS.iter().find(|(name, _)| *name == check).unwrap();
            let caught = catch_unwind(AssertUnwindSafe(|| run(&|| faulty(&plan))));
            assert!(caught.is_err(), "{check} does not see {action:?} on {op:?}");
        }
    }
}
