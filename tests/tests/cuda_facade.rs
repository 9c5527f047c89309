//! The facade over CUDA devices on the simulated driver, through the real cust: its memory as one
//! region and block by block. What the driver does wrong, and what the caller sees of it; and that
//! the books agree with the driver's own count, to the byte.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;

use cuda_sim::{CallKind, DeviceSpec, Fault, Sim};
use vram_gpu::{CudaDevice, Device, DeviceState, codes};
use vram_residency::{
    Budget, ByteLen, Class, ExportOptions, GpuIndex, MemoryMode, Protection, ReadBack,
    RepairOptions, ResetOptions, ScrubOptions, ScrubRate, SealKey, SealRequest, SealedShard,
    SegmentSize, SliceSource, Threads, Verify, VramError, VramManager,
};
use vram_tests::reference::{bytes, footprint};

const MODES: [MemoryMode; 2] = [MemoryMode::Region, MemoryMode::Blocks];
const CAPACITY: u64 = 2 << 20;
const BUDGET: u64 = 1 << 20;
const SEGMENT: usize = 4096;
const LEN: usize = 5 * SEGMENT + 9;
/// `CUDA_ERROR_UNKNOWN`: the call failed, and the device goes on.
const UNKNOWN: u32 = 999;

/// Two simulated devices, and a manager over them.
struct Machine {
    mode: MemoryMode,
    ordinals: Vec<u32>,
    devices: Vec<Arc<CudaDevice>>,
    manager: VramManager,
    /// Each device's oldest allocation before anything was sealed: its region.
    fresh: Vec<Vec<u8>>,
}

impl Machine {
    fn new(mode: MemoryMode) -> Self {
        Self::with_peers(mode, true)
    }

    fn with_peers(mode: MemoryMode, peers: bool) -> Self {
        let ordinals: Vec<u32> = (0..2).map(|_| add_device(peers)).collect();
        let open = |(index, &ordinal)| CudaDevice::open(ordinal, GpuIndex::new(index)).unwrap();
        let devices: Vec<_> = (0..).zip(&ordinals).map(open).collect();
        let manager = build(mode, &devices).unwrap();
        let fresh = ordinals.iter().map(|&ordinal| oldest(ordinal).1).collect();
        Self { mode, ordinals, devices, manager, fresh }
    }

    fn seal(&self, protection: Protection) -> SealedShard {
        let request = SealRequest::new("model", 0).protection(protection);
        self.manager.seal(request, &content()).unwrap()
    }

    fn used(&self, gpu: u32) -> u64 {
        self.manager.capacity(gpu).unwrap().used.get()
    }

    fn fault(&self, gpu: usize, kind: CallKind, fault: Fault) {
        Sim::faults(self.ordinals[gpu]).next(kind, fault);
    }

    /// Where the only shard of a GPU starts: at the first granule of its region that was written,
    /// or where its block does.
    fn address(&self, gpu: usize) -> u64 {
        let (start, now) = oldest(self.ordinals[gpu]);
        let granules = now.chunks(256).zip(self.fresh[gpu].chunks(256));
        let untouched = granules.take_while(|(now, before)| now == before).count();
        start + 256 * u64::try_from(untouched).unwrap()
    }

    /// P6: the books equal the driver's own count.
    fn books_agree(&self) {
        for (gpu, &ordinal) in (0..).zip(&self.ordinals) {
            let books = self.manager.capacity(gpu).unwrap();
            assert_eq!(books.reserved, ByteLen::ZERO);
            assert_eq!(books.used.get() + books.free.get(), BUDGET);
            let driver = match self.mode {
                MemoryMode::Blocks => books.used.get(),
                _ => BUDGET,
            };
            assert_eq!(Sim::used(ordinal), driver, "gpu {gpu}, {:?}", self.mode);
        }
    }

