//! A view of one tensor where it lies. Whatever is made of it, a capsule, a buffer, an array, owns a
//! clone: the lease, and with it the place of the bytes, lives as long as any of them.

use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Arc;

use pyo3::PyClass;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use vram_residency::{DeviceKind, Lease, ModelPiece, VramError};

use crate::errors;
use crate::guard::Guarded;
use crate::options::wrong;
use crate::resident::{AfterLease, Resident};

/// How the elements of a tensor are named, by those that receive it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element {
    /// As numpy, torch and ml_dtypes name it.
    pub(crate) name: &'static str,
    /// Bits of one element.
    pub(crate) bits: u8,
    /// The code of DLPack 1.1; `None` where a byte holds parts of two elements.
    pub(crate) dlpack: Option<u8>,
    /// The format of the buffer protocol, where there is one.
    pub(crate) format: Option<&'static CStr>,
    /// The type in array interfaces, where there is one.
    pub(crate) typestr: Option<&'static str>,
}

macro_rules! elements {
    ($($stored:literal => $name:literal $bits:literal $dlpack:expr, $format:expr, $typestr:expr;)*) => {
        /// The element of a type in a safetensors header.
        fn element(stored: &str) -> Option<Element> {
            let (name, bits, dlpack, format, typestr): (_, _, Option<u8>, Option<&CStr>, Option<&str>) =
                match stored {
                    $($stored => ($name, $bits, $dlpack, $format, $typestr),)*
                    _ => return None,
                };
            Some(Element { name, bits, dlpack, format, typestr })
        }
    };
}

elements! {
    "BOOL" => "bool" 8 Some(6), Some(c"?"), Some("|b1");
    "U8" => "uint8" 8 Some(1), Some(c"B"), Some("|u1");
    "I8" => "int8" 8 Some(0), Some(c"b"), Some("|i1");
    "U16" => "uint16" 16 Some(1), Some(c"H"), Some("<u2");
    "I16" => "int16" 16 Some(0), Some(c"h"), Some("<i2");
    "U32" => "uint32" 32 Some(1), Some(c"I"), Some("<u4");
    "I32" => "int32" 32 Some(0), Some(c"i"), Some("<i4");
    "U64" => "uint64" 64 Some(1), Some(c"Q"), Some("<u8");
    "I64" => "int64" 64 Some(0), Some(c"q"), Some("<i8");
    "F16" => "float16" 16 Some(2), Some(c"e"), Some("<f2");
    "F32" => "float32" 32 Some(2), Some(c"f"), Some("<f4");
    "F64" => "float64" 64 Some(2), Some(c"d"), Some("<f8");
    "C64" => "complex64" 64 Some(5), Some(c"Zf"), Some("<c8");
    "BF16" => "bfloat16" 16 Some(4), None, None;
    "F8_E4M3" => "float8_e4m3fn" 8 Some(10), None, None;
    "F8_E4M3FNUZ" => "float8_e4m3fnuz" 8 Some(11), None, None;
    "F8_E5M2" => "float8_e5m2" 8 Some(12), None, None;
    "F8_E5M2FNUZ" => "float8_e5m2fnuz" 8 Some(13), None, None;
    "F8_E8M0" => "float8_e8m0fnu" 8 Some(14), None, None;
    "F4" => "float4_e2m1fn" 4 None, None, None;
    "F6_E2M3" => "float6_e2m3fn" 6 None, None, None;
    "F6_E3M2" => "float6_e3m2fn" 6 None, None, None;
}

const BYTE: &str = "U8";

/// What a view keeps alive: in the order in which it is let go. A model is freed after its last lease.
#[derive(Debug)]
struct Held {
    lease: Guarded<Lease>,
    _after: AfterLease,
    resident: Arc<Resident>,
}

/// A class whose objects show a view, always the same one.
pub(crate) trait Viewed: PyClass<Frozen = True> + Sync {
    /// The view.
    fn view(&self) -> &Arc<View>;
}

/// One tensor in device memory.
#[derive(Clone, Debug)]
pub(crate) struct View {
    held: Arc<Held>,
    pub(crate) name: Arc<str>,
    pub(crate) element: Element,
    pub(crate) kind: DeviceKind,
    /// The device, as its driver counts.
    pub(crate) ordinal: i32,
    pub(crate) address: usize,
    pub(crate) nbytes: usize,
    pub(crate) shape: Box<[i64]>,
    /// In elements.
    pub(crate) strides: Box<[i64]>,
    /// As the buffer protocol counts: in bytes.
    pub(crate) byte_shape: Box<[isize]>,
    pub(crate) byte_strides: Box<[isize]>,
}

