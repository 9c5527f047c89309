//! `/events`: server-sent events, from the present on or from an id on.

use core::convert::Infallible;
use core::time::Duration;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State as Has;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use super::{Counts, State, Stop};
use crate::feed::{Next, Reader};
use crate::lane::until;
use crate::problem::Problem;

/// How often a comment is sent when nothing happens.
const ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn stream(
    Has(state): Has<Arc<State>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = Arc::clone(&state.event_readers).try_acquire_owned().map_err(|_full| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-readers",
            "as many clients read events as this server bears",
            "try again later, or raise event_readers in [limits]",
        )
        .retry_in(5)
    })?;
    let last_id = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("not a text"));
    let reader = state.engine.feed.reader(last_id);
    let stop = state.stop.subscribe();
    let frames = Frames { state, reader, stop, _place: place };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // For proxies that would collect the answer first.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    // The first bytes tell the client that it is connected.
    let hello = stream::once(async { Ok(Bytes::from_static(b": vram\n\n")) });
    let all = futures_util::StreamExt::chain(hello, frames.stream());
    Ok((headers, Body::from_stream(all)).into_response())
}

struct Frames {
    state: Arc<State>,
    reader: Reader,
    stop: watch::Receiver<Stop>,
    _place: OwnedSemaphorePermit,
}

impl Frames {
    fn stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(Some(self), async |frames| {
            let mut frames = frames?;
            let next = tokio::select! {
                next = timeout(ALIVE, frames.reader.next()) => next,
                // The events of the end are told, and then the stream ends with the server.
                () = until(&mut frames.stop, |stop| *stop == Stop::Now) => {
                    let last = timeout(Duration::ZERO, frames.reader.next()).await;
                    let Ok(Next::Frames(bytes) | Next::Lagged(bytes)) = last else { return None };
                    return Some((Ok(bytes), None));
                }
            };
            match next {
                Ok(Next::Frames(bytes)) => Some((Ok(bytes), Some(frames))),
                Ok(Next::Lagged(bytes)) => {
                    Counts::add(&frames.state.counts.lagged);
                    Some((Ok(bytes), None))
                }
                Err(_quiet) => Some((Ok(Bytes::from_static(b": alive\n\n")), Some(frames))),
            }
        })
    }
}
