//! All accounts of a GPU agree after any operations, and reveal changes made without the manager.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, Weak};

use proptest::prelude::*;
use proptest::sample::Index;
use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Hook, Op, When};
use vram_residency::{
    Account, Budget, ByteLen, CompactBudget, Device, GpuChoice, GpuIndex, MemoryMode, ModelPlan,
    ParkedShard, Piece, PlanReservation, Protection, Reconciliation, Reservation, ReserveRequest,
    SealRequest, SealedShard, VramError, VramManager,
};
use vram_test_rigs::{CallingClock, Rig};

const TOTAL: u64 = 1 << 16;
const MODES: [MemoryMode; 2] = [MemoryMode::Region, MemoryMode::Blocks];

/// Two GPUs with a budget of `TOTAL`, and the same amount beside it.
fn rig(mode: MemoryMode) -> Rig {
    let lens = [2 * usize::try_from(TOTAL).unwrap(); 2];
    Rig::in_mode(mode, &lens, |builder| {
        let budget = Budget::Bytes(ByteLen::new(TOTAL));
        builder.budget(0, budget).budget(1, budget)
    })
}

fn agreed(manager: &VramManager) -> Vec<Reconciliation> {
    let all = manager.reconcile_all().into_iter().map(Result::unwrap).collect::<Vec<_>>();
    for accounts in &all {
        assert!(accounts.agrees && accounts.steady, "{accounts}");
        assert_eq!(accounts.in_flight, ByteLen::ZERO, "{accounts}");
    }
    all
}

#[derive(Clone, Debug)]
enum Step {
    Seal(usize, u32, bool),
    Free(Index),
    Migrate(Index, u32),
    Turn(Index),
    Park(Index),
    Wake(Index, u32),
    Reserve(u64, u32),
    ReservePlan(Vec<u64>),
    SealReserved(Index, usize),
    GiveUp(Index),
    Compact(u32),
    Budget(u64, u32),
}

fn steps() -> impl Strategy<Value = Step> {
    let gpu = || 0..2_u32;
    prop_oneof![
        5 => (0..20_000_usize, gpu(), any::<bool>()).prop_map(|(len, gpu, open)| Step::Seal(len, gpu, open)),
        3 => any::<Index>().prop_map(Step::Free),
        1 => (any::<Index>(), gpu()).prop_map(|(which, gpu)| Step::Migrate(which, gpu)),
        1 => any::<Index>().prop_map(Step::Turn),
        1 => any::<Index>().prop_map(Step::Park),
        1 => (any::<Index>(), gpu()).prop_map(|(which, gpu)| Step::Wake(which, gpu)),
        2 => (0..30_000_u64, gpu()).prop_map(|(len, gpu)| Step::Reserve(len, gpu)),
        1 => proptest::collection::vec(0..9000_u64, 1..4).prop_map(Step::ReservePlan),
        2 => (any::<Index>(), 0..9000_usize).prop_map(|(which, len)| Step::SealReserved(which, len)),
        1 => any::<Index>().prop_map(Step::GiveUp),
        1 => gpu().prop_map(Step::Compact),
        1 => (0..TOTAL, gpu()).prop_map(|(bytes, gpu)| Step::Budget(bytes, gpu)),
    ]
}

#[derive(Default)]
struct Hands {
    shards: Vec<SealedShard>,
    parked: Vec<ParkedShard>,
    reservations: Vec<(Reservation, u32)>,
    plans: Vec<PlanReservation>,
}

/// Removes and returns one element of a list.
fn take<T>(list: &mut Vec<T>, which: Index) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(which.index(list.len())))
}

