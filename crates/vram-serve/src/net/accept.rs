//! The loop that accepts connections, and what serves each of them.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::bind::Bound;
use super::peer::Peer;
use super::stall::{Hangup, Watched};
use crate::http::{Counts, Door, State};
use crate::lane::until;

/// What all addresses of a server share.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// Places of connections.
    pub(crate) places: Arc<Semaphore>,
    /// Connections that are being refused.
    pub(crate) refusals: Arc<Semaphore>,
    pub(crate) receive: Duration,
    pub(crate) send: Duration,
    /// Whether the processes at the other end of Unix sockets are to be known.
    pub(crate) peers: bool,
    /// True when connections have to end.
    pub(crate) over: watch::Receiver<bool>,
}

/// Bytes of a request's head.
const HEAD_MAX: usize = 16 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// After what time of silence the other end of a TCP connection is asked whether it is still there,
/// how often, and after what time without an answer it counts as gone.
const KEEPALIVE: (Duration, Duration, Duration) =
    (Duration::from_secs(15), Duration::from_secs(5), Duration::from_secs(30));

/// How long the request of a connection that is refused is waited for.
const REQUEST_WAIT: Duration = Duration::from_millis(300);

/// The answer to a connection beyond the bound.
const FULL: &str = "{\"code\":\"too-many-connections\",\"message\":\"as many connections are open as this \
    server bears\",\"retryable\":true,\"next\":\"try again in a second\"}\n";

/// Accepts connections of one address until `over`.
pub(crate) async fn serve(
    bound: Bound,
    tls: Option<TlsAcceptor>,
    routes: Router,
    state: Arc<State>,
    bounds: Bounds,
) {
    let mut over = bounds.over.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&bound) => accepted,
            () = until(&mut over, |over| *over) => return,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Most likely no descriptor is left: some come free when connections end.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&bounds.places).try_acquire_owned() else {
            Counts::add(&state.counts.refused);
            // Beyond the second bound, connections are closed without an answer.
            if let Ok(place) = Arc::clone(&bounds.refusals).try_acquire_owned() {
                tokio::spawn(refuse(stream, place));
            }
            continue;
        };
        Counts::add(&state.counts.connections);
        let open = Open::new(Arc::clone(&state), place);
        let (tls, routes, bounds) = (tls.clone(), routes.clone(), bounds.clone());
        tokio::spawn(async move {
            connection(stream, tls, routes, bounds).await;
            drop(open);
        });
    }
}

/// A connection that is open, for the figures and the bound.
struct Open {
    state: Arc<State>,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(state: Arc<State>, place: OwnedSemaphorePermit) -> Self {
        Counts::add(&state.counts.open);
        Self { state, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.state.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection of either kind.
enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(TcpStream),
}

async fn accept(bound: &Bound) -> io::Result<Stream> {
    match bound {
        Bound::Unix(_, listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        Bound::Tcp(listener, _) => {
            let (stream, _peer) = listener.accept().await?;
            let (idle, interval, gone) = KEEPALIVE;
            let socket = SockRef::from(&stream);
            let keepalive =
                TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(3);
            // A worker whose machine vanished says no goodbye. Without these, its leases would stay
            // for as long as the system goes on trying.
            socket.set_tcp_keepalive(&keepalive)?;
            socket.set_tcp_user_timeout(Some(gone))?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
    }
}

async fn connection(stream: Stream, tls: Option<TlsAcceptor>, routes: Router, bounds: Bounds) {
    match stream {
        Stream::Unix(stream) => {
            let peer = bounds.peers.then(|| Peer::of(&stream).ok()).flatten();
            talk(stream, Door::Unix, peer, routes, bounds).await;
        }
        Stream::Tcp(stream) => match tls {
            None => talk(stream, Door::Loopback, None, routes, bounds).await,
            Some(tls) => {
                let handshake = timeout(bounds.receive, tls.accept(stream)).await;
                if let Ok(Ok(stream)) = handshake {
                    talk(stream, Door::Tls, None, routes, bounds).await;
                }
            }
        },
    }
}

/// Serves the requests of one connection.
async fn talk<S>(stream: S, door: Door, peer: Option<Peer>, routes: Router, bounds: Bounds)
where
    S: AsyncRead + AsyncWrite + Hangup + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(door);
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        routes.call(request)
    });
    let stream = TokioIo::new(Watched::new(stream, bounds.send));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.receive)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        // The other end of a lease is gone when it closes its side.
        .half_close(false)
        .serve_connection(stream, service);
    let mut connection = core::pin::pin!(connection);
    let mut over = bounds.over;
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = until(&mut over, |over| *over) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Answers that the server is full, and takes what the client sends for a moment: closing at once would
/// take the answer away.
async fn refuse(stream: Stream, _place: OwnedSemaphorePermit) {
    match stream {
        Stream::Unix(stream) => say_full(stream).await,
        Stream::Tcp(stream) => say_full(stream).await,
    }
}

/// Reads a request to the end of its head.
async fn request_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let (mut part, mut last) = ([0; 512], [0; 4]);
    loop {
        let count = stream.read(&mut part).await?;
        for byte in part.get(..count).unwrap_or_default() {
            last.rotate_left(1);
            last[3] = *byte;
            if last == *b"\r\n\r\n" {
                return Ok(());
            }
        }
        if count == 0 {
            return Ok(());
        }
    }
}

async fn say_full(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let farewell = async {
        // A client that gets an answer before it has asked takes it for none.
        let _ = timeout(REQUEST_WAIT, request_head(&mut stream)).await;
        let head = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
             retry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{FULL}",
            FULL.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    let _ = timeout(Duration::from_secs(1), farewell).await;
}
