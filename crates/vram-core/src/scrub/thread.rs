//! The scrubber's thread, and the handle that holds it.

use core::fmt;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::{Arc, Weak};
use std::thread::{JoinHandle, ThreadId};
use std::time::Instant;

use crate::error::VramError;
use crate::parts::Core;
use crate::scrub::{Facts, Pace, ScrubCursor, ScrubOptions, ScrubStatus, Tally, Totals, step};
use crate::sync::{Condvar, Deadline, Mutex, MutexGuard, lock, wait_until};

/// How long the scrubber waits after a device, a clock or a sink has panicked.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// A running scrubber. Dropping it stops it.
#[must_use = "dropping a scrubber stops it"]
pub struct Scrubber {
    core: Weak<Core>,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

/// The state that the handle, the manager and the thread share.
#[derive(Debug)]
struct Control {
    options: ScrubOptions,
    state: Mutex<State>,
    changed: Condvar,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    paused: bool,
    /// Whether the thread has left its loop.
    ended: bool,
    /// Threads that hold the manager's parts for a moment: the manager waits for them before it is
    /// dropped.
    inside: Vec<ThreadId>,
}

/// The scrubber of a manager, if it has one, and the totals of all scrubbing.
#[derive(Debug, Default)]
pub struct Scrubbing {
    control: Mutex<Weak<Control>>,
    pub(crate) totals: Arc<Totals>,
}

impl Scrubbing {
    /// The totals of all scrubbing so far.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The status of the running scrubber, if there is one.
    pub(crate) fn status(&self, core: &Core) -> Option<ScrubStatus> {
        let control = lock(&self.control).upgrade()?;
        let State { stopped, paused, .. } = *lock(&control.state);
        if stopped {
            return None;
        }
        let facts = Facts::of(core);
        let tally = lock(&control.tally);
        Some(tally.status(Some(facts), control.options.rate, paused))
    }

    /// Stops the scrubber after its present step, without waiting for it.
    pub(crate) fn stop(&self) {
        let control = lock(&self.control).upgrade();
        if let Some(control) = control {
            control.stop();
        }
    }

    /// Stops the scrubber for good, and waits until it holds no part of the manager. Does not wait
    /// where that would never end: on the scrubber's own thread, from inside a sink.
    pub fn end(&self) {
        let control = lock(&self.control).upgrade();
        if let Some(control) = control {
            control.stop();
            control.wait_outside();
        }
    }
}

/// Starts a scrubber for a manager.
pub fn start(
    core: &Arc<Core>,
    scrubbing: &Scrubbing,
    options: ScrubOptions,
) -> Result<Scrubber, VramError> {
    options.check()?;
    let mut held = lock(&scrubbing.control);
    // Checked under the lock: a thread that closes the manager first marks it as closed, and then
    // stops the scrubber that it finds here.
    core.check_open()?;
    if held.upgrade().is_some_and(|control| !lock(&control.state).stopped) {
        return Err(VramError::config("a scrubber is running already: stop it first"));
    }
    let pace = Pace::new(options);
    let control = Arc::new(Control {
        options,
        state: Mutex::default(),
        changed: Condvar::new(),
        tally: Mutex::new(Tally::new(&pace)),
    });
    let (weak, shared) = (Arc::downgrade(core), Arc::clone(&control));
    let totals = Arc::clone(&scrubbing.totals);
    let thread = std::thread::Builder::new()
        .name("vram-scrubber".into())
        .spawn(move || run(&weak, &shared, &totals, pace))
        .map_err(|error| VramError::Io {
            action: "start the scrubber's thread",
            path: None,
            source: Arc::new(error),
        })?;
    *held = Arc::downgrade(&control);
    drop(held);
    tracing::info!(?options, "scrubber started");
    Ok(Scrubber { core: Arc::downgrade(core), control, thread: Some(thread) })
}

/// The loop of the thread: a step, then a pause, until the scrubber is stopped or the manager is
/// dropped.
fn run(core: &Weak<Core>, control: &Control, totals: &Totals, mut pace: Pace) {
    let mut cursor = ScrubCursor::new();
    let mut pause = Duration::ZERO;
    while let Some(waited) = control.wait(pause) {
        if waited == Waited::Paused {
            pace.resumed();
        }
        let Some(inside) = control.enter() else { break };
        let Some(manager) = core.upgrade() else { break };
        let began = Instant::now();
        // Devices, clocks and sinks are foreign code, which can panic.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pace.look(&manager);
            let began = Instant::now();
            let step = step::scrub_step(&manager, totals, &mut cursor, pace.step_len());
            (step, began.elapsed())
        }));
        let mut tally = lock(&control.tally);
        pause = match outcome {
            Ok((step, busy)) => {
                let pause = pace.pause(&step, busy);
                tally.add(&step, cursor.round(), &pace);
                pause
            }
            Err(payload) => {
                // Dropping the payload could panic again.
                core::mem::forget(payload);
                tracing::error!("a step of the scrubber panicked");
                tally.failed("a device, a clock or a sink panicked");
                AFTER_PANIC.max(began.elapsed())
            }
        };
        drop(tally);
        // Drop the manager before `inside`: this thread must not be the last to hold the manager.
        drop(manager);
        drop(inside);
    }
    let mut state = lock(&control.state);
    (state.stopped, state.ended) = (true, true);
    drop(state);
    control.changed.notify_all();
    tracing::info!("scrubber ended");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    Slept,
    Paused,
}

