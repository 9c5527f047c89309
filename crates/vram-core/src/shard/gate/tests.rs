//! The order in which threads enter a gate, and which of them it refuses.

use super::*;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::{Arc, Barrier, mpsc};

/// Longer than anything takes here that does not hang.
const LONG: Duration = Duration::from_secs(30);

fn wait_until_queued(gate: &Gate, tickets: usize) {
    while lock(&gate.state).queue.len() < tickets {
        std::thread::yield_now();
    }
}

#[test]
fn readers_meet_inside() {
    let gate = Gate::default();
    let both_inside = Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _pass = gate.shared().unwrap();
                both_inside.wait();
            });
        }
    });
}

#[test]
fn a_mover_is_never_inside_with_anybody() {
    let gate = Gate::default();
    let (readers, movers) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (gate, readers, movers) = (&gate, &readers, &movers);
            scope.spawn(move || {
                for step in 0..500 {
                    if (step + thread) % 4 == 0 {
                        let _pass = gate.exclusive().unwrap();
                        assert_eq!(movers.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(readers.load(Ordering::SeqCst), 0);
                        movers.fetch_sub(1, Ordering::SeqCst);
                    } else {
                        let _pass = gate.shared().unwrap();
                        readers.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(movers.load(Ordering::SeqCst), 0);
                        readers.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert!(gate.exclusive().is_ok());
}

#[test]
fn a_waiting_mover_gets_in_before_readers_who_came_later() {
    let gate = Arc::new(Gate::default());
    let (order, log) = mpsc::channel();
    let first = gate.shared().unwrap();
    std::thread::scope(|scope| {
        let mover = {
            let (gate, order) = (Arc::clone(&gate), order.clone());
            scope.spawn(move || {
                let _pass = gate.exclusive().unwrap();
                order.send("mover").unwrap();
            })
        };
        wait_until_queued(&gate, 1);
        let reader = {
            let (gate, order) = (Arc::clone(&gate), order.clone());
            scope.spawn(move || {
                let _pass = gate.shared().unwrap();
                order.send("reader").unwrap();
            })
        };
        wait_until_queued(&gate, 2);
        assert!(log.recv_timeout(Duration::from_millis(5)).is_err(), "the first is inside");
        drop(first);
        mover.join().unwrap();
        reader.join().unwrap();
    });
    assert_eq!(log.try_iter().collect::<Vec<_>>(), ["mover", "reader"]);
}

#[test]
fn a_lease_refuses_a_mover_at_once_and_lets_readers_in() {
    let gate = Gate::default();
    gate.lease(&gate.shared().unwrap(), Leased::default());
    assert_eq!(gate.exclusive().err(), Some(Busy { leases: 1 }));
    assert!(gate.shared().is_ok());
    gate.end_lease(&Leased::default());
    assert!(gate.exclusive().is_ok());
}

#[test]
fn a_thread_is_never_in_its_own_way_for_ever() {
    let (gate, other) = (Gate::default(), Gate::default());
    let reading = gate.shared().unwrap();
    assert!(gate.shared().is_ok(), "reading inside reading is fine");
    assert_eq!(gate.exclusive().err(), Some(Busy { leases: 0 }));
    assert!(other.exclusive().is_ok(), "another shard that nobody uses is free to move");
    drop(reading);

    let moving = gate.exclusive().unwrap();
    assert_eq!(gate.shared().err(), Some(Busy { leases: 0 }));
    assert_eq!(gate.exclusive().err(), Some(Busy { leases: 0 }));
    drop(moving);
    assert!(gate.shared().is_ok());
}

/// Two readers, each of which reads the other's shard as well, while a mover waits for each shard:
/// with a plain fair lock, this deadlocks.
#[test]
fn nested_readers_pass_waiting_movers() {
    let (left, right) = (Gate::default(), Gate::default());
    let both_reading = Barrier::new(2);
    std::thread::scope(|scope| {
        for (mine, theirs) in [(&left, &right), (&right, &left)] {
            let both_reading = &both_reading;
            scope.spawn(move || {
                let _outer = mine.shared().unwrap();
                both_reading.wait();
                wait_until_queued(theirs, 1);
                let _inner = theirs.shared().unwrap();
                both_reading.wait();
            });
            scope.spawn(move || {
                while lock(&mine.state).shared == 0 {
                    std::thread::yield_now();
                }
                drop(mine.exclusive().unwrap());
            });
        }
    });
}

#[test]
fn a_panic_inside_leaves_the_gate_usable() {
    let gate = Gate::default();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let _pass = gate.exclusive().unwrap();
        panic!("inside");
    }));
    assert!(outcome.is_err());
    assert!(gate.exclusive().is_ok());
    assert!(gate.shared().is_ok());
}

#[test]
fn a_try_never_waits_and_names_what_keeps_it_out() {
    let gate = Gate::default();
    let elsewhere = |check: fn(&Gate) -> Option<Occupied>| {
        std::thread::scope(|scope| scope.spawn(|| check(&gate)).join().unwrap())
    };
    let exclusive = |gate: &Gate| gate.try_exclusive().err();
    let shared = |gate: &Gate| gate.try_shared().err();
    assert_eq!((exclusive(&gate), shared(&gate)), (None, None));

    let reading = gate.shared().unwrap();
    assert_eq!((exclusive(&gate), shared(&gate)), (Some(Occupied::Own), None));
    assert_eq!((elsewhere(exclusive), elsewhere(shared)), (Some(Occupied::Readers(1)), None));
    gate.lease(&reading, Leased::default());
    drop(reading);
    assert_eq!((exclusive(&gate), shared(&gate)), (Some(Occupied::Leases(1)), None));
    gate.end_lease(&Leased::default());

    let moving = gate.exclusive().unwrap();
    assert_eq!((exclusive(&gate), shared(&gate)), (Some(Occupied::Own), Some(Occupied::Own)));
    let other = Some(Occupied::Exclusive);
    assert_eq!((elsewhere(exclusive), elsewhere(shared)), (other, other));
    drop(moving);

    // A call that waits comes first, also before a thread that is inside another gate.
    let ticket = lock(&gate.state).queue.draw();
    let queue = Some(Occupied::Queue(1));
    assert_eq!((exclusive(&gate), shared(&gate)), (queue, queue));
    let other = Gate::default();
    let _inside = other.shared().unwrap();
    assert_eq!((exclusive(&gate), shared(&gate)), (queue, queue));
    lock(&gate.state).queue.give_up(ticket);
}

/// One that waited for a reader looks for leases once more.
#[test]
fn a_mover_who_waited_is_refused_for_a_lease_that_was_given_meanwhile() {
    let gate = Arc::new(Gate::default());
    let first = gate.shared().unwrap();
    let (told, answer) = mpsc::channel();
    let mover = Arc::clone(&gate);
    std::thread::spawn(move || told.send(mover.exclusive().err()));
    wait_until_queued(&gate, 1);
    gate.lease(&first, Leased::default());
    drop(first);
    assert_eq!(answer.recv_timeout(LONG), Ok(Some(Busy { leases: 1 })));
}

/// What deadlocked when each of two exclusive users, from a callback, read the other's shard.
#[test]
fn an_exclusive_user_is_refused_at_another_gate_rather_than_left_waiting() {
    let gates = Arc::new([Gate::default(), Gate::default()]);
    let both_inside = Arc::new(Barrier::new(2));
    let (told, answers) = mpsc::channel();
    for mine in 0..2 {
        let (gates, both, told) = (Arc::clone(&gates), Arc::clone(&both_inside), told.clone());
        std::thread::spawn(move || {
            let _pass = gates[mine].exclusive().unwrap();
            both.wait();
            let answer = gates[1 - mine].shared().err();
            both.wait();
            told.send(answer)
        });
    }
    for _ in 0..2 {
        assert_eq!(answers.recv_timeout(LONG), Ok(Some(Busy { leases: 0 })));
    }
}
