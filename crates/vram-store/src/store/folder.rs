//! A store in a folder of this machine: plain calls on files, each on a thread that can be left behind.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::time::SystemTime;

use vram_files::regular_file;

use super::Object;

/// The file that marks a folder as a cache: what is in no such folder, no cache removes.
pub(crate) const CACHE_MARK: &str = ".vram-cache";
/// Folders below the one that is listed that are entered: keys have no more parts, and links that lead
/// in a circle come to an end.
const DEPTH_MAX: u32 = 3;

/// The length of a regular file; `None` if there is none of this name.
pub(super) fn len(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_file().then_some(found.len())),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Length and time of change of what has this name; `None` if nothing has.
pub(super) fn look(path: &Path) -> io::Result<Option<(u64, SystemTime)>> {
    match fs::metadata(path).or_else(|_nowhere| fs::symlink_metadata(path)) {
        Ok(found) => {
            let modified = found.modified().unwrap_or_else(|_unknown| SystemTime::now());
            Ok(Some((found.len(), modified)))
        }
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a regular file young, if this process may. What a link leads to is of somebody else.
pub(super) fn touch(path: &Path) {
    if !fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        return;
    }
    if let Ok(file) = regular_file::open_regular(path) {
        let _not_its_owner = file.set_modified(SystemTime::now());
    }
}

/// Removes a link that lies where an object is to be written: what it leads to is not ours to write.
pub(crate) fn unlink(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return delete(path);
    }
    Ok(())
}

/// Everything below a folder that is no folder. What is no regular file, and links that lead nowhere, are
/// listed as well: whoever reads them learns what is wrong.
pub(super) fn list(root: &Path, prefix: &str) -> io::Result<Vec<Object>> {
    let mut found = Vec::new();
    let mut folders = vec![(prefix.to_owned(), 0_u32)];
    while let Some((key, depth)) = folders.pop() {
        let entries = match fs::read_dir(root.join(&key)) {
            Err(error) if is_absent(&error) => continue,
            other => other?,
        };
        for entry in entries {
            let name = entry?.file_name();
            // Keys are ASCII: another name is of nobody here.
            let Some(name) = name.to_str() else { continue };
            let key = format!("{key}/{name}");
            let path = root.join(&key);
            match fs::metadata(&path).or_else(|_nowhere| fs::symlink_metadata(&path)) {
                Ok(at) if at.is_dir() && depth < DEPTH_MAX => {
                    folders.push((key, depth.saturating_add(1)));
                }
                Ok(at) if at.is_dir() => {}
                Ok(at) => {
                    let modified = at.modified().unwrap_or_else(|_unknown| SystemTime::now());
                    found.push(Object { key, len: at.len(), modified });
                }
                // It went meanwhile.
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Whether a folder has the mark of a cache.
pub(crate) fn is_cache(folder: &Path) -> bool {
    fs::symlink_metadata(folder.join(CACHE_MARK)).is_ok_and(|mark| mark.is_file())
}

/// Refuses a folder that is not there: a share that is not mounted is no store that has nothing.
pub(crate) fn is_there(root: &Path) -> io::Result<()> {
    if root.try_exists()? {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::NotFound, "the folder of the store is not there"))
}

pub(super) fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Makes a folder and those above it that are not there, writable by their owner alone whatever the
/// process allows, and syncs the names that are new.
///
/// # Arguments
///
/// * `mode`: 0755 for what others may read, 0700 for a cache.
pub(crate) fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    make_folder(above, mode)?;
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
        // A folder that cannot be opened to sync it, as a drop box, was made all the same.
        Ok(()) => match File::open(above).and_then(|above| above.sync_all()) {
            Err(error) if error.kind() != ErrorKind::PermissionDenied => Err(error),
            _ => Ok(()),
        },
    }
}

/// Whether one folder is the other, or lies in it, by whatever path and link. Of a folder that is not
/// there, the place is looked at where it would be made.
pub(crate) fn overlap(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (ancestry(one)?, ancestry(other)?);
    // The folder itself is the first of its list; `None` if it is not there yet.
    let lies_in = |inner: &[Option<Id>], outer: &[Option<Id>]| {
        outer.first().is_some_and(|outer| outer.is_some() && inner.contains(outer))
    };
    Ok(lies_in(&one, &other) || lies_in(&other, &one))
}

/// Device and number of a folder.
type Id = (u64, u64);

/// A folder and those above it, from the inside out.
fn ancestry(folder: &Path) -> io::Result<Vec<Option<Id>>> {
    let mut absent = Vec::new();
    let mut at = folder;
    let there = loop {
        match fs::canonicalize(at) {
            Ok(there) => break there,
            Err(error) if is_absent(&error) => {
                absent.push(None);
                let above = at.parent().filter(|above| !above.as_os_str().is_empty());
                at = above.unwrap_or(Path::new("."));
            }
            Err(error) => return Err(error),
        }
    };
    let id = |path: &Path| fs::metadata(path).map(|found| Some((found.dev(), found.ino())));
    let there = there.ancestors().map(id).collect::<io::Result<Vec<_>>>()?;
    Ok(absent.into_iter().chain(there).collect())
}

pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn links_that_lead_in_a_circle_or_nowhere_end_no_listing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        make_folder(&root.join("v1/models/m"), 0o755).unwrap();
        fs::write(root.join("v1/models/m/one"), b"1").unwrap();
        symlink("../..", root.join("v1/models/circle")).unwrap();
        symlink("self", root.join("v1/models/self")).unwrap();
        symlink("nowhere", root.join("v1/models/m/nowhere")).unwrap();
        let keys: Vec<_> =
            list(root, "v1/models").unwrap().into_iter().map(|one| one.key).collect();
        for key in ["v1/models/m/one", "v1/models/m/nowhere", "v1/models/self"] {
            assert!(keys.iter().any(|found| found == key), "{keys:?}");
        }
        assert!(keys.len() < 20, "{keys:?}");
        assert!(list(root, "v1/absent").unwrap().is_empty());
    }

    #[test]
    fn a_folder_in_another_is_known_by_any_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        make_folder(&at("store/sub"), 0o755).unwrap();
        make_folder(&at("apart"), 0o755).unwrap();
        symlink(at("store"), at("link")).unwrap();
        for (one, other, expected) in [
            ("store", "store", true),
            ("store", "link", true),
            ("store", "link/sub", true),
            ("store", "link/new/deep", true),
            ("store/sub", "store", true),
            ("store", "apart", false),
            ("store", "new", false),
            ("store/sub", "store/other", false),
            ("new", "new/deep", false),
        ] {
            assert_eq!(overlap(&at(one), &at(other)).unwrap(), expected, "{one} {other}");
            assert_eq!(overlap(&at(other), &at(one)).unwrap(), expected, "{other} {one}");
        }
    }

    #[test]
    fn folders_have_the_mode_that_fits_them() {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in [("a/b/c", 0o755), ("d/e", 0o700)] {
            let path = folder.path().join(name);
            make_folder(&path, mode).unwrap();
            // The mode that the process forbids is less, never more.
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !mode, 0);
        }
        assert!(make_folder(&folder.path().join("a/b"), 0o755).is_ok());
        fs::write(folder.path().join("file"), b"").unwrap();
        assert!(make_folder(&folder.path().join("file/x"), 0o755).is_err());
    }
}
