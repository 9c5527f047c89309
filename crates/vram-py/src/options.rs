//! Arguments of Python as values of the facade.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyIterator, PyString};
use vram_residency::{
    Budget, ByteLen, GpuChoice, KeySource, OnEviction, Protection, SealKey, Verify,
};

use crate::errors;

/// An error for an argument that means nothing.
pub(crate) fn wrong(message: impl AsRef<str>) -> PyErr {
    errors::caller("config", message.as_ref())
}

/// A size: a number of bytes, or a text such as `8GiB`.
pub(crate) fn size(value: &Bound<'_, PyAny>) -> PyResult<ByteLen> {
    if let Ok(bytes) = value.extract::<u64>() {
        return Ok(ByteLen::new(bytes));
    }
    let Ok(text) = value.extract::<String>() else {
        return Err(wrong(format!(
            "a size is a number of bytes or a text such as \"8GiB\", not {value}"
        )));
    };
    text.parse().map_err(|error| wrong(format!("{error}")))
}

/// One size, or several.
pub(crate) fn sizes(value: &Bound<'_, PyAny>) -> PyResult<Vec<ByteLen>> {
    if value.is_instance_of::<PyString>() || value.extract::<u64>().is_ok() {
        return Ok(vec![size(value)?]);
    }
    match several(value, "capacities are a size or a list of sizes") {
        Ok(items) => items.map(|item| size(&item?)).collect(),
        Err(_) => Err(size(value).err().unwrap_or_else(|| wrong("no size"))),
    }
}

/// A budget: a fraction of what is free, or a size.
pub(crate) fn budget(value: &Bound<'_, PyAny>) -> PyResult<Budget> {
    if value.is_exact_instance_of::<pyo3::types::PyFloat>() {
        return Ok(Budget::FractionOfFree(value.extract()?));
    }
    size(value).map(Budget::Bytes)
}

/// 32 bytes, or the path of a key file.
pub(crate) fn key(value: &Bound<'_, PyAny>) -> PyResult<SealKey> {
    if let Ok(bytes) = value.extract::<Vec<u8>>() {
        let bytes = array(&bytes, "a key")?;
        if bytes == [0; 32] {
            return Err(wrong("32 zero bytes are no key"));
        }
        return Ok(SealKey::from_bytes(&bytes));
    }
    let path: PathBuf = value.extract()?;
    let key = KeySource::File(path).load();
    key.map_err(|error| errors::vram(error.into()))
}

/// Exactly 32 bytes.
pub(crate) fn array(bytes: &[u8], what: &str) -> PyResult<[u8; 32]> {
    bytes.try_into().map_err(|_other| wrong(format!("{what} has 32 bytes, not {}", bytes.len())))
}

/// `authenticated` or `encrypted`.
pub(crate) fn protection(text: &str) -> PyResult<Protection> {
    match text {
        "authenticated" => Ok(Protection::Authenticated),
        "encrypted" => Ok(Protection::Encrypted),
        other => {
            Err(wrong(format!("protection is \"authenticated\" or \"encrypted\", not {other:?}")))
        }
    }
}

/// How thoroughly to verify.
pub(crate) fn level(text: &str) -> PyResult<Verify> {
    match text {
        "full" => Ok(Verify::Full),
        "segments" => Ok(Verify::Segments),
        "fingerprint" => Ok(Verify::Fingerprint),
        "record" => Ok(Verify::Record),
        other => Err(wrong(format!(
            "a level is \"full\", \"segments\", \"fingerprint\" or \"record\", not {other:?}"
        ))),
    }
}

/// What an eviction does with a model.
pub(crate) fn on_eviction(text: &str) -> PyResult<OnEviction> {
    match text {
        "never" => Ok(OnEviction::Never),
        "free" => Ok(OnEviction::Free),
        other => Err(wrong(format!("on_eviction is \"never\" or \"free\", not {other:?}"))),
    }
}

/// One GPU, or the one with the most room.
pub(crate) fn gpus(gpu: Option<u32>) -> GpuChoice {
    gpu.map_or(GpuChoice::MostRoomFirst, GpuChoice::One)
}

/// Seconds, at least 0.
pub(crate) fn seconds(value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|error| wrong(format!("{value:e} seconds: {error}")))
}

/// The files of a model: one file, a folder, an index, or several of them.
pub(crate) fn files(path: &Bound<'_, PyAny>) -> PyResult<Vec<PathBuf>> {
    if path.is_instance_of::<PyString>() || path.hasattr("__fspath__")? {
        return Ok(vec![path.extract()?]);
    }
    let paths = several(path, "a model is a path (str or os.PathLike) or a list of paths")?;
    let paths: Vec<PathBuf> = paths.map(|path| path?.extract()).collect::<PyResult<_>>()?;
    if paths.is_empty() {
        return Err(wrong("no file was given"));
    }
    Ok(paths)
}

/// The items of a list or of anything like one; bytes and texts are no lists of numbers and letters.
fn several<'py>(value: &Bound<'py, PyAny>, what: &str) -> PyResult<Bound<'py, PyIterator>> {
    let one = value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
        || value.is_instance_of::<PyString>();
    match value.try_iter() {
        Ok(items) if !one => Ok(items),
        _ => Err(PyTypeError::new_err(format!("{what}, not {}", value.get_type().name()?))),
    }
}

/// The name of a model that the caller did not name: of several files, that of their folder.
pub(crate) fn name_of(files: &[PathBuf], name: &str) -> String {
    let several = files.first().filter(|_| files.len() > 1).and_then(|first| first.parent());
    let folder = several.and_then(Path::file_name);
    folder.map_or_else(|| name.to_owned(), |folder| folder.to_string_lossy().into_owned())
}
