//! Opening files whose path comes from outside, without trusting the path.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens `path` for reading, and never waits for a writer at the other end of a pipe.
///
/// The caller then checks the opened descriptor, not the path: the path may lead to another file a
/// moment later.
///
/// # Errors
///
/// Any error of the operating system.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(raw(OFlags::NONBLOCK)).open(path)
}

/// Opens an existing regular file for reading and appending. Follows no link and waits at no pipe.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] if it is not a regular file; any error of the operating system
/// if it cannot be opened.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).append(true).custom_flags(raw(flags)).open(path)?;
    regular(file)
}

/// As [`open`], for regular files only.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] if it is not a regular file; any error of the operating system
/// if it cannot be opened.
pub fn open_regular(path: &Path) -> io::Result<File> {
    regular(open(path)?)
}

/// Metadata of the file that a path leads to. `/dev/stdin` and `/dev/fd/N` are asked of the
/// descriptor itself, where the system can do that: their paths lead nowhere without `/proc`.
///
/// # Errors
///
/// Any error of the operating system.
pub fn metadata(path: &Path) -> io::Result<Metadata> {
    match descriptor(path).map(copy_of_descriptor) {
        Some(Ok(file)) => file.metadata(),
        Some(Err(_)) | None => fs::metadata(path),
    }
}

/// The number of the descriptor that a path stands for.
fn descriptor(path: &Path) -> Option<u32> {
    if path == Path::new("/dev/stdin") {
        return Some(0);
    }
    path.strip_prefix("/dev/fd").ok()?.to_str()?.parse().ok()
}

/// A copy of the descriptor of this number. Asks for no path, so that it needs no `/proc`.
#[cfg(target_os = "linux")]
pub(crate) fn copy_of_descriptor(number: u32) -> io::Result<File> {
    use std::io::{stderr, stdin, stdout};
    use std::os::fd::AsFd as _;

    use rustix::io::Errno;
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    let target = i32::try_from(number).map_err(|_too_large| Errno::BADF)?;
    // The standard three need no call that a container may forbid.
    let descriptor = match target {
        0 => stdin().as_fd().try_clone_to_owned()?,
        1 => stdout().as_fd().try_clone_to_owned()?,
        2 => stderr().as_fd().try_clone_to_owned()?,
        _ => pidfd_open(getpid(), PidfdFlags::empty())
            .and_then(|this| pidfd_getfd(this, target, PidfdGetfdFlags::empty()))?,
    };
    Ok(descriptor.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn copy_of_descriptor(_number: u32) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns true if a file is on a file system of this machine, where the kernel answers reads within the
/// time of a disk. A file of a network file system, or of one in user space, is not; nor is one on a file
/// system that is not known here.
#[must_use]
#[cfg(target_os = "linux")]
pub fn is_local(file: &File) -> bool {
    // ext, XFS, Btrfs, tmpfs, ramfs, overlay, ZFS, F2FS, bcachefs, JFS, ReiserFS, FAT, exFAT, NTFS,
    // SquashFS, EROFS, ISO 9660, hugetlbfs: as `statfs(2)` lists them.
    const LOCAL: [u32; 18] = [
        0xEF53,
        0x5846_5342,
        0x9123_683E,
        0x0102_1994,
        0x8584_58F6,
        0x794C_7630,
        0x2FC1_2FC1,
        0xF2F5_2010,
        0xCA45_1A4E,
        0x3153_464A,
        0x5265_4973,
        0x4D44,
        0x2011_BAB0,
        0x7366_746E,
        0x7371_7368,
        0xE0F5_E1E2,
        0x9660,
        0x9584_58F6,
    ];

    // The kernel's numbers have 32 bits, in a type whose width and sign differ from machine to machine.
    rustix::fs::fstatfs(file)
        .is_ok_and(|found| LOCAL.iter().any(|one| same_bits(found.f_type, *one)))
}

/// As on Linux: there are no numbers of file systems here, so no file is known as local.
#[must_use]
#[cfg(not(target_os = "linux"))]
pub fn is_local(_file: &File) -> bool {
    false
}

/// Compares the low 32 bits.
#[cfg(target_os = "linux")]
fn same_bits(found: impl TryInto<i64>, known: u32) -> bool {
    found.try_into().is_ok_and(|found| found & i64::from(u32::MAX) == i64::from(known))
}

fn raw(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or(0)
}

fn regular(file: File) -> io::Result<File> {
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok(file);
    }
    let reason = format!("it is {}, not a regular file", kind_of(&metadata));
    Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

/// The kind of a file, in words that fit into "… is a folder".
#[must_use]
pub fn kind_of(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_file() {
        "a regular file"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "a special file"
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_path_of_a_descriptor_is_told_by_its_text() {
        for (path, number) in [
            ("/dev/stdin", Some(0)),
            ("/dev/fd/0", Some(0)),
            ("/dev/fd//77", Some(77)),
            ("/dev/fd", None),
            ("/dev/fd/3/3", None),
            ("/dev/fd/three", None),
            ("/dev/fd/99999999999", None),
            ("dev/fd/3", None),
            ("3", None),
        ] {
            assert_eq!(descriptor(Path::new(path)), number, "{path}");
        }
    }

    /// No path is looked up here, as where `/proc` is not mounted.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_descriptor_is_identified_without_a_path() {
        let (first, second) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        for file in [&first, &second] {
            let path = format!("/dev/fd/{}", file.as_raw_fd());
            let number = descriptor(Path::new(&path)).unwrap();
            let found = copy_of_descriptor(number).unwrap().metadata().unwrap();
            let expected = file.metadata().unwrap();
            assert_eq!((found.dev(), found.ino()), (expected.dev(), expected.ino()));
        }
        assert!(copy_of_descriptor(1_000_000).is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_system_that_is_not_known_as_local_is_not_local() {
        assert!(!is_local(&File::open("/proc/self/status").unwrap()));
        assert!(same_bits(-0x6edc_97c2_i64, 0x9123_683E), "the sign of 32 bits says nothing");
        assert!(same_bits(0xEF53_i32, 0xEF53) && !same_bits(0x6969_i64, 0xEF53));
    }

    #[test]
    fn metadata_of_a_path_are_those_of_its_file_and_an_absent_one_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let by_descriptor = format!("/dev/fd/{}", file.as_raw_fd());
        for path in [file.path(), Path::new(&by_descriptor)] {
            assert_eq!(metadata(path).unwrap().ino(), file.as_file().metadata().unwrap().ino());
        }
        assert!(metadata(&file.path().with_extension("absent")).is_err());
        assert!(metadata(Path::new("/dev/fd/1000000")).is_err());
    }
}
