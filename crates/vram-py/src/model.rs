//! The class `vram.Model`: tensors by name, and what is done with all of them together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use vram_residency::{
    CallOptions, ModelHandle, ModelPiece, VramError, VramManager, WakeModelRequest,
};

use crate::report::Verdict;
use crate::resident::{Resident, Shared, State, lock};
use crate::tensor::TensorBase;
use crate::view::View;
use crate::wait::{attended, detach, interruptible};
use crate::{errors, options};

/// The weights of a model in device memory: a mapping from names to `vram.Tensor`.
///
/// `Manager.load` makes it. Used as a context manager, it is freed at the end; if views of its tensors
/// live longer, with the last of them.
///
/// >>> model = vram.Manager.host("16MiB").load(example)
/// >>> model.keys(), model.metadata
/// (['embed', 'blob'], {'format': 'np'})
/// >>> model.verify()
/// <vram.Verdict sound, 300128 bytes checked, proof by the host>
/// >>> view = memoryview(model["embed"])
/// >>> view[3, 7], view.readonly
/// (31.0, True)
/// >>> model.park()
/// Traceback (most recent call last):
/// ...
/// vram.errors.InUse: ...
/// >>> del view
/// >>> model.park()
/// >>> model.state
/// 'parked'
#[pyclass(frozen, weakref, mapping, module = "vram")]
#[derive(Debug)]
pub(crate) struct Model {
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// The number of the piece of each tensor.
    index: HashMap<Box<str>, usize>,
    name: Arc<str>,
    nbytes: u64,
    holder: String,
    metadata: Vec<(String, String)>,
}

impl Model {
    pub(crate) fn new(
        shared: Arc<Shared>,
        handle: ModelHandle,
        holder: String,
        metadata: Vec<(String, String)>,
    ) -> Self {
        let named = |(at, piece): (usize, &ModelPiece)| (Box::from(piece.piece.name.as_str()), at);
        let index = handle.pieces.iter().enumerate().map(named).collect();
        let (name, nbytes) = (Arc::clone(&handle.model_id), handle.total().get());
        let state = Mutex::new(State::Resident(Resident::new(Arc::clone(&shared), handle)));
        Self { shared, state, index, name, nbytes, holder, metadata }
    }

    /// What `look` finds in the state, in the process that made the model. It runs no code of Python:
    /// see [`Refused`].
    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> PyResult<T> {
        // In a child the lock may be held by a thread that is not there.
        self.shared.manager()?;
        Ok(look(&mut lock(&self.state)))
    }

    fn resident(&self) -> PyResult<Arc<Resident>> {
        let found = self.state(|state| match state {
            State::Resident(resident) => Ok(Arc::clone(resident)),
            other => Err(other.wrong()),
        })?;
        Ok(found?)
    }

    fn piece<'a>(&self, handle: &'a ModelHandle, name: &str) -> PyResult<&'a ModelPiece> {
        let at = self.index.get(name).and_then(|at| handle.pieces.get(*at));
        at.ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    /// Takes the value that `take` finds out of the state, and leaves word of what is done with it.
    fn begin<T>(
        &self,
        doing: &'static str,
        take: impl FnOnce(State) -> Result<T, State>,
    ) -> PyResult<T> {
        let taken = self.state(|state| {
            take(std::mem::replace(state, State::Busy(doing))).map_err(|back| {
                let refused = back.wrong();
                *state = back;
                refused
            })
        })?;
        Ok(taken?)
    }

    /// Does `work`, which Ctrl-C ends, with the resident model, and leaves it in the state that `land`
    /// makes of the outcome; resident as before, where there is none.
    fn moved<T: Send>(
        &self,
        py: Python<'_>,
        doing: &'static str,
        work: impl FnOnce(&VramManager, &ModelHandle, CallOptions<'_>) -> Result<T, VramError> + Send,
        land: impl FnOnce(Arc<Resident>, T) -> State,
    ) -> PyResult<()> {
        let resident = self.begin(doing, |state| match state {
            State::Resident(resident) => Ok(resident),
            other => Err(other),
        })?;
        let handle = resident.handle();
        let outcome = self.shared.manager().and_then(|manager| {
            attended(py, None, |token, _| work(manager, &handle, CallOptions::new().cancel(&token)))
        });
        let (state, refused) = match outcome {
            Ok((Ok(done), raised)) => (land(resident, done), raised),
            Ok((Err(error), raised)) => {
                (State::Resident(resident), raised.or_else(|| Some(errors::of(&handle)(error))))
            }
            Err(error) => (State::Resident(resident), Some(error)),
        };
        self.end(state);
        refused.map_or(Ok(()), Err)
    }

    fn end(&self, state: State) {
        let mut now = lock(&self.state);
        let closed = matches!(*now, State::Closing(_));
        let (next, left) = if closed { (State::Gone, Some(state)) } else { (state, None) };
        let before = std::mem::replace(&mut *now, next);
        // Dropped without the lock: this may free the model.
        drop(now);
        drop((before, left));
    }
}

