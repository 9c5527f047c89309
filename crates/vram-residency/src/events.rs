//! What happened, in order, for whoever listens.

use core::fmt;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::thread::JoinHandle;

use vram_alloc::ByteLen;
use vram_seal::Protection;

use crate::clock::{Clock, Timestamp};
use crate::error::VramError;
use crate::id::ShardId;
use crate::manager::VramManager;
use crate::sink::{Queue, SinkCounts, Sinks};
use crate::standing::OnEviction;
use crate::sync::{Deadline, Mutex, lock};

/// Something that happened to what a manager holds. Events of one shard come in the order in which
/// they happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Event {
    /// Position among all events of the manager, from 0. A gap means that events were dropped.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What happened. No kind carries content, keys, digests or pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "event", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum EventKind {
    /// A shard became resident.
    Sealed {
        /// The shard.
        shard: ShardId,
        /// The model that it was sealed as.
        model_id: Arc<str>,
        /// Who it belongs to, if the request said so.
        owner: Option<Arc<str>>,
        /// The GPU that holds it.
        gpu: u32,
        /// Bytes of plaintext.
        bytes: ByteLen,
    },
    /// A shard's device bytes were looked at, and are those that were sealed.
    Verified {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// Device bytes that were checked.
        bytes: ByteLen,
    },
    /// Device bytes were found that are not those that were sealed. The shard is in quarantine.
    Altered {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// The altered segments that were found now, in ascending order; none if they are sound one
        /// by one and the content as a whole is not.
        segments: Vec<u64>,
    },
    /// A shard was closed to readers. Follows the first [`Altered`](Self::Altered).
    Quarantined {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
    },
    /// A quarantined shard was made whole from a source, and is open again.
    Repaired {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// The segments that were written again, in ascending order.
        segments: Vec<u64>,
    },
    /// A shard was sealed anew: opened, closed, or moved to another key.
    SealedAnew {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// What lies in device memory now.
        #[cfg_attr(feature = "serde", serde(with = "crate::shard::protection_as_word"))]
        protection: Protection,
    },
    /// A shard moved: to another GPU, or to another place on the same one.
    Moved {
        /// The shard.
        shard: ShardId,
        /// The GPU that held it.
        from: u32,
        /// The GPU that holds it.
        to: u32,
        /// Bytes of plaintext.
        bytes: ByteLen,
    },
    /// A shard left its GPU for host memory.
    Parked {
        /// The shard.
        shard: ShardId,
        /// The GPU that held it.
        gpu: u32,
        /// Host bytes that it takes.
        bytes: ByteLen,
    },
    /// A shard came back from host memory.
    Woken {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// Bytes of plaintext.
        bytes: ByteLen,
    },
    /// A shard had to make room. What became of it follows in an event of its own.
    Evicted {
        /// The shard.
        shard: ShardId,
        /// The GPU that held it.
        gpu: u32,
        /// Bytes that came back.
        bytes: ByteLen,
        /// What became of it.
        how: OnEviction,
    },
    /// A shard was freed.
    Freed {
        /// The shard.
        shard: ShardId,
        /// The GPU that held it.
        gpu: u32,
        /// Bytes that can be handed out again; none if they could not be given back, as an event
        /// before this one says.
        bytes: ByteLen,
        /// Whether they were overwritten first.
        wiped: bool,
    },
    /// Bytes could not be wiped or given back. They stay counted and are never handed out again.
    NotReturned {
        /// The GPU that holds them.
        gpu: u32,
        /// How many.
        bytes: ByteLen,
    },
    /// A shard was written to a sealed image.
    Exported {
        /// The shard.
        shard: ShardId,
        /// The GPU that holds it.
        gpu: u32,
        /// Bytes of the image.
        bytes: ByteLen,
    },
    /// A call was refused or failed.
    Refused {
        /// The call, as the metrics name it.
        call: Arc<str>,
        /// The shard that it named, if it named one.
        shard: Option<ShardId>,
        /// The GPU that it named, if it named one.
        gpu: Option<u32>,
        /// The [code](crate::VramError::code) of the error.
        code: Arc<str>,
    },
    /// A sticky driver error took a GPU away.
    DeviceLost {
        /// The GPU.
        gpu: u32,
        /// What the driver said, in words.
        error: Arc<str>,
        /// The shards that it held, in ascending order of their ids.
        shards: Vec<ShardId>,
    },
    /// A GPU was emptied and is usable again.
    DeviceReset {
        /// The GPU.
        gpu: u32,
        /// The shards that are gone.
        lost: Vec<ShardId>,
        /// The shards that came back from copies.
        restored: Vec<ShardId>,
    },
    /// A direct copy between two GPUs arrived altered; it is staged through the host since.
    LinkDistrusted {
        /// The GPU that was copied from.
        from: u32,
        /// The GPU that was copied to.
        to: u32,
    },
    /// The manager was closed.
    Closed {
        /// Shards that could not be freed in time.
        left: u64,
    },
}

impl EventKind {
    /// A stable name of the kind, as in the serialised form.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sealed { .. } => "sealed",
            Self::Verified { .. } => "verified",
            Self::Altered { .. } => "altered",
            Self::Quarantined { .. } => "quarantined",
            Self::Repaired { .. } => "repaired",
            Self::SealedAnew { .. } => "sealed_anew",
            Self::Moved { .. } => "moved",
            Self::Parked { .. } => "parked",
            Self::Woken { .. } => "woken",
            Self::Evicted { .. } => "evicted",
            Self::Freed { .. } => "freed",
            Self::NotReturned { .. } => "not_returned",
            Self::Exported { .. } => "exported",
            Self::Refused { .. } => "refused",
            Self::DeviceLost { .. } => "device_lost",
            Self::DeviceReset { .. } => "device_reset",
            Self::LinkDistrusted { .. } => "link_distrusted",
            Self::Closed { .. } => "closed",
        }
    }
}

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
        let at = catch_unwind(AssertUnwindSafe(|| self.clock.now())).unwrap_or_default();
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

impl VramManager {
    /// Waits until every sink that is in service was given all events of before, and flushed. False
    /// if the time was up first, or if a sink's own thread asks. Whether a sink could keep them,
    /// [`event_counts`](Self::event_counts) says.
    #[must_use]
    pub fn flush_events(&self, timeout: Duration) -> bool {
        self.core.events.flush(Deadline::within(timeout))
    }

    /// What became of all events, for each sink in the order in which they were added.
    #[must_use]
    pub fn event_counts(&self) -> Vec<SinkCounts> {
        self.core.events.counts()
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
