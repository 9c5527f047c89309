//! The loop over segments: each segment once, the lowest failure returned, panics propagated.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicU64, Ordering};
use std::panic::catch_unwind;
use std::sync::Mutex;

use vram_seal::Threads;
use vram_seal::parallel::{for_each_segment, map_each};

const COUNTS: [usize; 5] = [0, 1, 2, 3, 16];

#[test]
fn every_segment_is_worked_on_once_whatever_the_threads() {
    for threads in COUNTS {
        for count in [0, 1, 2, 100, 1000] {
            let seen = Mutex::new(vec![]);
            let done: Result<(), ()> = for_each_segment(
                Threads::exactly(threads),
                count,
                || Ok(()),
                |(), segment| {
                    seen.lock().unwrap().push(segment);
                    Ok(())
                },
            );
            assert_eq!(done, Ok(()));
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }
    }
}

#[test]
fn of_several_failures_the_lowest_segment_is_reported() {
    for threads in COUNTS {
        for _ in 0..50 {
            let done = for_each_segment(
                Threads::exactly(threads),
                1000,
                || Ok(()),
                |(), segment| if segment % 7 == 5 { Err(segment) } else { Ok(()) },
            );
            assert_eq!(done, Err(5));
        }
    }
}

#[test]
fn the_first_failure_stops_the_rest() {
    let worked = AtomicU64::new(0);
    let done: Result<(), ()> = for_each_segment(
        Threads::exactly(4),
        u64::MAX,
        || Ok(()),
        |(), segment| {
            worked.fetch_add(1, Ordering::Relaxed);
            if segment == 10 { Err(()) } else { Ok(()) }
        },
    );
    assert_eq!(done, Err(()), "it ends at all");
    assert!(worked.into_inner() >= 11);
}

#[test]
fn a_working_space_that_cannot_be_made_is_an_error() {
    let done = for_each_segment(Threads::exactly(3), 10, || Err::<(), _>("no"), |(), _| Ok(()));
    assert_eq!(done, Err("no"));
}

#[test]
fn a_panic_is_passed_on_after_all_threads_have_ended() {
    for threads in COUNTS {
        let working = AtomicU64::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            for_each_segment(
                Threads::exactly(threads),
                u64::MAX,
                || Ok::<_, ()>(()),
                |(), segment| {
                    working.fetch_add(1, Ordering::Relaxed);
                    if segment == 20 {
                        std::panic::resume_unwind(Box::new("segment 20"));
                    }
                    working.fetch_sub(1, Ordering::Relaxed);
                    Ok(())
                },
            )
        }));
        let payload = caught.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"segment 20"));
        assert_eq!(working.into_inner(), 1, "only the one that panicked did not finish");
    }
}

#[test]
fn one_thread_is_the_callers_own() {
    let here = std::thread::current().id();
    for (threads, count) in [(Threads::ONE, 50), (Threads::exactly(8), 1)] {
        let done: Result<(), ()> = for_each_segment(
            threads,
            count,
            || Ok(()),
            |(), _| {
                assert_eq!(std::thread::current().id(), here);
                Ok(())
            },
        );
        assert_eq!(done, Ok(()));
    }
}

#[test]
fn no_number_of_threads_starts_more_than_the_bound() {
    let most = std::thread::available_parallelism().map_or(1, usize::from).max(Threads::MAX);
    let spaces = AtomicU64::new(0);
    let done: Result<(), ()> = for_each_segment(
        Threads::exactly(usize::MAX),
        3000,
        || {
            spaces.fetch_add(1, Ordering::Relaxed);
            Ok(())
        },
        |(), _| Ok(()),
    );
    assert_eq!(done, Ok(()));
    // Each thread makes one working space.
    assert!(spaces.into_inner() <= u64::try_from(most).unwrap());
    assert_eq!(Threads::exactly(usize::MAX).for_jobs(u64::MAX), most);
    assert_eq!(Threads::exactly(usize::MAX).for_jobs(3), 3);
    assert!(Threads::AUTO.for_jobs(u64::MAX) <= most);
}

/// A loop inside a loop takes no threads of its own: all are at work already.
#[test]
fn inside_a_loop_on_several_threads_a_loop_runs_where_it_is() {
    let inside = |outer: usize| {
        let seen = Mutex::new(vec![]);
        let done: Result<(), ()> = for_each_segment(
            Threads::exactly(outer),
            4,
            || Ok(()),
            |(), _| {
                assert_eq!(Threads::exactly(8).for_jobs(8) == 1, outer > 1);
                let here = std::thread::current().id();
                for_each_segment(
                    Threads::exactly(8),
                    8,
                    || Ok(()),
                    |(), _| {
                        seen.lock().unwrap().push(std::thread::current().id() == here);
                        Ok(())
                    },
                )
            },
        );
        assert_eq!(done, Ok(()));
        seen.into_inner().unwrap()
    };
    assert_eq!(inside(2), [true; 32]);
    assert_eq!(inside(1).len(), 32);
    // Also after a panic, this thread is one of several no more.
    let panics = || {
        let _unreached: Result<(), ()> =
            for_each_segment(Threads::exactly(2), 2, || Ok(()), |(), _| panic!("at work"));
    };
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    assert_eq!(Threads::exactly(8).for_jobs(8), 8);
}

#[test]
fn results_of_many_items_stand_in_their_order_and_the_first_failure_is_returned() {
    for threads in COUNTS {
        let threads = Threads::exactly(threads);
        for count in [0, 1, 511, 512, 513, 5000_u64] {
            let items = || (0..count).collect::<Vec<_>>();
            let doubled = map_each(threads, items(), |item| Ok::<_, ()>(item * 2));
            assert_eq!(doubled, Ok(items().into_iter().map(|item| item * 2).collect()));
            let failed =
                map_each(threads, items(), |item| if item < 400 { Ok(()) } else { Err(item) });
            assert_eq!(failed.err(), (count > 400).then_some(400));
        }
    }
}
