//! What a refused or failed request is answered with.

mod store;

use core::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use vram_residency::{Class, GpuError, ModelFilesError, VramError};

/// A refusal or a failure: a stable code, words, whether a retry can help, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Problem {
    /// The status of HTTP. Not repeated in the body.
    #[serde(skip)]
    pub status: u16,
    /// A stable name: those of the library's errors, and a few of the server's own.
    pub code: String,
    /// What, where and how much, in words that may change. Never a secret.
    pub message: String,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// What to do about it.
    pub next: String,
    /// Seconds after which a retry makes sense, as the header `Retry-After` says them.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem that a retry does not help.
    pub(crate) fn new(
        status: StatusCode,
        code: &str,
        message: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            status: status.as_u16(),
            code: code.to_owned(),
            message: message.into(),
            retryable: false,
            next: next.into(),
            retry_after: None,
        }
    }

    /// Says that the same request can succeed later.
    pub(crate) const fn retry_in(mut self, seconds: u64) -> Self {
        self.retryable = true;
        self.retry_after = Some(seconds);
        self
    }

    /// A request that cannot be understood.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message, "see /openapi.json")
    }

    /// No model of this name is known.
    pub(crate) fn no_such_model(name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-model",
            format!("no model is named {name:?}"),
            "GET /v1/models lists the names; load it with a path",
        )
    }

    /// The model is not where the call needs it.
    pub(crate) fn wrong_state(name: &str, state: &str, next: impl Into<String>) -> Self {
        let message = format!("model {name:?} is {state}");
        Self::new(StatusCode::CONFLICT, "wrong-state", message, next)
    }

    /// Another call changes the model now.
    pub(crate) fn busy(name: &str, doing: &str) -> Self {
        let message = format!("a call that began earlier is {doing} model {name:?}");
        Self::new(StatusCode::CONFLICT, "in-use", message, "try again when it has ended")
            .retry_in(1)
    }

    /// A reset took away what a call had just brought to its device.
    pub(crate) fn reset_meanwhile(name: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "reset-meanwhile",
            format!("a device of model {name:?} was reset meanwhile, and its shards are gone"),
            "load it again: POST /v1/models/NAME/load",
        )
        .retry_in(1)
    }

    /// The server is being stopped.
    pub(crate) fn draining() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "the server is being stopped: it takes no more calls",
            "use another server, or wait until this one is started again",
        )
        .retry_in(5)
    }

    /// The call took longer than its deadline.
    pub(crate) fn deadline(after: Duration, started: bool) -> Self {
        let (message, next) = if started {
            (
                format!("the call did not end within {after:?}"),
                "it ends by itself: GET /v1/models tells how",
            )
        } else {
            (
                format!("the call waited for others for {after:?}, and did not begin"),
                "try again later, or with a longer deadline",
            )
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "deadline", message, next).retry_in(1)
    }

    /// Something broke that should not.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            message,
            "report it, with the log of the server",
        )
    }

    /// The status, as a type.
    pub(crate) fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Whether an error says that memory cannot be shared, by the shard's or the device's nature.
fn is_not_shareable(error: &VramError) -> bool {
    match error {
        VramError::NotShareable { .. } => true,
        VramError::Device { source, .. } => matches!(**source, GpuError::NotShareable { .. }),
        _ => false,
    }
}

/// The status of an error of the library.
fn status_of(error: &VramError) -> StatusCode {
    match error {
        VramError::InsufficientVram(_)
        | VramError::HostMemory { .. }
        | VramError::ParkLimit { .. } => StatusCode::INSUFFICIENT_STORAGE,
        _ if error.is_capacity() => StatusCode::INSUFFICIENT_STORAGE,
        VramError::InUse { .. }
        | VramError::TimedOut { .. }
        | VramError::GpuInUse { .. }
        | VramError::NotLost { .. }
        | VramError::Quarantined { .. }
        | VramError::ShardAltered { .. }
        | VramError::ParkedAltered { .. }
        | VramError::StaleHandle { .. }
        | VramError::Parked { .. }
        | VramError::ShardFreed { .. } => StatusCode::CONFLICT,
        _ if is_not_shareable(error) => StatusCode::UNPROCESSABLE_ENTITY,
        VramError::DeviceLost { .. }
        | VramError::Device { .. }
        | VramError::Restoring { .. }
        | VramError::StagingLimit { .. }
        | VramError::NotReturned { .. }
        | VramError::Cancelled { .. }
        | VramError::Closed => StatusCode::SERVICE_UNAVAILABLE,
        VramError::UnknownGpu { .. }
        | VramError::LimitExceeded { .. }
        | VramError::Config { .. }
        | VramError::OutOfBounds { .. }
        | VramError::Source(_)
        | VramError::SourceChanged { .. }
        | VramError::SourceLength { .. }
        | VramError::DigestMismatch { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What to do about an error of the library.
fn next_of(error: &VramError) -> &'static str {
    match error {
        VramError::InsufficientVram(_) => {
            "park or free another model (GET /v1/models), or give a larger budget"
        }
        VramError::ParkLimit { .. } | VramError::HostMemory { .. } => {
            "free a parked model, or give the machine more memory"
        }
        VramError::InUse { .. } | VramError::GpuInUse { .. } => {
            "GET /v1/leases names the holders; try again when they have let go"
        }
        VramError::Quarantined { .. } | VramError::ShardAltered { .. } => {
            "POST /v1/models/NAME/repair writes it again from its files or its store; or free it and load it anew"
        }
        _ if is_not_shareable(error) => {
            "the message says what would help; a lease by connection holds the model all the same"
        }
        VramError::ParkedAltered { .. } => "free it, and load it anew: host memory was altered",
        VramError::DeviceLost { .. } => {
            "POST /v1/gpus/N/reset takes it into use again, and loads what lay there; look for \
             errors of this card in `dmesg`; the others go on"
        }
        VramError::NotLost { .. } => {
            "it works, and needs no reset; with {\"force\":true} its models are loaded again"
        }
        VramError::UnknownGpu { .. } => "count from 0 in the order of [[device]]",
        VramError::Source(_) | VramError::SourceChanged { .. } | VramError::SourceLength { .. } => {
            "check the file, and leave it alone while it is read"
        }
        VramError::Closed => "use another server, or wait until this one is started again",
        _ if error.class() == Class::Retry => "try again",
        _ => "see docs/operations.md for this code",
    }
}

impl From<&VramError> for Problem {
    fn from(error: &VramError) -> Self {
        let problem = Self::new(status_of(error), error.code(), error.to_string(), next_of(error));
        match error.class() {
            // Of room, waiting alone does not help: somebody has to let go.
            Class::Retry => {
                let wait = error.retry_after().unwrap_or(Duration::from_secs(1));
                problem.retry_in(wait.as_secs().max(1))
            }
            _ => problem,
        }
    }
}

impl From<VramError> for Problem {
    fn from(error: VramError) -> Self {
        Self::from(&error)
    }
}

impl From<ModelFilesError> for Problem {
    fn from(error: ModelFilesError) -> Self {
        let next = match &error {
            ModelFilesError::Model(model) if model.is_limit() => {
                "if the file can be trusted, raise that limit in [limits] of the server's configuration"
            }
            _ => "check the path: a file, an index, or a folder of one model",
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "model-file", error.to_string(), next)
    }
}

/// The code of a problem, in the extensions of its answer.
#[derive(Clone, Debug)]
pub(crate) struct Code(pub(crate) String);

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        let status = self.status_code();
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let retry_after = self.retry_after;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.extensions_mut().insert(Code(self.code));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
