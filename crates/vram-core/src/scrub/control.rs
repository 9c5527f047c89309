//! What the threads of a scrubber, its handle and its manager share.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::thread::ThreadId;
use std::time::Instant;

use crate::parts::Core;
use crate::scrub::{Facts, Moment, Over, Pace, Part, ScrubOptions, ScrubStatus, Tally};
use crate::sync::{Condvar, Deadline, Mutex, lock, wait_until};

/// The shared state of one scrubber.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) options: ScrubOptions,
    /// One for each GPU, in order of their index.
    pub(crate) posts: Vec<Post>,
    state: Mutex<State>,
    changed: Condvar,
}

/// What one thread of a scrubber publishes.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) gpu: u32,
    pub(crate) tally: Mutex<Tally>,
    /// The cost of everything on the GPU when its round was planned.
    load: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    paused: bool,
    /// GPUs whose thread has not left its loop.
    working: Vec<u32>,
    /// Threads that hold the manager's parts for a moment: the manager waits for them before it is
    /// dropped.
    inside: Vec<Held>,
}

/// A thread that holds the manager's parts.
#[derive(Debug)]
struct Held {
    thread: ThreadId,
    by: By,
    since: Instant,
}

/// Who holds the manager's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The thread of a GPU, for a step.
    Step(u32),
    /// A caller, for a status.
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Slept,
    Paused,
}

impl Control {
    pub(crate) fn new(options: ScrubOptions, posts: Vec<Post>) -> Self {
        let working = posts.iter().map(|post| post.gpu).collect();
        Self {
            options,
            posts,
            state: Mutex::new(State { working, ..State::default() }),
            changed: Condvar::new(),
        }
    }

    /// Publishes what is to be checked on a GPU, and returns the part of the rate that falls to it.
    pub(crate) fn part(&self, post: &Post, load: u64) -> Part {
        post.load.store(load, Ordering::Relaxed);
        let loads = self.posts.iter().map(|post| post.load.load(Ordering::Relaxed));
        Part::among(load, loads.fold(0, u64::saturating_add), self.posts.len())
    }

    /// Sleeps for `pause`, and longer while the scrubber is paused. Returns `None` if the scrubber
    /// must end.
    pub(crate) fn wait(&self, pause: Duration) -> Option<Waited> {
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
    pub(crate) fn enter(&self, by: By) -> Option<Inside<'_>> {
        let thread = std::thread::current().id();
        let mut state = lock(&self.state);
        if state.stopped {
            return None;
        }
        state.inside.push(Held { thread, by, since: Instant::now() });
        Some(Inside { control: self, thread, by })
    }

    /// Marks the thread of a GPU as one that works, until dropped.
    pub(crate) const fn working(&self, gpu: u32) -> Working<'_> {
        Working { control: self, gpu }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.state).stopped
    }

    /// Whether a thread of it still runs.
    pub(crate) fn is_working(&self) -> bool {
        !lock(&self.state).working.is_empty()
    }

    pub(crate) fn stop(&self) {
        self.set(|state| state.stopped = true);
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.set(|state| state.paused = paused);
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }

    /// Waits until no other thread holds the manager.
    ///
    /// # Errors
    ///
    /// Who holds it at the deadline.
    pub(crate) fn outside_until(&self, deadline: Deadline) -> Result<(), Vec<By>> {
        let me = std::thread::current().id();
        self.none_until(deadline, |state| {
            let others = state.inside.iter().filter(|held| held.thread != me);
            others.map(|held| held.by).collect()
        })
    }

    /// Waits until every thread but the calling one has left its loop.
    ///
    /// # Errors
    ///
    /// The GPUs of those that have not at the deadline.
    pub(crate) fn ended_until(&self, deadline: Deadline) -> Result<(), Vec<u32>> {
        let me = std::thread::current().id();
        self.none_until(deadline, |state| {
            let mine = |gpu: u32| {
                let step = |held: &Held| held.thread == me && held.by == By::Step(gpu);
                state.inside.iter().any(step)
            };
            state.working.iter().copied().filter(|gpu| !mine(*gpu)).collect()
        })
    }

    fn none_until<T>(
        &self,
        deadline: Deadline,
        left: impl Fn(&State) -> Vec<T>,
    ) -> Result<(), Vec<T>> {
        let mut state = lock(&self.state);
        loop {
            let left = left(&state);
            if left.is_empty() {
                return Ok(());
            }
            match wait_until(&self.changed, state, deadline) {
                Ok(woken) => state = woken,
                Err(_late) => return Err(left),
            }
        }
    }

    /// GPUs on which the present step has lasted for at least this long.
    pub(crate) fn steps_of(&self, least: Duration) -> Vec<u32> {
        let state = lock(&self.state);
        let steps = state.inside.iter().filter(|held| held.since.elapsed() >= least);
        steps.filter_map(|held| held.by.gpu()).collect()
    }

    /// The status; `core` is `None` if the scrubber was stopped or its manager does not exist.
    pub(crate) fn status(&self, core: Option<&Core>) -> ScrubStatus {
        let rate = self.options.rate;
        let state = lock(&self.state);
        let paused = state.paused;
        let step_of = |gpu| {
            let step = state.inside.iter().find(|held| held.by == By::Step(gpu));
            step.map(|held| held.since.elapsed())
        };
        let steps: Vec<_> = self.posts.iter().map(|post| (post, step_of(post.gpu))).collect();
        drop(state);
        let mut last: Option<(Instant, String)> = None;
        let gpus = steps.into_iter().map(|(post, step_for)| {
            let facts = core.map(|core| Facts::of(core, Over::Gpu(post.gpu)));
            let tally = lock(&post.tally);
            if let Some((at, error)) = tally.last_error()
                && last.as_ref().is_none_or(|(before, _)| before < at)
            {
                last = Some((*at, error.clone()));
            }
            tally.status(post.gpu, Moment { facts, rate, paused, step_for })
        });
        let gpus: Vec<_> = gpus.collect();
        let error = last.map(|(_at, error)| error);
        ScrubStatus::of(rate, (core.is_some(), paused), error, gpus)
    }
}

impl Post {
    pub(crate) fn new(gpu: u32, load: u64, pace: &Pace) -> Self {
        Self { gpu, tally: Mutex::new(Tally::new(pace)), load: AtomicU64::new(load) }
    }
}

impl By {
    pub(crate) const fn gpu(self) -> Option<u32> {
        match self {
            Self::Step(gpu) => Some(gpu),
            Self::Status => None,
        }
    }
}

/// A thread that holds the manager for a moment.
pub(crate) struct Inside<'a> {
    control: &'a Control,
    thread: ThreadId,
    by: By,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.control.set(|state| {
            let mine = |held: &Held| held.thread == self.thread && held.by == self.by;
            if let Some(at) = state.inside.iter().position(mine) {
                state.inside.swap_remove(at);
            }
        });
    }
}

/// The thread of a GPU, in its loop. When it leaves, also by a panic, the scrubber is over.
pub(crate) struct Working<'a> {
    control: &'a Control,
    gpu: u32,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.control.set(|state| {
            state.stopped = true;
            state.working.retain(|gpu| *gpu != self.gpu);
        });
        tracing::info!(gpu = self.gpu, "scrubber ended");
    }
}
