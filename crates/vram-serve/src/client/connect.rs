//! One connection of a client: over a Unix socket, TCP or TLS.

use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;
use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::{io, thread};

use axum::body::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::config::{Listen, default_listen};

/// A server that a client connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Server {
    /// On this machine: a Unix socket, or a port of loopback.
    Local(Listen),
    /// Anywhere, by TLS: `https://HOST:PORT`.
    Tls {
        /// Host and port.
        authority: String,
        /// The certificates that are trusted, in PEM: the server's own, or who signed it.
        roots: Option<PathBuf>,
    },
}

impl Server {
    /// The server that listens where one does if nothing is said.
    #[must_use]
    pub fn local() -> Self {
        Self::Local(default_listen())
    }

    /// Sets the certificates that are trusted.
    #[must_use]
    pub fn trusting(self, file: Option<PathBuf>) -> Self {
        match self {
            Self::Tls { authority, .. } => Self::Tls { authority, roots: file },
            local @ Self::Local(_) => local,
        }
    }

    /// What the header `Host` says.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Local(Listen::Unix(_)) => "localhost".to_owned(),
            Self::Local(Listen::Tcp(address)) => address.to_string(),
            Self::Tls { authority, .. } => authority.clone(),
        }
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(authority) = text.strip_prefix("https://") {
            let authority = authority.trim_end_matches('/');
            let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() || authority.contains('/') {
                return Err(format!("`{text}` names no host and port; write https://HOST:PORT"));
            }
            return Ok(Self::Tls { authority: authority.to_owned(), roots: None });
        }
        let listen: Listen = text.strip_prefix("http://").unwrap_or(text).parse()?;
        if listen.is_local() {
            Ok(Self::Local(listen))
        } else {
            Err(format!("`{text}` is not on this machine; write https://{listen}"))
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(listen) => write!(f, "{listen}"),
            Self::Tls { authority, .. } => write!(f, "https://{authority}"),
        }
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// Why there is no connection.
pub(super) enum NotConnected {
    /// The certificates that are trusted cannot be used: no server is to blame.
    NoTrust(String),
    Unreachable(String),
}

impl From<String> for NotConnected {
    fn from(what: String) -> Self {
        Self::Unreachable(what)
    }
}

pub(super) async fn connect(server: &Server) -> Result<Sender, NotConnected> {
    let connected = match server {
        Server::Local(Listen::Unix(path)) => {
            over(UnixStream::connect(path).await.map_err(|error| error.to_string())?).await
        }
        Server::Local(Listen::Tcp(address)) => {
            over(TcpStream::connect(address).await.map_err(|error| error.to_string())?).await
        }
        Server::Tls { authority, roots } => {
            let host = authority.rsplit_once(':').map_or(&**authority, |(host, _port)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
            let trusted = trusting(roots.as_ref()).map_err(NotConnected::NoTrust)?;
            let tls = TlsConnector::from(Arc::new(trusted));
            let addresses = resolve(authority.clone()).await.map_err(|error| error.to_string())?;
            let stream = TcpStream::connect(&*addresses).await;
            let stream = stream.map_err(|error| error.to_string())?;
            over(tls.connect(name, stream).await.map_err(|error| error.to_string())?).await
        }
    };
    Ok(connected?)
}

/// Asks the system for the addresses of a host, on a thread that the caller need not wait for. A runtime's
/// own would panic if the system refused it.
async fn resolve(authority: String) -> io::Result<Vec<SocketAddr>> {
    let (tell, told) = oneshot::channel();
    let ask = move || drop(tell.send(authority.to_socket_addrs().map(Vec::from_iter)));
    thread::Builder::new().spawn(ask)?;
    told.await.map_err(io::Error::other)?
}

async fn over<S>(stream: S) -> Result<Sender, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        // An error of the connection is an error of its request.
        let _ = connection.await;
    });
    Ok(sender)
}

fn trusting(roots: Option<&PathBuf>) -> Result<ClientConfig, String> {
    let file = roots.ok_or("TLS needs the certificate that is trusted: --ca FILE")?;
    let wrong = |error: &dyn fmt::Display| format!("{}: {error}", file.display());
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        store.add(certificate).map_err(|error| wrong(&error))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}
