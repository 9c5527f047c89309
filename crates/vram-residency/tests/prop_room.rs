//! Property: the ledger of reservations agrees with a plain sum after any operations in any order;
//! `fits` predicts `admit`; and carrying out the plan in a refusal makes the same request succeed,
//! with exactly the predicted room.
//!
//! Method: random runs over small GPUs, so that every bound is reached often. The reference is a
//! list of lengths.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

use core::time::Duration;
use std::sync::Arc;

use proptest::prelude::*;
use vram_residency::{
    AdmitRequest, ByteLen, Clock, CostPerByte, GpuChoice, Lease, Lru, ModelPlan, OnEviction, Piece,
    Priority, Reservation, ReserveRequest, SealRequest, SealedShard, SliceSource, Threads,
    VramError, VramManager, VramManagerBuilder,
};
use vram_test_rigs::TestClock;

#[derive(Clone, Debug)]
enum Step {
    /// Reserve this many bytes, optionally with an expiry in milliseconds.
    Reserve(u64, Option<u64>),
    /// Seal this many bytes into one of the reservations.
    SealReserved(usize, u64),
    /// Seal this many bytes into free room.
    Seal(u64),
    Free(usize),
    Release(usize),
    /// Advance the clock.
    Wait(u64),
    Budget(u64),
    Headroom(u64),
}

fn step(total: u64) -> impl Strategy<Value = Step> {
    let len = 0..=total / 2;
    prop_oneof![
        4 => (len.clone(), prop::option::of(0_u64..50)).prop_map(|(len, ms)| Step::Reserve(len, ms)),
        4 => (any::<usize>(), len.clone()).prop_map(|(at, len)| Step::SealReserved(at, len)),
        3 => len.prop_map(Step::Seal),
        2 => any::<usize>().prop_map(Step::Free),
        2 => any::<usize>().prop_map(Step::Release),
        2 => (0_u64..30).prop_map(Step::Wait),
        1 => (0..=total).prop_map(Step::Budget),
        1 => (0..=total / 4).prop_map(Step::Headroom),
    ]
}

/// One reservation in the reference.
struct Held {
    real: Reservation,
    left: u64,
    ends: Option<u64>,
}

fn granules(len: u64) -> u64 {
    len.div_ceil(256) * 256
}

fn builder(totals: &[u64]) -> VramManagerBuilder {
    let one = VramManager::builder().threads(Threads::ONE);
    totals.iter().fold(one, |builder, total| builder.host_device(ByteLen::new(*total)))
}

fn data(len: u64) -> Vec<u8> {
    vec![0x5A; usize::try_from(len).unwrap()]
}