#[pymethods]
impl Model {
    /// The name of the model.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// The number of bytes of all tensors.
    #[getter]
    const fn nbytes(&self) -> u64 {
        self.nbytes
    }

    /// Where the weights are: "resident", "parked", "freed", or what another thread does with them.
    #[getter]
    #[pyo3(name = "state")]
    fn state_word(&self) -> PyResult<&'static str> {
        match self.resident() {
            Ok(resident) if resident.is_gone() => Ok("freed"),
            _ => self.state(|state| state.word()),
        }
    }

    /// The texts in the headers of its files, such as {"format": "pt"}.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let texts = PyDict::new(py);
        for (key, text) in &self.metadata {
            texts.set_item(key, text)?;
        }
        Ok(texts)
    }

    /// The names of all tensors, in the order of their files.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut names: Vec<_> = self.index.iter().collect();
        names.sort_by_key(|(_, at)| **at);
        PyList::new(py, names.into_iter().map(|(name, _)| &**name))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.keys(py)?.try_iter()?.into_any())
    }

    fn __len__(&self) -> usize {
        self.index.len()
    }

    fn __contains__(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The view of a tensor. While it, or anything made of it, lives, the tensor stays where it is.
    fn __getitem__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let resident = self.resident()?;
        let handle = resident.handle();
        let piece = self.piece(&handle, name)?;
        let lease = resident.call(py, |manager, _| manager.lease_as(&piece.shard, &self.holder))?;
        let view = View::new(Arc::clone(&resident), piece, lease)?;
        TensorBase::make(py, view)
    }

    /// All tensors with their names.
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
        let names = self.keys(py)?;
        names
            .iter()
            .map(|name| Ok((name.clone(), self.__getitem__(py, &name.extract::<String>()?)?)))
            .collect()
    }

    /// All tensors, in the order of their names in `keys`.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        Ok(self.items(py)?.into_iter().map(|(_, tensor)| tensor).collect())
    }

    /// The bytes of a tensor, or a part of them, authenticated as they are read; also of an encrypted
    /// model.
    #[pyo3(signature = (name, offset=0, length=None))]
    fn read<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        offset: usize,
        length: Option<usize>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let resident = self.resident()?;
        let handle = resident.handle();
        let piece = self.piece(&handle, name)?;
        let whole = usize::try_from(piece.piece.len.get()).unwrap_or(usize::MAX);
        let length = length.unwrap_or_else(|| whole.saturating_sub(offset));
        let read = |manager: &VramManager, _: &_| {
            manager.read_shard_at_offset(&piece.shard, offset, length)
        };
        let bytes = resident.call(py, read)?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Checks the weights where they lie, and says what is altered. The level is "full" (every byte
    /// and the digest of all content), "segments", "fingerprint" (the fastest) or "record".
    #[pyo3(signature = (level="full"))]
    fn verify(&self, py: Python<'_>, level: &str) -> PyResult<Verdict> {
        let (handle, level) = (self.resident()?.handle(), options::level(level)?);
        let manager = self.shared.manager()?;
        let verdict =
            interruptible(py, None, |token, _| manager.verify_model_until(&handle, level, &token))?;
        let names = handle.pieces.iter().map(|piece| piece.piece.name.clone());
        let shards = verdict.map_err(errors::of(&handle))?.shards;
        Ok(Verdict::of(&names.zip(shards).collect::<Vec<_>>(), level))
    }

    /// What the last check of the weights rests on, at the weakest tensor: "proof by the host",
    /// "fingerprint by the card", …
    #[getter]
    fn proof(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let ticket = |manager: &VramManager, model: &_| manager.ticket_model(model, [0; 32]);
        let ticket = self.resident()?.call(py, ticket)?;
        Ok(ticket.checked.map(|checked| checked.to_string()))
    }

    /// For how many seconds no check has found the weights sound, at the oldest tensor.
    #[getter]
    fn age(&self, py: Python<'_>) -> PyResult<f64> {
        let oldest = self.resident()?.call(py, |manager, model| {
            let ages = model.shards().map(|shard| manager.unverified_age(shard));
            ages.collect::<Result<Vec<_>, _>>()
        })?;
        Ok(oldest.into_iter().max().unwrap_or_default().as_secs_f64())
    }

    /// A signed statement about these weights, for a party that gave a nonce of 32 bytes: see
    /// `vram.verify_ticket`.
    fn ticket<'py>(&self, py: Python<'py>, nonce: Vec<u8>) -> PyResult<Bound<'py, PyBytes>> {
        let nonce = options::array(&nonce, "a nonce")?;
        let ticket = |manager: &VramManager, model: &_| manager.ticket_model(model, nonce);
        let ticket = self.resident()?.call(py, ticket)?;
        Ok(PyBytes::new(py, &ticket.to_bytes()))
    }

    /// Takes the weights off their device, encrypted in host memory. Raises `vram.InUse`, with nothing
    /// changed, while any view of a tensor lives.
    fn park(&self, py: Python<'_>) -> PyResult<()> {
        let work = |manager: &VramManager, handle: &ModelHandle, options: CallOptions<'_>| {
            manager.park_model_with(handle, options)
        };
        self.moved(py, "parking", work, |resident, parked| {
            resident.released();
            State::Parked(resident, parked)
        })
    }

    /// Makes parked weights resident again, verified, on this GPU or on the one with the most room.
    /// Resident weights stay where they are; if that is another GPU, this raises `vram.StateError`.
    #[pyo3(signature = (gpu=None))]
    fn wake(&self, py: Python<'_>, gpu: Option<u32>) -> PyResult<()> {
        let manager = self.shared.manager()?;
        let parked = self.begin("waking", |state| match state {
            State::Parked(resident, parked) => Ok((resident, parked)),
            other => Err(other),
        });
        let (resident, parked) = match (parked, self.resident()) {
            (Ok(parked), _) => parked,
            (Err(_), Ok(resident)) => return resident.lies_on(gpu),
            (Err(error), Err(_)) => return Err(error),
        };
        // Kept here until the call has begun: a model whose thread does not start stays parked.
        let mut kept = Some(parked);
        let outcome = attended(py, None, |token, _| {
            let request = WakeModelRequest::new(options::gpus(gpu)).cancel(&token);
            kept.take().map(|parked| manager.wake_model_with(parked, request))
        });
        let refused = match outcome {
            Ok((Some(Ok(handle)), raised)) => {
                resident.arrived(handle);
                self.end(State::Resident(resident));
                raised
            }
            Ok((Some(Err(failed)), raised)) => {
                let (parked, error) = failed.into_parts();
                self.end(State::Parked(resident, parked));
                Some(raised.unwrap_or_else(|| errors::vram(error)))
            }
            // The call did not begin, or it panicked: what it took of the model is gone then.
            Ok((None, raised)) => {
                self.end(State::Gone);
                raised
            }
            Err(error) => {
                self.end(kept.map_or(State::Gone, |parked| State::Parked(resident, parked)));
                Some(error)
            }
        };
        refused.map_or(Ok(()), Err)
    }

    /// Moves the weights to another GPU, verified there. Raises `vram.InUse` while any view lives.
    fn migrate(&self, py: Python<'_>, gpu: u32) -> PyResult<()> {
        let work = |manager: &VramManager, handle: &ModelHandle, options: CallOptions<'_>| {
            manager.migrate_model_with(handle, gpu, options)
        };
        self.moved(py, "moving", work, |resident, handle| {
            resident.arrived(handle);
            State::Resident(resident)
        })
    }

    /// Wipes and frees the weights now, and returns how many bytes that gave back. Raises
    /// `vram.InUse`, with nothing changed, while any view of a tensor lives.
    fn free(&self, py: Python<'_>) -> PyResult<u64> {
        let taken = self.begin("freeing", |state| match state {
            State::Busy(_) | State::Closing(_) => Err(state),
            other => Ok(other),
        })?;
        let State::Resident(resident) = taken else {
            self.end(State::Gone);
            return Ok(0);
        };
        match resident.free(py) {
            Ok(freed) => {
                self.end(State::Gone);
                let bytes = freed.iter().map(|receipt| receipt.bytes.get());
                Ok(bytes.fold(0, u64::saturating_add))
            }
            Err(error) => {
                self.end(State::Resident(resident));
                Err(error)
            }
        }
    }

    /// Frees the weights when the last view of them goes, and no other thread parks or moves them.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let before = self.state(|state| {
            let next = state.closed();
            std::mem::replace(state, next)
        })?;
        detach(py, || drop(before));
        Ok(())
    }

    const fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        // In a forked child there is nothing to close.
        if self.shared.inner().is_err() { Ok(()) } else { self.close(py) }
    }

    fn __repr__(&self) -> PyResult<String> {
        let (name, count, bytes) = (&self.name, self.index.len(), self.nbytes);
        let state = self.state_word()?;
        Ok(format!("<vram.Model {name:?}: {count} tensors, {bytes} bytes, {state}>"))
    }
}
