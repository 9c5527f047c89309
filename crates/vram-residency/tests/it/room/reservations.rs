//! Reservations of bytes: free memory is not necessarily room, promised bytes are counted, and
//! after any operation the ledger is right (P5).

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::thread;

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op};
use vram_residency::{Reservation, ReserveRequest, SealRequest, VramError, VramManager};

use super::hands::{KIB, bytes, faulty, hosts, no_room, reserved, room, timed};

const SECOND: Duration = Duration::from_secs(1);

/// vllm #56830, llama.cpp #24626: memory promised to one loader was given to the next.
#[test]
fn what_is_reserved_is_room_for_nobody_else() {
    let manager = hosts(&[64 * KIB]).build().unwrap();
    let reservation = manager.reserve(0, bytes(48 * KIB)).unwrap();
    let capacity = manager.capacity(0).unwrap();
    assert_eq!((capacity.used.get(), capacity.reserved.get()), (0, 48 * KIB));
    assert_eq!((capacity.room.get(), capacity.largest_hole.get()), (16 * KIB, 64 * KIB));

    assert!(no_room(&manager.seal_model("late", 0, &[0; 17 * 1024])));
    assert!(no_room(&manager.reserve(0, bytes(16 * KIB + 1))));
    manager.seal_model("late", 0, &[0; 16 * 1024]).unwrap();
    assert_eq!(room(&manager, 0), 0);
    reservation.release();
    assert_eq!(room(&manager, 0), 48 * KIB);
}

#[test]
fn a_reservation_is_counted_in_whole_granules_and_seals_what_it_was_made_for() {
    let manager = hosts(&[64 * KIB]).build().unwrap();
    for (asked, granted) in [(0, 0), (1, 256), (256, 256), (257, 512), (1000, 1024)] {
        let mut reservation = manager.reserve(0, bytes(asked)).unwrap();
        assert_eq!(reservation.len().get(), granted);
        let data = vec![3; usize::try_from(asked).unwrap()];
        let request = SealRequest::new("model", 0);
        let shard = manager.seal_reserved(&mut reservation, request, &data).unwrap();
        assert_eq!(reservation.remaining().get(), 0);
        assert_eq!(manager.unseal_and_free(&shard).unwrap(), data);
    }
    assert_eq!(room(&manager, 0), 64 * KIB);
}

/// A budget that is not a multiple of the granule can be reserved, and used for seals, to the last
/// byte.
#[test]
fn a_whole_budget_is_reserved_whatever_its_length() {
    let manager = hosts(&[10_001]).build().unwrap();
    let mut reservation = manager.reserve(0, bytes(10_001)).unwrap();
    assert_eq!(room(&manager, 0), 0);
    let request = SealRequest::new("model", 0);
    let shard = manager.seal_reserved(&mut reservation, request, &[1; 10_001]).unwrap();
    assert_eq!(manager.unseal_model(&shard).unwrap(), [1; 10_001]);
}

#[test]
fn sizes_at_the_end_of_all_numbers_are_refused() {
    let manager = hosts(&[64 * KIB]).build().unwrap();
    for asked in [64 * KIB + 1, 1 << 48, 1 << 63, u64::MAX - 255, u64::MAX] {
        assert!(no_room(&manager.reserve(0, bytes(asked))), "{asked}");
    }
    assert!(matches!(manager.reserve(1, bytes(1)), Err(VramError::UnknownGpu { .. })));
    assert_eq!(reserved(&manager, 0), 0);
    assert!(manager.reservations().is_empty());
}

#[test]
fn several_shards_are_sealed_into_one_reservation_until_it_is_used_up() {
    let manager = hosts(&[64 * KIB]).build().unwrap();
    let mut reservation = manager.reserve(0, bytes(3 * KIB)).unwrap();
    let mut seal = |len: usize| {
        manager.seal_reserved(&mut reservation, SealRequest::new("model", 0), &vec![1; len])
    };
    seal(1000).unwrap();
    seal(2000).unwrap();
    match seal(1) {
        Err(VramError::ReservationTooSmall { needed, remaining, .. }) => {
            assert_eq!((needed.get(), remaining.get()), (256, 0));
        }
        other => panic!("{other:?}"),
    }
    let capacity = manager.capacity(0).unwrap();
    assert_eq!((capacity.used.get(), capacity.reserved.get()), (3 * KIB, 0));
    drop(reservation);
    assert_eq!(manager.get_used_vram(0).unwrap(), 3 * 1024);
}

