//! Room: allocations that the driver refuses, memory of other processes, and refused frees.

use std::sync::Arc;

use cuda_sim::{CallKind, Fault, Sim};
use vram_gpu::{CudaDevice, codes};
use vram_residency::{ByteLen, GpuIndex, MemoryMode, Protection, VramError};
use vram_tests::reference::{bytes, footprint};

use crate::{BUDGET, CAPACITY, LEN, MODES, Machine, UNKNOWN, add_device, build, content};

#[test]
fn a_driver_without_memory_for_a_block_changes_nothing() {
    let machine = Machine::new(MemoryMode::Blocks);
    let kept = machine.seal(Protection::Encrypted);
    let before = machine.manager.capacity(0).unwrap();
    // The driver refuses although no other process has memory: its answer decides.
    machine.fault(0, CallKind::Alloc, Fault::Fail(codes::OUT_OF_MEMORY));
    let refused = machine.manager.seal_model("model", 0, &content()).unwrap_err();
    assert!(refused.is_capacity() && matches!(refused, VramError::Device { .. }), "{refused}");
    assert_eq!(machine.manager.capacity(0).unwrap(), before);
    machine.books_agree();

    // A migration to a GPU without memory leaves the shard in place.
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
    let device = CudaDevice::open(ordinal, GpuIndex::new(0)).unwrap().without_kernels();
    Sim::faults(ordinal).next(CallKind::Alloc, Fault::Fail(codes::OUT_OF_MEMORY));
    let refused = build(MemoryMode::Region, &[Arc::clone(&device)]).unwrap_err();
    assert!(refused.is_capacity(), "{refused}");
    assert_eq!(Sim::used(ordinal), 0);
    assert!(build(MemoryMode::Region, &[Arc::clone(&device)]).is_ok());
    drop(device);
    Sim::assert_clean(ordinal);
    Sim::retire_device(ordinal);
}

/// P8, with the driver as the cause of the smaller budget.
#[test]
fn what_others_take_is_not_granted_and_comes_back_when_they_are_gone() {
    let machine = Machine::new(MemoryMode::Blocks);
    let (manager, ordinal) = (&machine.manager, machine.ordinals[0]);
    let kept = machine.seal(Protection::Encrypted);
    let ours = footprint(LEN);
    // Outside the budget there is the same amount again: using it takes nothing from the budget.
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

    // The other process frees it: the next request reads the driver's figures again and fits.
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

    // The plaintext is correct although the memory cannot be freed.
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
