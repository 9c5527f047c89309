//! Mode `Blocks`: what the driver refuses, when, and the state of the ledger afterwards. P5, P6,
//! P15 and P18 with one allocation for each shard.

use std::sync::Barrier;

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    Budget, ByteLen, GpuCapacity, GpuIndex, HostDevice, MemoryMode, Protection, SealedShard,
    VramError, VramManager,
};
use vram_test_rigs::{Fault, Faults, Outcome, Rig, Row, weights};

const TOTAL: u64 = 1 << 17;
const LEN: usize = 20_489;
const TAKEN: u64 = 20_736;

fn rig() -> Rig {
    with_budget(TOTAL)
}

/// Two GPUs of which only a budget is used, in mode `Blocks`.
fn with_budget(budget: u64) -> Rig {
    let lens = [usize::try_from(TOTAL).unwrap(); 2];
    Rig::in_mode(MemoryMode::Blocks, &lens, |builder| {
        let budget = Budget::Bytes(ByteLen::new(budget));
        builder.budget(0, budget).budget(1, budget)
    })
}

fn seal(rig: &Rig, protection: Protection) -> SealedShard {
    rig.seal(0, protection, &weights(LEN))
}

#[test]
fn nothing_is_taken_up_front_and_each_shard_is_one_allocation() {
    let rig = rig();
    assert_eq!((rig.driver(0), rig.books(0).largest_hole.get()), (0, TOTAL));
    let mut shards = Vec::new();
    for (count, len) in [0, 1, 255, 256, 257, 4096, LEN].into_iter().enumerate() {
        shards.push(rig.manager.seal_model("model", 0, &weights(LEN)[..len]).unwrap());
        // The empty shard has no allocation.
        assert_eq!(rig.devices[0].live().len(), count);
        rig.books_agree("sealed");
        let books = rig.books(0);
        assert_eq!((books.largest_hole, books.hole_count), (books.room, 1));
    }
    for shard in shards.into_iter().rev() {
        let receipt = rig.manager.free_shard(&shard).unwrap();
        let expected = (receipt.bytes > ByteLen::ZERO).then(|| receipt.bytes.get().cast_signed());
        assert_eq!(receipt.driver_delta, expected);
        rig.books_agree("freed");
    }
    assert_eq!(rig.driver(0), 0);
    rig.all_frees_were_wiped("freed");
}

#[test]
fn there_is_no_fragmentation_only_room() {
    let rig = rig();
    let granule = |shard: usize| {
        rig.manager.seal_model("model", 0, &[u8::try_from(shard % 251).unwrap(); 256]).unwrap()
    };
    let count = usize::try_from(TOTAL / 256).unwrap();
    let shards: Vec<_> = (0..count).map(granule).collect();
    let full = rig.manager.seal_model("model", 0, b"one more").unwrap_err();
    assert!(matches!(full, VramError::InsufficientVram(_)), "{full}");
    for shard in shards.iter().step_by(2) {
        rig.manager.free_shard(shard).unwrap();
    }
    // In a region, every second granule would be a hole too small for this.
    let half = vec![7; count / 2 * 256];
    let shard = rig.manager.seal_model("model", 0, &half).unwrap();
    assert_eq!(rig.manager.unseal_model(&shard).unwrap(), half);
    assert_eq!(rig.books(0).room, ByteLen::ZERO);
    rig.books_agree("full again");
}

#[test]
fn a_budget_below_the_device_is_kept() {
    let rig = with_budget(3 * 256 + 100);
    assert_eq!(rig.books(0).foreign, ByteLen::ZERO);
    let shard = rig.manager.seal_model("model", 0, &[1; 768]).unwrap();
    // A hundred bytes are left, but no whole granule.
    let refused = rig.manager.seal_model("model", 0, &[1; 1]).unwrap_err();
    assert!(matches!(refused, VramError::InsufficientVram(_)), "{refused}");
    rig.manager.seal_model("model", 0, &[]).unwrap();
    rig.manager.free_shard(&shard).unwrap();
    rig.books_agree("freed");

    let nothing = with_budget(0);
    let empty = nothing.manager.seal_model("model", 0, &[]).unwrap();
    assert!(nothing.manager.unseal_and_free(&empty).unwrap().is_empty());
    assert!(nothing.manager.seal_model("model", 0, &[1]).unwrap_err().is_capacity());
}

