//! Where a file is to appear: the name behind all links, checked before anything is written.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use vram_seal::{KeyError, SealKey};
use zeroize::Zeroizing;

use super::Overwrite;
use crate::FileState;
use crate::regular_file::{self, kind_of, open_regular};

/// Links that are followed before a chain of them counts as a circle; the same count as the
/// kernel's.
const LINKS_MAX: usize = 40;

/// Folders in which the kernel shows devices and processes. No file is created or replaced in them.
const KERNEL_FOLDERS: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Shared memory, which POSIX puts under `/dev`: a folder for files like any other.
const SHARED_MEMORY: &str = "/dev/shm";

/// Lengths of a key file: raw bytes, digits, digits and a newline.
const KEY_LENS: [u64; 3] = [32, 64, 65];

/// The length of a key file of raw bytes, which only its mode tells from other files.
const RAW_KEY_LEN: u64 = 32;

/// Bytes that are read of a file that may be a key: one more than the longest key has.
const KEY_READ_LEN: u64 = 66;

/// Room for them, and for the read that finds the end.
const KEY_READ_MAX: usize = 128;

/// The files that one call reads, by device and inode: no output of that call replaces them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    ids: Vec<(u64, u64)>,
}

impl Inputs {
    /// Adds the files at these paths. `/dev/stdin` and `/dev/fd/N` stand for the descriptor of this
    /// process, also where `/proc` is not mounted.
    ///
    /// # Errors
    ///
    /// Any error of the operating system when asked for the file's metadata, with the path. A path
    /// that leads to no file is refused as well: a file that was read and cannot be found now cannot
    /// be compared with the target.
    pub fn with_paths<'p>(
        mut self,
        paths: impl IntoIterator<Item = &'p PathBuf>,
    ) -> io::Result<Self> {
        for path in paths {
            let found = regular_file::metadata(path).map_err(|error| {
                let reason = format!("cannot find the input {}: {error}", path.display());
                io::Error::new(error.kind(), reason)
            })?;
            self.ids.push(id(&found));
        }
        Ok(self)
    }

    /// Adds an open file.
    ///
    /// # Errors
    ///
    /// Any error of the operating system when asked for the file's metadata.
    pub fn with_file(mut self, file: &File) -> io::Result<Self> {
        self.ids.push(id(&file.metadata()?));
        Ok(self)
    }

    /// Adds the file that was found in this state.
    #[must_use]
    pub fn with_state(mut self, state: &FileState) -> Self {
        self.ids.push(state.id());
        self
    }

    pub(super) fn contain(&self, found: &Metadata) -> bool {
        self.ids.contains(&id(found))
    }
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Follows the links of a target, the last one too, to the name under which a file can be created.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] if there is no file name at the end, if a device, a pipe, a
/// socket or a folder has that name, if a link in `/proc` leads to a file or folder that has no name
/// here, or if the folder is one of the kernel's; any error of the operating system if a folder on the way is missing or cannot be entered.
pub(super) fn resolve(target: &Path) -> io::Result<PathBuf> {
    let led_to = match fs::metadata(target) {
        Ok(found) if !found.is_file() => return Err(not_a_file(&found)),
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let path = follow(target)?;
    if let Some(folder) = kernel_folder(&path) {
        let reason = format!("the target lies in {folder}, where no file is created or replaced");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    match (fs::symlink_metadata(&path), led_to) {
        // A link in /proc leads to an open file. Its name may be gone, or belong to another file by
        // now.
        (Ok(found), Some(led_to)) if id(&found) == id(&led_to) => Ok(path),
        (_, Some(_)) => Err(invalid("the target leads to a file without a name")),
        (_, None) => Ok(path),
    }
}

/// The absolute name behind all links. The file under that name is not examined.
fn follow(target: &Path) -> io::Result<PathBuf> {
    let mut path = target.to_path_buf();
    for _ in 0..=LINKS_MAX {
        let Some(name) = path.file_name() else {
            return Err(invalid("the path names no file"));
        };
        let bytes = path.as_os_str().as_bytes();
        if bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
            return Err(invalid("the path names a folder, not a file"));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = canonical(folder)?;
        let resolved = folder.join(name);
        match fs::read_link(&resolved) {
            // An absolute link target replaces the folder.
            Ok(leads_to) => path = folder.join(leads_to),
            // Not a link, or no file at all.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                ) =>
            {
                return Ok(resolved);
            }
            Err(error) => return Err(error),
        }
    }
    Err(invalid("the target is a circle of symbolic links"))
}

/// The absolute name of a folder, behind all links.
///
/// A link in `/proc` leads to a folder, and only shows a name of it: that name may be gone, or belong
/// to another folder by now, or mean another one here than in the process that the link is of.
fn canonical(folder: &Path) -> io::Result<PathBuf> {
    let named = fs::canonicalize(folder)?;
    if id(&fs::metadata(folder)?) != id(&fs::metadata(&named)?) {
        return Err(invalid("the target leads through a folder without a name here"));
    }
    Ok(named)
}

fn kernel_folder(path: &Path) -> Option<&'static str> {
    if path.starts_with(SHARED_MEMORY) {
        return None;
    }
    KERNEL_FOLDERS.into_iter().find(|folder| path.starts_with(folder))
}

/// Checks whether a file may be put under this name now.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] for an input of the call and for anything but a regular file,
/// [`io::ErrorKind::AlreadyExists`] for a file that `overwrite` keeps.
pub(super) fn judge(path: &Path, overwrite: Overwrite, inputs: &Inputs) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if inputs.contain(&found) {
        return Err(invalid(
            "the target is an input of the same call, and would be written over itself",
        ));
    }
    if !found.is_file() {
        return Err(not_a_file(&found));
    }
    match overwrite {
        Overwrite::Refuse => Err(taken()),
        Overwrite::ReplaceButKeys if looks_like_a_key(path, &found) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, KEY_KEPT))
        }
        Overwrite::Replace | Overwrite::ReplaceButKeys => Ok(()),
    }
}

const KEY_KEPT: &str = "the target looks like a key file, and is kept";

/// Returns true for a file as long as a key file to which users outside its owner and group have no
/// access, and for the digits of a key in a file of any mode: a key whose mode was lost in a copy is
/// still the only one.
fn looks_like_a_key(path: &Path, found: &Metadata) -> bool {
    if !KEY_LENS.contains(&found.len()) {
        return false;
    }
    let for_others = found.permissions().mode() & 0o007;
    for_others == 0 || (found.len() != RAW_KEY_LEN && holds_digits_of_a_key(path))
}

/// Returns true if a file holds the digits of a key, and at most one newline. A file that cannot be
/// read is kept like one that does.
fn holds_digits_of_a_key(path: &Path) -> bool {
    // Reserve the full size at once: a growing vector would leave copies of a key in freed memory.
    let mut content = Zeroizing::new(Vec::with_capacity(KEY_READ_MAX));
    let read =
        open_regular(path).and_then(|file| file.take(KEY_READ_LEN).read_to_end(&mut content));
    match read.map(|_count| SealKey::from_key_file_bytes(&content)) {
        Ok(Err(KeyError::NotAKeyFile { .. })) => false,
        Ok(_) | Err(_) => true,
    }
}

pub(super) fn taken() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "the target exists already")
}

fn not_a_file(found: &Metadata) -> io::Error {
    let reason = format!("the target is {}, not a regular file", kind_of(found));
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}
