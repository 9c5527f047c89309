//! What is read: health, readiness, metrics, the snapshot, the description; and the drain.

use core::fmt::Write as _;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Has};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::models::to_json;
use super::openmetrics;
use super::request::{answer, bytes_as, json};
use super::{State, Stop};
use crate::engine::sharing::still_open;
use crate::problem::Problem;

/// The description of all routes.
pub(crate) const OPENAPI: &str = include_str!("../../openapi.json");

pub(super) async fn health() -> Response {
    bytes_as("text/plain; charset=utf-8", Bytes::from_static(b"ok\n"))
}

/// The query of `/readyz`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Of {
    model: Option<String>,
}

pub(super) async fn ready(
    Has(state): Has<Arc<State>>,
    of: Result<Query<Of>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(of) =
        of.map_err(|error| Problem::bad_request(format!("query: {}", error.body_text())))?;
    let engine = Arc::clone(&state.engine);
    let ready = tokio::task::spawn_blocking(move || engine.ready(of.model.as_deref())).await;
    let ready = ready.map_err(|_panicked| Problem::internal("the list could not be read"))??;
    let mut response = answer(&ready);
    if !ready.ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

pub(super) async fn metrics(
    Has(state): Has<Arc<State>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let reader = Arc::clone(&state);
    let text = state.metrics.get(move || Ok(render(&reader).into_bytes())).await?;
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accept.into_iter().any(openmetrics::is_asked) {
        let text = openmetrics::of(&String::from_utf8_lossy(&text));
        return Ok(bytes_as(openmetrics::TYPE, text.into()));
    }
    Ok(bytes_as("text/plain; version=0.0.4; charset=utf-8", text))
}

/// The figures of the manager, and those of the server.
fn render(state: &State) -> String {
    let mut text = state.engine.manager.metrics().to_prometheus();
    text.push_str(&state.engine.manager.card_metrics());
    let counts = &state.counts;
    let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let gauges = [("vram_serve_open_connections", "Connections that are open.", &counts.open)];
    let gauges = gauges.map(|(name, help, value)| (name, help, value.load(Ordering::Relaxed)));
    let calls = state.engine.heavy.calls().saturating_add(state.engine.light.calls());
    let more = [
        ("vram_serve_calls", "Control calls that run or wait.", number(calls)),
        (
            "vram_serve_leases",
            "Models that connections or processes hold.",
            number(state.engine.leases.count()),
        ),
        (
            "vram_serve_shared_leases",
            "Models whose memory another process has open.",
            number(state.engine.leases.open().len()),
        ),
        (
            "vram_serve_draining",
            "Whether the server is being stopped: 0 or 1.",
            u64::from(state.engine.is_draining()),
        ),
    ];
    for (name, help, value) in gauges.into_iter().chain(more) {
        // Writing to a text never fails.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    }
    for (name, help, value) in [
        ("vram_serve_connections_total", "Connections that were accepted.", &counts.connections),
        (
            "vram_serve_connections_refused_total",
            "Connections beyond the bound, answered 503.",
            &counts.refused,
        ),
        ("vram_serve_requests_total", "Requests, refused ones included.", &counts.requests),
        (
            "vram_serve_unauthorized_total",
            "Requests without the token that they needed.",
            &counts.unauthorized,
        ),
        ("vram_serve_lagged_total", "Readers of events that fell behind.", &counts.lagged),
    ] {
        let value = value.load(Ordering::Relaxed);
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n");
    }
    let name = "vram_serve_model_ready";
    let _ = writeln!(text, "# HELP {name} Whether a configured model can be leased: 0 or 1.");
    let _ = writeln!(text, "# TYPE {name} gauge");
    // Lists what was evicted, too.
    for model in state.engine.models().into_iter().filter(|model| model.configured) {
        let fit = model.is_ready();
        let model = model.name.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(text, "{name}{{model=\"{model}\"}} {}", u8::from(fit));
    }
    let name = "vram_serve_evictions_total";
    let help = "Models that were parked to make room for others, by the device that they lay on.";
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n");
    for (gpu, count) in state.engine.evictions().enumerate() {
        let _ = writeln!(text, "{name}{{gpu=\"{gpu}\"}} {count}");
    }
    text
}

pub(super) async fn snapshot(Has(state): Has<Arc<State>>) -> Result<Response, Problem> {
    let engine = Arc::clone(&state.engine);
    let bytes = state.snapshot.get(move || to_json(&engine.manager.snapshot())).await?;
    Ok(bytes_as("application/json", bytes))
}

pub(super) async fn openapi() -> Response {
    bytes_as("application/json", Bytes::from_static(OPENAPI.as_bytes()))
}

/// What a drain asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DrainRequest {
    /// How long leases are waited for. Default: the configuration's time.
    deadline_ms: Option<u64>,
    /// Whether memory is freed that other processes have open.
    force: bool,
}

/// Stops the server, and answers when all was given back.
pub(super) async fn drain(
    Has(state): Has<Arc<State>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let request: DrainRequest = json(&state, &headers, body).await?;
    let deadline = request.deadline_ms.map_or(state.drain, Duration::from_millis);
    let mut report = state.report.clone();
    if request.force {
        force_drain(&state);
    } else {
        begin_drain(&state, deadline);
    }
    let ended = tokio::select! {
        ended = report.wait_for(Option::is_some) => ended,
        open = held_open(&state, deadline) => return Err(open),
    };
    let ended = ended.map_err(|_gone| Problem::internal("the server ended without a report"))?;
    Ok(ended.as_ref().map_or_else(
        || Problem::internal("the server ended without a report").into_response(),
        answer,
    ))
}

/// Waits until the time for leases is over, and returns the refusal if a process has memory open even
/// then; never returns otherwise.
async fn held_open(state: &State, deadline: Duration) -> Problem {
    let mut stop = state.stop.subscribe();
    let is_over = |stop: &Stop| matches!(stop, Stop::Now | Stop::Forced);
    let over = async { drop(stop.wait_for(is_over).await) };
    // An earlier drain may have come to its end already: this one has a time of its own.
    let ((), ()) = tokio::join!(over, tokio::time::sleep(deadline));
    let open = state.engine.leases.open();
    if open.is_empty() || *state.stop.borrow() == Stop::Forced {
        // The report comes.
        core::future::pending::<()>().await;
    }
    still_open(&open)
}

/// Ends the server whatever is held, also where that frees memory that another process uses.
pub(crate) fn force_drain(state: &State) {
    state.engine.begin_draining(Duration::ZERO);
    state.stop.send_replace(Stop::Forced);
}

/// Begins to drain, or shortens the deadline of a drain that has begun.
pub(crate) fn begin_drain(state: &State, deadline: Duration) {
    state.engine.begin_draining(deadline);
    state.stop.send_if_modified(|stop| match stop {
        Stop::No => {
            *stop = Stop::Draining(deadline);
            true
        }
        Stop::Draining(earlier) if deadline < *earlier => {
            *stop = Stop::Draining(deadline);
            true
        }
        Stop::Draining(_) | Stop::Now | Stop::Forced => false,
    });
}
