//! Leases by connection: a worker that goes, or dies, gives its leases back with its connection. Those of
//! workers that have the memory open are in `sharing`.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use vram_residency::{Lease, ModelHandle, ModelPiece, ShardId};

use super::Engine;
use crate::feed::Own;
use crate::problem::Problem;

/// What a lease asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseRequest {
    pub(crate) model: String,
    /// Who holds it, for listings: at most 256 bytes.
    #[serde(default)]
    pub(crate) holder: String,
    /// Whether the answer lists the shards; without a meaning where they are shared.
    #[serde(default)]
    pub(crate) shards: bool,
}

/// All leases by connection.
#[derive(Debug)]
pub(crate) struct Leases {
    places: Arc<Semaphore>,
    most: usize,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    last: u64,
    held: BTreeMap<u64, Noted>,
    /// Leases of processes that were ended by force.
    forced: usize,
}

#[derive(Debug)]
struct Noted {
    model: String,
    holder: String,
    since: Instant,
    /// The process that has its memory open, if one has.
    worker: Option<Worker>,
}

/// What a listing and a drain know of a worker that has memory of a model open.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) pid: u32,
    /// True when the worker has said that it has closed all of it.
    pub(super) closed: watch::Sender<bool>,
}

/// A model that a worker has open, and who it is.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) lease: u64,
    pub(crate) model: String,
    pub(crate) pid: u32,
}

/// One lease, as listings show it.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) lease: u64,
    pub(crate) model: String,
    pub(crate) holder: String,
    pub(crate) age_ms: u64,
    /// The process that has the memory of the model open: its lease lasts as long as it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
}

/// A model that a connection holds. Dropped, it is given back, listed no more, and told.
#[derive(Debug)]
pub(crate) struct Held {
    engine: Arc<Engine>,
    pub(crate) number: u64,
    /// How it ended, for the event.
    pub(crate) how: &'static str,
    model: ModelHandle,
    leases: Vec<Lease>,
    _place: OwnedSemaphorePermit,
}

/// A shard of a leased model.
#[derive(Debug, Serialize)]
pub(crate) struct LeasedShard {
    tensor: String,
    part: u32,
    shard: String,
    gpu: u32,
    bytes: u64,
}

impl LeasedShard {
    fn of((piece, lease): (&ModelPiece, &Lease)) -> Self {
        Self {
            tensor: piece.piece.name.clone(),
            part: piece.piece.part,
            shard: lease.shard().shard_id.to_string(),
            gpu: lease.gpu(),
            bytes: lease.len().get(),
        }
    }
}

impl Leases {
    pub(crate) fn new(most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), most, all: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().held.len()
    }

    /// All leases, the oldest first.
    pub(crate) fn list(&self) -> Vec<Shown> {
        let now = Instant::now();
        let all = self.lock();
        let shown = all.held.iter().map(|(number, noted)| Shown {
            lease: *number,
            model: noted.model.clone(),
            holder: noted.holder.clone(),
            age_ms: u64::try_from(now.saturating_duration_since(noted.since).as_millis())
                .unwrap_or(u64::MAX),
            pid: noted.worker.as_ref().map(|worker| worker.pid),
        });
        shown.collect()
    }

    /// The leases by connection: they end when they are cut.
    pub(crate) fn count_connected(&self) -> usize {
        self.lock().held.values().filter(|noted| noted.worker.is_none()).count()
    }

    /// The leases whose memory a process has open.
    pub(crate) fn open(&self) -> Vec<Open> {
        let all = self.lock();
        let open = all.held.iter().filter_map(|(lease, noted)| {
            let pid = noted.worker.as_ref()?.pid;
            Some(Open { lease: *lease, model: noted.model.clone(), pid })
        });
        open.collect()
    }

    /// How many leases of processes were ended by force.
    pub(crate) fn forced(&self) -> usize {
        self.lock().forced
    }

    /// The process that has the memory of a lease open.
    pub(super) fn worker(&self, lease: u64) -> Option<Worker> {
        self.lock().held.get(&lease)?.worker.clone()
    }
}