fn carry_out(manager: &VramManager, hands: &mut Hands, step: Step) {
    match step {
        Step::Seal(len, gpu, open) => {
            let protection = if open { Protection::Authenticated } else { Protection::Encrypted };
            let request = SealRequest::new("model", gpu).protection(protection);
            hands.shards.extend(manager.seal(request, &vec![3; len]));
        }
        Step::Free(which) => {
            if let Some(shard) = take(&mut hands.shards, which) {
                manager.free_shard(&shard).unwrap();
            }
        }
        Step::Migrate(which, gpu) => {
            if let Some(shard) = take(&mut hands.shards, which) {
                hands.shards.push(manager.migrate_shard(&shard, gpu).unwrap_or(shard));
            }
        }
        Step::Turn(which) => {
            if let Some(shard) = take(&mut hands.shards, which) {
                hands.shards.push(match shard.protection {
                    Protection::Encrypted => manager.open_resident(&shard).unwrap(),
                    _ => manager.close_resident(&shard).unwrap(),
                });
            }
        }
        Step::Park(which) => {
            if let Some(shard) = take(&mut hands.shards, which) {
                hands.parked.push(manager.park(&shard).unwrap());
            }
        }
        Step::Wake(which, gpu) => {
            if let Some(parked) = take(&mut hands.parked, which) {
                match manager.wake(parked, gpu) {
                    Ok(shard) => hands.shards.push(shard),
                    Err(refused) => hands.parked.push(refused.into_parts().0),
                }
            }
        }
        Step::Reserve(len, gpu) => {
            let reserved = manager.reserve(gpu, ByteLen::new(len));
            hands.reservations.extend(reserved.map(|reservation| (reservation, gpu)));
        }
        Step::ReservePlan(lens) => {
            let mut offset = 0;
            let pieces = lens.iter().map(|len| {
                let piece = Piece::new(format!("t{offset}"), 0, offset, ByteLen::new(*len));
                offset += len + 1;
                piece
            });
            let plan = ModelPlan::new(pieces.collect::<Vec<_>>()).unwrap();
            hands.plans.extend(manager.reserve_plan(&plan, GpuChoice::MostRoomFirst));
        }
        Step::SealReserved(which, len) => {
            if !hands.reservations.is_empty() {
                let at = which.index(hands.reservations.len());
                let (reservation, gpu) = &mut hands.reservations[at];
                let request = SealRequest::new("model", *gpu);
                hands.shards.extend(manager.seal_reserved(reservation, request, &vec![4; len]));
            }
        }
        Step::GiveUp(which) => {
            if hands.plans.is_empty() {
                drop(take(&mut hands.reservations, which));
            } else {
                drop(take(&mut hands.plans, which));
            }
        }
        Step::Compact(gpu) => drop(manager.compact(gpu, CompactBudget::default())),
        Step::Budget(bytes, gpu) => manager.set_budget(gpu, ByteLen::new(bytes)).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_done_all_accounts_agree_to_the_byte(
        mode in prop_oneof![Just(MemoryMode::Region), Just(MemoryMode::Blocks)],
        steps in proptest::collection::vec(steps(), 1..40),
    ) {
        let rig = rig(mode);
        let mut hands = Hands::default();
        for step in steps {
            carry_out(&rig.manager, &mut hands, step);
            let accounts = agreed(&rig.manager);
            let on = |gpu| {
                let here = rig.manager.shards().into_iter().filter(move |one| one.gpu_index == gpu);
                here.map(|one| one.plaintext_len.next_multiple_of(256)).sum::<u64>()
            };
            for one in &accounts {
                prop_assert_eq!(one.resident.get(), on(one.gpu));
                prop_assert_eq!(one.driver.others, ByteLen::ZERO);
            }
        }
    }
}

#[test]
fn refused_frees_stay_accounted_for() {
    for mode in MODES {
        let Rig { devices, manager, .. } = rig(mode);
        let keep = manager.seal_model("keep", 0, &[1; 1000]).unwrap();
        let [wiped, freed] = ["a", "b"].map(|id| manager.seal_model(id, 0, &[1; 5000]).unwrap());
        let error = GpuError::driver(GpuIndex::new(0), 1);
        devices[0].add(Op::Fill, When::From(1), Action::Fail(error)).unwrap();
        assert!(matches!(manager.free_shard(&wiped), Err(VramError::NotReturned { .. })));
        if mode == MemoryMode::Blocks {
            assert!(matches!(manager.free_shard(&freed), Err(VramError::NotReturned { .. })));
        }
        let accounts = &agreed(&manager)[0];
        let expected = if mode == MemoryMode::Blocks { 2 * 5120 } else { 5120 };
        assert_eq!(accounts.unreturned.get(), expected, "{accounts}");
        devices[0].clear();
        manager.free_shard(&keep).unwrap();
        agreed(&manager);
    }
}

#[test]
fn what_is_taken_behind_the_managers_back_shows_as_held_by_others() {
    for mode in MODES {
        let Rig { devices, manager, .. } = rig(mode);
        let _shard = manager.seal_model("model", 0, &[1; 5000]).unwrap();
        let leak = devices[0]
            .allocate(ByteLen::new(TOTAL + 4096))
            .or_else(|_| devices[0].allocate(ByteLen::new(TOTAL - 4096)));
        let leak = leak.unwrap();
        let accounts = manager.reconcile(0).unwrap();
        assert!(accounts.agrees, "{accounts}");
        assert_eq!(accounts.driver.others, leak.len(), "{accounts}");
        if mode == MemoryMode::Blocks {
            assert_eq!(accounts.driver.foreign.get(), 4096, "{accounts}");
            assert_eq!(manager.capacity(0).unwrap().foreign.get(), 4096, "and it is not granted");
        }
        drop(leak);
        let accounts = manager.reconcile(0).unwrap();
        assert_eq!(accounts.driver.others, ByteLen::ZERO, "{accounts}");
        assert_eq!(manager.capacity(0).unwrap().foreign, ByteLen::ZERO);
    }
}

#[test]
fn a_seal_under_way_is_in_flight_and_no_disagreement() {
    for mode in MODES {
        let Rig { devices, manager, .. } = rig(mode);
        let manager = Arc::new(manager);
        let seen = Arc::new(Mutex::new(None));
        let hook = {
            let (manager, seen) = (Arc::clone(&manager), Arc::clone(&seen));
            Hook::new(move || *seen.lock().unwrap() = Some(manager.reconcile(0).unwrap()))
        };
        devices[0].add(Op::QueueWrite, When::Nth(1), Action::Run(hook)).unwrap();
        let shard = manager.seal_model("model", 0, &[1; 5000]).unwrap();
        let during = seen.lock().unwrap().take().unwrap();
        assert!(during.agrees, "{during}");
        assert_eq!((during.in_flight.get(), during.resident.get()), (5120, 0), "{during}");
        manager.free_shard(&shard).unwrap();
        agreed(&manager);
    }
}

#[test]
fn while_threads_come_and_go_no_difference_is_told() {
    for mode in MODES {
        let Rig { manager, .. } = rig(mode);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let manager = &manager;
                scope.spawn(move || {
                    for turn in 0..150_usize {
                        let data = vec![1; (turn * 97 + thread) % 6000];
                        let shard = manager.seal_model("model", 0, &data).unwrap();
                        manager.free_shard(&shard).unwrap();
                    }
                });
            }
            for _ in 0..100 {
                let accounts = manager.reconcile(0).unwrap();
                assert!(accounts.agrees, "{accounts}");
            }
        });
        agreed(&manager);
    }
}