#[test]
fn what_is_not_wiped_or_not_taken_back_stays_counted_and_is_used_by_nobody() {
    for op in [Op::Fill, Op::Free] {
        let rig = rig();
        let shard = seal(&rig, Protection::Encrypted);
        rig.devices[0].add(op, When::From(1), Action::Driver(999)).unwrap();
        match rig.manager.free_shard(&shard) {
            Err(VramError::NotReturned { gpu: 0, bytes, .. }) => assert_eq!(bytes.get(), TAKEN),
            other => panic!("{other:?}"),
        }
        assert!(matches!(rig.manager.free_shard(&shard), Err(VramError::ShardFreed { .. })));
        let books = rig.books(0);
        assert_eq!((books.used.get(), books.unreturned.get()), (TAKEN, TAKEN));
        assert_eq!(books.room.get(), TOTAL - TAKEN);
        rig.books_agree("not returned");
        // The manager's own memory is not foreign.
        assert_eq!(rig.manager.refresh(0).unwrap().foreign, ByteLen::ZERO);
        let rest = vec![5; usize::try_from(books.room.get()).unwrap()];
        let rest = rig.manager.seal_model("model", 0, &rest).unwrap();
        assert!(rig.manager.seal_model("model", 0, b"x").unwrap_err().is_capacity());
        rig.clear();
        rig.manager.free_shard(&rest).unwrap();
        rig.books_agree("the rest freed");
        drop(rig.manager);
        assert!(rig.devices[0].live().is_empty(), "kept beyond the manager");
    }
}

/// P5, P15: after a fault at any call of any operation, the ledger equals the memory at the driver.
#[test]
fn whatever_fails_at_whatever_call_the_books_are_the_drivers() {
    type Act = fn(&Rig, &SealedShard) -> Result<(), VramError>;
    let acts: [(&str, Act); 5] = [
        ("seal", |rig, _| rig.manager.seal_model("model", 0, &weights(LEN)).map(drop)),
        ("migrate", |rig, shard| rig.manager.migrate_shard(shard, 1).map(drop)),
        ("open", |rig, shard| rig.manager.open_resident(shard).map(drop)),
        ("unseal and free", |rig, shard| rig.manager.unseal_and_free(shard).map(drop)),
        ("free", |rig, shard| rig.manager.free_shard(shard).map(drop)),
    ];
    let met: usize = acts
        .into_iter()
        .map(|(operation, act)| {
            Row {
                operation,
                faults: faults(),
                set_up: &|| {
                    let rig = rig();
                    let shard = seal(&rig, Protection::Encrypted);
                    let before = [rig.books(0), rig.books(1)];
                    (rig, (shard, before))
                },
                act: &|rig, (shard, _before)| act(rig, shard),
                after: &|rig, (shard, before), outcome, what| {
                    let through = matches!(outcome, Outcome::Done(()));
                    books_are_the_drivers(rig, &shard, &before, through, what);
                },
                at_least: 1,
            }
            .count()
        })
        .sum();
    assert!(met > 40, "only {met} faults were met");
}

fn faults() -> Vec<Faults> {
    let ops =
        [Op::Allocate, Op::Free, Op::Memory, Op::Fill, Op::QueueWrite, Op::Read, Op::PeerCopy];
    let faults = [0, 1].into_iter().flat_map(|gpu| ops.map(|op| (gpu, op))).map(|(gpu, op)| {
        let error = GpuError::driver(GpuIndex::new(u32::try_from(gpu).unwrap()), 999);
        let mut actions = vec![Action::Fail(error), Action::Panic];
        if op == Op::Allocate {
            actions.push(Action::OutOfMemory);
        }
        Faults::of(gpu, op, actions).at(1..=11)
    });
    faults.collect()
}