/// After any failure of a reserved seal: the bytes are reserved as before, and nothing is resident.
#[test]
fn a_seal_that_fails_leaves_its_reservation_as_it_was() {
    let (device, shared) = faulty(64 * KIB);
    let manager = VramManager::builder().device(shared).build().unwrap();
    let mut reservation = manager.reserve(0, bytes(8 * KIB)).unwrap();
    let before = (manager.capacity(0).unwrap(), manager.reservations());
    let failing: [(Op, Action); 4] = [
        (Op::QueueWrite, Action::Fail(GpuError::HostMemory { wanted: bytes(1) })),
        (Op::QueueWrite, Action::LateFail(GpuError::HostMemory { wanted: bytes(1) })),
        (Op::Read, Action::FlipBit { byte: 9, bit: 1 }),
        (Op::QueueWrite, Action::Panic),
    ];
    for (op, action) in failing {
        device.next(op, action.clone()).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            manager.seal_reserved(&mut reservation, SealRequest::new("model", 0), &[5; 5000])
        }));
        assert!(!matches!(outcome, Ok(Ok(_))), "{action:?} was not met");
        assert_eq!((manager.capacity(0).unwrap(), manager.reservations()), before, "{action:?}");
    }
    for request in [SealRequest::new("", 0), SealRequest::new("model", 1)] {
        assert!(manager.seal_reserved(&mut reservation, request, &[5; 5000]).is_err());
        assert_eq!((manager.capacity(0).unwrap(), manager.reservations()), before);
    }
    manager.seal_reserved(&mut reservation, SealRequest::new("model", 0), &[5; 5000]).unwrap();
    assert_eq!(manager.shards().len(), 1);
}

#[test]
fn bytes_that_could_not_be_wiped_are_missing_from_the_reservation_and_stay_counted() {
    let (device, shared) = faulty(64 * KIB);
    let manager = VramManager::builder().device(shared).build().unwrap();
    let mut reservation = manager.reserve(0, bytes(8 * KIB)).unwrap();
    let refused = || Action::Fail(GpuError::HostMemory { wanted: bytes(1) });
    device.next(Op::QueueWrite, refused()).unwrap();
    device.next(Op::Fill, refused()).unwrap();
    manager.seal_reserved(&mut reservation, SealRequest::new("model", 0), &[5; 1024]).unwrap_err();
    assert_eq!(reservation.remaining().get(), 7 * KIB);
    let capacity = manager.capacity(0).unwrap();
    assert_eq!((capacity.unreturned.get(), capacity.reserved.get()), (KIB, 7 * KIB));
    drop(reservation);
    assert_eq!(manager.get_used_vram(0).unwrap(), 1024);
}

#[test]
fn a_reservation_works_for_its_own_manager_and_gpu_alone() {
    let manager = hosts(&[64 * KIB, 64 * KIB]).build().unwrap();
    let other = hosts(&[64 * KIB]).build().unwrap();
    let mut reservation = manager.reserve(0, bytes(KIB)).unwrap();
    let foreign = other.seal_reserved(&mut reservation, SealRequest::new("model", 0), b"1");
    assert!(matches!(foreign, Err(VramError::ForeignReservation { .. })), "{foreign:?}");
    let elsewhere = manager.seal_reserved(&mut reservation, SealRequest::new("model", 1), b"1");
    assert!(
        matches!(elsewhere, Err(VramError::ReservationElsewhere { reserved: 0, asked: 1, .. })),
        "{elsewhere:?}"
    );
    assert_eq!(reservation.remaining().get(), KIB);
}

