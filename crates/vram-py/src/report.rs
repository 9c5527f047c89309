//! Verdicts, tickets, and everything that is told as plain data.

use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyString};
use serde::Serialize;
use serde_json::Value;
use vram_residency::{ModelTicket, ModelTicketExpectation, TicketKey, TicketVerifier, Timestamp};
use vram_residency::{Verdict as ShardVerdict, Verify};

use crate::{errors, options};

/// Data as dictionaries, lists and numbers of Python. This runs no code of Python.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    data: &impl Serialize,
) -> PyResult<Bound<'py, PyAny>> {
    let data = serde_json::to_value(data);
    plain(py, &data.map_err(|error| errors::caller("config", &error.to_string()))?)
}

/// As [`to_python`].
pub(crate) fn plain<'py>(py: Python<'py>, data: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match data {
        Value::Null => py.None().into_bound(py),
        Value::Bool(flag) => PyBool::new(py, *flag).to_owned().into_any(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into_pyobject(py)?.into_any(),
            (_, Some(number)) => number.into_pyobject(py)?.into_any(),
            _ => number.as_f64().into_pyobject(py)?,
        },
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|one| plain(py, one)).collect::<PyResult<_>>()?;
            PyList::new(py, items)?.into_any()
        }
        Value::Object(fields) => {
            let made = PyDict::new(py);
            for (name, value) in fields {
                made.set_item(name, plain(py, value)?)?;
            }
            made.into_any()
        }
    })
}

/// The result of `Model.verify`: what was found, and what that rests on.
///
/// A verdict is true if every tensor is sound.
#[pyclass(frozen, module = "vram")]
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Whether every byte that was checked is the sealed one.
    #[pyo3(get)]
    sound: bool,
    /// Whether the digests of all contents were checked as well: only at the level "full".
    #[pyo3(get)]
    content: bool,
    /// The number of bytes that were checked.
    #[pyo3(get)]
    checked_bytes: u64,
    /// What the weakest check rests on: "proof by the host", "fingerprint by the card", …; `None` if
    /// no byte was checked.
    #[pyo3(get)]
    proof: Option<String>,
    /// What is altered, as tuples: tensor, segment, first byte in the tensor, bytes.
    #[pyo3(get)]
    altered: Vec<(String, u64, u64, u64)>,
}

impl Verdict {
    /// Of all tensors of a model, each with its verdict.
    pub(crate) fn of(verdicts: &[(String, ShardVerdict)], level: Verify) -> Self {
        let all = |what: fn(&ShardVerdict) -> bool| verdicts.iter().all(|(_, one)| what(one));
        let spans = verdicts.iter().flat_map(|(name, one)| {
            let named = move |span: &vram_residency::SegmentSpan| {
                (name.clone(), span.segment, span.start, span.len)
            };
            one.altered.iter().map(named)
        });
        let bytes = verdicts.iter().map(|(_, one)| one.checked_bytes.get());
        let checks = verdicts.iter().filter_map(|(_, one)| one.checked);
        let sound = all(|one| one.sound);
        Self {
            sound,
            content: level == Verify::Full && sound && all(|one| one.content),
            checked_bytes: bytes.fold(0, u64::saturating_add),
            proof: checks
                .reduce(vram_residency::Checked::weaker)
                .map(|weakest| weakest.to_string()),
            altered: spans.collect(),
        }
    }
}

#[pymethods]
impl Verdict {
    fn __bool__(&self) -> bool {
        self.sound
    }

    fn __repr__(&self) -> String {
        let by = self.proof.as_deref().unwrap_or("no byte checked");
        if self.sound {
            return format!("<vram.Verdict sound, {} bytes checked, {by}>", self.checked_bytes);
        }
        let tensors = self.altered.iter().map(|(name, ..)| name.as_str());
        let tensors: std::collections::BTreeSet<&str> = tensors.collect();
        format!("<vram.Verdict ALTERED: {}>", Vec::from_iter(tensors).join(", "))
    }
}

/// Checks a ticket of `Model.ticket` against the key that signs tickets, and returns what it states.
///
/// The party that holds the key asks with a nonce of its own, 32 bytes that it never uses again.
///
/// Raises `vram.TicketError` for a ticket that is forged, of another model, too old, or of weights
/// that are in quarantine.
#[pyfunction]
#[pyo3(signature = (ticket, *, key, nonce, model_id=None, max_age=60.0, max_unverified=None))]
pub(crate) fn verify_ticket<'py>(
    py: Python<'py>,
    ticket: Vec<u8>,
    key: Vec<u8>,
    nonce: Vec<u8>,
    model_id: Option<&str>,
    max_age: f64,
    max_unverified: Option<f64>,
) -> PyResult<Bound<'py, PyAny>> {
    let refused = |error: vram_residency::TicketError| errors::caller("ticket", &error.to_string());
    let ticket = ModelTicket::from_bytes(&ticket).map_err(refused)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp::from_unix_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let expected = ModelTicketExpectation::new(options::array(&nonce, "a nonce")?, now);
    let mut expected = expected.max_age(options::seconds(max_age)?);
    if let Some(model_id) = model_id {
        expected = expected.model_id(model_id);
    }
    if let Some(most) = max_unverified {
        expected = expected.max_unverified(options::seconds(most)?);
    }
    let verifier = TicketVerifier::new(TicketKey::from_bytes(&options::array(&key, "a key")?));
    verifier.verify_model(&ticket, &expected).map_err(refused)?;
    to_python(py, &ticket)
}
