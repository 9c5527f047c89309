//! Numbering events, and passing them on to the queue of every sink.

use core::fmt;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::io;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use vram_id::{Clock, Timestamp};

use crate::event::{Event, EventKind};
use crate::queue::Queue;
use crate::sink::{SinkCounts, Sinks};
use crate::sync::{Mutex, lock};

/// Numbers events and passes them on to the queue of every sink. Emitting never waits for a sink.
pub struct Events {
    clock: Arc<dyn Clock>,
    /// The number of the next event. Held while it is queued everywhere, so that every queue has
    /// its events in order; queueing never waits.
    next: Mutex<u64>,
    queues: Vec<Arc<Queue>>,
}

/// The threads of all sinks. When dropped, it takes no more events, lets the sinks deliver what is
/// queued, and waits for that up to five seconds. An emitter drops it last.
#[derive(Debug)]
pub struct SinkThreads {
    events: Arc<Events>,
    threads: Vec<JoinHandle<()>>,
    /// How long is waited for all of them together.
    timeout: Duration,
}

/// How long dropping the threads waits for the sinks, all together.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Events {
    /// Starts a thread for each sink.
    ///
    /// # Errors
    ///
    /// The system's error if it gives no thread. Those that were started end.
    pub fn start(clock: Arc<dyn Clock>, sinks: Sinks) -> io::Result<(Arc<Self>, SinkThreads)> {
        let queues = sinks.0.iter().map(|(len, _)| Arc::new(Queue::new(*len))).collect();
        let events = Arc::new(Self { clock, next: Mutex::new(0), queues });
        let timeout = CLOSE_TIMEOUT;
        let mut started = SinkThreads { events: Arc::clone(&events), threads: Vec::new(), timeout };
        for (queue, (_, sink)) in events.queues.iter().zip(sinks.0) {
            let queue = Arc::clone(queue);
            let thread = std::thread::Builder::new().name("vram-events".to_owned());
            let thread = thread.spawn(move || queue.serve(sink));
            started.threads.push(thread?);
        }
        Ok((events, started))
    }

    /// Numbers an event and queues it for every sink. The clock is asked on the calling thread; a
    /// panic of it leaves the time at its default. The caller holds no lock that a sink may want.
    pub fn emit(&self, kind: EventKind) {
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
    #[must_use]
    pub fn emitted(&self) -> u64 {
        *lock(&self.next)
    }

    /// What became of them, for each sink in the order in which they were added.
    #[must_use]
    pub fn counts(&self) -> Vec<SinkCounts> {
        self.queues.iter().map(|queue| queue.counts()).collect()
    }

    /// Waits until every sink that is in service was given all events of before, and flushed; until
    /// `deadline` at the latest, without end if there is none. False if that was not done in time, or
    /// the calling thread is a sink's own.
    #[must_use]
    pub fn flush(&self, deadline: Option<Instant>) -> bool {
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
        let deadline = Instant::now().checked_add(self.timeout);
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

    use vram_id::SystemClock;

    use super::*;

    #[test]
    fn a_sink_that_never_returns_does_not_keep_the_manager_from_being_dropped() {
        let (entered, inside) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut sinks = Sinks::new();
        sinks.add_with(8, move |_event: &Event| {
            entered.send(()).unwrap();
            let _never = released.recv();
        });
        let (events, mut threads) = Events::start(Arc::new(SystemClock), sinks).unwrap();
        threads.timeout = Duration::from_millis(1);
        events.emit(EventKind::Closed { left: 0 });
        inside.recv().unwrap();
        events.emit(EventKind::Closed { left: 1 });
        drop(threads);

        // What comes after is counted, and no call waits.
        events.emit(EventKind::Closed { left: 2 });
        assert!(!events.flush(Some(Instant::now())));
        let [counts] = events.counts().try_into().unwrap();
        assert_eq!((counts.emitted, counts.delivered, counts.dropped), (3, 0, 1));
        drop(release);
    }
}
