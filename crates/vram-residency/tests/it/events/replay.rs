//! Many threads: the state can be derived from events alone, and their numbers have no gap.

use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeMap;
use std::sync::Barrier;

use vram_residency::{Event, EventKind, OnEviction, SealRequest, SealedShard, ShardId, WakeError};

use vram_test_rigs::{SEGMENT, weights};

use super::{LONG, rig};

/// A shard's state after its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Gpu(u32),
    Host,
}

/// Follows events from the first one on. Returns where each shard is at the end.
fn follow(told: Vec<Event>) -> BTreeMap<ShardId, Place> {
    for (number, event) in (0..).zip(&told) {
        assert_eq!(event.seq, number, "neither a gap nor twice");
    }
    let mut places: BTreeMap<ShardId, Place> = BTreeMap::new();
    for event in told {
        let mut step = |shard: &ShardId, from: Option<Place>, to: Option<Place>| {
            assert_eq!(places.get(shard).copied(), from, "{event:?}");
            match to {
                Some(place) => drop(places.insert(shard.clone(), place)),
                None => drop(places.remove(shard)),
            }
        };
        match &event.kind {
            EventKind::Sealed { shard, gpu, .. } => step(shard, None, Some(Place::Gpu(*gpu))),
            EventKind::Moved { shard, from, to, .. } => {
                step(shard, Some(Place::Gpu(*from)), Some(Place::Gpu(*to)));
            }
            EventKind::SealedAnew { shard, gpu, .. } | EventKind::Evicted { shard, gpu, .. } => {
                step(shard, Some(Place::Gpu(*gpu)), Some(Place::Gpu(*gpu)));
            }
            EventKind::Parked { shard, gpu, .. } => {
                step(shard, Some(Place::Gpu(*gpu)), Some(Place::Host));
            }
            EventKind::Woken { shard, gpu, .. } => {
                step(shard, Some(Place::Host), Some(Place::Gpu(*gpu)));
            }
            EventKind::Freed { shard, gpu, .. } => step(shard, Some(Place::Gpu(*gpu)), None),
            EventKind::Refused { .. } => {}
            other => panic!("nothing else happened: {other:?}"),
        }
    }
    places
}

/// Property: the events determine what is resident where and what is parked.
///
/// Method: four threads seal, move, park, wake and free shards of their own and of each other, with
/// too little room, so that evictions happen in between. The reference is the snapshot at the end.
/// An impossible event (a shard that is freed before it was sealed, or moved from a GPU where it is
/// not) fails at once.
#[test]
fn following_the_events_tells_what_is_where() {
    let rig = rig(&[24 * SEGMENT, 24 * SEGMENT]);
    let manager = &rig.manager;
    let barrier = Barrier::new(4);
    let kept = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u32)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let free = |shard: &SealedShard| drop(manager.free_shard(shard));
                    let mut parked = Vec::new();
                    for round in 0..60_u32 {
                        let pick = (round * 7 + thread * 3) % 11;
                        let how = if round % 2 == 0 { OnEviction::Park } else { OnEviction::Free };
                        let request = SealRequest::new("m", round % 2).on_eviction(how);
                        let sealed = manager.seal(request, &weights(3 * SEGMENT));
                        let any = manager.shards();
                        let Some(shard) = sealed.ok().or_else(|| any.first().cloned()) else {
                            continue;
                        };
                        // Another thread may have been faster, or there is no room: both results
                        // are allowed.
                        match pick {
                            0..3 => drop(manager.migrate_shard(&shard, (round + 1) % 2)),
                            3..5 => parked.extend(manager.park(&shard)),
                            5..7 => any.last().map_or((), free),
                            7 => drop(manager.open_resident(&shard)),
                            _ => {
                                if let Some(one) = parked.pop() {
                                    let woken = manager.wake(one, round % 2);
                                    parked.extend(woken.err().map(WakeError::into_parked));
                                }
                            }
                        }
                        parked.extend(manager.take_evicted());
                    }
                    parked
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let told = rig.told();

    let places = follow(told);
    let state = manager.snapshot().state;
    let resident = state.shards.iter().map(|shard| (&shard.shard_id, Place::Gpu(shard.gpu)));
    let parked = state.parked.iter().map(|shard| (&shard.shard_id, Place::Host));
    let there: BTreeMap<_, _> = resident.chain(parked).map(|(id, at)| (id.clone(), at)).collect();
    assert_eq!(places, there);
    assert_eq!(state.parked.len(), kept.len());
}

/// One thread parks and wakes a shard, and others move it as soon as they find it.
#[test]
fn nothing_is_told_of_a_shard_before_it_is_told_to_be_there() {
    let rig = rig(&[8 * SEGMENT, 8 * SEGMENT]);
    let manager = &rig.manager;
    let shard = manager.seal_model("m", 0, b"x").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for gpu in [0, 1] {
            let (id, done) = (&shard.shard_id, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    if let Some(shard) = manager.shard(id) {
                        drop(manager.migrate_shard(&shard, gpu));
                    }
                }
            });
        }
        for _ in 0..400 {
            let mut parked = manager.park(&shard).unwrap();
            // Its move may be running just now: then there is no room for a second copy.
            while let Err(error) = manager.wake(parked, 0) {
                parked = error.into_parked();
            }
            let short = SealRequest::new("short", 1);
            let short = manager.seal(short, b"y").unwrap();
            manager.free_shard(&short).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(follow(rig.told()).len(), 1);
}

#[test]
fn numbers_have_no_gap_whoever_emits() {
    let rig = rig(&[1 << 20]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    rig.manager.seal_model("m", 9, b"x").unwrap_err();
                }
            });
        }
    });
    assert!(rig.manager.flush_events(LONG));
    let told = rig.log.take();
    let numbers: Vec<_> = told.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (0..4000).collect::<Vec<_>>());
    let counts = rig.manager.event_counts()[0];
    assert_eq!((counts.emitted, counts.delivered, counts.dropped), (4000, 4000, 0));
}
