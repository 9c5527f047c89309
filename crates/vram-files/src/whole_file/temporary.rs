//! Files that have no name yet, and temporary names where the file system needs one.

use core::hash::BuildHasher;
use std::fs::{self, DirEntry, File, OpenOptions, TryLockError};
use std::hash::RandomState;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags};
use rustix::io::Errno;

use super::Inputs;

/// How a temporary name begins and ends; between them are a process id and a random number.
const PREFIX: &str = ".vram-";
const SUFFIX: &str = ".partial";

/// Creates a file in a folder: without a name if the file system can do that, else under a
/// temporary name.
pub(super) fn create(
    folder: &Path,
    mode: u32,
    inputs: &Inputs,
) -> io::Result<(File, Option<PathBuf>)> {
    if let Some(file) = unnamed(folder, mode)? {
        return Ok((file, None));
    }
    sweep(folder, inputs);
    let (file, path) = named(folder, mode)?;
    Ok((file, Some(path)))
}

/// A file that only this process can reach, in the folder for temporary files. It exists as long as
/// its descriptor.
pub(crate) fn nameless() -> io::Result<File> {
    let folder = std::env::temp_dir();
    if let Some(file) = unnamed(&folder, 0o600)? {
        return Ok(file);
    }
    let (file, path) = named(&folder, 0o600)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// A file without a name, which [`link`] can name later; `None` if that is not possible.
#[cfg(target_os = "linux")]
fn unnamed(folder: &Path, mode: u32) -> io::Result<Option<File>> {
    // Open for reading too: the caller may have to read back what it wrote.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, folder, flags, rustix::fs::Mode::from_raw_mode(mode)) {
        Ok(descriptor) => {
            let file = File::from(descriptor);
            // Without /proc the file could not be named at the end.
            let can_be_linked = fs::metadata(by_descriptor(&file)).is_ok();
            // The lock shows other processes that this process lives, if the file needs a temporary
            // name later.
            let _unsupported = file.try_lock();
            Ok(can_be_linked.then_some(file))
        }
        // The errors of file systems and kernels without such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Only Linux has files without a name.
#[cfg(not(target_os = "linux"))]
fn unnamed(_folder: &Path, _mode: u32) -> io::Result<Option<File>> {
    Ok(None)
}

/// Creates a file under a temporary name that no other file has.
fn named(folder: &Path, mode: u32) -> io::Result<(File, PathBuf)> {
    loop {
        let path = fresh_name(folder);
        let created =
            OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&path);
        let file = match created {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        // Between creation and lock, the sweep of another process may take the file for a leftover.
        // Then that process holds the lock, or the file has lost its name. A file system without
        // locks is never swept either.
        let locked = !matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        if locked && file.metadata()?.nlink() > 0 {
            return Ok((file, path));
        }
    }
}

/// Names a file that has no name. Fails if the name exists.
pub(super) fn link(file: &File, to: &Path) -> io::Result<()> {
    let from = by_descriptor(file);
    Ok(rustix::fs::linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW)?)
}

/// Gives a file without a name a temporary name, to rename it from.
pub(super) fn link_to_temporary(
    file: &File,
    folder: &Path,
    inputs: &Inputs,
) -> io::Result<PathBuf> {
    sweep(folder, inputs);
    loop {
        let path = fresh_name(folder);
        match link(file, &path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn by_descriptor(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// A name that is free, with a chance of 2⁻⁶⁴ that it is not. It does not contain the target's
/// name, which may be as long as a name can be.
fn fresh_name(folder: &Path) -> PathBuf {
    let random = RandomState::new().hash_one(0_u8);
    folder.join(format!("{PREFIX}{}-{random:016x}{SUFFIX}", std::process::id()))
}

/// Removes the temporary files of processes that were killed.
///
/// A process holds a lock on each of its temporary files, and the kernel releases the lock when the
/// process ends. So a file of this user that can be locked is a leftover. It stays if the call reads
/// it: somebody is saving what was left. If a leftover cannot be removed, the sweep does not fail.
fn sweep(folder: &Path, inputs: &Inputs) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok).filter(is_temporary) {
        let _next_time = remove_leftover(&entry.path(), inputs);
    }
}

fn is_temporary(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let middle = name
        .to_str()
        .and_then(|name| name.strip_prefix(PREFIX))
        .and_then(|name| name.strip_suffix(SUFFIX))
        .and_then(|middle| middle.split_once('-'));
    let (Some((process, number)), Ok(kind)) = (middle, entry.file_type()) else { return false };
    let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    kind.is_file() && digits(process, 10) && digits(number, 16)
}

fn remove_leftover(path: &Path, inputs: &Inputs) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let opened = file.metadata()?;
    let ours = opened.is_file() && opened.uid() == rustix::process::geteuid().as_raw();
    if ours && !inputs.contain(&opened) && file.try_lock().is_ok() {
        // The name may belong to another file by now.
        let named = fs::symlink_metadata(path)?;
        if (named.dev(), named.ino()) == (opened.dev(), opened.ino()) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (in_use, kept) = named(folder.path(), 0o600).unwrap();
        for name in [".vram-1-0.partial", ".vram-99999999-00ffee0000000000.partial"] {
            fs::write(at(name), b"plaintext").unwrap();
        }
        let others =
            [".vram-x-1.partial", ".vram-1-.partial", "vram-1-1.partial", ".vram-1-1.part"];
        for name in others {
            fs::write(at(name), b"somebody's").unwrap();
        }
        std::os::unix::fs::symlink(at("vram-1-1.partial"), at(".vram-2-2.partial")).unwrap();

        let read = Inputs::default().with_paths([&at(".vram-1-0.partial")]).unwrap();
        sweep(folder.path(), &read);
        let count = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(count, others.len() + 3, "one in use, one read, a link, and the others");
        let (second, path) = named(folder.path(), 0o600).unwrap();
        sweep(folder.path(), &Inputs::default());
        assert!(!at(".vram-1-0.partial").exists() && kept.exists() && path.exists());
        drop((in_use, second));
        sweep(folder.path(), &Inputs::default());
        assert!(!kept.exists() && !path.exists());
        assert!(others.iter().all(|name| at(name).exists()));
        assert!(fs::symlink_metadata(at(".vram-2-2.partial")).is_ok());
    }

    #[test]
    fn names_do_not_run_out() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..200).map(|_| named(folder.path(), 0o600).unwrap()).collect();
        assert!(files.iter().all(|(_, path)| path.exists()));
    }

    #[test]
    fn a_nameless_file_is_in_no_folder() {
        let file = nameless().unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    }
}
