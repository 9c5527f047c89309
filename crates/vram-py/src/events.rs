//! Events for Python: a bounded queue for each iterator, filled by one sink that never waits.

use std::collections::VecDeque;
use std::process;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use serde_json::Value;
use vram_residency::Event as Told;

use crate::report::to_python;
use crate::resident::lock;
use crate::wait::detach;
use crate::{errors, options};

/// The most events that wait for one iterator; older ones make room for newer ones, and are counted.
const QUEUE_LEN: usize = 8192;
/// How often a waiting iterator looks for signals.
const TICK: Duration = Duration::from_millis(50);

/// The iterators of a manager. It holds none of them.
#[derive(Debug)]
pub(crate) struct Hub {
    queues: Mutex<Queues>,
    pid: u32,
}

#[derive(Debug, Default)]
struct Queues {
    all: Vec<Weak<Queue>>,
    /// No event comes any more: the manager was closed.
    over: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Told>,
    missing: u64,
    over: bool,
}

impl Hub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { queues: Mutex::default(), pid: process::id() })
    }

    /// An iterator over all events from now on.
    pub(crate) fn iterate(&self, timeout: Option<f64>) -> PyResult<EventIterator> {
        let timeout = timeout.map(options::seconds).transpose()?;
        let queue = Arc::new(Queue::default());
        let mut queues = lock(&self.queues);
        queues.all.retain(|queue| queue.strong_count() > 0);
        queues.all.push(Arc::downgrade(&queue));
        lock(&queue.waiting).over = queues.over;
        drop(queues);
        Ok(EventIterator { queue, timeout, pid: self.pid })
    }

    /// Gives an event to all iterators.
    pub(crate) fn tell(&self, event: &Told) {
        for queue in self.alive() {
            let mut waiting = lock(&queue.waiting);
            waiting.events.push_back(event.clone());
            if waiting.events.len() > QUEUE_LEN {
                let _oldest = waiting.events.pop_front();
                waiting.missing = waiting.missing.saturating_add(1);
            }
            drop(waiting);
            queue.arrived.notify_all();
        }
    }

    /// Ends all iterators after what they have not read yet.
    pub(crate) fn end(&self) {
        lock(&self.queues).over = true;
        for queue in self.alive() {
            lock(&queue.waiting).over = true;
            queue.arrived.notify_all();
        }
    }

    /// Whether the manager was closed.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.queues).over
    }

    fn alive(&self) -> Vec<Arc<Queue>> {
        lock(&self.queues).all.iter().filter_map(Weak::upgrade).collect()
    }
}

/// The sink of a manager. It goes with the manager, and then no event comes any more.
#[derive(Debug)]
pub(crate) struct Sink(pub(crate) Arc<Hub>);

impl vram_residency::EventSink for Sink {
    fn event(&mut self, event: &Told) {
        self.0.tell(event);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.0.pid == process::id() {
            self.0.end();
        }
    }
}

/// Iterates over the events of a manager from the moment in which `Manager.events` was called.
///
/// `next()` waits for the next event, with the interpreter released; Ctrl-C ends the wait. The
/// iterator ends when the manager is closed, at once if it was before, and after `timeout` seconds without an event, if that
/// was given.
#[pyclass(frozen, module = "vram")]
#[derive(Debug)]
pub(crate) struct EventIterator {
    queue: Arc<Queue>,
    timeout: Option<Duration>,
    pid: u32,
}

#[pymethods]
impl EventIterator {
    const fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Event>> {
        let begun = Instant::now();
        loop {
            // A handler of signals may have forked.
            if self.pid != process::id() {
                return Err(errors::forked(self.pid));
            }
            let left = self.timeout.map(|most| most.saturating_sub(begun.elapsed()));
            let tick = left.map_or(TICK, |left| left.min(TICK));
            let (event, over) = detach(py, || self.queue.next(tick));
            if let Some(event) = event {
                return Event::new(event).map(Some);
            }
            py.check_signals()?;
            if over || self.timeout.is_some_and(|most| begun.elapsed() >= most) {
                return Ok(None);
            }
        }
    }

    /// The number of events that this iterator missed, because it was not read for long.
    #[getter]
    fn missing(&self, py: Python<'_>) -> PyResult<u64> {
        if self.pid != process::id() {
            return Err(errors::forked(self.pid));
        }
        Ok(detach(py, || lock(&self.queue.waiting).missing))
    }
}

impl Queue {
    /// The next event, after at most this long; and whether none will come.
    fn next(&self, tick: Duration) -> (Option<Told>, bool) {
        let mut waiting = lock(&self.waiting);
        if waiting.events.is_empty() && !waiting.over {
            let waited = self.arrived.wait_timeout(waiting, tick);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let event = waiting.events.pop_front();
        (event, waiting.over)
    }
}

/// Something that happened to a tensor, a model or a device.
#[pyclass(frozen, module = "vram")]
#[derive(Debug)]
pub(crate) struct Event {
    /// The number of the event; the next one of the manager has the next number.
    #[pyo3(get)]
    seq: u64,
    /// What happened: "sealed", "verified", "altered", "quarantined", "freed", …
    #[pyo3(get)]
    name: &'static str,
    /// When, in seconds since 1970.
    #[pyo3(get)]
    at: f64,
    data: Value,
}

impl Event {
    fn new(event: Told) -> PyResult<Self> {
        let (seq, name) = (event.seq, event.kind.name());
        let at = Duration::from_millis(event.at.unix_millis()).as_secs_f64();
        let data = serde_json::to_value(&event);
        let data = data.map_err(|error| errors::caller("config", &error.to_string()))?;
        Ok(Self { seq, name, at, data })
    }

    /// A text anywhere in the event: its field, or that of its piece, or that of its kind.
    fn text(&self, field: &str) -> Option<&str> {
        let direct = self.data.get(field);
        let of_piece = || self.data.get("piece").and_then(|piece| piece.get(field));
        let of_kind = || self.data.get("kind").and_then(|kind| kind.get(field));
        direct.or_else(of_piece).or_else(of_kind).and_then(Value::as_str)
    }
}

#[pymethods]
impl Event {
    /// The model, if it is about one.
    #[getter]
    fn model(&self) -> Option<&str> {
        self.text("model_id")
    }

    /// The tensor, if it is about one.
    #[getter]
    fn tensor(&self) -> Option<&str> {
        self.text("tensor")
    }

    /// The shard that holds the tensor, if it is about one.
    #[getter]
    fn shard(&self) -> Option<&str> {
        self.text("shard")
    }

    /// All of the event as plain data.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &self.data)
    }

    fn __repr__(&self) -> String {
        let named = [("model", self.model()), ("tensor", self.tensor())];
        let named = named.iter().filter_map(|(what, of)| of.map(|of| format!(" {what}={of:?}")));
        format!("<vram.Event {} {}{}>", self.seq, self.name, named.collect::<String>())
    }
}
