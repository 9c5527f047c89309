//! The handle of a scrubber, and what its manager keeps of it.

use core::fmt;
use core::time::Duration;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crate::parts::Core;
use crate::scrub::control::By;
use crate::scrub::{Control, ScrubStatus, Totals};
use crate::sync::{Deadline, Mutex, lock};

/// How long a handle waits for the steps that run when it is stopped or dropped.
const END_WAIT: Duration = Duration::from_secs(5);

/// A running scrubber: a thread for each GPU. Dropping it stops it, like [`stop`](Self::stop).
#[must_use = "dropping a scrubber stops it"]
pub struct Scrubber {
    pub(crate) core: Weak<Core>,
    pub(crate) control: Arc<Control>,
    pub(crate) threads: Vec<JoinHandle<()>>,
}

/// The scrubbers of a manager, and the totals of all scrubbing.
#[derive(Debug, Default)]
pub struct Scrubbing {
    /// The last one is the one that runs, if any does. Those before it were stopped, and a device
    /// holds a thread of theirs.
    pub(crate) controls: Mutex<Vec<Weak<Control>>>,
    pub(crate) totals: Arc<Totals>,
}

impl Scrubbing {
    /// The totals of all scrubbing so far.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    fn all(&self) -> Vec<Arc<Control>> {
        lock(&self.controls).iter().filter_map(Weak::upgrade).collect()
    }

    /// The status of the running scrubber, if there is one.
    pub(crate) fn status(&self, core: &Core) -> Option<ScrubStatus> {
        let control = self.all().pop().filter(|control| !control.is_stopped())?;
        Some(control.status(Some(core)))
    }

    /// Stops the scrubber after its present steps, without waiting for them.
    pub(crate) fn stop(&self) {
        for control in self.all() {
            control.stop();
        }
    }

    /// GPUs on which the present step has lasted for at least this long.
    pub(crate) fn steps_of(&self, least: Duration) -> Vec<u32> {
        self.all().iter().flat_map(|control| control.steps_of(least)).collect()
    }

    /// Stops the scrubber for good, and waits until no other thread holds a part of the manager.
    ///
    /// # Errors
    ///
    /// The GPUs whose thread still does at the deadline; none of them if a caller's thread does.
    pub(crate) fn end(&self, deadline: Deadline) -> Result<(), Vec<u32>> {
        self.stop();
        let left =
            self.all().into_iter().filter_map(|control| control.outside_until(deadline).err());
        let left: Vec<By> = left.flatten().collect();
        if left.is_empty() { Ok(()) } else { Err(left.into_iter().filter_map(By::gpu).collect()) }
    }
}

impl Scrubber {
    /// The work that the scrubber has done, and the guarantees that it gives from now on.
    #[must_use]
    pub fn status(&self) -> ScrubStatus {
        let inside = self.control.enter(By::Status);
        let core = inside.as_ref().and_then(|_inside| self.core.upgrade());
        let status = self.control.status(core.as_deref());
        drop(core);
        drop(inside);
        status
    }

    /// Pauses the scrubber after its present steps, until it is resumed. It gives no guarantees
    /// meanwhile.
    pub fn pause(&self) {
        self.control.pause(true);
    }

    /// Resumes a paused scrubber.
    pub fn resume(&self) {
        self.control.pause(false);
    }

    /// Stops the scrubber, and waits until its present steps are done, for at most five seconds. A
    /// thread that a device holds for longer ends when its device lets go.
    #[expect(clippy::must_use_candidate, reason = "most callers only want it to end")]
    pub fn stop(mut self) -> ScrubStatus {
        self.end();
        self.status()
    }

    fn end(&mut self) {
        self.control.stop();
        let threads = core::mem::take(&mut self.threads);
        if threads.is_empty() {
            return;
        }
        if let Err(gpus) = self.control.ended_until(Deadline::within(END_WAIT)) {
            tracing::error!(?gpus, "threads of the scrubber are held by their devices, and left");
            return;
        }
        // A caller on a thread of the scrubber, inside a device, does not wait for itself.
        let own = std::thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != own) {
            // It has left its loop, and only has to return.
            if thread.join().is_err() {
                tracing::error!("a thread of the scrubber panicked");
            }
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
