//! Plans: it is known before the first byte is loaded whether a model fits, and a reserved place
//! stays reserved.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    AdmitRequest, CancelToken, Fit, GpuChoice, Limits, MemoryMode, ReservePlanRequest, SealedShard,
    SegmentSize, SliceSource, VramError, VramManager,
};

use super::hands::{KIB, bytes, faulty, hosts, no_room, plan, reserved, room, timed};

const ONE: GpuChoice = GpuChoice::One(0);

fn request() -> AdmitRequest<'static> {
    AdmitRequest::new("model", ONE)
}

/// Fills a GPU and leaves holes of 1 KiB.
fn holes(manager: &VramManager) -> Vec<SealedShard> {
    let total = room(manager, 0) / KIB;
    let shards: Vec<_> =
        (0..total).map(|_| manager.seal_model("small", 0, &[0; 1024]).unwrap()).collect();
    let (free, kept): (Vec<_>, Vec<_>) =
        shards.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
    for (_, shard) in free {
        manager.free_shard(&shard).unwrap();
    }
    kept.into_iter().map(|(_, shard)| shard).collect()
}

#[test]
fn a_model_that_fits_is_told_its_footprint_and_one_that_does_not_what_is_short() {
    let manager = hosts(&[16 * KIB]).build().unwrap();
    assert_eq!(
        manager.fits(&plan(&[1000, 3000, 1]), ONE).unwrap(),
        Fit::Fits { footprint: bytes(1024 + 3072 + 256) }
    );
    assert!(manager.fits(&plan(&[16 * KIB]), ONE).unwrap().is_yes());
    match manager.fits(&plan(&[16 * KIB, 1]), ONE).unwrap() {
        Fit::ShortOf { needed, room, piece: None, .. } => {
            assert_eq!((needed.get(), room.get()), (16 * KIB + 256, 16 * KIB));
        }
        other => panic!("{other}"),
    }
    assert!(manager.fits(&plan(&[]), ONE).unwrap().is_yes());

    // Enough bytes, but no hole is long enough.
    let _kept = holes(&manager);
    assert_eq!(room(&manager, 0), 8 * KIB);
    match manager.fits(&plan(&[1000, 2000]), ONE).unwrap() {
        Fit::ShortOf { needed, largest_hole, piece, name, .. } => {
            assert_eq!((needed.get(), largest_hole.get()), (2000, KIB));
            assert_eq!((piece, name.as_str()), (Some(1), "tensor 1"));
        }
        other => panic!("{other}"),
    }
    assert!(matches!(
        manager.fits(&plan(&[1]), GpuChoice::One(7)),
        Err(VramError::UnknownGpu { .. })
    ));
}

/// Bytes that another caller reserved are not available, although nothing lies in them yet.
#[test]
fn fits_counts_what_is_promised_to_others() {
    let manager = hosts(&[16 * KIB]).build().unwrap();
    let _reservation = manager.reserve(0, bytes(8 * KIB)).unwrap();
    assert!(manager.fits(&plan(&[8 * KIB]), ONE).unwrap().is_yes());
    let answer = manager.fits(&plan(&[8 * KIB + 1]), ONE).unwrap();
    assert!(matches!(answer, Fit::ShortOf { piece: None, .. }), "{answer}");
    let answer = manager.fits(&plan(&[4 * KIB, 4 * KIB, 256]), ONE).unwrap();
    assert!(matches!(answer, Fit::ShortOf { piece: None, .. }), "{answer}");
}

#[test]
fn several_gpus_share_a_model_exactly_as_fits_says() {
    let manager = hosts(&[8 * KIB, 10 * KIB]).build().unwrap();
    let any = GpuChoice::MostRoomFirst;
    for (lens, fits) in [
        (vec![8 * KIB, 10 * KIB], false),
        (vec![10 * KIB, 8 * KIB], true),
        (vec![6 * KIB, 6 * KIB, 4 * KIB, 2 * KIB], true),
        (vec![6 * KIB, 6 * KIB, 5 * KIB], false),
        (vec![18 * KIB], false),
    ] {
        let plan = plan(&lens);
        assert_eq!(manager.fits(&plan, any).unwrap().is_yes(), fits, "{lens:?}");
        let held = manager.reserve_plan(&plan, any);
        assert_eq!(held.is_ok(), fits, "{lens:?}");
    }
    assert_eq!((room(&manager, 0), room(&manager, 1)), (8 * KIB, 10 * KIB));
}

