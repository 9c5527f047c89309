//! Making the name of a new file durable, and the room that a folder has.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat, unlinkat};

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
    use rustix::fs::{RenameFlags, renameat_with};
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

/// Removes a file below a folder, and follows no link on the way: each folder between is opened by its name
/// in the one above it. A link in place of the file itself is removed, and not what it leads to.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] if one of the folders is a link; any error of the operating system.
pub fn remove_beneath(root: &Path, below: &Path) -> io::Result<()> {
    // Enough to find names in it, also where its list may not be read.
    #[cfg(target_os = "linux")]
    const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    #[cfg(not(target_os = "linux"))]
    const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let name = below.file_name().ok_or_else(|| refused("it names no file"))?;
    let mut folder = openat(CWD, root, FOLDER, Mode::empty())?;
    for component in below.parent().into_iter().flat_map(Path::components) {
        let Component::Normal(next) = component else {
            return Err(refused("it names no file below this folder"));
        };
        let opened = openat(&folder, next, FOLDER.union(OFlags::NOFOLLOW), Mode::empty());
        folder = opened.map_err(|error| {
            let found = statat(&folder, next, AtFlags::SYMLINK_NOFOLLOW);
            let is_link =
                found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode).is_symlink());
            if is_link { refused("it lies behind a link to a folder") } else { error.into() }
        })?;
    }
    Ok(unlinkat(&folder, name, AtFlags::empty())?)
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
    fn nothing_behind_a_link_is_removed() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("root/a/b")).unwrap();
        fs::create_dir_all(at("other/b")).unwrap();
        for name in ["root/a/b/file", "other/b/file", "other/file"] {
            fs::write(at(name), b"1").unwrap();
        }
        symlink(at("other"), at("root/link")).unwrap();
        symlink(at("other/b"), at("root/a/link")).unwrap();
        symlink(at("other/file"), at("root/a/b/mine")).unwrap();
        symlink(at("root"), at("by")).unwrap();
        let remove = |below: &str| remove_beneath(&at("by"), Path::new(below));
        for below in ["link/file", "link/b/file", "a/link/file", "../other/file", "..", ""] {
            assert_eq!(remove(below).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{below}");
        }
        assert!(at("other/b/file").exists());
        remove("a/b/mine").unwrap();
        remove("a/b/file").unwrap();
        assert!(at("other/file").exists() && !at("root/a/b/file").exists());
        for below in ["a/b/file", "absent/file"] {
            assert_eq!(remove(below).unwrap_err().kind(), io::ErrorKind::NotFound, "{below}");
        }
        assert!(remove("a").is_err() && at("root/a").is_dir());
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
