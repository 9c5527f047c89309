//! A client of the server: for the program's commands, and for workers in Rust. Its calls block.

mod connect;
mod shared;

use core::fmt;
use core::fmt::Write as _;
use core::time::Duration;
use std::io;
use std::path::PathBuf;

use axum::body::Bytes;
use axum::http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::time::timeout;

pub use self::connect::Server;
use self::connect::{NotConnected, connect};
pub use self::shared::{SharedModel, SharedTensor};
use crate::problem::Problem;

/// Bytes of an answer that a client takes: a snapshot of a million shards is less.
const ANSWER_MAX: usize = 1 << 30;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No server can be reached there.
    #[error("cannot reach {server}: {what}")]
    Unreachable {
        /// The address.
        server: String,
        /// Why, in words.
        what: String,
    },
    /// The certificate that is trusted cannot be used. Nothing was sent.
    #[error("cannot trust {server}: {what}")]
    NoTrust {
        /// The address.
        server: String,
        /// Why, in words.
        what: String,
    },
    /// The server refused, or failed.
    #[error("{}", .0.message)]
    Refused(Box<Problem>),
    /// The connection broke, or the answer is not one of this server.
    #[error("{server}: {what}")]
    Broken {
        /// The address.
        server: String,
        /// What is wrong.
        what: String,
    },
    /// The answer did not come in time.
    #[error("{server} did not answer within {after:?}")]
    TimedOut {
        /// The address.
        server: String,
        /// The time.
        after: Duration,
    },
}

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    server: Server,
    token: Option<Token>,
    patience: Duration,
}

