//! Models of a life under shuttle: what calls, a forced reset, a loss and a close do to each other.
//!
//! Each model runs under random schedules and under PCT, `VRAM_MODEL_SCHEDULES` of each; a deadlock
//! is a failure, and is printed with its schedule:
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle \
//!     cargo test -p vram-space --profile proptest --lib shuttle_
//! ```

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use shuttle::thread::{spawn, yield_now};
use vram_alloc::GpuIndex;

use super::*;
use crate::sync::models::under_all_schedules;

/// What the owner was told, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Lost,
    Reset,
}

#[derive(Default)]
struct World {
    life: Arc<Life>,
    /// Calls that touch the device.
    inside: AtomicUsize,
    told: Mutex<Vec<Told>>,
}

type Shared = Arc<World>;

fn ecc() -> GpuError {
    GpuError::driver(GpuIndex::new(0), 214)
}

impl World {
    /// Others go first, if they can: the order of what is told must not depend on them.
    fn tell(&self, what: Told) {
        yield_now();
        lock(&self.told).push(what);
    }

    /// A call of two steps, each of which asks whether it may go to the device.
    fn call(&self) {
        let Ok(pass) = self.life.enter() else { return };
        for _ in 0..2 {
            if self.life.work().is_ok() {
                self.inside.fetch_add(1, Ordering::SeqCst);
                yield_now();
                self.inside.fetch_sub(1, Ordering::SeqCst);
            }
        }
        drop(pass);
    }

    fn lose(&self) {
        let epoch = self.life.epoch();
        yield_now();
        let _known = self.life.lose(ecc(), Some(epoch), |_error| self.tell(Told::Lost));
    }

    /// As `vram-core` does it: claim, drain or wait, the device, the next life, restore, recover.
    fn reset(&self) {
        let Some(_claim) = self.life.claim() else { return };
        if self.life.lost().is_some() || self.life.drain().is_err() {
            if self.life.lost().is_none() || self.life.quiet_until(None, false).is_err() {
                return;
            }
        } else if self.life.begin_until(None, false).is_err() {
            return self.life.stay();
        }
        assert_eq!(self.inside.load(Ordering::SeqCst), 0, "a call is inside during the reset");
        yield_now();
        assert_eq!(self.inside.load(Ordering::SeqCst), 0, "a call began during the reset");
        let ((), _buried) = self.life.renew(|_epoch| ());
        yield_now();
        let told = || self.tell(Told::Reset);
        let _lost = self.life.recover(told, |_error| self.tell(Told::Lost));
    }

    fn close(&self) {
        self.life.close();
        self.life.settled_until(None, false, 0).unwrap();
        if self.life.closed() {
            assert!(self.life.enter().is_err() && self.life.work().is_err());
        }
    }

    /// The order of what was told is that of states, and its last word is the present state.
    fn ends_well(&self) {
        let told = lock(&self.told).clone();
        for pair in told.windows(2) {
            assert_ne!(pair, [Told::Lost, Told::Lost], "told twice of one loss: {told:?}");
        }
        let lost = self.life.state() == LifeState::Lost;
        if self.life.state() != LifeState::Closed {
            assert_eq!(told.last() == Some(&Told::Lost), lost, "{told:?}");
        }
        let resets = told.iter().filter(|told| **told == Told::Reset).count();
        assert_eq!(self.life.epoch(), u64::try_from(resets).unwrap(), "{told:?}");
        let inner = lock(&self.life.inner);
        assert!(inner.passes.is_empty() && inner.pass_count == 0 && inner.resetter.is_none());
        let ends = [LifeState::Serving, LifeState::Lost, LifeState::Closed];
        assert!(ends.contains(&inner.state.kind()), "{inner:?}");
    }
}

fn side_by_side<const N: usize>(calls: [fn(&World); N]) {
    let world = Shared::default();
    let threads = calls.map(|call| {
        let world = Arc::clone(&world);
        spawn(move || call(&world))
    });
    for thread in threads {
        thread.join().unwrap();
    }
    world.ends_well();
}

#[test]
fn shuttle_no_call_is_inside_while_a_forced_reset_is_at_the_device() {
    under_all_schedules(|| side_by_side([World::call, World::call, World::reset, World::reset]));
}

#[test]
fn shuttle_the_owner_hears_of_losses_and_resets_in_the_order_of_states() {
    under_all_schedules(|| {
        side_by_side([World::call, World::reset, World::reset, World::lose, World::lose]);
    });
}

#[test]
fn shuttle_a_close_waits_for_calls_and_resets_and_nobody_waits_for_ever() {
    under_all_schedules(|| {
        side_by_side([World::call, World::reset, World::close, World::lose]);
    });
}

/// The two alone, so that few schedules are enough.
#[test]
fn shuttle_a_loss_and_a_reset_are_told_in_the_order_of_states() {
    under_all_schedules(|| side_by_side([World::reset, World::lose]));
}

/// Memory becomes somebody's before a loss, which then names it, or never.
#[test]
fn shuttle_what_arrives_is_named_by_the_loss_or_refused() {
    under_all_schedules(|| {
        let (life, here) = (Arc::new(Life::default()), Arc::new(Mutex::new((0, 0))));
        let loses = {
            let (life, here) = (Arc::clone(&life), Arc::clone(&here));
            spawn(move || {
                let named = || {
                    let (count, named) = &mut *lock(&here);
                    *named = *count;
                };
                let _known = life.lose(ecc(), Some(0), |_error| named());
            })
        };
        let arrives = [(); 2].map(|()| {
            let (life, here) = (Arc::clone(&life), Arc::clone(&here));
            spawn(move || {
                let Ok(pass) = life.enter() else { return };
                yield_now();
                let _refused = life.arrive(pass.epoch(), || lock(&here).0 += 1);
            })
        });
        arrives.into_iter().for_each(|thread| thread.join().unwrap());
        loses.join().unwrap();
        let (count, named) = *lock(&here);
        assert_eq!(count, named, "an arrival that the loss did not name");
    });
}