impl View {
    /// The view of a piece that is a whole tensor.
    pub(crate) fn new(resident: Arc<Resident>, piece: &ModelPiece, lease: Lease) -> PyResult<Self> {
        let format = piece.piece.format.map(|format| format.to_string()).unwrap_or_default();
        let Some(element) = element(&format) else {
            return Err(wrong(format!("{} is stored as {format:?}", piece.piece.name)));
        };
        let info = resident.shared.manager()?.gpus();
        let gpu = usize::try_from(lease.gpu()).ok().and_then(|gpu| info.get(gpu));
        let Some(gpu) = gpu else { return Err(wrong("the gpu of the tensor is not there")) };
        let (kind, ordinal) = (gpu.kind, i32::try_from(gpu.index.get()).unwrap_or(i32::MAX));
        let nbytes = small(piece.piece.len.get())?;
        let address = match lease.device_pointer() {
            // A pointer that is no place, aligned for every element.
            _ if nbytes == 0 && kind == DeviceKind::Host => {
                NonNull::<u128>::dangling().addr().get()
            }
            _ if nbytes == 0 => 0,
            Some(address) => small(address.get())?,
            None => {
                let about = errors::about(&resident.name, &piece.piece.name);
                lease.ensure_sound().map_err(about)?;
                return Err(errors::caller(
                    "encrypted",
                    "the bytes in device memory are ciphertext, of which there is no view: load with \
                     protection=\"authenticated\", or use read()",
                ));
            }
        };
        let name = Arc::from(piece.piece.name.as_str());
        let after = AfterLease(Arc::clone(&resident.shared));
        let held = Arc::new(Held { lease: Guarded::new(lease), _after: after, resident });
        let view = Self {
            held,
            name,
            element,
            kind,
            ordinal,
            address,
            nbytes,
            shape: Box::default(),
            strides: Box::default(),
            byte_shape: Box::default(),
            byte_strides: Box::default(),
        };
        view.shaped(element, &piece.piece.shape)
    }

    /// The same bytes, one by one.
    pub(crate) fn bytes(&self) -> PyResult<Self> {
        let Some(element) = element(BYTE) else { return Err(wrong("no type of bytes")) };
        let len = u64::try_from(self.nbytes).unwrap_or(u64::MAX);
        self.clone().shaped(element, &[len])
    }

    fn shaped(mut self, element: Element, shape: &[u64]) -> PyResult<Self> {
        let width = isize::from(i16::from(element.bits) / 8);
        let extents: Result<Vec<isize>, _> =
            shape.iter().map(|one| isize::try_from(*one)).collect();
        let extents = extents
            .map_err(|_large| wrong(format!("{}: no view has the shape {shape:?}", self.name)))?;
        // From the last dimension, which varies fastest. A product that overflows belongs to a tensor
        // without bytes, whose strides nobody uses.
        let mut step = 1_isize;
        let mut steps = Vec::new();
        for extent in extents.iter().rev() {
            steps.push(step);
            step = step.saturating_mul((*extent).max(1));
        }
        steps.reverse();
        let wide = |one: &isize| i64::try_from(*one).unwrap_or(i64::MAX);
        self.element = element;
        self.shape = extents.iter().map(wide).collect();
        self.strides = steps.iter().map(wide).collect();
        self.byte_strides = steps.iter().map(|one| one.saturating_mul(width)).collect();
        self.byte_shape = extents.into();
        Ok(self)
    }

    /// Checks that the bytes may be handed out: this is the process that leased them, and no check
    /// found them altered.
    pub(crate) fn ready(&self) -> PyResult<()> {
        let sound: Result<(), VramError> = self.held.lease.get()?.ensure_sound();
        sound.map_err(errors::about(self.model(), &self.name))
    }

    /// The model that it is of.
    pub(crate) fn model(&self) -> &str {
        &self.held.resident.name
    }
}

/// A number that this machine can count to.
fn small<T, U: TryFrom<T>>(number: T) -> PyResult<U> {
    U::try_from(number).map_err(|_large| wrong("more than this machine can address"))
}
