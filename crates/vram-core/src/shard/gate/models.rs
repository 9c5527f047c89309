//! Models of the gate under shuttle: every schedule ends, and no exclusive user meets another user.
//!
//! Each model runs under random schedules and under PCT, which draws priorities and so finds the
//! schedules that need few but certain changes of thread. `VRAM_MODEL_SCHEDULES` sets the number of
//! each. A deadlock is a failure, and is printed with its schedule. The command line is in `sync.rs`.

use core::sync::atomic::{AtomicIsize, Ordering};
use core::time::Duration;
use std::sync::Arc;

use shuttle::sync::Barrier;
use shuttle::thread::{spawn, yield_now};

use super::*;
use crate::sync::models::under_all_schedules;

/// A gate that checks who is inside: the number of readers, or -1.
#[derive(Default)]
struct Watched {
    gate: Gate,
    inside: AtomicIsize,
}

impl Watched {
    fn reading(&self, work: impl FnOnce()) {
        assert!(self.inside.fetch_add(1, Ordering::SeqCst) >= 0);
        yield_now();
        work();
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn moving(&self) {
        self.alone();
        yield_now();
        self.still_alone();
    }

    /// The caller is exclusive now.
    fn alone(&self) {
        assert_eq!(self.inside.fetch_sub(1, Ordering::SeqCst), 0);
    }

    fn still_alone(&self) {
        assert_eq!(self.gate.leases(), 0);
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), -1);
    }

    fn read(&self) {
        let _pass = self.gate.shared().unwrap();
        self.reading(|| ());
    }

    fn move_it(&self) {
        let _pass = self.gate.exclusive().unwrap();
        self.moving();
    }
}

type Gates = Arc<[Watched; 3]>;

/// Is exclusive at these gates together, if it is let in.
fn move_together(gates: &Gates, which: &[usize], patience: Patience) -> Result<(), Refusal> {
    let named: Vec<_> = which.iter().map(|at| (*at, &gates[*at].gate)).collect();
    let _passes = exclusive_all(&named, patience).map_err(|(_at, refusal)| refusal)?;
    which.iter().for_each(|at| gates[*at].alone());
    yield_now();
    which.iter().for_each(|at| gates[*at].still_alone());
    Ok(())
}

/// Reads one gate, and from inside another.
fn read_nested(gates: &Gates, outer: usize, inner: usize) {
    let _pass = gates[outer].gate.shared().unwrap();
    gates[outer].reading(|| gates[inner].read());
}

/// Runs each of these on a thread of its own, and then checks that the gates are as they were.
fn side_by_side<const N: usize>(calls: [fn(&Gates); N]) {
    let gates = Gates::default();
    let threads = calls.map(|call| {
        let gates = Arc::clone(&gates);
        spawn(move || call(&gates))
    });
    for thread in threads {
        thread.join().unwrap();
    }
    for watched in &*gates {
        let state = lock(&watched.gate.state);
        assert!(
            !state.occupied() && state.queue.is_empty() && state.leases.count() == 0,
            "{state:?}"
        );
    }
}

fn soon() -> Deadline {
    Deadline::within(Duration::from_mins(60))
}

#[test]
fn shuttle_readers_and_movers_exclude_each_other_and_all_end() {
    under_all_schedules(|| {
        side_by_side([
            |gates| gates[0].read(),
            |gates| gates[0].read(),
            |gates| gates[0].move_it(),
            |gates| gates[0].move_it(),
            |gates| match gates[0].gate.try_exclusive() {
                Ok(_pass) => gates[0].moving(),
                Err(occupied) => assert_ne!(occupied, Occupied::Own),
            },
        ]);
    });
}