impl Control {
    /// Sleeps for `pause`, and longer while the scrubber is paused. Returns `None` if the scrubber
    /// must end.
    fn wait(&self, pause: Duration) -> Option<Waited> {
        let deadline = Deadline::within(pause);
        let mut waited = Waited::Slept;
        let mut state = lock(&self.state);
        loop {
            if state.stopped {
                return None;
            }
            let until = if state.paused { Deadline::NEVER } else { deadline };
            if state.paused {
                waited = Waited::Paused;
            } else if waited == Waited::Paused {
                return Some(waited);
            }
            state = match wait_until(&self.changed, state, until) {
                Ok(state) => state,
                Err(state) if state.stopped => return None,
                Err(state) if state.paused => state,
                Err(_state) => return Some(waited),
            };
        }
    }

    /// Marks this thread as one that holds the manager, unless the scrubber must end.
    fn enter(&self) -> Option<Inside<'_>> {
        let mut state = lock(&self.state);
        if state.stopped {
            return None;
        }
        state.inside.push(std::thread::current().id());
        Some(Inside { control: self })
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }

    fn stop(&self) {
        self.set(|state| state.stopped = true);
    }

    /// Waits until no other thread holds the manager.
    fn wait_outside(&self) {
        let me = std::thread::current().id();
        let mut state = lock(&self.state);
        while !state.inside.is_empty() && !state.inside.contains(&me) {
            state = self.woken(state);
        }
    }

    fn woken<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        match wait_until(&self.changed, state, Deadline::NEVER) {
            Ok(state) | Err(state) => state,
        }
    }
}

/// A thread that holds the manager for a moment.
struct Inside<'a> {
    control: &'a Control,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let me = std::thread::current().id();
        self.control.set(|state| {
            if let Some(position) = state.inside.iter().position(|thread| *thread == me) {
                state.inside.swap_remove(position);
            }
        });
    }
}

impl Scrubber {
    /// The work that the scrubber has done, and the guarantees that it gives from now on.
    #[must_use]
    pub fn status(&self) -> ScrubStatus {
        let paused = lock(&self.control.state).paused;
        let rate = self.control.options.rate;
        let inside = self.control.enter();
        let core = inside.as_ref().and_then(|_inside| self.core.upgrade());
        let facts = core.as_deref().map(Facts::of);
        let status = lock(&self.control.tally).status(facts, rate, paused);
        drop(core);
        drop(inside);
        status
    }

    /// Pauses the scrubber after its present step, until it is resumed. It gives no guarantees
    /// meanwhile.
    pub fn pause(&self) {
        self.control.set(|state| state.paused = true);
    }

    /// Resumes a paused scrubber.
    pub fn resume(&self) {
        self.control.set(|state| state.paused = false);
    }

    /// Stops the scrubber, and waits until its present step is done.
    #[expect(clippy::must_use_candidate, reason = "most callers only want it to end")]
    pub fn stop(mut self) -> ScrubStatus {
        self.end();
        self.status()
    }

    fn end(&mut self) {
        self.control.stop();
        if let Some(thread) = self.thread.take()
            // A sink that stops the scrubber runs on the scrubber's thread, which then ends without
            // a join.
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the scrubber's thread panicked");
        }
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").field("options", &self.control.options).finish_non_exhaustive()
    }
}