impl Engine {
    /// Leases all shards of a model for a connection. Authenticated shards that no check has seen yet
    /// are verified first.
    pub(crate) fn lease(self: &Arc<Self>, request: &LeaseRequest) -> Result<Held, Problem> {
        self.lease_for(request, None)
    }

    /// As [`lease`](Self::lease), for a process that is going to open the memory.
    pub(super) fn lease_for(
        self: &Arc<Self>,
        request: &LeaseRequest,
        worker: Option<Worker>,
    ) -> Result<Held, Problem> {
        /// A name in a listing.
        const HOLDER_MAX: usize = 256;

        let holder = &*request.holder;
        if holder.len() > HOLDER_MAX || holder.chars().any(char::is_control) {
            return Err(Problem::bad_request(format!(
                "a holder has at most {HOLDER_MAX} bytes and no control characters"
            )));
        }
        let leases = &self.leases;
        let place = Arc::clone(&leases.places).try_acquire_owned().map_err(|_full| {
            let message = format!("{} leases by connection are held", leases.most);
            let next = "end some, or raise leases in [limits]";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-leases", message, next)
                .retry_in(1)
        })?;
        let model = self.resident(&request.model)?;
        // Refusals of the manager name this holder.
        let named = match &worker {
            Some(worker) => format!("process {} {holder}", worker.pid).trim_end().to_owned(),
            None => holder.to_owned(),
        };
        let taken = self.manager.lease_model_as(&model, &named);
        let taken = taken.map_err(|error| self.told_of(&request.model, &error))?;
        // A drain that began meanwhile waits for this lease, or did not see it.
        self.check_open()?;
        let mut all = leases.lock();
        all.last = all.last.saturating_add(1);
        let number = all.last;
        let noted = Noted {
            model: request.model.clone(),
            holder: request.holder.clone(),
            since: Instant::now(),
            worker,
        };
        all.held.insert(number, noted);
        drop(all);
        self.feed.tell(&Own::LeaseBegan { lease: number, model: &request.model, holder });
        let engine = Arc::clone(self);
        Ok(Held { engine, number, how: "ended", model, leases: taken, _place: place })
    }
}

impl Held {
    /// What tells when the process that has the memory open says that it has closed it. Never, if none has.
    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        let worker = self.engine.leases.worker(self.number);
        worker.map_or_else(|| watch::channel(false).1, |worker| worker.closed.subscribe())
    }

    /// The pieces of the model, each with its lease, in the order of its plan.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (&ModelPiece, &Lease)> {
        self.model.pieces.iter().zip(&self.leases)
    }

    /// The shards, in the order of the model's plan.
    pub(crate) fn shards(&self) -> Vec<LeasedShard> {
        self.pieces().map(LeasedShard::of).collect()
    }

    /// Those of these shards that are held: how many, and the first of them.
    pub(crate) fn of_these(&self, shards: &HashSet<ShardId>) -> (usize, Vec<LeasedShard>) {
        /// As many as an event names segments.
        const NAMED_MAX: usize = 32;

        let held = self.pieces().filter(|(_, lease)| shards.contains(&lease.shard().shard_id));
        let held: Vec<_> = held.collect();
        (held.len(), held.into_iter().take(NAMED_MAX).map(LeasedShard::of).collect())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leases.clear();
        let mut all = self.engine.leases.lock();
        let noted = all.held.remove(&self.number);
        let forced = self.how == "cut" && noted.as_ref().is_some_and(|one| one.worker.is_some());
        all.forced = all.forced.saturating_add(usize::from(forced));
        drop(all);
        if let Some(Noted { model, holder, .. }) = noted {
            let (lease, how) = (self.number, self.how);
            self.engine.feed.tell(&Own::LeaseEnded { lease, model: &model, holder: &holder, how });
        }
    }
}
