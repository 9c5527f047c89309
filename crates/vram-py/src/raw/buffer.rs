//! The class `vram.Tensor`: `TensorBase`, with the buffer protocol.
//!
//! pyo3 offers the protocol from Python 3.11 on, with which it joined the stable interface. The slots,
//! the structure and their numbers are older and the same since 3.9 (bpo-40724), which is what this
//! module is built for. So the class is made here, of the class that pyo3 makes and one more slot.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use vram_residency::DeviceKind;

use crate::view::Viewed;

/// `Py_bf_getbuffer`.
const GET_BUFFER: c_int = 1;

/// What a caller asks for: `PyBUF_WRITABLE`, `PyBUF_FORMAT`, `PyBUF_ND`, `PyBUF_STRIDES`.
const WRITABLE: c_int = 1;
const FORMAT: c_int = 4;
const EXTENTS: c_int = 8;
const STRIDES: c_int = 0x10 | EXTENTS;
/// `PyBUF_F_CONTIGUOUS`, without what it implies.
const FORTRAN: c_int = 0x40;

/// `Py_buffer`.
#[repr(C)]
struct Buffer {
    bytes: *mut c_void,
    object: *mut ffi::PyObject,
    len: isize,
    item_len: isize,
    read_only: c_int,
    ndim: c_int,
    format: *mut c_char,
    shape: *mut isize,
    strides: *mut isize,
    suboffsets: *mut isize,
    internal: *mut c_void,
}

/// Makes the class of the class of pyo3 that shows a view.
pub(crate) fn class<T: Viewed>(py: Python<'_>) -> PyResult<Py<PyType>> {
    let base = PyTuple::new(py, [py.get_type::<T>()])?;
    let get_buffer: unsafe extern "C" fn(*mut ffi::PyObject, *mut Buffer, c_int) -> c_int =
        get_buffer::<T>;
    let doc = c"A tensor of a model, where it lies in device memory: read-only, and leased as long as any view of it lives.\n\nIt supports DLPack and, on host devices, the buffer protocol; on CUDA devices `__cuda_array_interface__`.";
    #[expect(clippy::as_conversions, reason = "a function as a pointer, as the structure wants it")]
    let get_buffer = get_buffer as *mut c_void;
    let mut slots = [
        ffi::PyType_Slot { slot: GET_BUFFER, pfunc: get_buffer },
        ffi::PyType_Slot { slot: ffi::Py_tp_doc, pfunc: doc.as_ptr().cast_mut().cast() },
        ffi::PyType_Slot { slot: 0, pfunc: ptr::null_mut() },
    ];
    let flags = c_uint::try_from(ffi::Py_TPFLAGS_DEFAULT).unwrap_or_default();
    let mut spec = ffi::PyType_Spec {
        name: c"vram.Tensor".as_ptr(),
        // As long as an object of the base.
        basicsize: 0,
        itemsize: 0,
        flags,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the interpreter is attached. Name and text live for ever, the slots end with a zero, and
    // the base allows subclasses. The function of the slot has the type that Python expects there.
    let class = unsafe { ffi::PyType_FromSpecWithBases(&raw mut spec, base.as_ptr()) };
    // SAFETY: a new reference, or null with an exception set.
    let class = unsafe { Bound::from_owned_ptr_or_err(py, class) }?;
    Ok(class.cast_into::<PyType>()?.unbind())
}

/// `bf_getbuffer`: fills in a buffer that points into device memory, and owns the object that leases it.
///
/// # Safety
///
/// Python calls it, attached, with an object of the class and a buffer to fill in.
unsafe extern "C" fn get_buffer<T: Viewed>(
    object: *mut ffi::PyObject,
    buffer: *mut Buffer,
    flags: c_int,
) -> c_int {
    // SAFETY: Python holds the interpreter while it calls this.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: a borrowed reference that outlives the call.
    let object = unsafe { Bound::from_borrowed_ptr(py, object) };
    let filled = match filled::<T>(&object, flags) {
        Ok(filled) => filled,
        Err(error) => {
            error.restore(py);
            let none = Buffer { object: ptr::null_mut(), ..empty() };
            // SAFETY: a buffer to fill in; after a failure its object is null.
            unsafe { buffer.write(none) };
            return -1;
        }
    };
    // SAFETY: a buffer to fill in.
    unsafe { buffer.write(filled) };
    0
}

const fn empty() -> Buffer {
    Buffer {
        bytes: ptr::null_mut(),
        object: ptr::null_mut(),
        len: 0,
        item_len: 1,
        read_only: 1,
        ndim: 0,
        format: ptr::null_mut(),
        shape: ptr::null_mut(),
        strides: ptr::null_mut(),
        suboffsets: ptr::null_mut(),
        internal: ptr::null_mut(),
    }
}

/// What points into the view of a tensor stays good: the buffer owns the object, whose view is never
/// replaced.
fn filled<T: Viewed>(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<Buffer> {
    let view = object.cast::<T>()?.get().view();
    view.ready()?;
    let refused = |why: String| Err(PyBufferError::new_err(why));
    if view.kind != DeviceKind::Host {
        return refused("a tensor in the memory of a card has no buffer: use DLPack".to_owned());
    }
    if flags & WRITABLE != 0 {
        return refused("verified weights are read-only".to_owned());
    }
    if flags & FORTRAN != 0 && view.shape.len() > 1 {
        return refused("the last dimension varies fastest".to_owned());
    }
    let asked = |what: c_int| flags & what == what;
    let format = match view.element.format {
        Some(format) => format,
        None if asked(FORMAT) => {
            let name = view.element.name;
            return refused(format!(
                "the buffer protocol has no {name}: use numpy(), bytes() or DLPack"
            ));
        }
        None => c"B",
    };
    let len = isize::try_from(view.nbytes).map_err(|_large| PyBufferError::new_err("too large"))?;
    Ok(Buffer {
        bytes: ptr::with_exposed_provenance_mut(view.address),
        object: object.clone().into_ptr(),
        len,
        item_len: isize::from(i16::from(view.element.bits / 8)),
        ndim: c_int::try_from(view.shape.len())
            .map_err(|_many| PyBufferError::new_err("too many"))?,
        format: if asked(FORMAT) { format.as_ptr().cast_mut() } else { ptr::null_mut() },
        shape: if asked(EXTENTS) { view.byte_shape.as_ptr().cast_mut() } else { ptr::null_mut() },
        strides: if asked(STRIDES) {
            view.byte_strides.as_ptr().cast_mut()
        } else {
            ptr::null_mut()
        },
        ..empty()
    })
}