/// A reader that waits behind a mover enters with the one before it, not after it.
#[test]
fn shuttle_readers_that_waited_meet_inside() {
    under_all_schedules(|| {
        let (gates, both_inside) = (Gates::default(), Arc::new(Barrier::new(2)));
        let readers = [0, 1].map(|_| {
            let (gates, both_inside) = (Arc::clone(&gates), Arc::clone(&both_inside));
            spawn(move || {
                let _pass = gates[0].gate.shared().unwrap();
                gates[0].reading(|| {
                    both_inside.wait();
                });
            })
        });
        let mover = Arc::clone(&gates);
        // It only tries: in the queue between the two it would wait for the first, which waits for
        // the second.
        if let Ok(_pass) = mover[0].gate.try_exclusive() {
            mover[0].moving();
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn shuttle_a_mover_with_leases_and_deadlines_about_leaves_no_hole_in_the_queue() {
    under_all_schedules(|| {
        side_by_side([
            |gates| {
                let gate = &gates[0].gate;
                gate.lease(&gate.shared().unwrap(), Leased::default());
                yield_now();
                assert!(gate.leases() > 0 && gate.try_exclusive().is_err());
                gate.end_lease(&Leased::default());
            },
            |gates| {
                // Without a deadline: the end of the lease lets it in.
                let _pass = gates[0].gate.exclusive_until(Deadline::NEVER).unwrap();
                gates[0].moving();
            },
            |gates| {
                if let Ok(_pass) = gates[0].gate.exclusive_until(soon()) {
                    gates[0].moving();
                }
            },
            |gates| match gates[0].gate.exclusive() {
                Ok(_pass) => gates[0].moving(),
                Err(busy) => assert_eq!(busy, Busy { leases: 1 }),
            },
            |gates| {
                if let Ok(_pass) = gates[0].gate.shared_until(soon()) {
                    gates[0].reading(|| ());
                }
            },
        ]);
    });
}

#[test]
fn shuttle_nested_readers_pass_waiting_movers_and_all_end() {
    under_all_schedules(|| {
        side_by_side([
            |gates| read_nested(gates, 0, 1),
            |gates| read_nested(gates, 1, 0),
            |gates| gates[0].move_it(),
            |gates| gates[1].move_it(),
        ]);
    });
}

/// What deadlocked when each of two exclusive users read the other's shard.
#[test]
fn shuttle_exclusive_users_that_call_into_each_others_shards_all_end() {
    fn inside(gates: &Gates, mine: usize, other: usize) {
        let _pass = gates[mine].gate.exclusive().unwrap();
        yield_now();
        if let Ok(_pass) = gates[other].gate.shared() {
            gates[other].reading(|| ());
        }
    }
    under_all_schedules(|| {
        side_by_side([
            |gates| inside(gates, 0, 1),
            |gates| inside(gates, 1, 0),
            |gates| read_nested(gates, 2, 0),
        ]);
    });
}

#[test]
fn shuttle_users_of_many_gates_all_end_against_each_other_and_single_movers() {
    under_all_schedules(|| {
        side_by_side([
            |gates| move_together(gates, &[0, 1, 2], Patience::ForCalls).unwrap(),
            |gates| move_together(gates, &[1, 2], Patience::ForCalls).unwrap(),
            |gates| move_together(gates, &[0, 2], Patience::ForCalls).unwrap(),
            |gates| gates[1].move_it(),
            |gates| gates[2].read(),
        ]);
    });
}

#[test]
fn shuttle_users_of_many_gates_all_end_against_nested_readers() {
    under_all_schedules(|| {
        side_by_side([
            |gates| move_together(gates, &[0, 1], Patience::ForCalls).unwrap(),
            |gates| move_together(gates, &[1, 2], Patience::ForCalls).unwrap(),
            |gates| read_nested(gates, 1, 0),
            |gates| read_nested(gates, 2, 1),
            |gates| read_nested(gates, 0, 2),
        ]);
    });
}

/// A thread that is inside another gate passes the queue, also in order to take out a lease.
#[test]
fn shuttle_users_of_many_gates_find_a_lease_that_was_given_past_them() {
    under_all_schedules(|| {
        side_by_side([
            |gates| {
                let refused = move_together(gates, &[0, 1], Patience::ForCalls).err();
                assert_ne!(refused, Some(Refusal::TimedOut));
            },
            |gates| move_together(gates, &[0, 1], Patience::Until(Deadline::NEVER)).unwrap(),
            |gates| {
                let _inside = gates[2].gate.shared().unwrap();
                let gate = &gates[1].gate;
                gate.lease(&gate.shared().unwrap(), Leased::default());
                yield_now();
                gate.end_lease(&Leased::default());
            },
        ]);
    });
}

#[test]
fn shuttle_a_user_of_many_gates_that_gives_up_or_waits_for_leases_leaves_no_hole() {
    under_all_schedules(|| {
        side_by_side([
            |gates| {
                let refused = move_together(gates, &[0, 1], Patience::Until(soon())).err();
                assert_ne!(refused, Some(Refusal::Busy(Busy { leases: 0 })));
            },
            |gates| {
                let patience = Patience::Until(Deadline::NEVER);
                move_together(gates, &[0, 1, 2], patience).unwrap();
            },
            |gates| {
                let refused = move_together(gates, &[1, 2], Patience::ForCalls).err();
                assert_ne!(refused, Some(Refusal::TimedOut));
            },
            |gates| {
                let gate = &gates[1].gate;
                gate.lease(&gate.shared().unwrap(), Leased::default());
                yield_now();
                gate.end_lease(&Leased::default());
            },
            |gates| gates[0].move_it(),
        ]);
    });
}

/// A reader that is inside one gate passes the tickets at a second, and from there wants a third that
/// the user of many gates may hold: that one leaves it before it waits.
#[test]
fn shuttle_users_of_many_gates_all_end_against_readers_that_are_inside_two_others() {
    fn read_three_deep(gates: &Gates) {
        let _pass = gates[2].gate.shared().unwrap();
        gates[2].reading(|| read_nested(gates, 1, 0));
    }
    under_all_schedules(|| {
        side_by_side([
            |gates| move_together(gates, &[0, 1], Patience::ForCalls).unwrap(),
            read_three_deep,
            |gates| gates[1].read(),
        ]);
    });
}