    /// Drops everything and checks that nothing is left and nothing was done wrong.
    fn finish(self) {
        drop(self.manager);
        for device in &self.devices {
            // What a lost device holds is given back by a reset and by nothing else.
            if let DeviceState::Lost { .. } = device.state() {
                device.reset().unwrap();
            }
        }
        drop(self.devices);
        for ordinal in self.ordinals {
            Sim::assert_clean(ordinal);
            Sim::retire_device(ordinal);
        }
    }
}

/// Address and content of the oldest live allocation; nothing if there is none.
fn oldest(ordinal: u32) -> (u64, Vec<u8>) {
    let live = Sim::live_allocations(ordinal);
    let first = live.iter().min_by_key(|allocation| allocation.serial);
    first.map_or((0, Vec::new()), |allocation| {
        let len = usize::try_from(allocation.len).unwrap();
        (allocation.address, Sim::inspect(ordinal, allocation.address, len))
    })
}

fn add_device(peers: bool) -> u32 {
    cuda_sim::install();
    // The granularity is the facade's, so that both count the same.
    Sim::add_device(DeviceSpec {
        capacity: CAPACITY,
        granularity: 256,
        peer_group: peers.then_some(1),
        ..DeviceSpec::default()
    })
}

fn build(mode: MemoryMode, devices: &[Arc<CudaDevice>]) -> Result<VramManager, VramError> {
    let mut builder = VramManager::builder();
    for (gpu, device) in (0..).zip(devices) {
        let budget = Budget::Bytes(ByteLen::new(BUDGET));
        builder = builder.device(device.clone()).budget(gpu, budget).memory(gpu, mode);
    }
    builder
        .key(SealKey::from_bytes([7; 32]))
        .segment_size(SegmentSize::from_log2(12).unwrap())
        .threads(Threads::exactly(2))
        .build()
}

fn content() -> Vec<u8> {
    bytes(LEN, 1)
}

#[test]
fn shards_are_sealed_read_verified_converted_moved_and_freed() {
    for mode in MODES {
        let machine = Machine::new(mode);
        let manager = &machine.manager;
        machine.books_agree();
        let mut shards = Vec::new();
        for len in [0, 1, 256, 257, LEN, 70_000] {
            let data = bytes(len, 3);
            let shard = manager.seal_model("model", 0, &data).unwrap();
            machine.books_agree();
            shards.push((shard, data));
        }
        for (shard, data) in shards {
            let opened = manager.open_resident(&shard).unwrap();
            machine.books_agree();
            assert_eq!(manager.unseal_model(&opened).unwrap(), data);
            let closed = manager.close_resident(&opened).unwrap();
            let middle = data.len() / 2;
            let read = manager.read_shard_at_offset(&closed, middle, data.len() - middle).unwrap();
            assert_eq!(read, data[middle..]);
            assert!(manager.verify(&closed, Verify::Full).unwrap().sound);
            let moved = manager.migrate_shard(&closed, 1).unwrap();
            machine.books_agree();
            assert_eq!(manager.unseal_model(&moved).unwrap(), data);
            let receipt = manager.free_shard(&moved).unwrap();
            let taken = footprint(data.len());
            assert_eq!(receipt.bytes.get(), taken);
            let delta =
                (mode == MemoryMode::Blocks && taken > 0).then(|| i64::try_from(taken).unwrap());
            assert_eq!(receipt.driver_delta, delta, "{mode:?}");
            machine.books_agree();
        }
        assert_eq!((machine.used(0), machine.used(1)), (0, 0));
        machine.finish();
    }
}

#[test]
fn a_shard_that_fills_the_budget_is_converted_where_it_lies() {
    for mode in MODES {
        let machine = Machine::new(mode);
        let data = bytes(usize::try_from(BUDGET).unwrap(), 5);
        let shard = machine.manager.seal_model("model", 0, &data).unwrap();
        let full = machine.manager.seal_model("model", 0, b"more").unwrap_err();
        assert!(matches!(full, VramError::InsufficientVram(_)), "{full}");
        let opened = machine.manager.open_resident(&shard).unwrap();
        machine.books_agree();
        let address = machine.address(0);
        assert!(Sim::inspect(machine.ordinals[0], address, data.len()) == data);
        let closed = machine.manager.close_resident(&opened).unwrap();
        assert!(machine.manager.unseal_and_free(&closed).unwrap() == data);
        machine.books_agree();
        machine.finish();
    }
}

