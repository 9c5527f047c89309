//! What keeps weights in device memory: a manager that is shared, and a model that is freed when
//! nothing uses it any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use vram_residency::{FreedReceipt, ModelHandle, ParkedModel, Scrubber, VramError, VramManager};

use crate::errors;
use crate::events::Hub;
use crate::guard::Guarded;
use crate::wait::detach;

/// A manager, shared by its Python object, its models and the views of their tensors.
#[derive(Debug)]
pub(crate) struct Shared {
    inner: Guarded<Inner>,
    pub(crate) hub: Arc<Hub>,
}

/// In the order in which they are dropped.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) scrubber: Mutex<Option<Scrubber>>,
    pub(crate) manager: VramManager,
}

impl Shared {
    pub(crate) fn new(manager: VramManager, hub: Arc<Hub>) -> Arc<Self> {
        let inner = Guarded::new(Inner { scrubber: Mutex::new(None), manager });
        Arc::new(Self { inner, hub })
    }

    /// Gives back what no view keeps any more, if the manager was closed.
    fn tidy(&self) {
        if self.hub.is_over()
            && let Some(inner) = self.inner.here()
        {
            let _report = inner.manager.close(Duration::ZERO);
        }
    }

    /// What is behind it.
    ///
    /// # Errors
    ///
    /// `vram.ForkError` in a forked child.
    pub(crate) fn inner(&self) -> PyResult<&Inner> {
        self.inner.get()
    }

    /// The manager.
    ///
    /// # Errors
    ///
    /// As [`inner`](Self::inner).
    pub(crate) fn manager(&self) -> PyResult<&VramManager> {
        Ok(&self.inner()?.manager)
    }
}

/// A model, wherever its weights are. They are freed when the last owner of this value goes: the Python
/// object of the model, until it is closed, and every view of its tensors, also one that was asked for
/// before the model was parked and woken, or moved.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: Arc<str>,
    /// The handles since the weights were last moved.
    handle: Mutex<Arc<ModelHandle>>,
    /// Set where the shards are gone or parked: nothing is left to free.
    released: AtomicBool,
}

impl Resident {
    pub(crate) fn new(shared: Arc<Shared>, handle: ModelHandle) -> Arc<Self> {
        let (name, released) = (Arc::clone(&handle.model_id), AtomicBool::new(false));
        Arc::new(Self { shared, name, handle: Mutex::new(Arc::new(handle)), released })
    }

    /// The handles of its shards.
    pub(crate) fn handle(&self) -> Arc<ModelHandle> {
        Arc::clone(&lock(&self.handle))
    }

    /// Notes that the shards have left device memory.
    pub(crate) fn released(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    /// Notes that the shards are in device memory, at another place.
    pub(crate) fn arrived(&self, handle: ModelHandle) {
        *lock(&self.handle) = Arc::new(handle);
        self.released.store(false, Ordering::Relaxed);
    }

    /// Whether the shards lie where they are wanted.
    pub(crate) fn lies_on(&self, wanted: Option<u32>) -> PyResult<()> {
        let handle = self.handle();
        let elsewhere = |gpu: &u32| wanted.is_some_and(|wanted| *gpu != wanted);
        match handle.shards().map(|shard| shard.gpu_index).find(elsewhere) {
            None => Ok(()),
            Some(gpu) => {
                let message = format!("the model is resident on gpu {gpu}: migrate it");
                Err(errors::caller("resident", &message))
            }
        }
    }

    /// Runs one blocking call on the model with the interpreter released. Its error names the tensor.
    pub(crate) fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&VramManager, &ModelHandle) -> Result<T, VramError> + Send,
    ) -> PyResult<T> {
        let (manager, handle) = (self.shared.manager()?, self.handle());
        detach(py, || work(manager, &handle)).map_err(errors::of(&handle))
    }

    /// Whether the shards were freed by another hand: evicted, or given back as their manager was closed.
    pub(crate) fn is_gone(&self) -> bool {
        let (handle, manager) = (self.handle(), self.shared.manager());
        let first = handle.shards().next().zip(manager.ok());
        first.is_some_and(|(shard, manager)| match manager.unverified_age(shard) {
            Ok(_) => false,
            Err(error) => matches!(error, VramError::ShardFreed { .. } | VramError::Closed),
        })
    }

    /// Frees the shards now.
    pub(crate) fn free(&self, py: Python<'_>) -> PyResult<Vec<FreedReceipt>> {
        let freed = self.call(py, VramManager::free_model)?;
        self.released();
        Ok(freed)
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        if let Some(inner) = self.shared.inner.here()
            && !self.released.load(Ordering::Relaxed)
        {
            // The deleter of a view has nobody to tell. What is not freed stays counted, and an event
            // says why.
            let _freed = inner.manager.free_model(&self.handle());
        }
    }
}

/// Kept behind a lease, and let go after it.
#[derive(Debug)]
pub(crate) struct AfterLease(pub(crate) Arc<Shared>);

impl Drop for AfterLease {
    fn drop(&mut self) {
        self.0.tidy();
    }
}

/// Where the weights are.
#[derive(Debug)]
pub(crate) enum State {
    Resident(Arc<Resident>),
    Parked(Arc<Resident>, ParkedModel),
    /// A call of another thread is under way.
    Busy(&'static str),
    /// The same, and the model was closed meanwhile: whatever the call makes of it goes then.
    Closing(&'static str),
    /// Freed, or left to the views that still live.
    Gone,
}

impl State {
    /// As Python shows it.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Resident(_) => "resident",
            Self::Parked(..) => "parked",
            Self::Busy(what) | Self::Closing(what) => what,
            Self::Gone => "freed",
        }
    }

    /// What comes of it when the model is closed.
    pub(crate) const fn closed(&self) -> Self {
        match self {
            Self::Busy(what) | Self::Closing(what) => Self::Closing(what),
            _ => Self::Gone,
        }
    }

    /// Why a call that needs the weights resident is refused.
    pub(crate) const fn wrong(&self) -> Refused {
        match self {
            Self::Parked(..) => Refused::Parked,
            Self::Busy(what) | Self::Closing(what) => Refused::Busy(what),
            _ => Refused::Gone,
        }
    }
}

/// Why a model does not do what it is asked to. No exception yet: one is made by code of Python, and that
/// never runs while the state is locked: the thread that waits for the lock may hold the interpreter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    Parked,
    Busy(&'static str),
    Gone,
}

impl From<Refused> for PyErr {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Parked => errors::caller("parked", "the model is parked: wake it first"),
            Refused::Busy(what) => errors::busy(what),
            Refused::Gone => errors::caller("shard-freed", "the model was freed"),
        }
    }
}

/// Locks, also after a panic of another thread: each state is set by one assignment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
