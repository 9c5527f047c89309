//! Errors of the facade as exceptions. Their classes are in `python/vram/errors.py`.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Value, json};
use vram_residency::{Class, ModelFilesError, Shortfall, VramError};

use crate::report::to_python;

/// The exception of an error.
pub(crate) fn raised(error: &VramError) -> PyErr {
    let class = match error.class() {
        Class::Retry => "retry",
        Class::Fatal => "fatal",
        _ => "caller",
    };
    make(
        error.code(),
        class,
        &error.to_string(),
        error.retry_after().map(|after| after.as_secs_f64()),
        error.is_integrity(),
        &details(error),
    )
}

/// As [`raised`], for `map_err`.
pub(crate) fn vram(error: VramError) -> PyErr {
    raised(&error)
}

/// Files that are no model.
pub(crate) fn files(error: ModelFilesError) -> PyErr {
    match error {
        ModelFilesError::Source(error) => raised(&VramError::Source(error)),
        other => caller("model-file", &other.to_string()),
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
    let message = format!("the model is being {what} by another thread: try again");
    make("in-use", "retry", &message, Some(0.01), false, &json!({ "leases": 0 }))
}

/// A forked child.
pub(crate) fn forked(parent: u32) -> PyErr {
    let message = format!(
        "this process was forked from process {parent}, whose manager, models and tensors it cannot use: make a \
         manager here, or start the child with multiprocessing's method `spawn`"
    );
    caller("forked", &message)
}

fn make(
    code: &str,
    class: &str,
    message: &str,
    retry_after: Option<f64>,
    integrity: bool,
    details: &Value,
) -> PyErr {
    Python::attach(|py| {
        let made = || -> PyResult<PyErr> {
            let details = match to_python(py, details)? {
                details if details.is_none() => PyDict::new(py).into_any(),
                details => details,
            };
            let make = py.import("vram.errors")?.getattr("_make")?;
            let error = make.call1((code, class, message, retry_after, integrity, details))?;
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
        "holders": shortfall.holders,
        "busy": shortfall.busy,
        "plan": shortfall.plan,
    })
}