#[test]
fn migration_goes_from_peer_to_peer_where_it_can_and_through_the_host_elsewhere() {
    for mode in MODES {
        for peers in [true, false] {
            let machine = Machine::with_peers(mode, peers);
            let shard = machine.seal(Protection::Encrypted);
            let moved = machine.manager.migrate_shard(&shard, 1).unwrap();
            let copies = Sim::faults(machine.ordinals[1]).calls(CallKind::CopyPeer);
            assert_eq!(copies > 0, peers, "{copies} peer copies");
            assert_eq!(machine.used(0), 0);
            machine.books_agree();
            assert_eq!(machine.manager.unseal_model(&moved).unwrap(), content());
            machine.finish();
        }
    }
}

#[test]
fn a_peer_link_that_lies_is_found_and_gone_around() {
    for mode in MODES {
        for fault in [Fault::Drop, Fault::StopAfter(5000), Fault::FlipBit(77)] {
            let machine = Machine::new(mode);
            let shard = machine.seal(Protection::Encrypted);
            machine.fault(1, CallKind::CopyPeer, fault);
            let moved = machine.manager.migrate_shard(&shard, 1).unwrap();
            assert_eq!(machine.manager.unseal_model(&moved).unwrap(), content());
            machine.books_agree();
            machine.finish();
        }
    }
}

#[test]
fn a_bit_that_flips_at_rest_is_named_and_never_served() {
    for mode in MODES {
        for protection in [Protection::Encrypted, Protection::Authenticated] {
            let machine = Machine::new(mode);
            let shard = machine.seal(protection);
            let at = 3 * SEGMENT + 5;
            let address = machine.address(0) + u64::try_from(at).unwrap();
            Sim::flip_bit(machine.ordinals[0], address, 2);
            let before = machine.manager.read_shard_at_offset(&shard, 0, SEGMENT).unwrap();
            assert_eq!(before, content()[..SEGMENT]);
            match machine.manager.unseal_model(&shard) {
                Err(VramError::ShardAltered { segments, .. }) => assert_eq!(segments, [3]),
                other => panic!("{other:?}"),
            }
            let refused = machine.manager.read_shard_at_offset(&shard, 0, 1).unwrap_err();
            assert!(matches!(refused, VramError::Quarantined { .. }), "{refused}");
            assert!(!machine.manager.verify_shard_integrity(&shard).unwrap());
            machine.manager.free_shard(&shard).unwrap();
            machine.books_agree();
            machine.finish();
        }
    }
}

#[test]
fn a_copy_that_does_less_than_it_says_is_never_resident() {
    for mode in MODES {
        for fault in [Fault::Drop, Fault::StopAfter(2 * 4096), Fault::FlipBit(99)] {
            let machine = Machine::new(mode);
            machine.fault(0, CallKind::CopyIn, fault);
            let request = SealRequest::new("model", 0).read_back(ReadBack::Full);
            match machine.manager.seal(request, &content()) {
                Err(VramError::WriteNotKept { gpu: 0, segments }) => assert!(!segments.is_empty()),
                other => panic!("{fault:?}: {other:?}"),
            }
            assert!(machine.manager.shards().is_empty());
            machine.books_agree();
            assert_eq!(machine.used(0), 0);
            machine.finish();
        }
    }
}

#[test]
fn an_error_that_comes_late_fails_the_seal_that_it_belongs_to() {
    for mode in MODES {
        let machine = Machine::new(mode);
        machine.fault(0, CallKind::CopyIn, Fault::FailLater(UNKNOWN));
        let refused = machine.manager.seal_model("model", 0, &content()).unwrap_err();
        assert!(matches!(refused, VramError::Device { gpu: 0, .. }), "{refused}");
        assert_eq!(machine.used(0), 0);
        machine.books_agree();
        let shard = machine.seal(Protection::Encrypted);
        assert_eq!(machine.manager.unseal_model(&shard).unwrap(), content());
        machine.finish();
    }
}

