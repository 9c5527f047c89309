//! What requests say: JSON bodies that come within a time, names in paths, deadlines.

use core::time::Duration;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{BODY_MAX, State};
use crate::engine::Engine;
use crate::lane::{Awaited, Lane};
use crate::problem::Problem;

/// The query of a control call.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// How long the call may take, in milliseconds; at most the server's own bound.
    pub(super) deadline_ms: Option<u64>,
}

/// Reads a JSON body. An empty one is the default.
pub(super) async fn json<T: DeserializeOwned>(
    state: &State,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    let bytes = read(state, body).await?;
    let (bytes, kind) = match headers.get(header::CONTENT_TYPE) {
        _ if bytes.is_empty() => (Bytes::from_static(b"{}"), None),
        kind => (bytes, kind.map(|kind| kind.as_bytes().to_ascii_lowercase())),
    };
    if kind.is_some_and(|kind| !kind.starts_with(b"application/json")) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-json",
            "the body is not said to be JSON",
            "send the header `Content-Type: application/json`",
        ));
    }
    // A derived reader would take an array for an object whose fields come in order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Problem::bad_request("body: invalid type: an array, expected an object"));
    }
    serde_json::from_slice(&bytes).map_err(|error| Problem::bad_request(format!("body: {error}")))
}

/// Reads a body, within the server's time and bound.
async fn read(state: &State, body: Body) -> Result<Bytes, Problem> {
    let collected = timeout(state.receive, Limited::new(body, BODY_MAX).collect()).await;
    match collected {
        Ok(Ok(bytes)) => Ok(bytes.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("the body has more than {BODY_MAX} bytes"),
            "name a folder in place of many files",
        )),
        Ok(Err(_broken)) => Err(Problem::bad_request("the body ended early")),
        Err(_elapsed) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "too-slow",
            format!("the body did not come within {:?}", state.receive),
            "send it at once",
        )),
    }
}

/// Runs a call of the engine in one of its lanes, until the deadline that the request has.
///
/// The call is a task of its own: it keeps its deadline, and ends, also when the client has gone.
pub(super) async fn call<T: Send + 'static>(
    state: &Arc<State>,
    asked: Asked,
    lane: impl FnOnce(&Engine) -> &Lane,
    work: impl FnOnce(&Arc<Engine>) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    call_for(state, asked, lane, Arc::default(), work).await
}

/// As [`call`], for work that is undone where nobody waits for it any more.
pub(super) async fn call_for<T: Send + 'static>(
    state: &Arc<State>,
    asked: Asked,
    lane: impl FnOnce(&Engine) -> &Lane,
    awaited: Arc<Awaited>,
    work: impl FnOnce(&Arc<Engine>) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    state.engine.check_open()?;
    let most = state.call_deadline;
    let deadline = asked.deadline_ms.map_or(most, |asked| Duration::from_millis(asked).min(most));
    let engine = Arc::clone(&state.engine);
    let lane = lane(&engine).clone();
    let work = move || work(&engine);
    let job = tokio::spawn(async move { lane.run_for(deadline, &awaited, work).await });
    job.await.unwrap_or_else(|_panicked| Err(Problem::internal("the call panicked")))
}

/// A JSON answer that no cache keeps.
pub(super) fn answer(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes_as("application/json", bytes.into()),
        Err(error) => Problem::internal(format!("the answer is no JSON: {error}")).into_response(),
    }
}

/// An answer of these bytes.
pub(super) fn bytes_as(kind: &'static str, bytes: Bytes) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], bytes).into_response()
}