/// The token, which is never printed.
struct Token(axum::http::HeaderValue);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Client {
    /// A client of this server. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// The operating system's, if it refuses a thread.
    pub fn new(server: Server) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, server, token: None, patience: Duration::from_hours(1) })
    }

    /// Sets the token for control calls, as its file has it.
    ///
    /// # Errors
    ///
    /// As [`vram_residency::KeySource`] for a file that is missing, or that others can read.
    pub fn token_file(mut self, file: PathBuf) -> Result<Self, vram_residency::KeySourceError> {
        let secret = vram_residency::KeySource::File(file).load()?;
        let digits = secret.expose_hex();
        let value = axum::http::HeaderValue::from_str(&format!("Bearer {}", *digits));
        self.token = value.ok().map(|mut value| {
            value.set_sensitive(true);
            Token(value)
        });
        Ok(self)
    }

    /// Sets how long an answer is waited for. Default: an hour.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Reads a path.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.parsed(Method::GET, path, None)
    }

    /// Calls a path with a JSON body.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error.to_string()))?;
        self.parsed(Method::POST, path, Some(body))
    }

    fn parsed<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let answer = async {
            let (_sender, response) = self.send(method, path, body).await?;
            let status = response.status();
            let kind = response.headers().get(header::CONTENT_TYPE);
            let is_problem = kind.is_some_and(|kind| kind == "application/problem+json");
            // Not a refusal: the answer says what is not ready.
            let not_ready = status.as_u16() == 503 && path.starts_with("/readyz") && !is_problem;
            let bytes = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            let bytes = bytes.map_err(|error| self.broken(error.to_string()))?.to_bytes();
            match serde_json::from_slice(&bytes) {
                Ok(answer) if status.is_success() || not_ready => Ok(answer),
                Err(error) if status.is_success() => {
                    Err(self.broken(format!("not the answer of a server: {error}")))
                }
                _ => Err(self.refused(status, &bytes)),
            }
        };
        let answer = async { timeout(self.patience, answer).await };
        self.runtime.block_on(answer).unwrap_or_else(|_elapsed| {
            Err(ClientError::TimedOut { server: self.server.to_string(), after: self.patience })
        })
    }

    /// Leases a model. The lease lasts until what is returned is dropped, this process ends, or the
    /// server is stopped.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn lease(self, model: &str, holder: &str) -> Result<LeasedModel, ClientError> {
        #[derive(Serialize)]
        struct Request<'a> {
            model: &'a str,
            holder: &'a str,
        }

        let body = serde_json::to_vec(&Request { model, holder });
        let body = body.map_err(|error| self.broken(error.to_string()))?;
        let (sender, response) =
            self.runtime.block_on(self.send(Method::POST, "/v1/leases", Some(body)))?;
        let status = response.status();
        if !status.is_success() {
            let bytes = Limited::new(response.into_body(), ANSWER_MAX).collect();
            let bytes = self.runtime.block_on(bytes);
            let bytes = bytes.map_err(|error| self.broken(error.to_string()))?.to_bytes();
            return Err(self.refused(status, &bytes));
        }
        let mut leased = LeasedModel {
            client: self,
            body: response.into_body(),
            kept: Vec::new(),
            _sender: sender,
        };
        // The first line says that the lease exists.
        leased.line()?;
        Ok(leased)
    }

    /// Leases a model for this process, which uses it in place: see [`SharedModel`]. The client has to
    /// be one of a Unix socket. The lease goes on when this client is dropped: it lasts until
    /// [`end_shared`](Self::end_shared), or until this process has ended.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn share(&self, model: &str, holder: &str) -> Result<SharedModel, ClientError> {
        #[derive(Serialize)]
        struct Request<'a> {
            model: &'a str,
            holder: &'a str,
        }
        self.post("/v1/leases/shared", &Request { model, holder })
    }

    /// Ends a lease of this process. **All memory of it is closed before**: the server may free it from
    /// now on.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn end_shared(&self, lease: u64) -> Result<(), ClientError> {
        let path = format!("/v1/leases/{lease}/end");
        self.post::<serde::de::IgnoredAny>(&path, &serde_json::json!({})).map(drop)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), ClientError> {
        let server = || self.server.to_string();
        let mut sender = connect(&self.server).await.map_err(|why| match why {
            NotConnected::NoTrust(what) => ClientError::NoTrust { server: server(), what },
            NotConnected::Unreachable(what) => ClientError::Unreachable { server: server(), what },
        })?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.server.host())
            .header(header::ACCEPT, "application/json");
        if let Some(Token(value)) = &self.token {
            request = request.header(header::AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())));
        let request = request.map_err(|error| self.broken(format!("{path}: {error}")))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.broken(error.to_string()))?;
        Ok((sender, response))
    }

    fn broken(&self, what: String) -> ClientError {
        ClientError::Broken { server: self.server.to_string(), what }
    }

    fn refused(&self, status: axum::http::StatusCode, bytes: &[u8]) -> ClientError {
        match serde_json::from_slice::<Problem>(bytes) {
            Ok(mut problem) => {
                problem.status = status.as_u16();
                ClientError::Refused(Box::new(problem))
            }
            Err(_other) => self.broken(format!("it answered {status}, and is no vram server")),
        }
    }
}

/// A model that this process holds.
#[derive(Debug)]
pub struct LeasedModel {
    client: Client,
    body: Incoming,
    kept: Vec<u8>,
    _sender: SendRequest<Full<Bytes>>,
}

impl LeasedModel {
    /// The next line that the server sends, as JSON: every few seconds that it is alive. `None` when
    /// the lease has ended.
    ///
    /// # Errors
    ///
    /// [`ClientError::Broken`] if the connection breaks: the lease has ended then.
    pub fn line(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(at) = self.kept.iter().position(|byte| *byte == b'\n') {
                let rest = self.kept.split_off(at.saturating_add(1));
                let line = core::mem::replace(&mut self.kept, rest);
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            let frame = self.client.runtime.block_on(self.body.frame());
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    self.kept.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                }
                Some(Err(error)) => return Err(self.client.broken(error.to_string())),
            }
        }
    }
}

/// The path of a model, or of a call on it: the name is escaped.
#[must_use]
pub fn model_path(name: &str, call: &str) -> String {
    let mut path = String::from("/v1/models/");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // Writing to a text never fails.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    if !call.is_empty() {
        path.push('/');
        path.push_str(call);
    }
    path
}