/// P16: the driver of the lost device is left alone until the reset, which takes everything back;
/// what there are copies of comes back with it.
#[test]
fn after_an_ecc_error_a_reset_brings_back_what_there_are_copies_of() {
    let folder = tempfile::tempdir().unwrap();
    for mode in MODES {
        let machine = Machine::new(mode);
        let manager = &machine.manager;
        let saved = machine.seal(Protection::Authenticated);
        manager.back_up(&saved).unwrap();
        let exported = machine.seal(Protection::Encrypted);
        let image = folder.path().join(format!("{mode:?}"));
        manager.export_to(&exported, &image, ExportOptions::new()).unwrap();
        let unsaved = machine.seal(Protection::Encrypted);
        let there = manager.seal_model("model", 1, &content()).unwrap();
        machine.fault(0, CallKind::CopyOut, Fault::Fail(codes::ECC_UNCORRECTABLE));
        assert_eq!(manager.unseal_model(&unsaved).unwrap_err().code(), "device-lost");

        let calls = Sim::faults(machine.ordinals[0]).all_calls();
        assert_eq!(manager.back_up(&unsaved).unwrap_err().code(), "device-lost");
        let kept = manager.reserve(1, ByteLen::new(1 << 18)).unwrap();
        assert_eq!(Sim::faults(machine.ordinals[0]).all_calls(), calls, "the driver was called");

        let report = manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!((report.restored.len(), report.lost.len()), (2, 1), "{mode:?} {report:?}");
        assert_eq!(report.lost[0].shard_id, unsaved.shard_id);
        for (back, before) in report.restored.iter().zip([&saved, &exported]) {
            assert_eq!(back.shard_id, before.shard_id);
            assert_eq!(back.sealed_data, before.sealed_data);
            assert_eq!(manager.unseal_model(back).unwrap(), content());
            assert!(manager.verify(back, Verify::Full).unwrap().sound);
            assert_eq!(manager.unseal_model(before).unwrap_err().code(), "stale-handle");
        }
        assert_eq!(manager.unseal_model(&there).unwrap(), content());
        drop(kept);
        machine.books_agree();

        let closed = manager.close(core::time::Duration::ZERO);
        assert!(closed.complete && closed.freed == 3, "{mode:?} {closed:?}");
        assert_eq!((Sim::used(machine.ordinals[0]), Sim::used(machine.ordinals[1])), (0, 0));
        machine.finish();
    }
}

/// P16 until the reset.
#[test]
fn after_an_ecc_error_the_gpu_is_lost_and_its_driver_is_left_alone() {
    for mode in MODES {
        let machine = Machine::new(mode);
        let manager = &machine.manager;
        let here = machine.seal(Protection::Encrypted);
        let there = manager.seal_model("model", 1, &content()).unwrap();
        machine.fault(0, CallKind::CopyOut, Fault::Fail(codes::ECC_UNCORRECTABLE));
        let lost = |answer: Result<(), VramError>| match answer {
            Err(error @ VramError::DeviceLost { gpu: 0, .. }) => {
                assert_eq!(error.class(), Class::Fatal);
            }
            other => panic!("{mode:?}: {other:?}"),
        };
        lost(manager.unseal_model(&here).map(drop));
        let (calls, used) = (Sim::faults(machine.ordinals[0]).all_calls(), machine.used(0));
        lost(manager.unseal_model(&here).map(drop));
        lost(manager.read_shard_at_offset(&here, 0, 1).map(drop));
        lost(manager.verify(&here, Verify::Full).map(drop));
        lost(manager.free_shard(&here).map(drop));
        lost(manager.open_resident(&here).map(drop));
        lost(manager.migrate_shard(&here, 1).map(drop));
        lost(manager.migrate_shard(&there, 0).map(drop));
        lost(manager.seal_model("model", 0, b"more").map(drop));
        lost(manager.refresh(0).map(drop));
        assert_eq!(Sim::faults(machine.ordinals[0]).all_calls(), calls, "the driver was called");
        assert_eq!(machine.used(0), used);
        assert!(manager.report().gpus[0].lost.is_some());
        assert_eq!(manager.unseal_and_free(&there).unwrap(), content());
        assert_eq!(machine.used(1), 0);
        machine.finish();
    }
}

