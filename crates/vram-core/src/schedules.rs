//! Models of whole calls under shuttle: publishing, freeing, seats, repair, reset and close of one
//! manager over one small device.
//!
//! Each model runs under many schedules (see `sync.rs`). What is compared does not depend on the
//! schedule: who may be refused and why, and that the books agree in the end.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::Arc;

use shuttle::thread::spawn;
use vram_alloc::{ByteLen, DeviceOffset, GpuIndex};
use vram_files::SliceSource;
use vram_gpu::HostDevice;
use vram_gpu::fault::{FaultDevice, FaultPlan};
use vram_id::SystemClock;

use crate::close::close;
use crate::error::VramError;
use crate::parts::core::testing;
use crate::parts::{Core, Limits};
use crate::repair::{RepairOptions, repair_from};
use crate::reports::reconcile::reconcile;
use crate::reset::{ResetOptions, reset};
use crate::resident::read;
use crate::room::{free, host_copy, park};
use crate::scrub::Scrubbing;
use crate::sealing::{SealRequest, seal};
use crate::shard::SealedShard;
use crate::sync::models::under_all_schedules;

const LEN: usize = 100;

/// One manager, what lies on its device when the threads begin, and the device.
struct World {
    core: Arc<Core>,
    shards: Vec<SealedShard>,
    device: Arc<FaultDevice>,
}

type Shared = Arc<World>;

fn content(of: &str) -> Vec<u8> {
    of.bytes().cycle().take(LEN).collect()
}

/// Whether this refuses a call that another one overtook.
fn is_overtaken(error: &VramError) -> bool {
    matches!(
        error,
        VramError::ShardFreed { .. }
            | VramError::Parked { .. }
            | VramError::Restoring { .. }
            | VramError::StaleHandle { .. }
            | VramError::GpuInUse { .. }
            | VramError::Closed
    )
}

impl World {
    fn with(names: &[&str], seats: u64) -> Self {
        let host = HostDevice::new(GpuIndex::new(0), ByteLen::new(16 << 10)).unwrap();
        let device = FaultDevice::new(Arc::new(host), FaultPlan::new(0));
        let limits = Limits::default().shard_count_max(seats);
        let core = testing::core_on(device.clone(), Arc::new(SystemClock), limits);
        let mut world = Self { core, shards: Vec::new(), device };
        world.shards = names.iter().map(|name| world.seal(name).unwrap()).collect();
        world
    }

    fn seal(&self, name: &str) -> Result<SealedShard, VramError> {
        let shard = seal::seal_slice(&self.core, &SealRequest::new(name, 0), &content(name))?;
        let listed = self.core.registry.find(&shard.shard_id);
        // Other threads may free what they find, and nobody frees it before it is there.
        assert!(listed.is_none_or(|entry| entry.id == shard.shard_id));
        Ok(shard)
    }

    /// Reads the shard: the right bytes, or a refusal.
    fn read(&self, shard: &SealedShard) -> Result<(), VramError> {
        let bytes = read::unseal(&self.core, shard)?;
        assert_eq!(bytes, content(&shard.model_id));
        Ok(())
    }

