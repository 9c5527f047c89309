//! A descriptor that another process handed down, by its number.

use std::fs::File;
use std::io;

/// Opens what the descriptor stands for, and leaves the descriptor itself as it is.
///
/// A copy of the descriptor, rather than its path in `/dev/fd`, reads a file that this process could
/// not open by itself, as a parent with more rights may hand down.
#[cfg(target_os = "linux")]
pub(super) fn open(number: u32) -> io::Result<File> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    let target = i32::try_from(number).map_err(|_too_large| io::Error::from_raw_os_error(BADF))?;
    let copy = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|this| pidfd_getfd(this, target, PidfdGetfdFlags::empty()));
    match copy {
        Ok(descriptor) => Ok(descriptor.into()),
        Err(rustix::io::Errno::BADF) => Err(io::Error::from_raw_os_error(BADF)),
        // Kernels before 5.6, and containers that forbid the call.
        Err(_) => by_path(number),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open(number: u32) -> io::Result<File> {
    by_path(number)
}

/// `EBADF`: there is no such descriptor.
#[cfg(target_os = "linux")]
const BADF: i32 = 9;

fn by_path(number: u32) -> io::Result<File> {
    File::open(format!("/dev/fd/{number}"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_descriptor_is_read_by_its_number_and_stays_open() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let number = u32::try_from(file.as_raw_fd()).unwrap();
        for open in [open, by_path] {
            file.rewind().unwrap();
            let mut read = String::new();
            open(number).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, "content");
        }
        file.rewind().unwrap();
        assert!(open(u32::MAX).is_err());
        assert!(open(1_000_000).is_err());
    }
}
