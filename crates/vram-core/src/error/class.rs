//! What a program does about an error: its name, its class, and when to retry.

use core::time::Duration;
use std::io;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use vram_files::{KeySourceError, SourceError};
use vram_seal::ContentDigest;

use crate::error::VramError;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// The same call can succeed later, or after room was made.
    Retry,
    /// The call itself is wrong: it fails again until the caller changes it.
    Caller,
    /// Data, device or host is broken. An operator has to act, or another node has to take over.
    Fatal,
}

impl VramError {
    /// A stable name of the kind of error, for logs and machine-readable output.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InsufficientVram(_) => "insufficient-vram",
            Self::UnknownGpu { .. } => "unknown-gpu",
            Self::ForeignHandle { .. } => "foreign-handle",
            Self::HandleAltered { .. } => "handle-altered",
            Self::ShardFreed { .. } => "shard-freed",
            Self::StaleHandle { .. } => "stale-handle",
            Self::Parked { .. } => "parked",
            Self::Restoring { .. } => "restoring",
            Self::ParkLimit { .. } => "park-limit",
            Self::ParkedAltered { .. } => "parked-altered",
            Self::Quarantined { .. } => "quarantined",
            Self::ShardAltered { .. } => "shard-altered",
            Self::WriteNotKept { .. } => "write-not-kept",
            Self::OutOfBounds { .. } => "out-of-bounds",
            Self::TargetLength { .. } => "target-length",
            Self::LimitExceeded { .. } => "limit-exceeded",
            Self::SourceChanged { .. } => "source-changed",
            Self::SourceLength { .. } => "source-length",
            Self::DigestMismatch { .. } => "digest-mismatch",
            Self::Cancelled { .. } => "cancelled",
            Self::Io { .. } => "io",
            Self::Key(_) => "key",
            Self::KeyInUse { .. } => "key-in-use",
            Self::KeySource(_) => "key-source",
            Self::Source(_) => "source",
            Self::Seal(error) => error.code(),
            Self::Image { source, .. } => source.code(),
            Self::Device { .. } => "device",
            Self::DeviceLost { .. } => "device-lost",
            Self::NotReturned { .. } => "not-returned",
            Self::InUse { .. } => "in-use",
            Self::TimedOut { .. } => "timed-out",
            Self::NotShareable { .. } => "not-shareable",
            Self::PlanOutdated { .. } => "plan-outdated",
            Self::ReservationExpired { .. } => "reservation-expired",
            Self::ReservationTooSmall { .. } => "reservation-too-small",
            Self::ReservationElsewhere { .. } => "reservation-elsewhere",
            Self::ForeignReservation { .. } => "foreign-reservation",
            Self::HostMemory { .. } => "host-memory",
            Self::StagingLimit { .. } => "staging-limit",
            Self::GpuInUse { .. } => "gpu-in-use",
            Self::NotLost { .. } => "not-lost",
            Self::Closed => "closed",
            Self::NoGpu { .. } => "no-gpu",
            Self::Config { .. } => "config",
        }
    }

    /// The class of the error: what a program does about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Device { source, .. } if source.is_caller_error() => Class::Caller,
            Self::InsufficientVram(lack) if lack.is_final() => Class::Caller,
            // A device error that is not sticky: the next call can succeed.
            Self::InsufficientVram(_)
            | Self::InUse { .. }
            | Self::TimedOut { .. }
            | Self::GpuInUse { .. }
            | Self::Restoring { .. }
            | Self::ParkLimit { .. }
            | Self::HostMemory { .. }
            | Self::StagingLimit { .. }
            | Self::Device { .. } => Class::Retry,
            Self::Quarantined { .. }
            | Self::ShardAltered { .. }
            | Self::ParkedAltered { .. }
            | Self::WriteNotKept { .. }
            | Self::DeviceLost { .. }
            | Self::NoGpu { .. }
            | Self::NotReturned { .. } => Class::Fatal,
            Self::Seal(error) if error.is_integrity() => Class::Fatal,
            Self::Image { source, .. } if source.is_integrity() => Class::Fatal,
            _ => self.io().map_or(Class::Caller, io_class),
        }
    }

    /// The error of the operating system, where that is what failed.
    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Source(SourceError::Io { error, .. })
            | Self::KeySource(KeySourceError::Io { error, .. }) => Some(error),
            _ => None,
        }
    }

    /// How long to wait before a retry of the same call is useful; `None` if waiting alone does not
    /// help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::InUse { .. } | Self::TimedOut { .. } | Self::GpuInUse { .. } => {
                Some(Duration::from_millis(10))
            }
            Self::InsufficientVram(lack) if lack.is_final() => None,
            Self::InsufficientVram(_) | Self::StagingLimit { .. } | Self::Restoring { .. } => {
                Some(Duration::from_millis(100))
            }
            Self::HostMemory { .. } => Some(Duration::from_secs(1)),
            Self::Device { .. } if self.class() == Class::Retry => Some(Duration::from_millis(100)),
            _ if self.class() == Class::Retry && self.io().is_some() => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        }
    }

    /// Whether bytes, a record or a handle differ from what was sealed.
    #[must_use]
    pub const fn is_integrity(&self) -> bool {
        match self {
            Self::HandleAltered { .. }
            | Self::Quarantined { .. }
            | Self::ShardAltered { .. }
            | Self::ParkedAltered { .. }
            | Self::WriteNotKept { .. }
            | Self::SourceChanged { .. }
            | Self::DigestMismatch { .. } => true,
            Self::Source(error) => error.is_change(),
            Self::Seal(error) => error.is_integrity(),
            Self::Image { source, .. } => source.is_integrity(),
            _ => false,
        }
    }

    /// Whether the request found no room on a GPU: in the ledger, or at the driver.
    #[must_use]
    pub fn is_capacity(&self) -> bool {
        match self {
            Self::InsufficientVram(_) => true,
            Self::Device { source, .. } => source.is_out_of_memory(),
            _ => false,
        }
    }

    /// Whether a device or its driver failed.
    #[must_use]
    pub const fn is_device(&self) -> bool {
        matches!(
            self,
            Self::Device { .. }
                | Self::DeviceLost { .. }
                | Self::NoGpu { .. }
                | Self::NotReturned { .. }
        )
    }

    pub(crate) fn another_content(
        model_id: &Arc<str>,
        expected: ContentDigest,
        found: ContentDigest,
    ) -> Self {
        let (expected, found) = (Box::new(expected), Box::new(found));
        Self::DigestMismatch { model_id: Arc::clone(model_id), expected, found }
    }

    /// Adds the path of the file to the error of a call that works on a file.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Io { action, path: None, source } => {
                Self::Io { action, path: Some(path.to_path_buf()), source }
            }
            other => other,
        }
    }

    pub(crate) fn config(what: impl Into<String>) -> Self {
        Self::Config { what: what.into() }
    }
}

