//! Numbering of events, and delivery to the queue of every sink.

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
use crate::level::EventLevel;
use crate::queue::Queue;
use crate::sink::{SinkCounts, Sinks};
use crate::sync::{Mutex, lock};
use crate::whose::Whose;

/// Numbers events and adds them to the queue of every sink. Emitting never waits for a sink.
pub struct Events {
    clock: Arc<dyn Clock>,
    /// The number of the next event. The lock is held until the event is in every queue, so that
    /// every queue is in order. Adding to a queue never waits.
    next: Mutex<u64>,
    queues: Vec<(EventLevel, Arc<Queue>)>,
}

/// The threads of all sinks. Dropping this value closes the queues, lets the sinks process what is
/// queued, and waits for that up to five seconds. An emitter drops it last.
#[derive(Debug)]
pub struct SinkThreads {
    events: Arc<Events>,
    threads: Vec<JoinHandle<()>>,
    /// The maximum wait for all of them together.
    timeout: Duration,
}

/// The maximum wait of the drop for all sinks together.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Events {
    /// Starts a thread for each sink.
    ///
    /// # Errors
    ///
    /// The system's error if it cannot start a thread. Threads that were started are ended.
    pub fn start(clock: Arc<dyn Clock>, sinks: Sinks) -> io::Result<(Arc<Self>, SinkThreads)> {
        let queues = sinks.0.iter().map(|(level, len, _)| (*level, Arc::new(Queue::new(*len))));
        let queues = queues.collect();
        let events = Arc::new(Self { clock, next: Mutex::new(0), queues });
        let timeout = CLOSE_TIMEOUT;
        let mut started = SinkThreads { events: Arc::clone(&events), threads: Vec::new(), timeout };
        for ((_, queue), (.., sink)) in events.queues.iter().zip(sinks.0) {
            let queue = Arc::clone(queue);
            let thread = std::thread::Builder::new().name("vram-events".to_owned());
            let thread = thread.spawn(move || queue.serve(sink));
            started.threads.push(thread?);
        }
        Ok((events, started))
    }

    /// Numbers an event and queues it for every sink, with the [present time](Self::now). The caller
    /// holds no lock that the clock may take.
    pub fn emit(&self, kind: EventKind) {
        self.emit_of(None, kind);
    }

    /// As [`emit`](Self::emit), for an event about a shard or a model.
    pub fn emit_of(&self, of: Option<Arc<Whose>>, kind: EventKind) {
        self.append(self.event_time(), of, kind);
    }

    /// As [`emit_of`](Self::emit_of), for a [step](Self::append_step).
    pub fn emit_step(&self, of: Option<Arc<Whose>>, kind: EventKind) {
        self.append_step(self.event_time(), of, kind);
    }

    /// Whether there is a sink that is told of anything.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        !self.queues.is_empty()
    }

    /// The present time, if there is a sink to tell it.
    fn event_time(&self) -> Timestamp {
        if self.is_heard() { self.now() } else { Timestamp::default() }
    }

    /// The present time, by the clock of the emitter, on the calling thread; the default if the
    /// clock panics.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        // A clock is foreign code, and the event must be emitted anyway.
        catch_unwind(AssertUnwindSafe(|| self.clock.now())).unwrap_or_else(|payload| {
            // Dropping the payload could panic again: in a destructor, that would abort the
            // process.
            core::mem::forget(payload);
            Timestamp::default()
        })
    }

    /// The present time by the monotonic clock of the emitter, for ages; zero if the clock panics.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        catch_unwind(AssertUnwindSafe(|| self.clock.monotonic())).unwrap_or_else(|payload| {
            core::mem::forget(payload);
            Duration::ZERO
        })
    }

    /// Numbers an event and queues it for every sink. Calls nothing foreign and waits for nobody, so
    /// that it can be called in the critical section of what the event reports: the order of events
    /// is then the order of changes.
    pub fn append(&self, at: Timestamp, of: Option<Arc<Whose>>, kind: EventKind) {
        self.queue(at, of, kind, false);
    }

    /// As [`append`](Self::append), for a step of a call on a whole model, about which an event
    /// follows: a sink of [`EventLevel::Models`] is told that one alone.
    pub fn append_step(&self, at: Timestamp, of: Option<Arc<Whose>>, kind: EventKind) {
        self.queue(at, of, kind, true);
    }

    fn queue(&self, at: Timestamp, of: Option<Arc<Whose>>, kind: EventKind, step: bool) {
        let mut next = lock(&self.next);
        let seq = *next;
        *next = seq.saturating_add(1);
        if !self.is_heard() {
            return;
        }
        let event = Arc::new(Event { seq, at, of, kind });
        for (level, queue) in &self.queues {
            if level.takes(&event, step) {
                queue.push(&event);
            }
        }
    }

    /// The number of events so far.
    #[must_use]
    pub fn emitted(&self) -> u64 {
        *lock(&self.next)
    }

    /// The counts of each sink, in the order in which the sinks were added.
    #[must_use]
    pub fn counts(&self) -> Vec<SinkCounts> {
        self.queues.iter().map(|(_, queue)| queue.counts()).collect()
    }

    /// Waits until every sink in service has received all events emitted before, and was flushed;
    /// until `deadline`, or without a limit if there is none. Returns false if that did not happen
    /// in time, or if the calling thread is a sink's own.
    #[must_use]
    pub fn flush(&self, deadline: Option<Instant>) -> bool {
        let asked: Vec<u64> = self.queues.iter().map(|(_, queue)| queue.ask_flush()).collect();
        // Does not stop at the first failure: every sink gets its time.
        self.queues
            .iter()
            .zip(asked)
            .fold(true, |done, ((_, queue), number)| queue.flushed(number, deadline) && done)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("sinks", &self.queues.len()).finish_non_exhaustive()
    }
}

impl Drop for SinkThreads {
    fn drop(&mut self) {
        for (_, queue) in &self.events.queues {
            queue.close();
        }
        let deadline = Instant::now().checked_add(self.timeout);
        // There are fewer threads than queues if one thread could not be started.
        for ((_, queue), thread) in self.events.queues.iter().zip(self.threads.drain(..)) {
            if queue.ended(deadline) {
                // The thread has ended its work and only has to return.
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

        // Later events are counted as dropped, and no call waits.
        events.emit(EventKind::Closed { left: 2 });
        assert!(!events.flush(Some(Instant::now())));
        let [counts] = events.counts().try_into().unwrap();
        assert_eq!((counts.emitted, counts.delivered, counts.dropped), (3, 0, 1));
        drop(release);
    }
}