/// The caller's clock looks at the accounts each time that it is asked: in the middle of reserving
/// and of giving up, of one that expires.
#[test]
fn in_the_middle_of_reserving_no_difference_is_told() {
    for mode in MODES {
        let looking = Arc::new(Mutex::new(Weak::<Rig>::new()));
        let looks = Arc::new(AtomicU64::new(0));
        let (to_look_at, counted) = (Arc::clone(&looking), Arc::clone(&looks));
        let on_monotonic = move || {
            // Its own look asks the clock too.
            let rig = core::mem::take(&mut *to_look_at.lock().unwrap());
            let Some(rig) = rig.upgrade() else { return };
            let accounts = rig.manager.reconcile(0).unwrap();
            assert!(accounts.agrees, "{accounts}");
            counted.fetch_add(1, Ordering::Relaxed);
            *to_look_at.lock().unwrap() = Arc::downgrade(&rig);
        };
        let clock = Arc::new(CallingClock { on_now: || {}, on_monotonic });
        let lens = [2 * usize::try_from(TOTAL).unwrap(); 2];
        let rig = Arc::new(Rig::in_mode(mode, &lens, |builder| builder.clock(clock)));
        *looking.lock().unwrap() = Arc::downgrade(&rig);
        for expiry in [Duration::ZERO, Duration::from_secs(1000)] {
            let request = ReserveRequest::new(0, ByteLen::new(1000)).expires_in(expiry);
            let held = rig.manager.reserve_with(request).unwrap();
            assert_eq!(held.remaining().is_zero(), expiry.is_zero());
        }
        *looking.lock().unwrap() = Weak::new();
        assert!(looks.load(Ordering::Relaxed) > 2);
    }
}