#[test]
fn a_plan_that_is_held_still_fits_when_everything_else_is_full() {
    let manager = hosts(&[16 * KIB]).build().unwrap();
    let model = plan(&[3000, 5000, 0, 17]);
    let file: Vec<u8> = (0..8017_u32).map(|at| at.to_le_bytes()[0]).collect();
    let mut held = manager.reserve_plan(&model, ONE).unwrap();
    assert_eq!(held.len().get(), 3072 + 5120 + 256);
    assert_eq!(reserved(&manager, 0), held.len().get());
    assert_eq!(manager.reservations()[0].pieces, Some(4));

    // Fragments and fills all the rest.
    while manager.seal_model("other", 0, &[1; 256]).is_ok() {}
    assert!(no_room(&manager.admit(request(), &model, &vec![SliceSource::new(&file)])));
    let source = vec![SliceSource::new(&file)];
    let handle = manager.admit_reserved(&mut held, request(), &source).unwrap();
    let parts: Vec<u8> =
        handle.shards().flat_map(|shard| manager.unseal_model(shard).unwrap()).collect();
    assert_eq!(parts, file);
    assert_eq!((held.remaining().get(), reserved(&manager, 0)), (0, 0));

    let twice = manager.admit_reserved(&mut held, request(), &source);
    assert!(matches!(twice, Err(VramError::ReservationExpired { .. })), "{twice:?}");
    // The shards belong to the model now: dropping the reservation frees none of them.
    drop(held);
    assert_eq!(handle.shards().filter(|shard| manager.shard(&shard.shard_id).is_some()).count(), 4);
    manager.free_model(&handle).unwrap();
    assert_eq!(room(&manager, 0), 3072 + 5120 + 256);
}

#[test]
fn an_admission_that_fails_leaves_its_places_as_they_were() {
    let (device, shared) = faulty(64 * KIB);
    // Memory to stage a segment, not two pieces: they are not copied together.
    let limits = Limits::default().shard_count_max(3).staging_bytes(bytes(8 * KIB));
    let builder = VramManager::builder().device(shared).segment_size(SegmentSize::MIN);
    let manager = builder.limits(limits).build().unwrap();
    let model = plan(&[3000, 5000, 700]);
    let file = vec![5; 8700];
    let source = vec![SliceSource::new(&file)];
    let mut held = manager.reserve_plan(&model, ONE).unwrap();
    // All slots are taken, and are released with the places.
    let full = manager.seal_model("other", 0, b"1");
    assert!(matches!(full, Err(VramError::LimitExceeded { .. })));
    let before = (manager.capacity(0).unwrap(), manager.reservations());

    let broken = || GpuError::HostMemory { wanted: bytes(1) };
    for (nth, action) in (1..4).flat_map(|nth| {
        [(nth, Action::Fail(broken())), (nth, Action::LateFail(broken())), (nth, Action::Panic)]
    }) {
        device.add(Op::QueueWrite, When::Nth(nth), action.clone()).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            manager.admit_reserved(&mut held, request(), &source)
        }));
        device.clear();
        assert!(!matches!(outcome, Ok(Ok(_))), "{nth} {action:?} was not met");
        assert_eq!(
            (manager.capacity(0).unwrap(), manager.reservations()),
            before,
            "{nth} {action:?}"
        );
        assert!(manager.shards().is_empty());
    }
    let stop = CancelToken::new();
    stop.cancel();
    manager.admit_reserved(&mut held, request().cancel(stop), &source).unwrap_err();
    manager.admit_reserved(&mut held, AdmitRequest::new("", ONE), &source).unwrap_err();
    let short = vec![SliceSource::new(&file[..8000])];
    manager.admit_reserved(&mut held, request(), &short).unwrap_err();
    let panicking = request().progress(|_| panic!("enough"));
    let panicked =
        catch_unwind(AssertUnwindSafe(|| manager.admit_reserved(&mut held, panicking, &source)));
    assert!(panicked.is_err());
    assert_eq!((manager.capacity(0).unwrap(), manager.reservations()), before);

    assert_eq!(manager.admit_reserved(&mut held, request(), &source).unwrap().pieces.len(), 3);
}

