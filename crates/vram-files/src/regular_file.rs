//! Opening files whose path comes from outside, without trusting the path.

use std::fs::{File, Metadata, OpenOptions};
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
