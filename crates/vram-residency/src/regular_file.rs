//! Opening files that others chose the path of.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens `path` for reading, without ever waiting for a writer at the other end of a pipe.
///
/// What was opened is then judged by its descriptor, not by its path: the path may mean something
/// else a moment later.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let without_waiting = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(without_waiting).open(path)
}

/// As [`open`], for a regular file and nothing else.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok(file);
    }
    let reason = format!("it is {}, not a regular file", kind_of(&metadata));
    Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

/// What a path led to, in words that fit into "… is a folder".
pub(crate) fn kind_of(metadata: &Metadata) -> &'static str {
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
