//! Opening the addresses that a server listens on.

use core::net::SocketAddr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use socket2::{Domain, Socket, Type};
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
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and number of the file.
    is: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already, and another server may have put its own there since.
        if identity(&self.path).is_ok_and(|is| is == self.is) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
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
            Self::Unix(file, _) => Listen::Unix(file.path.clone()),
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

/// Bytes of a socket's path, as the system bears them.
const PATH_MAX: usize = 107;

/// Whether an address may be opened, as far as that can be said without opening it or making anything. A
/// server that listens there already is no objection: it may be the one that is to be started again.
///
/// # Errors
///
/// Those of [`bind`].
pub(crate) fn may_bind(listen: &Listen) -> io::Result<()> {
    let Listen::Unix(path) = listen else { return Ok(()) };
    fits(path)?;
    if let Some(folder) = path.parent() {
        may_make_in(folder)?;
    }
    is_socket_or_nothing(path).map(drop)
}

/// Whether somebody listens there now. Makes nothing, and leaves nothing open.
pub(crate) fn is_in_use(listen: &Listen) -> bool {
    match listen {
        Listen::Unix(path) => {
            is_socket_or_nothing(path).is_ok_and(|socket| socket)
                && UnixStream::connect(path).is_ok()
        }
        Listen::Tcp(address) => {
            may_take(*address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
        }
    }
}

/// Takes a port as a server does, without listening.
fn may_take(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Refuses a path that is too long for a socket, or for the name that a socket has first.
fn fits(path: &Path) -> io::Result<()> {
    let longest = [path, &fresh(path)].map(|path| path.as_os_str().len()).into_iter().max();
    match longest {
        Some(len) if len > PATH_MAX => Err(io::Error::new(
            io::ErrorKind::InvalidFilename,
            format!("a socket's path has at most {PATH_MAX} bytes, and this one needs {len}"),
        )),
        _ => Ok(()),
    }
}

/// The name that a socket has until only this user can open it.
fn fresh(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}", std::process::id()))
}

fn unix(path: &Path) -> io::Result<Bound> {
    fits(path)?;
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    remove_stale(path)?;
    let fresh = fresh(path);
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    let mut file = SocketFile { path: fresh.clone(), is: identity(&fresh)? };
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    file.path = path.to_path_buf();
    Ok(Bound::Unix(file, listener))
}

/// Removes the socket of a server that was killed. Anything else at that path stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !is_socket_or_nothing(path)? {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there")),
        Err(error) => Err(error),
    }
}

/// True for a socket, false for nothing at all.
///
/// # Errors
///
/// For anything else.
fn is_socket_or_nothing(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(found) if found.file_type().is_socket() => Ok(true),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists, and is no socket")),
    }
}

/// Whether a file can be made in a folder, which is made itself if it is not there.
///
/// # Errors
///
/// The operating system's, for the first folder on the way that exists.
pub(crate) fn may_make_in(folder: &Path) -> io::Result<()> {
    for folder in folder.ancestors() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match folder.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) if !found.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
            Ok(_) if is_of_the_kernel(folder) => {
                let why = "it would lie in a file system of the kernel, which keeps no files";
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            Ok(_) => return Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?),
        }
    }
    Ok(())
}

/// Whether a folder shows what the kernel does: procfs, sysfs, debugfs, tracefs, securityfs and control groups,
/// by their numbers in `statfs(2)`.
fn is_of_the_kernel(folder: &Path) -> bool {
    const KERNEL: [u32; 7] =
        [0x9fa0, 0x6265_6572, 0x6462_6720, 0x7472_6163, 0x7363_6673, 0x0027_e0eb, 0x6367_7270];
    let found = rustix::fs::statfs(folder).ok().and_then(|found| u32::try_from(found.f_type).ok());
    found.is_some_and(|found| KERNEL.contains(&found))
}
