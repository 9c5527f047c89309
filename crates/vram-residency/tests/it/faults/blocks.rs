//! Memory taken block by block: what the driver refuses, when, and what is left of it in the books.
//! P5, P6, P15 and P18 with one allocation for each shard.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::{Arc, Barrier};

use vram_residency::device::fault::{Action, FaultPlan, Op, When};
use vram_residency::device::{FaultDevice, GpuError};
use vram_residency::{
    Budget, ByteLen, GpuCapacity, GpuIndex, HostDevice, MemoryMode, Protection, SealRequest,
    SealedShard, SegmentSize, Threads, VramError, VramManager,
};

const TOTAL: u64 = 1 << 17;
const LEN: usize = 20_489;
const TAKEN: u64 = 20_736;

struct Rig {
    manager: VramManager,
    devices: Vec<Arc<FaultDevice>>,
}

impl Rig {
    fn new() -> Self {
        Self::with_budget(TOTAL)
    }

    fn with_budget(budget: u64) -> Self {
        let total = ByteLen::new(TOTAL);
        let devices: Vec<_> = HostDevice::several(&[total, total])
            .unwrap()
            .into_iter()
            .map(|host| FaultDevice::new(host, FaultPlan::new(3)))
            .collect();
        let mut builder = VramManager::builder();
        for (gpu, device) in (0..).zip(&devices) {
            device.watch_frees();
            let budget = Budget::Bytes(ByteLen::new(budget));
            builder = builder.device(device.clone()).budget(gpu, budget);
            builder = builder.memory(gpu, MemoryMode::Blocks);
        }
        let builder = builder.segment_size(SegmentSize::MIN).threads(Threads::ONE);
        Self { manager: builder.build().unwrap(), devices }
    }

    fn seal(&self, protection: Protection) -> SealedShard {
        let request = SealRequest::new("model", 0).protection(protection);
        self.manager.seal(request, &content()).unwrap()
    }

    fn books(&self, gpu: u32) -> GpuCapacity {
        self.manager.capacity(gpu).unwrap()
    }

    /// Bytes of a device's live allocations: the driver's own count.
    fn driver(&self, gpu: usize) -> u64 {
        self.devices[gpu].live().iter().map(|(_, len)| len.get()).sum()
    }

    /// P6.
    fn books_agree(&self, what: &str) {
        for (gpu, driver) in [(0, self.driver(0)), (1, self.driver(1))] {
            let books = self.books(gpu);
            assert_eq!(books.used.get(), driver, "gpu {gpu}: {what}");
            assert_eq!(books.reserved, ByteLen::ZERO, "{what}");
            assert_eq!(books.used.get() + books.free.get(), books.total.get(), "{what}");
        }
    }

    /// P18: nothing went back to the driver but zeros.
    fn all_frees_were_wiped(&self, what: &str) {
        for device in &self.devices {
            for freed in device.freed() {
                assert_eq!(freed.wiped, Some(true), "{what}");
            }
        }
    }
}

fn content() -> Vec<u8> {
    (0..LEN).map(|at| u8::try_from((at * 31 + at / 255) % 251).unwrap()).collect()
}

