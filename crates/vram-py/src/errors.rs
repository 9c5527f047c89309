//! Errors of the facade as exceptions. Their classes are in `python/vram/errors.py`.

use std::error::Error as _;
use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use serde_json::{Value, json};
use vram_residency::model::ModelError;
use vram_residency::{
    Class, ModelFilesError, ModelHandle, ShardId, Shortfall, SourceError, VramError,
};

use crate::report::plain;

/// The exception of an error.
pub(crate) fn raised(error: &VramError) -> PyErr {
    told(error, None)
}

/// The exception of an error, about the tensor of a model, if they are known.
fn told(error: &VramError, about: Option<(&str, &str)>) -> PyErr {
    let class = match error.class() {
        Class::Retry => "retry",
        Class::Fatal => "fatal",
        _ => "caller",
    };
    let (mut message, mut details) = (error.to_string(), details(error));
    if let Some((model, tensor)) = about {
        message = format!("{tensor:?} of {model:?}: {message}");
        if let Value::Object(details) = &mut details {
            details.insert("tensor".to_owned(), tensor.into());
        }
    }
    let after = error.retry_after().map(|after| after.as_secs_f64());
    make(error.code(), class, &message, after, error.is_integrity(), &details)
}

/// As [`raised`], with the name of the tensor of this model that it is about.
pub(crate) fn of(handle: &ModelHandle) -> impl Fn(VramError) -> PyErr + '_ {
    |error| {
        let mut piece = None;
        if let Some(shard) = shard(&error) {
            piece = handle.pieces.iter().find(|piece| piece.shard.shard_id == *shard);
        }
        match piece {
            Some(piece) => about(&handle.model_id, &piece.piece.name)(error),
            None => raised(&error),
        }
    }
}

/// As [`raised`], with the name of a model and of its tensor that it is about.
pub(crate) fn about<'a>(model: &'a str, tensor: &'a str) -> impl Fn(VramError) -> PyErr + 'a {
    move |error| told(&error, Some((model, tensor)))
}

/// The shard that an error is about.
const fn shard(error: &VramError) -> Option<&ShardId> {
    match error {
        VramError::InUse { shard, .. }
        | VramError::Quarantined { shard, .. }
        | VramError::ShardAltered { shard, .. }
        | VramError::OutOfBounds { shard, .. } => Some(shard),
        _ => None,
    }
}

/// As [`raised`], for `map_err`.
pub(crate) fn vram(error: VramError) -> PyErr {
    raised(&error)
}

/// Files that are no model.
pub(crate) fn files(error: ModelFilesError) -> PyErr {
    match error {
        ModelFilesError::Source(error) => raised(&VramError::Source(error)),
        other => {
            let system = other.source().and_then(|source| source.downcast_ref::<io::Error>());
            let details = json!({ "errno": system.and_then(io::Error::raw_os_error) });
            let changed = matches!(&other, ModelFilesError::Model(ModelError::Changed { .. }));
            make("model-file", "caller", &other.to_string(), None, changed, &details)
        }
    }
}

/// An error of the caller that the facade has no word for.
pub(crate) fn caller(code: &str, message: &str) -> PyErr {
    make(code, "caller", message, None, false, &Value::Null)
}

/// Whether an exception says that bytes are altered.
pub(crate) fn is_integrity(py: Python<'_>, error: &PyErr) -> bool {
    let flag = error.value(py).getattr("integrity");
    flag.is_ok_and(|flag| flag.is_truthy().unwrap_or_default())
}

/// A model that another thread is parking, waking or freeing.
pub(crate) fn busy(what: &str) -> PyErr {
    let message = format!("another thread is {what} the model: try again");
    make("in-use", "retry", &message, Some(0.01), false, &json!({ "leases": 0 }))
}

/// A forked child.
pub(crate) fn forked(parent: u32) -> PyErr {
    let message = format!(
        "this process was forked from process {parent}, which had made a manager: it can use neither that \
         one nor a new one; start it with multiprocessing's method `spawn`"
    );
    caller("forked", &message)
}

/// The classes of `vram.errors`, by code.
static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// Finds the classes of exceptions. Called once, when the module is imported: later the interpreter may be
/// ending, and nothing can be imported any more.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    let classes = || Ok(py.import("vram.errors")?.getattr("_CLASSES")?.cast_into()?.unbind());
    CLASSES.get_or_try_init(py, classes).map(drop)
}

/// Makes an exception. This runs no code of Python: a daemon thread that is ended in such code, at the end
/// of the interpreter, takes the process with it if frames of Rust are below.
fn make(
    code: &str,
    kind: &str,
    message: &str,
    retry_after: Option<f64>,
    integrity: bool,
    details: &Value,
) -> PyErr {
    let of_file =
        matches!(code, "io" | "source" | "source-changed" | "source-length" | "model-file");
    let number = details.get("errno").and_then(Value::as_i64).and_then(|one| one.try_into().ok());
    let missing = number
        .is_some_and(|one| io::Error::from_raw_os_error(one).kind() == io::ErrorKind::NotFound);
    let class = match (of_file, integrity) {
        (true, true) => "changed",
        (false, true) => "integrity",
        (true, false) if missing => "missing",
        _ => code,
    };
    Python::attach(|py| {
        let made = || -> PyResult<PyErr> {
            prepare(py)?;
            let classes = CLASSES.get(py).map(|classes| classes.bind(py));
            let find = |name| classes.and_then(|all| all.get_item(name).transpose()).transpose();
            let unnamed = if kind == "caller" { "config" } else { "error" };
            let found = find(class)?.map_or_else(|| find(unnamed), |one| Ok(Some(one)))?;
            let error = match found {
                Some(class) => class.call1((message,))?,
                None => return Ok(PyRuntimeError::new_err(message.to_owned())),
            };
            error.setattr("code", code)?;
            error.setattr("kind", kind)?;
            error.setattr("retryable", kind == "retry")?;
            error.setattr("retry_after", retry_after)?;
            error.setattr("integrity", integrity)?;
            for (name, value) in details.as_object().into_iter().flatten() {
                error.setattr(name.as_str(), plain(py, value)?)?;
            }
            Ok(PyErr::from_value(error))
        };
        made().unwrap_or_else(|error| error)
    })
}

/// The figures of an error, as attributes of its exception.
fn details(error: &VramError) -> Value {
    match error {
        VramError::InsufficientVram(shortfall) => figures(shortfall),
        VramError::InUse { shard, leases, oldest } => json!({
            "shard": shard.to_string(),
            "leases": leases,
            "holder": oldest.as_ref().and_then(|oldest| oldest.holder.as_deref()),
        }),
        VramError::Quarantined { shard, segments }
        | VramError::ShardAltered { shard, segments } => {
            json!({ "shard": shard.to_string(), "segments": segments })
        }
        VramError::DeviceLost { gpu, .. } | VramError::Device { gpu, .. } => json!({ "gpu": gpu }),
        VramError::Source(SourceError::Io { error, .. }) => {
            json!({ "errno": error.raw_os_error() })
        }
        VramError::Cancelled { done, total } => json!({ "done": done, "total": total }),
        _ => Value::Null,
    }
}

fn figures(shortfall: &Shortfall) -> Value {
    json!({
        "gpu": shortfall.gpu,
        "needed": shortfall.needed,
        "room": shortfall.room,
        "largest_hole": shortfall.largest_hole,
        "foreign": shortfall.foreign,
        "headroom": shortfall.headroom,
        "most": shortfall.most,
        "holders": shortfall.holders,
        "busy": shortfall.busy,
        "plan": shortfall.plan,
    })
}