#[test]
fn a_sticky_error_while_sealing_leaves_nothing_counted_for_it() {
    for mode in MODES {
        for (kind, fault) in [
            (CallKind::CopyIn, Fault::Fail(700)),
            (CallKind::CopyIn, Fault::FailLater(719)),
            (CallKind::CopyOut, Fault::Fail(codes::ECC_UNCORRECTABLE)),
        ] {
            let machine = Machine::new(mode);
            machine.fault(0, kind, fault);
            let refused = machine.manager.seal_model("model", 0, &content()).unwrap_err();
            assert!(matches!(refused, VramError::DeviceLost { gpu: 0, .. }), "{refused}");
            assert_eq!(machine.used(0), 0);
            assert!(machine.manager.shards().is_empty());
            machine.finish();
        }
    }
}

#[test]
fn a_driver_without_memory_for_a_block_changes_nothing() {
    let machine = Machine::new(MemoryMode::Blocks);
    let kept = machine.seal(Protection::Encrypted);
    let before = machine.manager.capacity(0).unwrap();
    // It says so though nobody else has anything: then it is the driver's word that counts.
    machine.fault(0, CallKind::Alloc, Fault::Fail(codes::OUT_OF_MEMORY));
    let refused = machine.manager.seal_model("model", 0, &content()).unwrap_err();
    assert!(refused.is_capacity() && matches!(refused, VramError::Device { .. }), "{refused}");
    assert_eq!(machine.manager.capacity(0).unwrap(), before);
    machine.books_agree();

    // A migration to where there is no memory leaves the shard where it is.
    machine.fault(1, CallKind::Alloc, Fault::Fail(codes::OUT_OF_MEMORY));
    let refused = machine.manager.migrate_shard(&kept, 1).unwrap_err();
    assert!(refused.is_capacity(), "{refused}");
    assert_eq!(machine.manager.unseal_model(&kept).unwrap(), content());
    machine.books_agree();
    machine.finish();
}

#[test]
fn a_driver_without_memory_for_a_region_says_so_when_the_manager_is_built() {
    let ordinal = add_device(false);
    let device = CudaDevice::open(ordinal, GpuIndex::new(0)).unwrap();
    Sim::faults(ordinal).next(CallKind::Alloc, Fault::Fail(codes::OUT_OF_MEMORY));
    let refused = build(MemoryMode::Region, &[Arc::clone(&device)]).unwrap_err();
    assert!(refused.is_capacity(), "{refused}");
    assert_eq!(Sim::used(ordinal), 0);
    assert!(build(MemoryMode::Region, &[Arc::clone(&device)]).is_ok());
    drop(device);
    Sim::assert_clean(ordinal);
    Sim::retire_device(ordinal);
}