fn books_are_the_drivers(
    rig: &Rig,
    shard: &SealedShard,
    before: &[GpuCapacity; 2],
    through: bool,
    what: &Fault,
) {
    let used = || rig.books(0).used.get() + rig.books(1).used.get();
    if matches!((what.op, &what.action), (Op::Free, Action::Panic)) {
        // The state of the memory is unknown, so it stays counted.
        assert!(used() >= rig.driver(0) + rig.driver(1), "{what}");
    } else {
        rig.books_agree(&what.to_string());
    }
    let kept = rig.books(0).unreturned.get() + rig.books(1).unreturned.get();
    assert!(kept == 0 || matches!(what.op, Op::Fill | Op::Free), "{what}: {kept} kept");
    if !through && kept == 0 {
        assert_eq!([rig.books(0), rig.books(1)], *before, "{what}");
        assert_eq!(rig.manager.unseal_model(shard).unwrap(), weights(LEN), "{what}");
    }
    for shard in rig.manager.shards() {
        assert_eq!(rig.manager.unseal_and_free(&shard).unwrap(), weights(LEN), "{what}");
    }
    // The device works again, and what it refused once comes back: unless the block itself was lost.
    for gpu in [0, 1] {
        rig.manager.refresh(gpu).unwrap();
    }
    let lost = matches!((what.op, &what.action), (Op::Free, Action::Panic));
    assert_eq!(used(), if lost { kept } else { 0 }, "{what}");
    rig.all_frees_were_wiped(&what.to_string());
}

/// P1, P6 with many threads: the driver never gets requests beyond the budget.
#[test]
fn many_threads_take_and_give_back_blocks_within_the_budget() {
    const THREADS: usize = 6;
    let rig = rig();
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (rig, start) = (&rig, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..40 {
                    let len = LEN - thread * 256 - round;
                    match rig.manager.seal_model("model", 0, &weights(LEN)[..len]) {
                        Ok(shard) => {
                            let back = rig.manager.unseal_and_free(&shard).unwrap();
                            assert_eq!(back, weights(LEN)[..len]);
                        }
                        Err(error) => assert!(error.is_capacity(), "{error}"),
                    }
                    assert!(rig.driver(0) <= TOTAL);
                    rig.manager.refresh(0).unwrap();
                }
            });
        }
    });
    assert_eq!(rig.driver(0), 0);
    rig.books_agree("in the end");
    // After the threads have ended, the figures are right, independent of earlier reads.
    assert_eq!(refreshed(&rig.manager).room.get(), TOTAL);
}

/// Two managers on one device: the memory of one is foreign to the other.
#[test]
fn what_another_manager_takes_is_foreign() {
    let host = HostDevice::several(&[ByteLen::new(TOTAL)]).unwrap().remove(0);
    let [one, two] = [(), ()].map(|()| {
        let builder = VramManager::builder().device(host.clone());
        builder.memory(0, MemoryMode::Blocks).build().unwrap()
    });
    let shard = one.seal_model("model", 0, &weights(LEN)).unwrap();
    assert_eq!(two.capacity(0).unwrap().foreign, ByteLen::ZERO);
    assert_eq!(two.refresh(0).unwrap().foreign.get(), TAKEN);
    let everything = vec![1; usize::try_from(TOTAL).unwrap()];
    match two.seal_model("model", 0, &everything) {
        Err(VramError::InsufficientVram(lack)) => assert_eq!(lack.foreign.get(), TAKEN),
        other => panic!("{other:?}"),
    }
    one.free_shard(&shard).unwrap();
    two.seal_model("model", 0, &everything).unwrap();
    assert_eq!(refreshed(&one).room, ByteLen::ZERO);
}

/// The figures after a refresh.
fn refreshed(manager: &VramManager) -> GpuCapacity {
    manager.refresh(0).unwrap();
    manager.capacity(0).unwrap()
}