proptest! {
    #[test]
    fn reservations_agree_with_a_plain_sum(
        (total, steps) in (1_u64..64).prop_flat_map(|granules| {
            let total = granules * 256;
            (Just(total), prop::collection::vec(step(total), 1..40))
        }),
    ) {
        let clock = TestClock::new();
        let manager = builder(&[total]).clock(Arc::<TestClock>::clone(&clock)).build().unwrap();
        let mut held: Vec<Held> = Vec::new();
        let mut shards: Vec<(SealedShard, u64)> = Vec::new();
        let (mut budget, mut headroom) = (total, 0);
        for step in steps {
            let now = u64::try_from(clock.monotonic().as_millis()).unwrap();
            let live = |one: &Held| one.ends.is_none_or(|end| now < end);
            for one in &mut held {
                one.left = if live(one) { one.left } else { 0 };
            }
            let reserved: u64 = held.iter().map(|one| one.left).sum();
            let used: u64 = shards.iter().map(|(_, len)| len).sum();
            let room = budget.saturating_sub(used + reserved).saturating_sub(headroom);
            match step {
                Step::Reserve(len, ms) => {
                    let request = ReserveRequest::new(0, ByteLen::new(len));
                    let request = match ms {
                        Some(ms) => request.expires_in(Duration::from_millis(ms)),
                        None => request,
                    };
                    match manager.reserve_with(request) {
                        Ok(real) => {
                            let left = real.len().get();
                            // In whole granules, unless only the exact bytes are left.
                            prop_assert!(left == granules(len) || (left == len && room < granules(len)));
                            prop_assert!(left <= room);
                            held.push(Held { real, left, ends: ms.map(|ms| now + ms) });
                        }
                        Err(error) => {
                            prop_assert!(matches!(error, VramError::InsufficientVram(_)), "{error}");
                            prop_assert!(len > room);
                        }
                    }
                }
                Step::SealReserved(at, len) if !held.is_empty() => {
                    let at = at % held.len();
                    let one = &mut held[at];
                    let expired = one.ends.is_some_and(|end| end <= now);
                    let request = SealRequest::new("reserved", 0);
                    match manager.seal_reserved(&mut one.real, request, &data(len)) {
                        Ok(shard) => {
                            prop_assert!(!expired && granules(len) <= one.left);
                            one.left -= granules(len);
                            shards.push((shard, granules(len)));
                        }
                        Err(VramError::ReservationExpired { .. }) => prop_assert!(expired),
                        Err(VramError::ReservationTooSmall { remaining, .. }) => {
                            prop_assert_eq!(remaining.get(), one.left);
                            prop_assert!(granules(len) > one.left);
                        }
                        // Bytes are promised, not one piece.
                        Err(VramError::InsufficientVram(short)) => {
                            prop_assert!(short.largest_hole.get() < granules(len));
                        }
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                }
                Step::Seal(len) => match manager.seal_model("free", 0, &data(len)) {
                    Ok(shard) => {
                        prop_assert!(granules(len) <= room);
                        shards.push((shard, granules(len)));
                    }
                    Err(VramError::InsufficientVram(short)) => {
                        prop_assert!(
                            granules(len) > room || short.largest_hole.get() < granules(len)
                        );
                    }
                    Err(error) => prop_assert!(false, "{error}"),
                },
                Step::Free(at) if !shards.is_empty() => {
                    let (shard, _) = shards.swap_remove(at % shards.len());
                    manager.free_shard(&shard).unwrap();
                }
                Step::Release(at) if !held.is_empty() => {
                    held.swap_remove(at % held.len()).real.release();
                }
                Step::Wait(ms) => {
                    clock.advance(Duration::from_millis(ms));
                }
                Step::Budget(bytes) => {
                    manager.set_budget(0, ByteLen::new(bytes)).unwrap();
                    budget = bytes;
                }
                Step::Headroom(bytes) => {
                    manager.set_headroom(0, ByteLen::new(bytes)).unwrap();
                    headroom = bytes;
                }
                Step::SealReserved(..) | Step::Free(_) | Step::Release(_) => {}
            }
            let now = u64::try_from(clock.monotonic().as_millis()).unwrap();
            for one in &mut held {
                one.left = if one.ends.is_none_or(|end| now < end) { one.left } else { 0 };
                prop_assert_eq!(one.real.remaining().get(), one.left);
            }
            let capacity = manager.capacity(0).unwrap();
            let reserved: u64 = held.iter().map(|one| one.left).sum();
            prop_assert_eq!(capacity.reserved.get(), reserved);
            prop_assert_eq!(capacity.used.get(), shards.iter().map(|(_, len)| len).sum::<u64>());
        }
        drop(held);
        for (shard, _) in shards {
            prop_assert!(manager.unseal_and_free(&shard).is_ok());
        }
        let capacity = manager.capacity(0).unwrap();
        prop_assert_eq!((capacity.used, capacity.reserved), (ByteLen::ZERO, ByteLen::ZERO));
        prop_assert_eq!(capacity.largest_hole.get(), total);
    }

    #[test]
    fn fits_foretells_admission_and_a_held_plan_is_always_admitted(
        totals in prop::collection::vec(1_u64..12_000, 1..4),
        before in prop::collection::vec((0_usize..4, 1_u64..3_000, any::<bool>()), 0..12),
        lens in prop::collection::vec(0_u64..4_000, 0..8),
        one in prop::option::of(0_usize..4),
    ) {
        let manager = builder(&totals).build().unwrap();
        // Creates holes: frees some of the sealed shards.
        let mut gone = Vec::new();
        for (gpu, len, goes) in before {
            let gpu = u32::try_from(gpu % totals.len()).unwrap();
            if let Ok(shard) = manager.seal_model("before", gpu, &data(len))
                && goes
            {
                gone.push(shard);
            }
        }
        for shard in gone {
            manager.free_shard(&shard).unwrap();
        }
        let choice = one.map_or(GpuChoice::MostRoomFirst, |gpu| {
            GpuChoice::One(u32::try_from(gpu % totals.len()).unwrap())
        });
        let (plan, file) = model(&lens);
        let source = vec![SliceSource::new(&file)];
        let figures = |manager: &VramManager| {
            (0..manager.gpu_count()).map(|gpu| manager.capacity(gpu).unwrap()).collect::<Vec<_>>()
        };
        let now = figures(&manager);

        let answer = manager.fits(&plan, choice).unwrap();
        prop_assert_eq!(&figures(&manager), &now);
        match manager.reserve_plan(&plan, choice) {
            Ok(mut held) => {
                let vram_residency::Fit::Fits { footprint } = answer else {
                    return Err(TestCaseError::fail(format!("{answer}, and it does")));
                };
                prop_assert_eq!(held.len(), footprint);
                let model =
                    manager.admit_reserved(&mut held, AdmitRequest::new("model", choice), &source);
                prop_assert_eq!(model.unwrap().pieces.len(), lens.len());
            }
            Err(error) => {
                prop_assert!(matches!(error, VramError::InsufficientVram(_)), "{error}");
                prop_assert!(!answer.is_yes(), "{answer}, and it does not: {error}");
                prop_assert_eq!(&figures(&manager), &now);
                prop_assert!(
                    manager.admit(AdmitRequest::new("model", choice), &plan, &source).is_err()
                );
            }
        }
    }

    #[test]
    fn the_plan_of_a_refusal_makes_the_same_request_succeed(
        totals in prop::collection::vec(1_u64..12_000, 1..3),
        policy in 0..3,
        residents in prop::collection::vec(
            (0_usize..3, 1_u64..3_000, 0_u32..3, 0_u64..100, 0..3_u8, any::<bool>()), 0..16,
        ),
        headroom in 0_u64..600,
        lens in prop::collection::vec(1_u64..4_000, 1..5),
        model_wise in any::<bool>(),
        priority in 0_u32..3,
    ) {
        let builder = builder(&totals).headroom(0, ByteLen::new(headroom));
        let manager = match policy {
            0 => builder.eviction(Lru),
            1 => builder.eviction(Priority),
            _ => builder.eviction(CostPerByte),
        }
        .build()
        .unwrap();
        let mut leases: Vec<Lease> = Vec::new();
        for (gpu, len, priority, cost, fate, leased) in residents {
            let gpu = u32::try_from(gpu % totals.len()).unwrap();
            let request = SealRequest::new("resident", gpu).priority(priority).cost(cost);
            let request = request.evicts(false).on_eviction(match fate {
                0 => OnEviction::Never,
                1 => OnEviction::Park,
                _ => OnEviction::Free,
            });
            if let Ok(shard) = manager.seal(request, &data(len))
                && leased
                && fate != 2
            {
                leases.push(manager.lease(&shard).unwrap());
            }
        }
        let (plan, file) = model(&lens);
        let source = vec![SliceSource::new(&file)];
        let attempt = || {
            if model_wise {
                let request = AdmitRequest::new("new", GpuChoice::MostRoomFirst);
                let request = request.priority(priority).evicts(false);
                manager.admit(request, &plan, &source).map(|_model| ())
            } else {
                let request = SealRequest::new("new", 0).priority(priority).evicts(false);
                manager.seal(request, &file[..usize::try_from(lens[0]).unwrap()]).map(|_shard| ())
            }
        };
        let before = manager.snapshot().state;
        let Err(VramError::InsufficientVram(short)) = attempt() else { return Ok(()) };
        prop_assert_eq!(&manager.snapshot().state, &before, "a refusal and its plan change nothing");
        let Some(eviction) = short.plan else { return Ok(()) };
        for one in &eviction.evictions {
            let shard = before.shards.iter().find(|shard| shard.shard_id == one.shard_id).unwrap();
            prop_assert_eq!(shard.leases, 0);
            prop_assert!(shard.priority <= priority);
            prop_assert_ne!(shard.on_eviction, OnEviction::Never);
        }

        let report = manager.evict(&eviction).unwrap();
        prop_assert!(report.is_complete());
        prop_assert_eq!(report.bytes, eviction.bytes);
        for after in &eviction.after {
            let capacity = manager.capacity(after.gpu).unwrap();
            prop_assert_eq!((capacity.room, capacity.largest_hole), (after.room, after.largest_hole));
        }
        let outcome = attempt();
        prop_assert!(outcome.is_ok(), "{outcome:?}");
        for lease in &leases {
            prop_assert!(manager.verify_shard_integrity(lease.shard()).unwrap());
        }
    }
}

/// A model of pieces of these lengths, and the content of its file.
fn model(lens: &[u64]) -> (ModelPlan, Vec<u8>) {
    let mut offset = 0;
    let pieces = lens.iter().enumerate().map(|(at, len)| {
        let piece = Piece::new(format!("{at}"), 0, offset, ByteLen::new(*len));
        offset += len;
        piece
    });
    let plan = ModelPlan::new(pieces.collect::<Vec<_>>()).unwrap();
    (plan, data(offset))
}