/// P8, with the driver as the one who shrinks the budget.
#[test]
fn what_others_take_is_not_granted_and_comes_back_when_they_are_gone() {
    let machine = Machine::new(MemoryMode::Blocks);
    let (manager, ordinal) = (&machine.manager, machine.ordinals[0]);
    let kept = machine.seal(Protection::Encrypted);
    let ours = footprint(LEN);
    // Outside the budget there is as much again: taking that takes nothing of it.
    Sim::set_foreign(ordinal, CAPACITY - BUDGET);
    assert_eq!(manager.refresh(0).unwrap().foreign, ByteLen::ZERO);

    let left = 10 * 4096;
    Sim::set_foreign(ordinal, CAPACITY - ours - left);
    assert_eq!(manager.refresh(0).unwrap().foreign.get(), BUDGET - ours - left);
    let now = manager.capacity(0).unwrap();
    assert_eq!(now.foreign.get(), BUDGET - ours - left);
    assert_eq!((now.room.get(), now.largest_hole.get()), (left, left));
    let allocations = Sim::faults(ordinal).calls(CallKind::Alloc);
    let too_much = bytes(usize::try_from(left).unwrap() + 1, 1);
    match manager.seal_model("model", 0, &too_much) {
        Err(VramError::InsufficientVram(lack)) => {
            assert_eq!((lack.room, lack.foreign), (now.room, now.foreign));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(Sim::faults(ordinal).calls(CallKind::Alloc), allocations, "granted all the same");
    let rest = manager.seal_model("model", 0, &too_much[1..]).unwrap();
    machine.books_agree();

    // They leave: the next request that would fit without them finds out by itself.
    Sim::set_foreign(ordinal, 0);
    let more = manager.seal_model("model", 0, &too_much).unwrap();
    assert_eq!(manager.capacity(0).unwrap().foreign, ByteLen::ZERO);
    for shard in [kept, rest, more] {
        manager.unseal_and_free(&shard).unwrap();
    }
    machine.books_agree();
    machine.finish();
}

#[test]
fn what_others_took_unseen_is_learned_from_the_driver_that_has_no_memory() {
    let machine = Machine::new(MemoryMode::Blocks);
    let kept = machine.seal(Protection::Encrypted);
    let left = 512;
    Sim::set_foreign(machine.ordinals[0], CAPACITY - footprint(LEN) - left);
    match machine.manager.seal_model("model", 0, &content()) {
        Err(VramError::InsufficientVram(lack)) => {
            assert_eq!(lack.foreign.get(), BUDGET - footprint(LEN) - left);
            assert_eq!((lack.room.get(), lack.needed.get()), (left, footprint(LEN)));
        }
        other => panic!("{other:?}"),
    }
    let books = machine.manager.capacity(0).unwrap();
    assert_eq!((books.used.get(), books.room.get()), (footprint(LEN), left));
    assert_eq!(machine.manager.unseal_model(&kept).unwrap(), content());
    machine.books_agree();
    machine.finish();
}

#[test]
fn nobody_takes_anything_of_a_region() {
    let machine = Machine::new(MemoryMode::Region);
    Sim::set_foreign(machine.ordinals[0], CAPACITY - BUDGET);
    machine.manager.refresh(0).unwrap();
    let now = machine.manager.capacity(0).unwrap();
    assert_eq!((now.foreign, now.room.get()), (ByteLen::ZERO, BUDGET));
    let data = bytes(usize::try_from(BUDGET).unwrap(), 9);
    let shard = machine.manager.seal_model("model", 0, &data).unwrap();
    assert!(machine.manager.unseal_and_free(&shard).unwrap() == data);
    machine.finish();
}

#[test]
fn a_block_that_the_driver_does_not_take_back_stays_counted_and_is_not_used_again() {
    let machine = Machine::new(MemoryMode::Blocks);
    let manager = &machine.manager;
    let (shard, other) = (machine.seal(Protection::Encrypted), machine.seal(Protection::Encrypted));
    machine.fault(0, CallKind::Free, Fault::Fail(UNKNOWN));
    match manager.free_shard(&shard) {
        Err(VramError::NotReturned { gpu: 0, bytes, .. }) => {
            assert_eq!(bytes.get(), footprint(LEN));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(manager.unseal_model(&shard), Err(VramError::ShardFreed { .. })));
    let books = manager.capacity(0).unwrap();
    assert_eq!((books.used.get(), books.unreturned.get()), (2 * footprint(LEN), footprint(LEN)));
    machine.books_agree();
    assert_eq!(manager.report().gpus[0].unreturned.map(|(bytes, _)| bytes), Some(books.unreturned));

    // The plaintext is good whatever becomes of the memory.
    machine.fault(0, CallKind::Free, Fault::Fail(UNKNOWN));
    assert_eq!(manager.unseal_and_free(&other).unwrap(), content());
    assert_eq!(manager.capacity(0).unwrap().unreturned.get(), 2 * footprint(LEN));
    machine.books_agree();
    machine.finish();
}

#[test]
fn a_wipe_that_fails_keeps_the_bytes_counted() {
    for mode in MODES {
        let machine = Machine::new(mode);
        let shard = machine.seal(Protection::Encrypted);
        machine.fault(0, CallKind::Fill, Fault::Fail(UNKNOWN));
        let refused = machine.manager.free_shard(&shard).unwrap_err();
        assert!(matches!(refused, VramError::NotReturned { gpu: 0, .. }), "{refused}");
        assert_eq!(machine.used(0), footprint(LEN));
        machine.books_agree();
        machine.finish();
    }
}

/// P18.
#[test]
fn freed_device_memory_no_longer_holds_the_bytes() {
    for mode in MODES {
        for protection in [Protection::Encrypted, Protection::Authenticated] {
            let machine = Machine::new(mode);
            let shard = machine.seal(protection);
            let (ordinal, address) = (machine.ordinals[0], machine.address(0));
            let held = Sim::inspect(ordinal, address, LEN);
            assert_eq!(held == content(), protection == Protection::Authenticated);
            assert!(held.iter().filter(|byte| **byte != 0).count() > LEN / 2);
            machine.manager.free_shard(&shard).unwrap();
            assert!(Sim::inspect(ordinal, address, LEN).iter().all(|byte| *byte == 0), "{mode:?}");
            machine.finish();
        }
    }
}

#[test]
fn what_a_scrubber_finds_is_repaired_from_its_source_and_all_accounts_agree() {
    for mode in MODES {
        for protection in [Protection::Encrypted, Protection::Authenticated] {
            let machine = Machine::new(mode);
            let manager = &machine.manager;
            let shard = machine.seal(protection);
            let address = machine.address(0);
            Sim::flip_bit(machine.ordinals[0], address + 4097, 2);
            let rate = ScrubRate::BytesPerSecond(u64::MAX);
            let scrubber = manager.start_scrubber(ScrubOptions::new(rate)).unwrap();
            while scrubber.status().altered == 0 {
                std::thread::yield_now();
            }
            scrubber.stop();
            let read = manager.unseal_model(&shard);
            assert!(matches!(read, Err(VramError::Quarantined { .. })), "{read:?}");

            let data = content();
            let source = SliceSource::new(&data);
            let report = manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
            assert_eq!((&report.segments[..], report.written.get()), (&[1][..], 4096));
            assert_eq!(manager.unseal_model(&shard).unwrap(), data);

            Sim::flip_bit(machine.ordinals[0], address + 1, 2);
            let away = RepairOptions::new().relocate();
            let report = manager.repair_from(&shard, source, away).unwrap();
            assert_eq!(report.set_aside.get(), footprint(LEN));
            assert_eq!(manager.unseal_model(&shard).unwrap(), data);
            let held = Sim::inspect(machine.ordinals[0], address, LEN);
            assert!(held.iter().all(|byte| *byte == 0), "what is never used again was wiped");
            machine.books_agree();
            for accounts in manager.reconcile_all() {
                let accounts = accounts.unwrap();
                assert!(accounts.agrees && accounts.steady, "{accounts}");
                assert_eq!(accounts.driver.others, ByteLen::ZERO, "{accounts}");
            }
            Sim::set_foreign(machine.ordinals[1], 4096);
            let accounts = manager.reconcile(1).unwrap();
            assert!(accounts.agrees && accounts.driver.others.get() == 4096, "{accounts}");
            Sim::set_foreign(machine.ordinals[1], 0);
            machine.finish();
        }
    }
}
