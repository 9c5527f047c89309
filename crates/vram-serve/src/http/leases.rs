//! `/v1/leases`: a request whose answer goes on for as long as its connection holds a model.

use core::convert::Infallible;
use core::time::Duration;
use std::collections::HashSet;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Has};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::models::in_query;
use super::request::{Asked, answer, call, json};
use super::told::Of;
use super::{State, Stop};
use crate::engine::leases::{Held, LeaseRequest, LeasedShard, Shown};
use crate::feed::{News, What};
use crate::problem::Problem;

/// How often a line is sent, so that a connection whose other end has vanished is noticed.
const ALIVE: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct List {
    leases: Vec<Shown>,
}

/// The lines of the answer.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    /// The first line: the lease exists from now on.
    Leased {
        lease: u64,
        model: &'a str,
        holder: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        shards: Option<Vec<LeasedShard>>,
    },
    /// Nothing happened.
    Alive,
    /// The server is being stopped: let go within this time.
    Draining { deadline_ms: u64 },
    /// A check found held shards altered: let go of the model, and it can be repaired.
    Altered(Shards),
    /// A GPU was lost or emptied, and held shards with it.
    Lost(Shards),
    /// So many of such news were missed: verify the model.
    Missed { count: u64 },
    /// The last line: the server gave the lease back by itself.
    Cut,
}

/// Which of the held shards: how many, and the first 32.
#[derive(Serialize)]
struct Shards {
    count: usize,
    first: Vec<LeasedShard>,
}

pub(super) async fn list(Has(state): Has<Arc<State>>) -> Response {
    answer(&List { leases: state.engine.leases.list() })
}

pub(super) async fn hold(
    Has(state): Has<Arc<State>>,
    asks: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let asked = in_query(asks)?;
    let request: LeaseRequest = json(&state, &headers, body).await?;
    let wanted = request.clone();
    // From before the lease, so that nothing falls between.
    let news = state.engine.feed.news();
    let held = call(&state, asked, |engine| &engine.light, move |engine| engine.lease(&wanted));
    let held = held.await?;
    let first = line(&Line::Leased {
        lease: held.number,
        model: &request.model,
        holder: &request.holder,
        shards: request.shards.then(|| held.shards()),
    });
    let mut ticks = interval(ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let stop = state.stop.subscribe();
    let lines = Lines { held, ticks, stop, news, next: None, first: Some(first), told: false };
    let headers =
        [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    let of = Extension(Of(request.model));
    Ok((of, headers, Body::from_stream(lines.stream())).into_response())
}

/// The answer of a lease. It owns the lease: when its connection ends, for whatever reason, it is
/// dropped.
struct Lines {
    held: Held,
    ticks: Interval,
    stop: watch::Receiver<Stop>,
    news: broadcast::Receiver<News>,
    /// News that were taken, and not yet told.
    next: Option<Result<News, RecvError>>,
    first: Option<Bytes>,
    /// Whether the worker was told of the drain.
    told: bool,
}

impl Lines {
    fn stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(Some(self), async |lines| {
            let mut lines = lines?;
            let (line, goes_on) = lines.next().await;
            Some((Ok(line), goes_on.then_some(lines)))
        })
    }

    /// The next line, and whether more follow.
    async fn next(&mut self) -> (Bytes, bool) {
        if let Some(first) = self.first.take() {
            return (first, true);
        }
        loop {
            let stop = *self.stop.borrow_and_update();
            match stop {
                Stop::Now | Stop::Forced => {
                    self.held.how = "cut";
                    return (line(&Line::Cut), false);
                }
                Stop::Draining(deadline) if !self.told => {
                    self.told = true;
                    let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                    return (line(&Line::Draining { deadline_ms }), true);
                }
                Stop::Draining(_) | Stop::No => {}
            }
            if let Some(news) = self.next.take() {
                if let Some(told) = self.tell(news) {
                    return (told, true);
                }
                continue;
            }
            tokio::select! {
                changed = self.stop.changed() => {
                    if changed.is_err() {
                        return (line(&Line::Cut), false);
                    }
                }
                news = self.news.recv() => self.next = Some(news),
                _ = self.ticks.tick() => return (line(&Line::Alive), true),
            }
        }
    }

    /// The line of news, and of those of the same kind that follow; `None` if no held shard is meant.
    fn tell(&mut self, news: Result<News, RecvError>) -> Option<Bytes> {
        let News { what, shards } = match news {
            Ok(news) => news,
            Err(RecvError::Lagged(count)) => return Some(line(&Line::Missed { count })),
            // The engine lives as long as the lease that it gave.
            Err(RecvError::Closed) => return None,
        };
        let mut meant: HashSet<_> = shards.iter().cloned().collect();
        while self.next.is_none() {
            match self.news.try_recv() {
                Ok(more) if more.what == what => meant.extend(more.shards.iter().cloned()),
                Ok(other) => self.next = Some(Ok(other)),
                Err(TryRecvError::Lagged(count)) => self.next = Some(Err(RecvError::Lagged(count))),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let (count, first) = self.held.of_these(&meant);
        let shards = Shards { count, first };
        let told = match what {
            What::Altered => Line::Altered(shards),
            What::Lost => Line::Lost(shards),
        };
        (count > 0).then(|| line(&told))
    }
}

fn line(line: &Line<'_>) -> Bytes {
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}
