//! Writing a file that appears under its name whole, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::regular_file;

/// What to do when the name is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overwrite {
    /// Fail, and leave what is there as it is.
    #[default]
    Refuse,
    /// Put the new file in the place of a regular file, in one step. A symbolic link is replaced
    /// itself, not followed. Anything else (a folder, a device) is left alone and refused.
    Replace,
}

/// A file being written under a temporary name in the folder of its final one.
///
/// [`publish`](Self::publish) makes it durable and gives it its name in one step. Dropping it
/// before that, on an error or a panic, removes it. A process that is killed leaves the temporary
/// file (`.vram-PID-N.partial`) and never a half file under the final name.
#[derive(Debug)]
pub(crate) struct WholeFile {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    overwrite: Overwrite,
    published: bool,
}

/// Names tried before giving up; others' leftovers take names, so one is not enough.
const NAMES_TRIED_MAX: u32 = 64;

impl WholeFile {
    /// Creates the temporary file.
    ///
    /// # Arguments
    ///
    /// * `mode`: permission bits of the new file, less the process's mask.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the target is taken and may not be replaced;
    /// [`io::ErrorKind::InvalidInput`] if it has no file name or is not a regular file; whatever
    /// the operating system answers otherwise.
    pub(crate) fn create(target: &Path, mode: u32, overwrite: Overwrite) -> io::Result<Self> {
        if target.file_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
        }
        // Early, so that nobody seals for an hour to learn that the name is taken.
        match fs::symlink_metadata(target) {
            Ok(_) if overwrite == Overwrite::Refuse => return Err(taken()),
            Ok(found) if !found.is_file() && !found.is_symlink() => {
                let reason = format!("the target is {}", regular_file::kind_of(&found));
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }

        let process = std::process::id();
        for attempt in 0..NAMES_TRIED_MAX {
            // Without the target's name, which may be as long as a name can be.
            let temporary = target.with_file_name(format!(".vram-{process}-{attempt}.partial"));
            // Read access as well: what was written may have to be read back.
            let created = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&temporary);
            match created {
                Ok(file) => {
                    let target = target.to_path_buf();
                    return Ok(Self { file, temporary, target, overwrite, published: false });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "every temporary name is taken"))
    }

    /// The file; position it as you like.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Syncs the content, gives it its name in one step, and syncs the folder.
    ///
    /// # Errors
    ///
    /// Whatever the operating system answers. Nothing is left under the temporary name then, and
    /// the target is as it was; only if the very last step, the sync of the folder, fails is the
    /// file whole under its name though the call failed.
    pub(crate) fn publish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        match self.overwrite {
            Overwrite::Replace => fs::rename(&self.temporary, &self.target)?,
            Overwrite::Refuse => rename_to_free_name(&self.temporary, &self.target)?,
        }
        self.published = true;
        let folder = match self.target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if !self.published {
            // There is nobody left to tell; the name says that the file is partial.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Renames, unless the target exists by now.
fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // File systems without that flag: a second name, which never replaces, then drop the first.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}

fn taken() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "the target exists already")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn names_in(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_no_name_before_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let file = WholeFile::create(&target, 0o600, Overwrite::Refuse).unwrap();
        file.file().write_all(b"half").unwrap();
        assert!(!target.exists());
        file.publish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"half");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names_in(folder.path()), ["out"]);
    }

    #[test]
    fn a_dropped_or_panicking_writer_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        drop(WholeFile::create(&target, 0o600, Overwrite::Refuse).unwrap());
        let outcome = std::panic::catch_unwind(|| {
            let _file = WholeFile::create(&target, 0o600, Overwrite::Refuse).unwrap();
            panic!("halfway");
        });
        assert!(outcome.is_err());
        assert!(names_in(folder.path()).is_empty());
    }

    #[test]
    fn a_taken_name_is_never_overwritten_unless_asked_even_if_taken_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let late = WholeFile::create(&target, 0o600, Overwrite::Refuse).unwrap();
        fs::write(&target, b"old").unwrap();
        assert_eq!(late.publish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let early = WholeFile::create(&target, 0o600, Overwrite::Refuse).unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"old");

        let asked = WholeFile::create(&target, 0o600, Overwrite::Replace).unwrap();
        asked.file().write_all(b"new").unwrap();
        asked.publish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(names_in(folder.path()), ["out"]);
    }

    #[test]
    fn two_writers_of_one_name_do_not_meet_and_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let first = WholeFile::create(&target, 0o600, Overwrite::Refuse).unwrap();
        let second = WholeFile::create(&target, 0o600, Overwrite::Refuse).unwrap();
        second.publish().unwrap();
        assert_eq!(first.publish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names_in(folder.path()), ["out"]);
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for target in [Path::new("/dev/null"), folder.path(), Path::new("/"), Path::new("")] {
            let error = WholeFile::create(target, 0o600, Overwrite::Replace).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{target:?}");
        }
        let nowhere = folder.path().join("no/such/folder");
        let error = WholeFile::create(&nowhere, 0o600, Overwrite::Refuse).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
