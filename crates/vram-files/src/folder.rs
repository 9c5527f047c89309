//! Making the name of a new file durable, and the room that a folder has.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes the name of `file` in its folder durable.
///
/// The folder is opened and synced. A folder that may be written and entered but not read (mode
/// 0300, a drop box) cannot be opened; then the whole file system of the file is synced instead,
/// which takes longer and includes that folder.
///
/// # Errors
///
/// Any error of the operating system. The file has its name in every case.
pub fn sync_name(file: &File, folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => sync_file_system(file),
        Err(error) => Err(error),
    }
}

#[cfg(target_os = "linux")]
fn sync_file_system(file: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(_file: &File) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// Renames a file, and replaces none.
///
/// # Errors
///
/// [`io::ErrorKind::AlreadyExists`] if there is one; any error of the operating system.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;

    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // For file systems without that flag: add a second name, which never replaces, then drop
        // the first.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}

/// Bytes that a user without privileges can still write to the file system of `path`.
///
/// # Errors
///
/// Any error of the operating system.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_renamed_to_a_new_name_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("one"), b"1").unwrap();
        fs::write(at("two"), b"2").unwrap();
        let refused = rename_new(&at("one"), &at("two")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(at("two")).unwrap(), b"2");
        rename_new(&at("one"), &at("three")).unwrap();
        assert_eq!(fs::read(at("three")).unwrap(), b"1");
    }

    #[test]
    fn a_file_system_is_synced_through_a_file_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("file")).unwrap();
        sync_file_system(&file).unwrap();
        sync_name(&file, folder.path()).unwrap();
        let error = sync_name(&file, &folder.path().join("absent")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