#[test]
fn nothing_is_taken_up_front_and_each_shard_is_one_allocation() {
    let rig = Rig::new();
    assert_eq!((rig.driver(0), rig.books(0).largest_hole.get()), (0, TOTAL));
    let mut shards = Vec::new();
    for (count, len) in [0, 1, 255, 256, 257, 4096, LEN].into_iter().enumerate() {
        shards.push(rig.manager.seal_model("model", 0, &content()[..len]).unwrap());
        // The empty one takes nothing.
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
    let rig = Rig::new();
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
    // Every other granule of a region would be a hole too small for this.
    let half = vec![7; count / 2 * 256];
    let shard = rig.manager.seal_model("model", 0, &half).unwrap();
    assert_eq!(rig.manager.unseal_model(&shard).unwrap(), half);
    assert_eq!(rig.books(0).room, ByteLen::ZERO);
    rig.books_agree("full again");
}

#[test]
fn a_budget_below_the_device_is_kept() {
    let rig = Rig::with_budget(3 * 256 + 100);
    assert_eq!(rig.books(0).foreign, ByteLen::ZERO);
    let shard = rig.manager.seal_model("model", 0, &[1; 768]).unwrap();
    // A hundred bytes are left, and no whole granule.
    let refused = rig.manager.seal_model("model", 0, &[1; 1]).unwrap_err();
    assert!(matches!(refused, VramError::InsufficientVram(_)), "{refused}");
    rig.manager.seal_model("model", 0, &[]).unwrap();
    rig.manager.free_shard(&shard).unwrap();
    rig.books_agree("freed");

    let nothing = Rig::with_budget(0);
    let empty = nothing.manager.seal_model("model", 0, &[]).unwrap();
    assert!(nothing.manager.unseal_and_free(&empty).unwrap().is_empty());
    assert!(nothing.manager.seal_model("model", 0, &[1]).unwrap_err().is_capacity());
}

#[test]
fn what_was_not_wiped_or_not_taken_back_stays_counted_and_is_never_used_again() {
    for op in [Op::Fill, Op::Free] {
        let rig = Rig::new();
        let shard = rig.seal(Protection::Encrypted);
        rig.devices[0].add(op, When::Nth(1), Action::Driver(999)).unwrap();
        match rig.manager.free_shard(&shard) {
            Err(VramError::NotReturned { gpu: 0, bytes, .. }) => assert_eq!(bytes.get(), TAKEN),
            other => panic!("{other:?}"),
        }
        assert!(matches!(rig.manager.free_shard(&shard), Err(VramError::ShardFreed { .. })));
        let books = rig.books(0);
        assert_eq!((books.used.get(), books.unreturned.get()), (TAKEN, TAKEN));
        assert_eq!(books.room.get(), TOTAL - TAKEN);
        rig.books_agree("not returned");
        // What it holds is the manager's, not others'.
        assert_eq!(rig.manager.refresh(0).unwrap().foreign, ByteLen::ZERO);
        let rest = vec![5; usize::try_from(books.room.get()).unwrap()];
        let rest = rig.manager.seal_model("model", 0, &rest).unwrap();
        assert!(rig.manager.seal_model("model", 0, b"x").unwrap_err().is_capacity());
        rig.manager.free_shard(&rest).unwrap();
        rig.books_agree("the rest freed");
        drop(rig.manager);
        assert!(rig.devices[0].live().is_empty(), "kept beyond the manager");
    }
}

/// P5, P15: a fault at any call of any operation leaves the books what the driver holds.
#[test]
fn whatever_fails_at_whatever_call_the_books_are_the_drivers() {
    type Act = fn(&VramManager, &SealedShard) -> Result<(), VramError>;
    let acts: [(&str, Act); 5] = [
        ("seal", |manager, _| manager.seal_model("model", 0, &content()).map(drop)),
        ("migrate", |manager, shard| manager.migrate_shard(shard, 1).map(drop)),
        ("open", |manager, shard| manager.open_resident(shard).map(drop)),
        ("unseal and free", |manager, shard| manager.unseal_and_free(shard).map(drop)),
        ("free", |manager, shard| manager.free_shard(shard).map(drop)),
    ];
    let ops =
        [Op::Allocate, Op::Free, Op::Memory, Op::Fill, Op::QueueWrite, Op::Read, Op::PeerCopy];
    let mut met = 0;
    for (name, act) in acts {
        for (gpu, op) in [0, 1].into_iter().flat_map(|gpu| ops.map(|op| (gpu, op))) {
            let error = GpuError::driver(GpuIndex::new(u32::try_from(gpu).unwrap()), 999);
            let mut actions = vec![Action::Fail(error), Action::Panic];
            if op == Op::Allocate {
                actions.push(Action::OutOfMemory);
            }
            let cases = actions.iter().flat_map(|action| (1..12).map(move |nth| (action, nth)));
            for (action, nth) in cases {
                let rig = Rig::new();
                let shard = rig.seal(Protection::Encrypted);
                let before = [rig.books(0), rig.books(1)];
                rig.devices[gpu].clear_log();
                rig.devices[gpu].add(op, When::Nth(nth), action.clone()).unwrap();
                let outcome = catch_unwind(AssertUnwindSafe(|| act(&rig.manager, &shard)));
                rig.devices.iter().for_each(|device| device.clear());
                let calls = rig.devices[gpu].calls();
                if !calls.iter().any(|call| call.op == op && call.injected.is_some()) {
                    // There are fewer calls of this kind.
                    continue;
                }
                met += 1;
                let what = format!("{name}: {action:?} at {op:?} number {nth} of gpu {gpu}");
                let lost_count = matches!((op, action), (Op::Free, Action::Panic));
                if lost_count {
                    // Nobody knows what became of the memory: it counts.
                    let used = rig.books(0).used.get() + rig.books(1).used.get();
                    assert!(used >= rig.driver(0) + rig.driver(1), "{what}");
                } else {
                    rig.books_agree(&what);
                }
                let kept = rig.books(0).unreturned.get() + rig.books(1).unreturned.get();
                assert!(kept == 0 || matches!(op, Op::Fill | Op::Free), "{what}: {kept} kept");
                if !matches!(outcome, Ok(Ok(()))) && kept == 0 {
                    assert_eq!([rig.books(0), rig.books(1)], before, "{what}");
                    assert_eq!(rig.manager.unseal_model(&shard).unwrap(), content(), "{what}");
                }
                for shard in rig.manager.shards() {
                    assert_eq!(rig.manager.unseal_and_free(&shard).unwrap(), content(), "{what}");
                }
                let used = rig.books(0).used.get() + rig.books(1).used.get();
                assert_eq!(used, kept, "{what}");
                rig.all_frees_were_wiped(&what);
            }
        }
    }
    assert!(met > 40, "only {met} faults were met");
}

/// P1, P6 with many threads: the driver is never asked for more than the budget.
#[test]
fn many_threads_take_and_give_back_blocks_within_the_budget() {
    const THREADS: usize = 6;
    let rig = Rig::new();
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (rig, start) = (&rig, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..40 {
                    let len = LEN - thread * 256 - round;
                    match rig.manager.seal_model("model", 0, &content()[..len]) {
                        Ok(shard) => {
                            let back = rig.manager.unseal_and_free(&shard).unwrap();
                            assert_eq!(back, content()[..len]);
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
    // Whatever was read in between, at rest the figures are right.
    assert_eq!(refreshed(&rig.manager).room.get(), TOTAL);
}

/// Two managers on one device: what one takes is foreign to the other.
#[test]
fn what_another_manager_takes_is_foreign() {
    let host = HostDevice::several(&[ByteLen::new(TOTAL)]).unwrap().remove(0);
    let [one, two] = [(), ()].map(|()| {
        let builder = VramManager::builder().device(host.clone());
        builder.memory(0, MemoryMode::Blocks).build().unwrap()
    });
    let shard = one.seal_model("model", 0, &content()).unwrap();
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

/// The figures after the driver was asked.
fn refreshed(manager: &VramManager) -> GpuCapacity {
    manager.refresh(0).unwrap();
    manager.capacity(0).unwrap()
}