    /// Reads everything that is listed.
    fn read_all(&self) {
        for shard in self.core.handles() {
            match self.read(&shard) {
                Ok(()) => {}
                Err(error) if is_overtaken(&error) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Frees the shard, if it is there.
    fn free(&self, shard: &SealedShard) -> bool {
        match free::free(&self.core, shard) {
            Ok(_receipt) => true,
            Err(error) if is_overtaken(&error) => false,
            Err(other) => panic!("{other}"),
        }
    }

    /// The books agree, and each shard that is listed can be read and freed.
    fn ends_well(&self) {
        assert!(reconcile(&self.core, 0).unwrap().agrees);
        for shard in self.core.handles() {
            self.read(&shard).unwrap();
            assert!(self.free(&shard));
        }
        let registry = &self.core.registry;
        assert_eq!((registry.len(), registry.census.counts(0)), (0, Default::default()));
        assert_eq!(registry.seats(), 0, "a seat was lost");
        assert_eq!(self.core.gpus[0].capacity().used, ByteLen::ZERO);
        assert!(reconcile(&self.core, 0).unwrap().agrees);
    }
}

/// Runs each call on a thread of its own, and returns what they return.
fn side_by_side<T: Send + 'static, const N: usize>(
    world: &Shared,
    calls: [fn(&World) -> T; N],
) -> Vec<T> {
    let threads = calls.map(|call| {
        let world = Arc::clone(world);
        spawn(move || call(&world))
    });
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn shuttle_a_shard_is_freed_by_one_of_those_who_free_it() {
    under_all_schedules(|| {
        let world = Arc::new(World::with(&["a"], 8));
        let freed = side_by_side(
            &world,
            [
                |world| world.free(&world.shards[0]),
                |world| world.free(&world.shards[0]),
                |world| match park::park(&world.core, &world.shards[0]) {
                    Ok(parked) => {
                        drop(parked);
                        true
                    }
                    Err(VramError::ShardFreed { .. }) => false,
                    Err(other) => panic!("{other}"),
                },
                |world| {
                    world.read_all();
                    false
                },
            ],
        );
        assert_eq!(freed.into_iter().filter(|freed| *freed).count(), 1);
        world.ends_well();
    });
}

#[test]
fn shuttle_what_is_published_is_found_read_and_freed_by_others_at_once() {
    under_all_schedules(|| {
        let world = Arc::new(World::with(&[], 8));
        side_by_side(
            &world,
            [
                |world| drop(world.seal("a").unwrap()),
                |world| drop(world.seal("b").unwrap()),
                |world| {
                    for shard in world.core.handles() {
                        assert!(world.free(&shard), "nobody else frees it");
                    }
                },
                World::read_all,
            ],
        );
        world.ends_well();
    });
}

#[test]
fn shuttle_seats_are_never_too_many_and_never_lost() {
    under_all_schedules(|| {
        let world = Arc::new(World::with(&["a"], 2));
        fn seal_one(world: &World) -> bool {
            let sealed = world.seal("b");
            assert!(world.core.registry.len() <= 2, "more shards than seats");
            match sealed {
                Ok(_) => true,
                Err(VramError::LimitExceeded { limit: 2, .. }) => false,
                Err(other) => panic!("{other}"),
            }
        }
        let done = side_by_side(&world, [seal_one, seal_one, |world| world.free(&world.shards[0])]);
        assert!(done[2], "nobody else frees it");
        assert!(done[0] || done[1], "one seat was free all the time");
        world.ends_well();
    });
}

#[test]
fn shuttle_two_repairs_and_a_reader_and_a_free_leave_a_sound_shard_or_none() {
    fn repair(world: &World) -> bool {
        let bytes = content("a");
        let source = SliceSource::new(&bytes);
        match repair_from(&world.core, &world.shards[0], &source, RepairOptions::new()) {
            Ok(report) => report.was_altered,
            Err(VramError::ShardFreed { .. } | VramError::InUse { .. }) => false,
            Err(other) => panic!("{other}"),
        }
    }
    under_all_schedules(|| {
        let world = Arc::new(World::with(&["a", "b"], 8));
        world.device.flip_bit_at(None, DeviceOffset::new(5), 1).unwrap();
        let done = side_by_side(
            &world,
            [
                repair,
                repair,
                |world| match world.read(&world.shards[0]) {
                    Err(VramError::ShardAltered { .. } | VramError::Quarantined { .. }) => false,
                    Ok(()) | Err(VramError::ShardFreed { .. }) => true,
                    Err(other) => panic!("{other}"),
                },
                |world| world.free(&world.shards[0]),
            ],
        );
        assert!(done[3], "nobody else frees it");
        assert!(!(done[0] && done[1]), "there was one alteration");
        world.ends_well();
    });
}

#[test]
fn shuttle_a_reset_beside_seals_reads_and_frees_loses_no_seat_and_no_byte() {
    under_all_schedules(|| {
        let world = Arc::new(World::with(&["a", "b"], 8));
        host_copy::back_up(&world.core, &world.shards[0]).unwrap();
        side_by_side(
            &world,
            [
                |world| match reset(&world.core, 0, ResetOptions::new().force()) {
                    Ok(report) => assert!(report.parked.is_empty() && report.restored.len() <= 1),
                    Err(VramError::GpuInUse { .. }) => {}
                    Err(other) => panic!("{other}"),
                },
                |world| match world.seal("c") {
                    Ok(_) | Err(VramError::GpuInUse { .. } | VramError::DeviceLost { .. }) => {}
                    Err(other) => panic!("{other}"),
                },
                |world| {
                    world.free(&world.shards[0]);
                },
                World::read_all,
            ],
        );
        world.ends_well();
    });
}

#[test]
fn shuttle_a_close_ends_everything_or_says_what_is_left() {
    /// With a deadline that has passed, or with none. One in between would pass for one wait of the
    /// call, and not for the next.
    fn end(world: &World, within: Duration) {
        let report = close(&world.core, &Scrubbing::default(), within);
        let left = !report.left.is_empty() || report.under_way > 0;
        assert_eq!(report.complete, !left && report.unreturned.is_empty(), "{report:?}");
        assert!(report.complete || within.is_zero(), "{report:?}");
        assert!(matches!(world.seal("late"), Err(VramError::Closed)));
    }
    under_all_schedules(|| {
        let world = Arc::new(World::with(&["a", "b"], 8));
        side_by_side(
            &world,
            [
                |world| end(world, Duration::MAX),
                |world| end(world, Duration::ZERO),
                |world| end(world, Duration::MAX),
                |world| match world.seal("c") {
                    Ok(_) | Err(VramError::Closed) => {}
                    Err(other) => panic!("{other}"),
                },
                |world| {
                    world.free(&world.shards[0]);
                },
                World::read_all,
            ],
        );
        // Nobody is inside now: what is left ends.
        let report = close(&world.core, &Scrubbing::default(), Duration::MAX);
        assert!(report.complete, "{report:?}");
        let registry = &world.core.registry;
        assert_eq!((registry.len(), registry.seats()), (0, 0));
        assert!(world.core.closing.told.load(Ordering::SeqCst));
    });
}
