//! What is told of a server as a whole: why it could not start, and how it ended.

use core::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use vram_residency::{CloseReport, KeySourceError, VramError};

use crate::config::Listen;

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The token file cannot be used.
    #[error("token: {0}")]
    Token(#[source] KeySourceError),
    /// The key cannot be had.
    #[error(transparent)]
    Key(KeySourceError),
    /// The certificate or its key cannot be used.
    #[error("tls: {what}")]
    Tls {
        /// Which file, and what is wrong.
        what: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {listen}: {error}")]
    Bind {
        /// The address.
        listen: Listen,
        /// The operating system's error.
        #[source]
        error: io::Error,
    },
    /// The folder that keeps images cannot be used.
    #[error("[cache] folder {folder}: {error}")]
    Cache {
        /// The folder.
        folder: String,
        /// The operating system's error.
        #[source]
        error: io::Error,
    },
    /// A device cannot be opened.
    #[error("{what}")]
    Devices {
        /// Which, and why.
        what: String,
    },
    /// The devices cannot be used as configured.
    #[error(transparent)]
    Manager(#[from] VramError),
    /// The operating system refuses a thread.
    #[error("could not start a thread: {0}")]
    Threads(#[source] io::Error),
    /// The operating system refuses descriptors or memory.
    #[error("cannot start: {0}")]
    System(#[source] io::Error),
}

impl ServeError {
    /// What a refused thread, or what belongs to one, makes of a start.
    pub(crate) fn threads(error: io::Error) -> Self {
        // What a system says that has no thread, or no memory for its stack.
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => Self::Threads(error),
            _ => Self::System(error),
        }
    }

    /// A failure of the manager; a thread that it was refused is one of the system's.
    pub(crate) fn manager(error: VramError) -> Self {
        match &error {
            VramError::Io { path: None, source, .. } => {
                let code = source.raw_os_error().map(io::Error::from_raw_os_error);
                Self::threads(code.unwrap_or_else(|| source.kind().into()))
            }
            _ => Self::Manager(error),
        }
    }
}

/// How a server ended. Lengths are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServeReport {
    /// Whether everything was wiped and given back.
    pub complete: bool,
    /// Shards that were freed.
    pub freed: u64,
    /// Device bytes of those shards that were returned.
    pub bytes: u64,
    /// Leases by connection that were still held at the deadline of the drain, and were cut.
    pub leases_cut: u64,
    /// Shards that could not be freed, and why, in words.
    pub left: Vec<String>,
    /// Bytes that could not be returned to their devices.
    pub unreturned: u64,
}

impl ServeReport {
    pub(crate) fn of(close: &CloseReport, leases_cut: usize) -> Self {
        let left = close.left.iter().map(|(shard, error)| format!("{shard}: {error}"));
        let unreturned = close.unreturned.iter();
        Self {
            complete: close.complete,
            freed: close.freed,
            bytes: close.bytes.get(),
            leases_cut: u64::try_from(leases_cut).unwrap_or(u64::MAX),
            left: left.collect(),
            unreturned: unreturned.fold(0, |sum, one| sum.saturating_add(one.bytes.get())),
        }
    }

    /// The report of a server whose close panicked: what was freed is not known.
    pub(crate) fn of_panic(what: &str, leases_cut: usize) -> Self {
        Self {
            complete: false,
            freed: 0,
            bytes: 0,
            leases_cut: u64::try_from(leases_cut).unwrap_or(u64::MAX),
            left: vec![format!("the close failed: {what}")],
            unreturned: 0,
        }
    }
}

impl fmt::Display for ServeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shards, leases) = (plural(self.freed, "shard"), plural(self.leases_cut, "lease"));
        write!(f, "{shards} freed and wiped, {} bytes returned", self.bytes)?;
        if self.leases_cut > 0 {
            write!(f, "; {leases} cut at the deadline")?;
        }
        if !self.complete {
            let left = u64::try_from(self.left.len()).unwrap_or(u64::MAX);
            write!(f, "; {} left, {} bytes not returned", plural(left, "shard"), self.unreturned)?;
        }
        Ok(())
    }
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
