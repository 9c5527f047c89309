//! Views as DLPack capsules, versions 0 and 1: <https://dmlc.github.io/dlpack/latest/>.

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;
use vram_residency::DeviceKind;

use crate::options::wrong;
use crate::view::View;
use crate::wait::detach;

const PLAIN: &CStr = c"dltensor";
const VERSIONED: &CStr = c"dltensor_versioned";

/// Flags of a versioned tensor: its bytes must not be written; they are a copy.
const READ_ONLY: u64 = 1;
const COPIED: u64 = 2;

#[repr(C)]
struct Device {
    kind: i32,
    id: i32,
}

#[repr(C)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

/// `DLTensor`.
#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    ndim: i32,
    dtype: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensor`.
#[repr(C)]
struct Managed {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Self)>,
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct ManagedVersioned {
    major: u32,
    minor: u32,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Self)>,
    flags: u64,
    tensor: Tensor,
}

/// A managed tensor, and behind it what it points into.
#[repr(C)]
struct Export<M> {
    managed: M,
    _view: Arc<View>,
    _copy: Option<Vec<u128>>,
}

/// Ends an export. A receiver calls it once, on any thread, with or without the interpreter.
///
/// # Safety
///
/// `managed` came from [`capsule`], and nothing uses it any more.
unsafe extern "C" fn delete<M>(managed: *mut M) {
    if !managed.is_null() {
        // SAFETY: `capsule` made it of a box of `Export<M>`, of which it is the first field; the caller
        // gives it up.
        drop(unsafe { Box::from_raw(managed.cast::<Export<M>>()) });
    }
}

/// Ends a capsule that nobody took: a receiver renames the capsule, and then calls the deleter itself.
///
/// # Safety
///
/// Python calls it, with a capsule of [`capsule`] with a tensor `M`.
unsafe fn end<M>(capsule: *mut ffi::PyObject, name: &CStr) {
    // SAFETY: a capsule, and a name that lives for ever.
    let valid = unsafe { ffi::PyCapsule_IsValid(capsule, name.as_ptr()) };
    if valid == 1 {
        // SAFETY: as above; it is valid, so this raises nothing.
        let managed = unsafe { ffi::PyCapsule_GetPointer(capsule, name.as_ptr()) };
        // SAFETY: its name says that no receiver took it.
        unsafe { delete(managed.cast::<M>()) };
    }
}

unsafe extern "C" fn end_plain(capsule: *mut ffi::PyObject) {
    // SAFETY: a capsule with this destructor holds such a tensor.
    unsafe { end::<Managed>(capsule, PLAIN) }
}

unsafe extern "C" fn end_versioned(capsule: *mut ffi::PyObject) {
    // SAFETY: a capsule with this destructor holds such a tensor.
    unsafe { end::<ManagedVersioned>(capsule, VERSIONED) }
}

/// The capsule of a view: in place, or a copy that the receiver may write. The element of the view has
/// a code in DLPack, and of device memory no copy is asked for.
pub(crate) fn capsule<'py>(
    py: Python<'py>,
    view: &Arc<View>,
    versioned: bool,
    copy: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let mut copied = if copy { Some(copy_of(py, view)?) } else { None };
    let data = match copied.as_mut() {
        Some(bytes) => bytes.as_mut_ptr().cast::<c_void>(),
        None => ptr::with_exposed_provenance_mut(view.address),
    };
    let tensor = Tensor {
        data,
        device: match view.kind {
            DeviceKind::Cuda => Device { kind: 2, id: view.ordinal },
            _ => Device { kind: 1, id: 0 },
        },
        ndim: i32::try_from(view.shape.len()).map_err(|_many| wrong("too many dimensions"))?,
        dtype: DataType {
            code: view.element.dlpack.ok_or_else(|| wrong("DLPack has no such type"))?,
            bits: view.element.bits,
            lanes: 1,
        },
        shape: view.shape.as_ptr().cast_mut(),
        strides: view.strides.as_ptr().cast_mut(),
        byte_offset: 0,
    };
    let (context, view) = (ptr::null_mut(), Arc::clone(view));
    if versioned {
        let flags = if copy { COPIED } else { READ_ONLY };
        let deleter: Option<unsafe extern "C" fn(*mut ManagedVersioned)> = Some(delete);
        let managed = ManagedVersioned { major: 1, minor: 1, context, deleter, flags, tensor };
        hand_out(py, Export { managed, _view: view, _copy: copied }, VERSIONED, end_versioned)
    } else {
        let deleter: Option<unsafe extern "C" fn(*mut Managed)> = Some(delete);
        let managed = Managed { tensor, context, deleter };
        hand_out(py, Export { managed, _view: view, _copy: copied }, PLAIN, end_plain)
    }
}

fn hand_out<'py, M>(
    py: Python<'py>,
    export: Export<M>,
    name: &'static CStr,
    destructor: unsafe extern "C" fn(*mut ffi::PyObject),
) -> PyResult<Bound<'py, PyAny>> {
    let export = Box::into_raw(Box::new(export));
    // SAFETY: the interpreter is attached, the pointer is not null, the name lives for ever.
    let made = unsafe { ffi::PyCapsule_New(export.cast(), name.as_ptr(), Some(destructor)) };
    // SAFETY: a new reference, or null with an exception set.
    let capsule = unsafe { Bound::from_owned_ptr_or_err(py, made) };
    if capsule.is_err() {
        // SAFETY: no capsule took it.
        unsafe { delete(export.cast::<M>()) };
    }
    capsule
}

/// The bytes of a view of host memory, aligned for every element.
fn copy_of(py: Python<'_>, view: &View) -> PyResult<Vec<u128>> {
    let mut bytes: Vec<u128> = Vec::new();
    let words = view.nbytes.div_ceil(size_of::<u128>()).max(1);
    bytes.try_reserve_exact(words).map_err(|_none| wrong("no host memory for a copy"))?;
    bytes.resize(words, 0);
    detach(py, || {
        let from: *const u8 = ptr::with_exposed_provenance(view.address);
        // SAFETY: the view's lease keeps `nbytes` bytes of plaintext at `address`, and no call writes
        // there while it lives; the target is as long, and freshly allocated.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr().cast(), view.nbytes) };
    });
    Ok(bytes)
}
