//! The class `vram.Manager`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use vram_residency::model::FileHeader;
use vram_residency::{
    AdmitRequest, Device, Lru, ModelFiles, ScrubOptions, ScrubRate, Scrubber, TicketKey,
    VramManager, VramManagerBuilder,
};

use crate::events::{EventIterator, Hub, Sink};
use crate::guard::may_make;
use crate::model::Model;
use crate::report::to_python;
use crate::resident::{Shared, lock};
use crate::wait::{attended, detach};
use crate::{errors, options};

/// How long closing waits before it looks for signals.
const TURN: Duration = Duration::from_millis(100);

/// How long closing waits for the events of before.
const FLUSH: Duration = Duration::from_secs(5);

/// Owns device memory: places models in it, counts them to the byte, verifies and watches them.
///
/// Made by `Manager.cuda` or `Manager.host`. Every method may be called from any thread, and waits
/// with the interpreter released.
///
/// >>> manager = vram.Manager.host(["16MiB", "16MiB"])
/// >>> manager.devices, manager.memory(gpu=1)
/// (['host:0', 'host:1'], (0, 16777216))
#[pyclass(frozen, weakref, module = "vram")]
#[derive(Debug)]
pub(crate) struct Manager {
    shared: Arc<Shared>,
}

/// What both constructors take, as it came from Python.
struct Common<'a, 'py> {
    key: Option<&'a Bound<'py, PyAny>>,
    ticket_key: Option<Vec<u8>>,
    node: Option<&'a str>,
    headroom: Option<&'a Bound<'py, PyAny>>,
    park_limit: Option<&'a Bound<'py, PyAny>>,
    evict: bool,
}

impl Common<'_, '_> {
    fn build<'a>(
        &self,
        py: Python<'a>,
        mut builder: VramManagerBuilder,
        gpus: u32,
    ) -> PyResult<Bound<'a, Manager>> {
        if let Some(key) = self.key {
            builder = builder.key(options::key(key)?);
        }
        if let Some(key) = &self.ticket_key {
            builder = builder.ticket_key(TicketKey::from_bytes(&options::array(key, "a key")?));
        }
        if let Some(node) = self.node {
            builder = builder.node(node);
        }
        if let Some(headroom) = self.headroom {
            let headroom = options::size(headroom)?;
            builder = (0..gpus).fold(builder, |builder, gpu| builder.headroom(gpu, headroom));
        }
        if let Some(limit) = self.park_limit {
            builder = builder.park_limit(options::size(limit)?);
        }
        if self.evict {
            builder = builder.eviction(Lru);
        }
        may_make()?;
        let hub = Hub::new();
        let builder = builder.event_sink(Sink(Arc::clone(&hub)));
        let manager = detach(py, || builder.build()).map_err(errors::vram)?;
        let manager = Bound::new(py, Manager { shared: Shared::new(manager, hub) })?;
        // Closed when the interpreter ends.
        py.import("vram")?.getattr("_managers")?.call_method1("add", (&manager,))?;
        Ok(manager)
    }
}

