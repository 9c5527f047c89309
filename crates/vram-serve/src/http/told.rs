//! One line of the log for each control call: who called what, with which outcome, and how long it took. What
//! was refused for want of the token is counted, and not logged: anybody could fill the log with it.

use std::time::Instant;

use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use super::Door;
use crate::net::Peer;
use crate::problem::Code;

/// The model that a call names in its body, in the extensions of the answer.
#[derive(Clone, Debug)]
pub(super) struct Of(pub(super) String);

/// What is known of a call. Dropped without an outcome, it tells that the client went first.
struct Told {
    door: &'static str,
    pid: Option<u32>,
    call: String,
    /// The name in the path, as the client wrote it, or that in the body, escaped.
    model: Option<String>,
    gpu: Option<String>,
    began: Instant,
    outcome: String,
}

/// Lets a request through, and logs it if it is a control call.
pub(super) async fn log(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let mut told = Told::of(&request);
    let response = next.run(request).await;
    let extensions = response.extensions();
    told.outcome = match (extensions.get::<Code>(), response.status()) {
        (Some(Code(code)), _) => code.clone(),
        (None, status) if status.is_success() => "ok".to_owned(),
        (None, status) => status.as_u16().to_string(),
    };
    if let Some(Of(model)) = extensions.get() {
        told.model = Some(model.escape_debug().to_string());
    }
    response
}

impl Told {
    fn of(request: &Request) -> Self {
        let path = request.uri().path();
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let (call, model, gpu) = match *parts {
            ["v1", "models", model, call] => (call, Some(model.to_owned()), None),
            ["v1", "gpus", gpu, call] => (call, None, Some(gpu.to_owned())),
            ["v1", "leases"] => ("lease", None, None),
            ["v1", "leases", "shared"] => ("share", None, None),
            ["v1", "leases", _, "end"] => ("end", None, None),
            ["v1", call] => (call, None, None),
            _ => (path, None, None),
        };
        let extensions = request.extensions();
        Self {
            door: match extensions.get::<Door>() {
                Some(Door::Unix) => "unix",
                Some(Door::Loopback) => "loopback",
                Some(Door::Tls) | None => "tls",
            },
            pid: extensions.get::<Peer>().map(|peer| peer.pid),
            call: call.to_owned(),
            model,
            gpu,
            began: Instant::now(),
            outcome: "client-gone".to_owned(),
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let Self { door, pid, call, model, gpu, began, outcome } = self;
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (model, gpu) = (model.as_ref(), gpu.as_ref());
        tracing::info!(from = door, pid, call, model, gpu, outcome, ms, "control call");
    }
}