/// Bytes are promised, not a place: if no hole is long enough, the error names the hole.
#[test]
fn reserved_bytes_in_pieces_are_refused_as_fragmentation_and_stay_reserved() {
    let manager = hosts(&[4 * KIB]).build().unwrap();
    let shards: Vec<_> =
        (0..4).map(|_| manager.seal_model("small", 0, &[0; 1024]).unwrap()).collect();
    manager.free_shard(&shards[0]).unwrap();
    manager.free_shard(&shards[2]).unwrap();
    let mut reservation = manager.reserve(0, bytes(2 * KIB)).unwrap();
    match manager.seal_reserved(&mut reservation, SealRequest::new("large", 0), &[0; 2048]) {
        Err(VramError::InsufficientVram(shortfall)) => {
            assert_eq!(shortfall.largest_hole.get(), KIB);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reservation.remaining().get(), 2 * KIB);
}

#[test]
fn a_reservation_expires_at_its_time_and_gives_everything_back() {
    let (clock, manager) = timed(&[64 * KIB]);
    let request = ReserveRequest::new(0, bytes(60 * KIB)).expires_in(10 * SECOND);
    let mut reservation = manager.reserve_with(request).unwrap();
    assert_eq!(reservation.expires_in(), Some(10 * SECOND));
    let shard = manager
        .seal_reserved(&mut reservation, SealRequest::new("in time", 0), &[0; 1024])
        .unwrap();

    clock.advance(Duration::from_millis(9_999));
    assert_eq!(reservation.remaining().get(), 59 * KIB);
    assert!(no_room(&manager.seal_model("waiting", 0, &[0; 32 * 1024])));

    clock.advance(Duration::from_millis(1));
    // The next request takes it: here a plain seal.
    manager.seal_model("waiting", 0, &[0; 32 * 1024]).unwrap();
    assert_eq!(reservation.remaining().get(), 0);
    assert_eq!(reservation.expires_in(), Some(Duration::ZERO));
    let late = manager.seal_reserved(&mut reservation, SealRequest::new("late", 0), b"1");
    assert!(matches!(late, Err(VramError::ReservationExpired { .. })), "{late:?}");
    assert!(matches!(reservation.renew(None), Err(VramError::ReservationExpired { .. })));
    assert!(manager.reservations().is_empty());
    // Shards sealed in time stay, and no bytes are returned twice.
    drop(reservation);
    assert_eq!(manager.unseal_model(&shard).unwrap(), [0; 1024]);
    assert_eq!(manager.get_used_vram(0).unwrap(), 33 * 1024);
}

#[test]
fn every_look_at_the_books_sees_what_has_expired() {
    let looks: [fn(&VramManager) -> u64; 5] = [
        |manager| reserved(manager, 0),
        |manager| u64::try_from(manager.get_used_vram(0).unwrap()).unwrap(),
        |manager| 64 * KIB - u64::try_from(manager.get_free_vram(0).unwrap()).unwrap(),
        |manager| u64::try_from(manager.reservations().len()).unwrap(),
        |manager| manager.report().gpus[0].capacity.reserved.get(),
    ];
    for look in looks {
        let (clock, manager) = timed(&[64 * KIB]);
        let request = ReserveRequest::new(0, bytes(KIB)).expires_in(SECOND);
        let _reservation = manager.reserve_with(request).unwrap();
        assert_ne!(look(&manager), 0);
        clock.advance(SECOND);
        assert_eq!(look(&manager), 0);
    }
}

#[test]
fn a_renewed_reservation_lasts_from_then_on() {
    let (clock, manager) = timed(&[64 * KIB]);
    let request = ReserveRequest::new(0, bytes(KIB)).expires_in(SECOND);
    let mut reservation = manager.reserve_with(request.clone()).unwrap();
    let other = manager.reserve_with(request).unwrap();
    clock.advance(SECOND / 2);
    reservation.renew(Some(SECOND)).unwrap();
    clock.advance(SECOND / 2);
    assert_eq!(reserved(&manager, 0), KIB);
    assert_eq!(other.remaining().get(), 0);
    reservation.renew(None).unwrap();
    clock.advance(1000 * SECOND);
    assert_eq!(reservation.remaining().get(), KIB);
    assert_eq!(reservation.expires_in(), None);
    reservation.renew(Some(Duration::ZERO)).unwrap();
    assert_eq!(reservation.remaining().get(), 0);
}

/// An expiry beyond the clock's range means no expiry.
#[test]
fn a_reservation_for_ever_and_a_day_does_not_wrap() {
    let (clock, manager) = timed(&[64 * KIB]);
    clock.advance(SECOND);
    let request = ReserveRequest::new(0, bytes(KIB)).expires_in(Duration::MAX);
    let reservation = manager.reserve_with(request).unwrap();
    clock.advance(1_000_000 * SECOND);
    assert_eq!(reservation.remaining().get(), KIB);
}

#[test]
fn the_listing_says_who_and_what_for() {
    let (clock, manager) = timed(&[64 * KIB, 64 * KIB]);
    let request = ReserveRequest::new(1, bytes(1000)).owner("pool-1").purpose("llama");
    let mut named = manager.reserve_with(request.expires_in(10 * SECOND)).unwrap();
    let plain = manager.reserve(0, bytes(KIB)).unwrap();
    clock.advance(SECOND);
    manager.seal_reserved(&mut named, SealRequest::new("llama", 1), &[0; 256]).unwrap();
    let listed = manager.reservations();
    assert_eq!(listed.len(), 2);
    assert_eq!((listed[0].id, listed[1].id), (named.id(), plain.id()));
    assert_eq!(listed[0].owner.as_deref(), Some("pool-1"));
    assert_eq!(listed[0].purpose.as_deref(), Some("llama"));
    assert_eq!((named.owner(), named.purpose()), (Some("pool-1"), Some("llama")));
    assert_eq!(listed[0].len, bytes(KIB));
    assert_eq!(listed[0].remaining, [(1, bytes(768))]);
    assert_eq!(listed[0].expires_in, Some(9 * SECOND));
    assert_eq!((listed[1].owner.as_deref(), listed[1].expires_in), (None, None));
}

#[test]
fn a_reservation_goes_to_another_thread_and_outlives_the_manager() {
    fn owned<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    let manager = hosts(&[64 * KIB]).build().unwrap();
    let reservation = owned(manager.reserve(0, bytes(KIB)).unwrap());
    let plan = owned(
        manager
            .reserve_plan(&super::hands::plan(&[1000]), vram_residency::GpuChoice::One(0))
            .unwrap(),
    );
    drop(manager);
    thread::spawn(move || {
        assert_eq!(reservation.remaining().get(), KIB);
        assert_eq!(plan.remaining().get(), KIB);
    })
    .join()
    .unwrap();
}

/// Loaders on many threads reserve and release concurrently: never more than there is, and
/// everything is released at the end (P1, P5).
#[test]
fn reserving_threads_never_hold_more_than_there_is() {
    let manager = hosts(&[64 * KIB]).build().unwrap();
    thread::scope(|scope| {
        for seed in 0..4_u64 {
            let manager = &manager;
            scope.spawn(move || {
                let mut held: Vec<Reservation> = Vec::new();
                for step in 0..400 {
                    let asked = (seed * 7919 + step * 104_729) % (24 * KIB) + 1;
                    match manager.reserve(0, bytes(asked)) {
                        Ok(mut reservation) => {
                            if step % 5 == 0 {
                                let request = SealRequest::new("model", 0);
                                let shard = manager.seal_reserved(&mut reservation, request, b"1");
                                manager.free_shard(&shard.unwrap()).unwrap();
                            }
                            held.push(reservation);
                        }
                        Err(VramError::InsufficientVram(_)) => held.clear(),
                        Err(error) => panic!("{error}"),
                    }
                    let capacity = manager.capacity(0).unwrap();
                    assert!(capacity.used.get() + capacity.reserved.get() <= 64 * KIB);
                }
            });
        }
    });
    assert_eq!(room(&manager, 0), 64 * KIB);
}