/// The device memory that the tensors of a model take, in bytes: the room that a manager needs for it.
#[pyfunction]
pub(crate) fn room_for(py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<u64> {
    let paths = options::files(path)?;
    let files = detach(py, || ModelFiles::open(&paths)).map_err(errors::files)?;
    Ok(files.plan().footprint().get())
}

#[pymethods]
impl Manager {
    /// A manager of devices in host memory: of one size, or of several, in bytes or as "8GiB". Views
    /// of their tensors are ordinary memory of this process.
    #[staticmethod]
    #[pyo3(signature = (capacities, *, key=None, ticket_key=None, node=None, headroom=None, park_limit=None, evict=false))]
    #[expect(clippy::too_many_arguments, reason = "named in Python")]
    fn host<'py>(
        py: Python<'py>,
        capacities: &Bound<'py, PyAny>,
        key: Option<&Bound<'py, PyAny>>,
        ticket_key: Option<Vec<u8>>,
        node: Option<&str>,
        headroom: Option<&Bound<'py, PyAny>>,
        park_limit: Option<&Bound<'py, PyAny>>,
        evict: bool,
    ) -> PyResult<Bound<'py, Self>> {
        let sizes = options::sizes(capacities)?;
        let gpus = u32::try_from(sizes.len()).unwrap_or(u32::MAX);
        let builder =
            sizes.into_iter().fold(VramManager::builder(), VramManagerBuilder::host_device);
        Common { key, ticket_key, node, headroom, park_limit, evict }.build(py, builder, gpus)
    }

    /// A manager of every CUDA GPU of this machine, or of those with these numbers. It takes nine
    /// tenths of what is free on each, or `budget`: a fraction, or a size.
    ///
    /// Raises `vram.NoGpu`, which says why, if there is none.
    #[staticmethod]
    #[pyo3(signature = (gpus=None, *, budget=None, key=None, ticket_key=None, node=None, headroom=None, park_limit=None, evict=false))]
    #[expect(clippy::too_many_arguments, reason = "named in Python")]
    fn cuda<'py>(
        py: Python<'py>,
        gpus: Option<Vec<u32>>,
        budget: Option<&Bound<'py, PyAny>>,
        key: Option<&Bound<'py, PyAny>>,
        ticket_key: Option<Vec<u8>>,
        node: Option<&str>,
        headroom: Option<&Bound<'py, PyAny>>,
        park_limit: Option<&Bound<'py, PyAny>>,
        evict: bool,
    ) -> PyResult<Bound<'py, Self>> {
        may_make()?;
        let found = detach(py, VramManager::detect_devices).map_err(errors::vram)?;
        let devices: Vec<Arc<dyn Device>> = match gpus {
            None => found,
            Some(wanted) => {
                let there = |gpu: &u32| {
                    let device = found.iter().find(|device| device.info().index.get() == *gpu);
                    device.cloned().ok_or_else(|| {
                        let message = format!("there is no gpu {gpu}: there are {}", found.len());
                        errors::caller("unknown-gpu", &message)
                    })
                };
                wanted.iter().map(there).collect::<PyResult<_>>()?
            }
        };
        let count = u32::try_from(devices.len()).unwrap_or(u32::MAX);
        let mut builder = VramManager::builder().devices(devices);
        if let Some(budget) = budget {
            let budget = options::budget(budget)?;
            builder = (0..count).fold(builder, |builder, gpu| builder.budget(gpu, budget));
        }
        Common { key, ticket_key, node, headroom, park_limit, evict }.build(py, builder, count)
    }

    /// Brings a model into device memory, all of it or nothing: a file, a list of files, or a folder
    /// of safetensors files. It is verified there before this returns.
    ///
    /// With protection "authenticated" the plaintext lies in place, for kernels to read; "encrypted"
    /// holds ciphertext, of which there are no views. `progress` is called with the bytes that are
    /// done and all bytes; True shows a bar of tqdm. Ctrl-C gives back everything and raises
    /// KeyboardInterrupt.
    ///
    /// >>> manager = vram.Manager.host("16MiB")
    /// >>> with manager.load(example, name="small", owner="team-a") as model:
    /// ...     print(model)
    /// <vram.Model "small": 2 tensors, 300128 bytes, resident>
    /// >>> manager.memory()[0]
    /// 0
    #[pyo3(signature = (path, *, name=None, gpu=None, protection="authenticated", owner=None, holder="python", progress=None, on_eviction="never"))]
    #[expect(clippy::too_many_arguments, reason = "named in Python")]
    fn load(
        &self,
        py: Python<'_>,
        path: &Bound<'_, PyAny>,
        name: Option<&str>,
        gpu: Option<u32>,
        protection: &str,
        owner: Option<&str>,
        holder: &str,
        progress: Option<&Bound<'_, PyAny>>,
        on_eviction: &str,
    ) -> PyResult<Model> {
        let manager = self.shared.manager()?;
        let paths = options::files(path)?;
        let files = detach(py, || ModelFiles::open(&paths)).map_err(errors::files)?;
        let own = || options::name_of(&paths, files.name());
        let named = name.map_or_else(own, str::to_owned);
        let request = AdmitRequest::new(&named, options::gpus(gpu))
            .protection(options::protection(protection)?)
            .on_eviction(options::on_eviction(on_eviction)?)
            .owner(owner.unwrap_or_default());
        let bar = match progress {
            Some(wanted) if wanted.extract::<bool>().is_ok() => {
                let shown = wanted.is_truthy()?;
                let bar = || py.import("vram._progress")?.getattr("bar")?.call1((&named,));
                if shown { Some(bar()?) } else { None }
            }
            other => other.cloned(),
        };
        let (admitted, raised) = attended(py, bar.as_ref(), |token, figures| {
            let request = request.cancel(token).progress(|progress| figures.note(progress));
            manager.admit(request, files.plan(), &files)
        })?;
        let handle = match (admitted, raised) {
            (Ok(handle), None) => handle,
            (Err(error), None) => return Err(errors::vram(error)),
            (admitted, Some(raised)) => {
                // It came too late to end the load. An error of the freeing has an event.
                let _freed = admitted.map(|handle| detach(py, || manager.free_model(&handle)));
                return Err(raised);
            }
        };
        let texts = files.headers().iter().flat_map(FileHeader::texts);
        let texts = texts.map(|(key, text)| (key.to_owned(), text)).collect();
        Ok(Model::new(Arc::clone(&self.shared), handle, holder.to_owned(), texts))
    }

    /// Has all weights checked over and over: each at least every `within` seconds, or as fast as
    /// `share` of one thread of each GPU allows. What is found altered is an event, and the tensor
    /// is in quarantine. Called again, it replaces the scrubber.
    #[pyo3(signature = (*, within=None, share=None, pass_at_least=1.0))]
    fn scrub(
        &self,
        py: Python<'_>,
        within: Option<f64>,
        share: Option<f64>,
        pass_at_least: f64,
    ) -> PyResult<()> {
        let inner = self.shared.inner()?;
        let rate = match (within, share) {
            (Some(within), None) => ScrubRate::Within(options::seconds(within)?),
            (None, Some(share)) => ScrubRate::Share(share),
            (None, None) => ScrubRate::Share(0.05),
            (Some(_), Some(_)) => return Err(options::wrong("either within or share")),
        };
        let options = ScrubOptions::new(rate).pass_at_least(options::seconds(pass_at_least)?);
        detach(py, || {
            let mut scrubber = lock(&inner.scrubber);
            *scrubber = None;
            *scrubber = Some(inner.manager.start_scrubber(options)?);
            Ok(())
        })
        .map_err(errors::vram)
    }

    /// What the scrubber has done, and the longest time in seconds for which an alteration can go
    /// unnoticed (`worst_case`); None if there is no scrubber.
    fn scrub_status<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let inner = self.shared.inner()?;
        let status = detach(py, || lock(&inner.scrubber).as_ref().map(Scrubber::status));
        let Some(status) = status else { return Ok(None) };
        let told = to_python(py, &status)?;
        let worst = status.worst_case.map(|time| time.as_secs_f64());
        told.set_item("worst_case", worst)?;
        let oldest = status.oldest_unverified.map(|time| time.as_secs_f64());
        told.set_item("oldest_unverified", oldest)?;
        Ok(Some(told))
    }

    /// Ends the scrubber.
    fn stop_scrub(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.shared.inner()?;
        detach(py, || drop(lock(&inner.scrubber).take()));
        Ok(())
    }

    /// An iterator over everything that happens from now on; see `vram.EventIterator`.
    ///
    /// >>> manager = vram.Manager.host("16MiB")
    /// >>> events = manager.events()
    /// >>> manager.load(example, name="small").free() > 300_128
    /// True
    /// >>> next(events).name, next(events).tensor
    /// ('sealed', 'blob')
    #[pyo3(signature = (timeout=None))]
    fn events(&self, timeout: Option<f64>) -> PyResult<EventIterator> {
        self.shared.manager()?;
        self.shared.hub.iterate(timeout)
    }

    /// Counts and figures: calls, bytes, failures, GPUs, the scrubber. Plain data.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let manager = self.shared.manager()?;
        to_python(py, &detach(py, || manager.metrics()))
    }

    /// The metrics in the text format of Prometheus.
    fn prometheus(&self, py: Python<'_>) -> PyResult<String> {
        let manager = self.shared.manager()?;
        Ok(detach(py, || manager.metrics().to_prometheus()))
    }

    /// Everything that is resident, as plain data.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let manager = self.shared.manager()?;
        to_python(py, &detach(py, || manager.snapshot()))
    }

    /// The devices: "host:0", "cuda:1", … in the order of their numbers here.
    #[getter]
    fn devices(&self) -> PyResult<Vec<String>> {
        let infos = self.shared.manager()?.gpus();
        Ok(infos.iter().map(|info| format!("{}:{}", info.kind, info.index.get())).collect())
    }

    /// The bytes of a GPU that are used, and that are free.
    #[pyo3(signature = (gpu=0))]
    fn memory(&self, gpu: u32) -> PyResult<(usize, usize)> {
        let manager = self.shared.manager()?;
        let used = manager.get_used_vram(gpu).map_err(errors::vram)?;
        Ok((used, manager.get_free_vram(gpu).map_err(errors::vram)?))
    }

    /// Wipes and frees everything, after waiting at most `timeout` seconds for calls and views, and
    /// says what is left: tensors of which views live stay until those are gone.
    #[pyo3(signature = (timeout=0.0))]
    fn close<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyAny>> {
        let (inner, timeout) = (self.shared.inner()?, options::seconds(timeout)?);
        let (begun, mut freed, mut bytes) = (Instant::now(), 0_u64, 0_u64);
        // In turns, between which signals are looked for.
        let report = loop {
            let turn = timeout.saturating_sub(begun.elapsed()).min(TURN);
            let report = detach(py, || {
                drop(lock(&inner.scrubber).take());
                inner.manager.close(turn)
            });
            freed = freed.saturating_add(report.freed);
            bytes = bytes.saturating_add(report.bytes.get());
            let over = report.complete || begun.elapsed() >= timeout;
            let signal = if over { Ok(()) } else { py.check_signals() };
            if over || signal.is_err() {
                break signal.map(|()| report);
            }
        };
        // What happened until now still reaches the iterators.
        detach(py, || inner.manager.flush_events(FLUSH));
        self.shared.hub.end();
        let report = report?;
        let left: Vec<String> = report.left.iter().map(|(shard, _)| shard.to_string()).collect();
        to_python(
            py,
            &serde_json::json!({
                "complete": report.complete,
                "freed": freed,
                "bytes": bytes,
                "left": left,
                "leases": report.lease_count,
            }),
        )
    }

    const fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        // In a forked child there is nothing to close.
        if self.shared.inner().is_err() { Ok(()) } else { self.close(py, 0.0).map(drop) }
    }

    fn __repr__(&self) -> PyResult<String> {
        Ok(format!("<vram.Manager of {}>", self.devices()?.join(", ")))
    }
}
