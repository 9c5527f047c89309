//! `/v1/leases/shared`: a model for a worker process that uses it in place, until that process has closed
//! it or has ended.

use core::time::Duration;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Has};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::models::in_query;
use super::request::{Asked, answer, call, json};
use super::told::Of;
use super::{Door, State, Stop};
use crate::engine::leases::{Held, LeaseRequest};
use crate::net::Peer;
use crate::problem::Problem;

/// The answer to the end of a lease.
#[derive(Serialize)]
struct Ended {
    lease: u64,
}

pub(super) async fn share(
    Has(state): Has<Arc<State>>,
    Extension(door): Extension<Door>,
    peer: Option<Extension<Peer>>,
    asks: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let asked = in_query(asks)?;
    let peer = peer.map(|Extension(peer)| peer).ok_or_else(|| unknown(door))?;
    let request: LeaseRequest = json(&state, &headers, body).await?;
    let of = Extension(Of(request.model.clone()));
    let (watched, worker) = (Arc::clone(&state), peer.clone());
    let work = async move {
        let shared = call(
            &watched,
            asked,
            |engine| &engine.light,
            move |engine| engine.share(&request, &peer),
        );
        let (held, shared) = shared.await?;
        // From here on the handles may go out, and the lease no longer hangs on the connection.
        tokio::spawn(keep(held, worker, watched.stop.subscribe()));
        Ok(shared)
    };
    // A task of its own: it also ends well when the client goes before the answer.
    let shared = tokio::spawn(work).await;
    let shared = shared.unwrap_or_else(|_| Err(Problem::internal("the call panicked")))?;
    Ok((of, answer(&shared)).into_response())
}

/// Ends a lease whose memory its process has closed.
pub(super) async fn end(
    Has(state): Has<Arc<State>>,
    peer: Option<Extension<Peer>>,
    lease: Result<Path<u64>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(lease) = lease.map_err(|error| Problem::bad_request(error.body_text()))?;
    state.engine.end_shared(lease, peer.as_ref().map(|Extension(peer)| peer))?;
    // What keeps the lease drops it within moments; who asks afterwards finds it gone.
    let gone = async {
        while state.engine.leases.open().iter().any(|open| open.lease == lease) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = timeout(Duration::from_secs(1), gone).await;
    Ok(answer(&Ended { lease }))
}

/// Keeps a lease until its process has closed the memory or has ended, or the server ends by force.
async fn keep(mut held: Held, worker: Peer, mut stop: watch::Receiver<Stop>) {
    let mut closed = held.closed();
    let lease = held.number;
    let closed = async { drop(closed.wait_for(|closed| *closed).await) };
    let gone = async {
        if let Err(error) = worker.ended().await {
            // Only the word of the process ends the lease now.
            tracing::error!(lease, %error, "the end of a process cannot be seen");
            core::future::pending::<()>().await;
        }
    };
    let forced = async { drop(stop.wait_for(|stop| *stop == Stop::Forced).await) };
    held.how = tokio::select! {
        biased;
        () = closed => "ended",
        () = gone => "gone",
        () = forced => "cut",
    };
    drop(held);
}

/// Why the process at the other end is not known.
fn unknown(door: Door) -> Problem {
    let (message, next) = match door {
        Door::Unix => (
            "no model of this server is shared, or the process at the other end of the socket is \
             not one that this server sees",
            "set share = true for a model; run both in one namespace of processes",
        ),
        Door::Loopback | Door::Tls => (
            "memory is shared with a process that is known, and a TCP connection has none",
            "connect to the server's Unix socket",
        ),
    };
    Problem::new(StatusCode::FORBIDDEN, "not-local", message, next)
}
