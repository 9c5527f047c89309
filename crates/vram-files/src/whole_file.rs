//! Writing a file that appears under its name whole, or not at all.

mod target;
mod temporary;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::folder;

pub use target::Inputs;
pub(crate) use temporary::nameless;

/// What to do if the target exists.
///
/// A symbolic link is followed: the file that it leads to is kept or replaced, and the link stays.
/// Only a regular file is ever replaced, and never one that the same call reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overwrite {
    /// Fail, and leave the existing file as it is.
    #[default]
    Refuse,
    /// Replace a regular file by the new one, in one step. Anything else (a folder, a device) is
    /// refused and stays as it is.
    Replace,
    /// As [`Replace`](Self::Replace), but a file that looks like a key file is kept: one as long as
    /// a key (32, 64 or 65 bytes), with no access for users outside its owner and group; and the
    /// 64 digits of a key, in a file of any mode. If a key is lost, everything sealed under it is
    /// lost too.
    ReplaceButKeys,
}

/// A file that is being written and does not have its final name yet.
///
/// [`publish`](Self::publish) makes it durable and gives it its name in one step. Dropping it
/// before that, on an error or a panic, removes it. Until then it has no name at all, so a killed
/// process leaves nothing. On a file system without such files, it has a temporary name
/// (`.vram-PID-RANDOM.partial`) in the folder of the final one. The next call that needs such a
/// name in that folder removes the files of killed processes.
#[derive(Debug)]
pub struct WholeFile {
    file: File,
    /// The temporary name, if it has one.
    temporary: Option<PathBuf>,
    /// The final name, with every link resolved.
    target: PathBuf,
    overwrite: Overwrite,
    inputs: Inputs,
}

impl WholeFile {
    /// Begins a file.
    ///
    /// # Arguments
    ///
    /// * `mode`: permission bits of the new file, less the process's umask.
    /// * `inputs`: files that the call must not replace, with any `overwrite`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if the target exists and may not be replaced;
    /// [`io::ErrorKind::InvalidInput`] if it has no file name, is not a regular file, is one of the
    /// inputs or lies in a folder of the kernel; otherwise any error of the operating system.
    pub fn create(
        target: &Path,
        mode: u32,
        overwrite: Overwrite,
        inputs: Inputs,
    ) -> io::Result<Self> {
        let target = target::resolve(target)?;
        // Check early: a caller must not seal for an hour to learn that the target exists.
        target::judge(&target, overwrite, &inputs)?;
        let (file, temporary) = temporary::create(folder_of(&target), mode, &inputs)?;
        Ok(Self { file, temporary, target, overwrite, inputs })
    }

    /// The file. The caller may set its position freely.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Syncs the content, gives the file its name in one step, and syncs the folder; if the folder
    /// cannot be read, the file system ([`sync_name`](folder::sync_name)).
    ///
    /// # Errors
    ///
    /// Any error of the operating system. No file is left under a temporary name then, and the
    /// target is as it was. One exception: if the very last step fails, the sync of the folder, the
    /// call fails though the file is whole under its name.
    pub fn publish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        // Another process may have created a file there since `create`.
        target::judge(&self.target, self.overwrite, &self.inputs)?;
        self.name()?;
        folder::sync_name(&self.file, folder_of(&self.target))
    }

    /// Gives the file its final name.
    fn name(&mut self) -> io::Result<()> {
        if self.temporary.is_none() {
            match temporary::link(&self.file, &self.target) {
                Ok(()) => return Ok(()),
                // `linkat` never replaces a file; `rename` does, but needs a name to rename from.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if self.overwrite == Overwrite::Refuse {
                        return Err(target::taken());
                    }
                }
                Err(error) => return Err(error),
            }
            let folder = folder_of(&self.target);
            self.temporary = Some(temporary::link_to_temporary(&self.file, folder, &self.inputs)?);
        }
        if let Some(temporary) = &self.temporary {
            match self.overwrite {
                Overwrite::Refuse => folder::rename_new(temporary, &self.target)?,
                Overwrite::Replace | Overwrite::ReplaceButKeys => {
                    fs::rename(temporary, &self.target)?;
                }
            }
        }
        // The temporary name no longer exists: `drop` has nothing to remove.
        self.temporary = None;
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // `drop` has no caller to report a failure to; the name says that the file is partial.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// The folder of a resolved target.
fn folder_of(target: &Path) -> &Path {
    target.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests;
