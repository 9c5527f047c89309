//! The routes: reads, control, leases, events.

mod auth;
mod events;
mod gpus;
mod leases;
mod models;
mod openmetrics;
mod page;
mod reads;
mod request;
mod sharing;
mod told;

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};

pub(crate) use self::auth::{Door, Token};
pub(crate) use self::reads::{begin_drain, force_drain};
use crate::engine::Engine;
use crate::lane::Shared;
use crate::problem::Problem;
use crate::report::ServeReport;

/// Bytes of a request's body: a list of files, at most.
const BODY_MAX: usize = 64 << 10;

/// What every handler has.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) engine: Arc<Engine>,
    pub(crate) token: Token,
    pub(crate) stop: watch::Sender<Stop>,
    pub(crate) report: watch::Receiver<Option<ServeReport>>,
    pub(crate) counts: Counts,
    pub(crate) call_deadline: Duration,
    pub(crate) receive: Duration,
    pub(crate) drain: Duration,
    pub(crate) event_readers: Arc<Semaphore>,
    pub(crate) metrics: Shared,
    pub(crate) snapshot: Shared,
    pub(crate) models: Shared,
}

/// How far the end of the server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It serves.
    No,
    /// Leases are waited for, for so long.
    Draining(Duration),
    /// No longer; memory that a process has open is still not freed.
    Now,
    /// Nothing is waited for.
    Forced,
}

/// What the server counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) unauthorized: AtomicU64,
    pub(crate) lagged: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The routes of a server: those of `docs/openapi.json`, which a test compares.
pub(crate) fn router(state: Arc<State>) -> Router {
    let model = "/v1/models/{name}";
    let of = |call: &str| format!("{model}/{call}");
    Router::new()
        .route("/", get(page::live))
        .route("/healthz", get(reads::health))
        .route("/readyz", get(reads::ready))
        .route("/metrics", get(reads::metrics))
        .route("/snapshot", get(reads::snapshot))
        .route("/events", get(events::stream))
        .route("/openapi.json", get(reads::openapi))
        .route("/v1/models", get(models::list))
        .route(model, get(models::one))
        .route(&of("load"), post(models::load))
        .route(&of("verify"), post(models::verify))
        .route(&of("repair"), post(models::repair))
        .route(&of("park"), post(models::park))
        .route(&of("wake"), post(models::wake))
        .route(&of("migrate"), post(models::migrate))
        .route(&of("pin"), post(models::pin))
        .route(&of("unpin"), post(models::unpin))
        .route(&of("free"), post(models::free))
        .route("/v1/gpus", get(gpus::list))
        .route("/v1/gpus/{gpu}/reset", post(gpus::reset))
        .route("/v1/leases", get(leases::list).post(leases::hold))
        .route("/v1/leases/shared", post(sharing::share))
        .route("/v1/leases/{lease}/end", post(sharing::end))
        .route("/v1/drain", post(reads::drain))
        .fallback(async || {
            Problem::new(
                StatusCode::NOT_FOUND,
                "no-such-route",
                "there is nothing at this path",
                "GET /openapi.json lists the routes",
            )
        })
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "no-such-method",
                "this path does not answer to this method",
                "GET /openapi.json lists the routes",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(axum::middleware::from_fn(told::log))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), auth::guard))
        .with_state(state)
}