#[test]
fn places_expire_and_are_released_like_bytes() {
    let (clock, manager) = timed(&[16 * KIB]);
    let second = Duration::from_secs(1);
    let terms = ReservePlanRequest::new(ONE).owner("pool").purpose("llama").expires_in(second);
    let mut held = manager.reserve_plan_with(&plan(&[8 * KIB, 8 * KIB]), terms).unwrap();
    assert!(no_room(&manager.seal_model("waiting", 0, b"1")));
    assert_eq!(manager.reservations()[0].owner.as_deref(), Some("pool"));
    assert_eq!(manager.capacity(0).unwrap().largest_hole.get(), 0);
    clock.advance(second);
    manager.seal_model("waiting", 0, &[0; 16 * 1024]).unwrap();
    let file = vec![0; 16 * 1024];
    let late = manager.admit_reserved(&mut held, request(), &vec![SliceSource::new(&file)]);
    assert!(matches!(late, Err(VramError::ReservationExpired { .. })), "{late:?}");
    drop(held);
    assert_eq!(room(&manager, 0), 0);

    let (_, manager) = timed(&[16 * KIB]);
    let held = manager.reserve_plan(&plan(&[8 * KIB, 8 * KIB]), ONE).unwrap();
    held.release();
    assert_eq!(manager.capacity(0).unwrap().largest_hole.get(), 16 * KIB);
    assert_eq!(room(&manager, 0), 16 * KIB);
}

#[test]
fn a_plan_that_does_not_fit_holds_nothing() {
    let manager = hosts(&[16 * KIB]).build().unwrap();
    let _kept = holes(&manager);
    let before = manager.capacity(0).unwrap();
    assert!(no_room(&manager.reserve_plan(&plan(&[1000, 1000, 2000]), ONE)));
    assert!(no_room(&manager.reserve_plan(&plan(&[9 * KIB]), ONE)));
    assert_eq!(manager.capacity(0).unwrap(), before);
    assert!(manager.reservations().is_empty());
}

/// In mode `Blocks`, a reserved place is memory that the driver has allocated. A failed attempt
/// does not free it, so no other process can take it.
#[test]
fn an_admission_that_fails_keeps_the_blocks_of_its_places() {
    let (device, shared) = faulty(16 * KIB);
    let manager = VramManager::builder().device(shared).memory(0, MemoryMode::Blocks);
    let manager = manager.build().unwrap();
    let file = [7; 3000];
    let mut held = manager.reserve_plan(&plan(&[1000, 2000]), ONE).unwrap();
    let blocks = device.live();
    assert_eq!(blocks.len(), 2);

    device.add(Op::QueueWrite, When::Nth(2), Action::Driver(999)).unwrap();
    let answer = manager.admit_reserved(&mut held, request(), &vec![SliceSource::new(&file)]);
    assert!(matches!(answer, Err(VramError::Device { .. })), "{answer:?}");
    assert_eq!(device.live(), blocks, "the same blocks are still there");
    assert_eq!(held.remaining().get(), 1024 + 2048);

    let model = manager.admit_reserved(&mut held, request(), &vec![SliceSource::new(&file)]);
    assert_eq!(model.unwrap().pieces.len(), 2);
    assert_eq!(device.live(), blocks);
}

/// A plan without pieces checks its GPU like any other.
#[test]
fn a_lost_gpu_takes_not_even_an_empty_model() {
    let (device, shared) = faulty(16 * KIB);
    let manager = VramManager::builder().device(shared).build().unwrap();
    device.add(Op::QueueWrite, When::Nth(1), Action::Driver(214)).unwrap();
    assert!(manager.seal_model("model", 0, b"1").is_err());
    let (empty, nothing) = (plan(&[]), vec![SliceSource::new(b"")]);
    for answer in [
        manager.fits(&empty, ONE).map(drop),
        manager.reserve_plan(&empty, ONE).map(drop),
        manager.admit(request(), &empty, &nothing).map(drop),
    ] {
        assert!(matches!(answer, Err(VramError::DeviceLost { gpu: 0, .. })), "{answer:?}");
    }
}
