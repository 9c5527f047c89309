//! Models of the bound of staging under shuttle: every call comes through, and the bound is never
//! exceeded.

use shuttle::thread::{spawn, yield_now};

use super::*;
use crate::sync::models::under_all_schedules;

const LEN: u64 = 4096;
const MAX: u64 = 3 * LEN;

/// Takes a share, works, and gives it back. With patience until the end of time it is never refused.
fn call(bound: &StagingBound, least: u64) {
    let share = bound.take(Wish { gpu: 0, len: LEN, least, most: least, waits: true }).unwrap();
    let check = || {
        let (granted, idle) = bound.taken();
        assert!(granted.get() + idle.get() <= MAX, "{granted} and {idle} of {MAX}");
    };
    check();
    yield_now();
    check();
    bound.give(0, share.buffers * LEN, share.idle, ByteLen::ZERO);
}

#[test]
fn shuttle_all_calls_come_through_and_never_take_more_than_the_bound() {
    under_all_schedules(|| {
        // Too long for the clock, so that nothing but a call that gives back ends a wait.
        let bound = StagingBound::new(ByteLen::new(MAX), Duration::MAX);
        let threads = [1, 2, 3, 2].map(|least| {
            let bound = bound.clone();
            spawn(move || call(&bound, least))
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(bound.taken(), (ByteLen::ZERO, ByteLen::ZERO));
    });
}

/// One that gives up in the queue leaves no hole in it.
#[test]
fn shuttle_a_call_that_runs_out_of_patience_lets_the_next_one_through() {
    under_all_schedules(|| {
        let bound = StagingBound::new(ByteLen::new(MAX), Duration::from_secs(1));
        let threads = [3, 2, 1].map(|least| {
            let bound = bound.clone();
            spawn(move || {
                let wish = Wish { gpu: 0, len: LEN, least, most: least, waits: true };
                if let Ok(share) = bound.take(wish) {
                    yield_now();
                    bound.give(0, share.buffers * LEN, share.idle, ByteLen::ZERO);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(lock(&bound.shared.state).queue.is_empty());
        assert_eq!(bound.taken(), (ByteLen::ZERO, ByteLen::ZERO));
    });
}
