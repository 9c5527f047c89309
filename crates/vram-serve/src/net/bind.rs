//! Opening the addresses that a server listens on.

use core::net::SocketAddr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

use crate::config::Listen;

/// An open address.
#[derive(Debug)]
pub(crate) enum Bound {
    // The file goes first: after the listener has gone, it could be that of another server.
    Unix(SocketFile, UnixListener),
    Tcp(TcpListener, SocketAddr),
}

/// The file of a Unix socket, which goes with its server.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.0);
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: {error}")]
pub(crate) struct BindError {
    pub(crate) listen: Listen,
    pub(crate) error: io::Error,
}

impl Bound {
    /// The address, with the port that the system chose for port 0.
    pub(crate) fn address(&self) -> Listen {
        match self {
            Self::Unix(file, _) => Listen::Unix(file.0.clone()),
            Self::Tcp(_, address) => Listen::Tcp(*address),
        }
    }
}

/// Opens an address. Called inside the runtime.
pub(crate) async fn bind(listen: &Listen) -> Result<Bound, BindError> {
    let opened = match listen {
        Listen::Unix(path) => unix(path),
        Listen::Tcp(address) => tcp(*address).await,
    };
    opened.map_err(|error| BindError { listen: listen.clone(), error })
}

async fn tcp(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok(Bound::Tcp(listener, address))
}

fn unix(path: &Path) -> io::Result<Bound> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    remove_stale(path)?;
    // It gets its name when only this user can open it.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    let mut file = SocketFile(fresh.clone());
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    file.0 = path.to_path_buf();
    Ok(Bound::Unix(file, listener))
}

/// Removes the socket of a server that was killed. Anything else at that path stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?.file_type(),
    };
    if !kind.is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists, and is no socket"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there")),
        Err(error) => Err(error),
    }
}