#[test]
fn while_threads_reserve_and_give_up_no_difference_is_told() {
    let Rig { manager, .. } = rig(MemoryMode::Region);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let (manager, over) = (&manager, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Acquire) {
                    let bytes = ByteLen::new(256 * (1 + thread));
                    let request = ReserveRequest::new(0, bytes);
                    let held = if thread == 0 {
                        manager.reserve_with(request.expires_in(Duration::from_nanos(1)))
                    } else {
                        manager.reserve_with(request)
                    };
                    let mut held = held.unwrap();
                    if thread == 1 {
                        let request = SealRequest::new("model", 0);
                        let shard = manager.seal_reserved(&mut held, request, &[1; 100]).unwrap();
                        manager.free_shard(&shard).unwrap();
                    }
                }
            });
        }
        let looked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            for _ in 0..3000 {
                let accounts = manager.reconcile(0).unwrap();
                assert!(accounts.agrees, "{accounts}");
            }
        }));
        over.store(true, Ordering::Release);
        if let Err(panic) = looked {
            std::panic::resume_unwind(panic);
        }
    });
    agreed(&manager);
}

#[test]
fn a_lost_gpu_says_so_and_the_others_are_looked_at() {
    let Rig { devices, manager, .. } = rig(MemoryMode::Region);
    devices[0].next(Op::Memory, Action::Driver(700)).unwrap();
    let all = manager.reconcile_all();
    assert!(matches!(all[0], Err(VramError::DeviceLost { gpu: 0, .. })));
    assert!(all[1].as_ref().unwrap().agrees);
    assert!(matches!(manager.reconcile(2), Err(VramError::UnknownGpu { .. })));
}

#[test]
fn the_driver_saying_less_than_is_held_is_a_difference_and_the_table_names_it() {
    let Rig { devices, manager, .. } = rig(MemoryMode::Region);
    let _shard = manager.seal_model("model", 0, &[1; 5000]).unwrap();
    let table = manager.reconcile(0).unwrap().to_string();
    assert!(table.starts_with("gpu 0: all accounts agree\n"), "{table}");
    assert!(table.contains("  registry   resident                        5120\n"), "{table}");
    // The device forgets its allocations: as after a reset from outside the manager.
    devices[0].reset().unwrap();
    match manager.reconcile(0) {
        Ok(accounts) => {
            assert!(!accounts.agrees, "{accounts}");
            assert_eq!(accounts.differences[0].account, Account::Driver);
            assert!(accounts.to_string().contains("in use by the driver's word: 0 bytes"));
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_gpu_without_a_byte_and_shards_without_one_agree_too() {
    for mode in MODES {
        let builder = VramManager::builder().host_device(ByteLen::ZERO).memory(0, mode);
        let manager = builder.build().unwrap();
        agreed(&manager);
        let shard = manager.seal_model("model", 0, &[]).unwrap();
        let accounts = &agreed(&manager)[0];
        assert_eq!((accounts.shard_count, accounts.resident), (1, ByteLen::ZERO));
        manager.free_shard(&shard).unwrap();
        agreed(&manager);
    }
}
