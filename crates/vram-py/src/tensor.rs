//! The class `vram.Tensor`: a view, as the protocols of Python show it.

use std::sync::Arc;

use pyo3::exceptions::{PyAttributeError, PyBufferError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use vram_residency::DeviceKind;

use crate::raw;
use crate::view::{View, Viewed};

/// DLPack's numbers of host memory and of CUDA devices.
const HOST: i32 = 1;
const CUDA: i32 = 2;
/// The version of DLPack in which a capsule can say that it is read-only.
const VERSIONED: (u32, u32) = (1, 0);

/// Carries a view from here into the constructor of the class; nothing else makes one.
#[pyclass(frozen, module = "vram._vram")]
#[derive(Debug)]
pub(crate) struct Seed(Arc<View>);

/// All of `vram.Tensor` but the buffer protocol: see [`raw::buffer`].
#[pyclass(frozen, subclass, weakref, module = "vram._vram", name = "TensorBase")]
#[derive(Debug)]
pub(crate) struct TensorBase {
    view: Arc<View>,
}

impl Viewed for TensorBase {
    fn view(&self) -> &Arc<View> {
        &self.view
    }
}

static TENSOR: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The class `vram.Tensor`. Its methods `numpy` and `__array__` are functions of Python: a thread that is
/// ended in one of them has no frames of Rust below.
pub(crate) fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    let class = TENSOR.get_or_try_init(py, || {
        let class = raw::buffer::class::<TensorBase>(py)?;
        let methods = py.import("vram._numpy")?;
        class.setattr(py, "numpy", methods.getattr("numpy")?)?;
        class.setattr(py, "__array__", methods.getattr("__array__")?)?;
        Ok::<_, PyErr>(class)
    });
    class.map(|class| class.bind(py))
}

impl TensorBase {
    /// A new Python object for a view.
    pub(crate) fn make(py: Python<'_>, view: View) -> PyResult<Bound<'_, PyAny>> {
        let seed = Bound::new(py, Seed(Arc::new(view)))?;
        class(py)?.call1((seed,))
    }

    fn device_number(&self) -> i32 {
        match self.view.kind {
            DeviceKind::Cuda => CUDA,
            _ => HOST,
        }
    }
}

#[pymethods]
impl TensorBase {
    #[new]
    fn new(seed: &Bound<'_, Seed>) -> Self {
        Self { view: Arc::clone(&seed.get().0) }
    }

    /// The name of the tensor.
    #[getter]
    fn name(&self) -> &str {
        &self.view.name
    }

    /// The shape, the last dimension varying fastest.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.view.shape.iter())
    }

    /// The type of an element, as numpy, torch and ml_dtypes name it: "float32", "bfloat16", …
    #[getter]
    fn dtype(&self) -> &'static str {
        self.view.element.name
    }

    /// The number of dimensions.
    #[getter]
    fn ndim(&self) -> usize {
        self.view.shape.len()
    }

    /// The number of bytes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.view.nbytes
    }

    /// The device: "host:0", "cuda:1", …
    #[getter]
    fn device(&self) -> String {
        format!("{}:{}", self.view.kind, self.view.ordinal)
    }

    /// Whether no check found the bytes altered. This checks no byte itself: see `Model.verify`.
    #[getter]
    fn sound(&self, py: Python<'_>) -> PyResult<bool> {
        match self.view.ready() {
            Ok(()) => Ok(true),
            Err(error) if crate::errors::is_integrity(py, &error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The same bytes as a tensor of one dimension of "uint8".
    fn bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.view.ready()?;
        Self::make(py, self.view.bytes()?)
    }

    fn __len__(&self) -> PyResult<usize> {
        match self.view.shape.first() {
            Some(extent) => Ok(usize::try_from(*extent).unwrap_or(usize::MAX)),
            None => Err(pyo3::exceptions::PyTypeError::new_err(
                "a tensor without dimensions has no length",
            )),
        }
    }

    fn __repr__(&self) -> String {
        let View { name, element, shape, .. } = &*self.view;
        let of = self.view.model();
        format!("<vram.Tensor {name:?} of {of:?}: {} {shape:?}, {}>", element.name, self.device())
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        let ordinal = if self.view.kind == DeviceKind::Cuda { self.view.ordinal } else { 0 };
        (self.device_number(), ordinal)
    }

    /// The tensor as a DLPack capsule, in place. It says that it is read-only to those that ask for
    /// version 1.0 or newer; what others write is found as an alteration.
    ///
    /// The bytes were written and verified before the lease began, so no stream has to wait for them.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<i64>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.view.ready()?;
        let refused = |why: &str| Err(PyBufferError::new_err(why.to_owned()));
        if self.view.element.dlpack.is_none() {
            return refused(&format!(
                "DLPack has no packed {}: use bytes()",
                self.view.element.name
            ));
        }
        if dl_device.is_some_and(|asked| asked != self.__dlpack_device__()) {
            return refused("the tensor is not copied to another device");
        }
        let host = self.view.kind == DeviceKind::Host;
        if host && stream.is_some_and(|stream| stream != -1) {
            return Err(PyValueError::new_err("host memory has no streams"));
        }
        let copy = copy == Some(true);
        if copy && !host {
            return refused("device memory is not copied: copy what you made of the view");
        }
        let versioned = max_version.is_some_and(|most| most >= VERSIONED);
        raw::dlpack::capsule(py, &self.view, versioned, copy)
    }

    /// The interface of numba and cupy, version 3. Only CUDA tensors have it, of types that it names.
    #[getter]
    fn __cuda_array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let missing = |why: String| Err(PyAttributeError::new_err(why));
        if self.view.kind != DeviceKind::Cuda {
            return missing(format!("{} is no CUDA device", self.device()));
        }
        let Some(typestr) = self.view.element.typestr else {
            return missing(format!("the interface has no {}: use DLPack", self.view.element.name));
        };
        self.view.ready()?;
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", self.shape(py)?)?;
        interface.set_item("typestr", typestr)?;
        interface.set_item("data", (self.view.address, true))?;
        interface.set_item("strides", py.None())?;
        Ok(interface)
    }
}
