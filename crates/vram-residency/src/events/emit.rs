//! Numbering events, and passing them on to the queue of every sink.

use core::fmt;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::clock::{Clock, Timestamp};
use crate::error::VramError;
use crate::events::{Event, EventKind};
use crate::sink::{Queue, SinkCounts, Sinks};
use crate::sync::{Deadline, Mutex, lock};

/// Numbers events and passes them on. Never blocks, and is called under no lock but a shard's gate.
pub(crate) struct Events {
    clock: Arc<dyn Clock>,
    /// The number of the next event. Held while it is queued everywhere, so that every queue has
    /// its events in order; queueing waits for nobody.
    next: Mutex<u64>,
    queues: Vec<Arc<Queue>>,
}

/// The threads of all sinks. Dropped with the manager, it lets them deliver what is queued.
#[derive(Debug)]
pub(crate) struct SinkThreads {
    events: Arc<Events>,
    threads: Vec<JoinHandle<()>>,
    /// How long is waited for all of them together.
    timeout: Duration,
}

/// How long a manager that is dropped waits for its sinks, all together.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Events {
    /// Starts a thread for each sink.
    ///
    /// # Errors
    ///
    /// [`VramError::Io`] if the system gives no thread. Those that were started end.
    pub(crate) fn start(
        clock: Arc<dyn Clock>,
        sinks: Sinks,
    ) -> Result<(Arc<Self>, SinkThreads), VramError> {
        let queues = sinks.0.iter().map(|(len, _)| Arc::new(Queue::new(*len))).collect();
        let events = Arc::new(Self { clock, next: Mutex::new(0), queues });
        let timeout = CLOSE_TIMEOUT;
        let mut started = SinkThreads { events: Arc::clone(&events), threads: Vec::new(), timeout };
        for (queue, (_, sink)) in events.queues.iter().zip(sinks.0) {
            let queue = Arc::clone(queue);
            let thread = std::thread::Builder::new().name("vram-events".to_owned());
            let thread = thread.spawn(move || queue.serve(sink));
            started.threads.push(thread.map_err(|error| VramError::Io {
                action: "start the thread of an event sink",
                path: None,
                source: Arc::new(error),
            })?);
        }
        Ok((events, started))
    }

    /// Tells everybody who listens. The caller holds no lock but a shard's gate.
    pub(crate) fn emit(&self, kind: EventKind) {
        if self.queues.is_empty() {
            let mut next = lock(&self.next);
            *next = next.saturating_add(1);
            return;
        }
        // Before the lock, and caught: a clock is foreign code, and what happened has happened.
        let at = catch_unwind(AssertUnwindSafe(|| self.clock.now())).unwrap_or_else(|payload| {
            // Dropping it could panic once more: in a destructor, that would end the process.
            core::mem::forget(payload);
            Timestamp::default()
        });
        let mut next = lock(&self.next);
        let event = Arc::new(Event { seq: *next, at, kind });
        *next = next.saturating_add(1);
        for queue in &self.queues {
            queue.push(&event);
        }
    }

    /// Events so far.
    pub(crate) fn emitted(&self) -> u64 {
        *lock(&self.next)
    }

    /// What became of them, for each sink in the order in which they were added.
    pub(crate) fn counts(&self) -> Vec<SinkCounts> {
        self.queues.iter().map(|queue| queue.counts()).collect()
    }

    /// Waits until every sink that is in service was given all events of before, and flushed.
    /// False if that was not done in time, or the calling thread is a sink's own.
    pub(crate) fn flush(&self, deadline: Deadline) -> bool {
        let asked: Vec<u64> = self.queues.iter().map(|queue| queue.ask_flush()).collect();
        // No short cut: all of them get their time.
        self.queues
            .iter()
            .zip(asked)
            .fold(true, |done, (queue, number)| queue.flushed(number, deadline) && done)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("sinks", &self.queues.len()).finish_non_exhaustive()
    }
}

impl Drop for SinkThreads {
    fn drop(&mut self) {
        for queue in &self.events.queues {
            queue.close();
        }
        let deadline = Deadline::within(self.timeout);
        // Fewer threads than queues if one of them could not be started.
        for (queue, thread) in self.events.queues.iter().zip(self.threads.drain(..)) {
            if queue.ended(deadline) {
                // All that is left of it is to return.
                let _outcome = thread.join();
            } else {
                tracing::error!("an event sink did not come to an end and is left behind");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn a_sink_that_never_returns_does_not_keep_the_manager_from_being_dropped() {
        let (entered, inside) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut sinks = Sinks::default();
        sinks.0.push((
            8,
            Box::new(move |_event: &Event| {
                entered.send(()).unwrap();
                let _never = released.recv();
            }),
        ));
        let (events, mut threads) = Events::start(Arc::new(SystemClock), sinks).unwrap();
        threads.timeout = Duration::from_millis(1);
        events.emit(EventKind::Closed { left: 0 });
        inside.recv().unwrap();
        events.emit(EventKind::Closed { left: 1 });
        drop(threads);

        // What comes after is counted, and nobody waits.
        events.emit(EventKind::Closed { left: 2 });
        assert!(!events.flush(Deadline::within(Duration::ZERO)));
        let [counts] = events.counts().try_into().unwrap();
        assert_eq!((counts.emitted, counts.delivered, counts.dropped), (3, 0, 1));
        drop(release);
    }
}
