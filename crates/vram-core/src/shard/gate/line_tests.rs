//! Exclusive use of many gates at once: who comes first, who may pass, who is refused.

use core::time::Duration;
use std::sync::{Arc, mpsc};
use std::thread::{spawn, yield_now};
use std::time::Instant;

use super::*;

/// Longer than anything takes here that does not hang.
const LONG: Duration = Duration::from_secs(30);

type Gates = Arc<[Gate; 3]>;
type Entered = Result<(), (usize, Refusal)>;

/// Enters and leaves all gates, with the index of each as its key.
fn enter_all(gates: &Gates, patience: Patience) -> Entered {
    let named: Vec<_> = gates.iter().enumerate().collect();
    exclusive_all(&named, patience).map(drop)
}

fn within(timeout: Duration) -> Patience {
    Patience::Until(Deadline::within(timeout))
}

/// As [`enter_all`], on a thread of its own.
fn enter_all_elsewhere(gates: &Gates, patience: Patience) -> mpsc::Receiver<Entered> {
    let (told, answer) = mpsc::channel();
    let theirs = Arc::clone(gates);
    spawn(move || told.send(enter_all(&theirs, patience)));
    answer
}

/// As [`enter_all_elsewhere`]. Returns once the thread stands in the queue of the last gate.
fn wait_elsewhere(gates: &Gates, patience: Patience) -> mpsc::Receiver<Entered> {
    let answer = enter_all_elsewhere(gates, patience);
    until(|| !lock(&gates[2].state).queue.is_empty());
    answer
}

/// Waits, with a deadline.
fn until(reached: impl Fn() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < LONG, "it does not come to that");
        yield_now();
    }
}

fn as_new(gates: &Gates) -> bool {
    gates.iter().all(|gate| gate.try_exclusive().is_ok()) && !is_inside_any()
}

#[test]
fn a_user_of_many_gates_comes_before_readers_who_come_later_and_after_those_inside() {
    let gates = Gates::default();
    let inside = [gates[0].shared().unwrap(), gates[1].shared().unwrap()];
    let entered = wait_elsewhere(&gates, Patience::ForCalls);
    let (told, reader) = mpsc::channel();
    let theirs = Arc::clone(&gates);
    spawn(move || {
        let occupied = theirs[2].try_shared().err();
        drop(theirs[2].shared());
        told.send(occupied)
    });
    assert!(reader.recv_timeout(Duration::from_millis(20)).is_err(), "it stands behind");
    assert!(entered.try_recv().is_err(), "two are still inside");
    drop(inside);
    assert_eq!(entered.recv_timeout(LONG), Ok(Ok(())));
    assert_eq!(reader.recv_timeout(LONG), Ok(Some(Occupied::Queue(1))));
    assert!(as_new(&gates));
}

/// One thread reads one gate and, from inside, another that is waited for: it passes, or both would
/// wait for each other.
#[test]
fn a_nested_reader_passes_a_user_of_many_gates_that_waits() {
    let gates = Gates::default();
    let outer = gates[1].shared().unwrap();
    let entered = wait_elsewhere(&gates, Patience::ForCalls);
    let inner = gates[0].shared_until(Deadline::within(LONG)).unwrap();
    drop(outer);
    assert!(entered.recv_timeout(Duration::from_millis(20)).is_err(), "one is inside the first");
    drop(inner);
    assert_eq!(entered.recv_timeout(LONG), Ok(Ok(())));
    assert!(as_new(&gates));
}

#[test]
fn a_user_of_many_gates_that_runs_out_of_time_names_the_gate_and_leaves_no_hole() {
    let gates = Gates::default();
    let reading = gates[1].shared().unwrap();
    let entered = enter_all_elsewhere(&gates, within(Duration::from_millis(20)));
    assert_eq!(entered.recv_timeout(LONG), Ok(Err((1, Refusal::TimedOut))));
    drop(reading);
    assert!(as_new(&gates));
}

#[test]
fn a_lease_refuses_a_user_of_many_gates_at_once_or_at_its_deadline_and_blocks_no_other() {
    let gates = Gates::default();
    gates[1].lease(&gates[1].shared().unwrap(), Leased::default());
    let leased = Err((1, Refusal::Busy(Busy { leases: 1 })));
    assert_eq!(enter_all(&gates, Patience::ForCalls), leased);
    assert_eq!(enter_all(&gates, within(Duration::from_millis(5))), leased);

    let entered = enter_all_elsewhere(&gates, within(LONG));
    assert!(entered.recv_timeout(Duration::from_millis(20)).is_err(), "a lease exists");
    assert!(gates[0].try_exclusive().is_ok() && gates[1].try_shared().is_ok());
    gates[1].end_lease(&Leased::default());
    assert_eq!(entered.recv_timeout(LONG), Ok(Ok(())));
    assert!(as_new(&gates));
}

#[test]
fn a_lease_that_is_given_while_a_user_of_many_gates_waits_is_found() {
    for (patience, ends) in [(Patience::ForCalls, false), (within(LONG), true)] {
        let gates = Gates::default();
        let reading = gates[1].shared().unwrap();
        let entered = wait_elsewhere(&gates, patience);
        gates[1].lease(&reading, Leased::default());
        drop(reading);
        if ends {
            until(|| lock(&gates[0].state).queue.is_empty());
            gates[1].end_lease(&Leased::default());
            assert_eq!(entered.recv_timeout(LONG), Ok(Ok(())));
        } else {
            let leased = Err((1, Refusal::Busy(Busy { leases: 1 })));
            assert_eq!(entered.recv_timeout(LONG), Ok(leased));
            gates[1].end_lease(&Leased::default());
        }
        assert!(as_new(&gates));
    }
}

#[test]
fn a_thread_that_is_inside_a_gate_or_names_one_twice_is_refused_rather_than_left_waiting() {
    let gates = Gates::default();
    let busy = Refusal::Busy(Busy { leases: 0 });
    let twice = [(7, &gates[0]), (8, &gates[0])];
    assert_eq!(exclusive_all(&twice, Patience::ForCalls).err(), Some((8, busy)));

    let other = Gate::default();
    let inside = other.shared().unwrap();
    assert_eq!(enter_all(&gates, within(LONG)), Ok(()), "nobody is there");
    let reading = gates[2].shared().unwrap();
    assert_eq!(enter_all(&gates, within(LONG)), Err((2, busy)));
    drop((reading, inside));
    assert!(as_new(&gates));
}
