//! A descriptor that another process handed down, by its number.

use std::fs::File;
use std::io;

use crate::regular_file::copy_of_descriptor;

/// Opens what the descriptor stands for, and leaves the descriptor itself as it is.
///
/// A copy of the descriptor, rather than its path in `/dev/fd`, reads a file that this process could
/// not open by itself, as a parent with more rights may hand down.
pub(super) fn open(number: u32) -> io::Result<File> {
    match copy_of_descriptor(number) {
        Ok(file) => Ok(file),
        Err(error) if error.raw_os_error() == Some(BADF) => Err(error),
        // Kernels before 5.6, containers that forbid the call, and other systems.
        Err(_) => by_path(number),
    }
}

/// There is no such descriptor.
const BADF: i32 = rustix::io::Errno::BADF.raw_os_error();

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
