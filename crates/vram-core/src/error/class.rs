//! What a program does about an error: its name, its class, and when to retry.

use core::time::Duration;
use std::path::Path;
use std::sync::Arc;

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
            Self::PlanOutdated { .. } => "plan-outdated",
            Self::ReservationExpired { .. } => "reservation-expired",
            Self::ReservationTooSmall { .. } => "reservation-too-small",
            Self::ReservationElsewhere { .. } => "reservation-elsewhere",
            Self::ForeignReservation { .. } => "foreign-reservation",
            Self::HostMemory { .. } => "host-memory",
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
            // A device error that is not sticky: the next call can succeed.
            Self::InsufficientVram(_)
            | Self::InUse { .. }
            | Self::TimedOut { .. }
            | Self::GpuInUse { .. }
            | Self::Restoring { .. }
            | Self::ParkLimit { .. }
            | Self::HostMemory { .. }
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
            _ => Class::Caller,
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
            Self::InsufficientVram(_) | Self::Restoring { .. } => Some(Duration::from_millis(100)),
            Self::HostMemory { .. } => Some(Duration::from_secs(1)),
            Self::Device { .. } if self.class() == Class::Retry => Some(Duration::from_millis(100)),
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