/// The class of an error of the operating system, by its kind.
///
/// What passes by itself, or when somebody makes room, is to be tried again. What the medium
/// itself says is fatal. Everything else names something in the call: a path, a permission, bytes
/// that are not there.
fn io_class(error: &io::Error) -> Class {
    match error.kind() {
        ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::OutOfMemory
        | ErrorKind::TimedOut
        | ErrorKind::WouldBlock
        | ErrorKind::Interrupted
        | ErrorKind::ResourceBusy
        | ErrorKind::ExecutableFileBusy
        | ErrorKind::Deadlock
        | ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::NotConnected
        | ErrorKind::BrokenPipe
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::StaleNetworkFileHandle => Class::Retry,
        _ => match error.raw_os_error() {
            Some(TOO_MANY_OPEN_FILES | TOO_MANY_OPEN_FILES_ON_HOST) => Class::Retry,
            Some(MEDIUM) => Class::Fatal,
            _ => Class::Caller,
        },
    }
}

// Codes without a kind of their own; the same on every Unix.
/// `EIO`: the medium could not be read or written.
const MEDIUM: i32 = 5;
/// `ENFILE`.
const TOO_MANY_OPEN_FILES_ON_HOST: i32 = 23;
/// `EMFILE`.
const TOO_MANY_OPEN_FILES: i32 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn all_ways(error: impl Fn() -> io::Error) -> [VramError; 3] {
        [
            VramError::Io { action: "read", path: None, source: Arc::new(error()) },
            VramError::Source(SourceError::io("a file", error())),
            VramError::KeySource(KeySourceError::Io {
                path: "a key".to_owned(),
                error: Arc::new(error()),
            }),
        ]
    }

    #[test]
    fn an_error_of_the_operating_system_is_classed_by_what_helps_against_it() {
        use ErrorKind as Kind;
        let kinds: &[(Class, &[ErrorKind])] = &[
            (
                Class::Retry,
                &[
                    Kind::StorageFull,
                    Kind::QuotaExceeded,
                    Kind::OutOfMemory,
                    Kind::TimedOut,
                    Kind::WouldBlock,
                    Kind::Interrupted,
                    Kind::ResourceBusy,
                    Kind::ExecutableFileBusy,
                    Kind::Deadlock,
                    Kind::ConnectionRefused,
                    Kind::ConnectionReset,
                    Kind::ConnectionAborted,
                    Kind::NotConnected,
                    Kind::BrokenPipe,
                    Kind::HostUnreachable,
                    Kind::NetworkUnreachable,
                    Kind::NetworkDown,
                    Kind::StaleNetworkFileHandle,
                ],
            ),
            (
                Class::Caller,
                &[
                    Kind::NotFound,
                    Kind::PermissionDenied,
                    Kind::AlreadyExists,
                    Kind::NotADirectory,
                    Kind::IsADirectory,
                    Kind::DirectoryNotEmpty,
                    Kind::ReadOnlyFilesystem,
                    Kind::InvalidInput,
                    Kind::InvalidData,
                    Kind::InvalidFilename,
                    Kind::ArgumentListTooLong,
                    Kind::NotSeekable,
                    Kind::FileTooLarge,
                    Kind::CrossesDevices,
                    Kind::TooManyLinks,
                    Kind::AddrInUse,
                    Kind::AddrNotAvailable,
                    Kind::UnexpectedEof,
                    Kind::WriteZero,
                    Kind::Unsupported,
                    Kind::Other,
                ],
            ),
        ];
        for (class, kinds) in kinds {
            for kind in *kinds {
                for error in all_ways(|| (*kind).into()) {
                    assert_eq!(error.class(), *class, "{kind:?}: {error}");
                    assert_eq!(error.retry_after().is_some(), *class == Class::Retry, "{kind:?}");
                }
            }
        }
        // Codes as the operating system gives them, with and without a kind.
        for (code, class) in [
            (MEDIUM, Class::Fatal),
            (TOO_MANY_OPEN_FILES, Class::Retry),
            (TOO_MANY_OPEN_FILES_ON_HOST, Class::Retry),
            (28, Class::Retry),  // ENOSPC
            (4, Class::Retry),   // EINTR
            (2, Class::Caller),  // ENOENT
            (13, Class::Caller), // EACCES
        ] {
            for error in all_ways(|| io::Error::from_raw_os_error(code)) {
                assert_eq!(error.class(), class, "{code}: {error}");
            }
        }
    }
}
