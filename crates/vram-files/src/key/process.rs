//! Keeping the keys of a process out of core dumps.

use std::io;

/// Denies core dumps of this process, and access by other processes of the same user: debuggers
/// cannot attach, and `/proc/PID/mem` belongs to root. Call it before the first key is loaded.
///
/// It sets the attribute `dumpable` of the whole process (`PR_SET_DUMPABLE`), which a started
/// program does not inherit. It keeps out neither root nor swap nor hibernation.
///
/// # Errors
///
/// Any error of the operating system; [`io::ErrorKind::Unsupported`] on systems other than Linux.
#[cfg(target_os = "linux")]
pub fn deny_core_dumps() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Whether core dumps of this process are denied.
///
/// # Errors
///
/// As [`deny_core_dumps`].
#[cfg(target_os = "linux")]
pub fn core_dumps_denied() -> io::Result<bool> {
    use rustix::process::{DumpableBehavior, dumpable_behavior};

    Ok(dumpable_behavior()? == DumpableBehavior::NotDumpable)
}

/// Denies core dumps of this process. Not known on this system.
///
/// # Errors
///
/// [`io::ErrorKind::Unsupported`], always.
#[cfg(not(target_os = "linux"))]
pub fn deny_core_dumps() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether core dumps of this process are denied. Not known on this system.
///
/// # Errors
///
/// [`io::ErrorKind::Unsupported`], always.
#[cfg(not(target_os = "linux"))]
pub fn core_dumps_denied() -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn core_dumps_are_denied_from_the_call_on() {
        deny_core_dumps().unwrap();
        assert!(core_dumps_denied().unwrap());
        // A process that may not be dumped can still open its own files by descriptor.
        let file = tempfile::tempfile().unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
        std::fs::metadata(format!("/proc/self/fd/{descriptor}")).unwrap();
    }
}
