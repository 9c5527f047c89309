//! Links to folders below the root of a store or a cache. What lies behind one is of somebody else: it may be
//! read, and is never written or deleted.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::SystemTime;

use vram_files::{folder, regular_file};

use super::is_absent;

/// The first folder on the way from the root to what a key names that is a link; its key.
pub(super) fn above(root: &Path, key: &str) -> io::Result<Option<String>> {
    for (at, _) in key.match_indices('/') {
        let folder = key.get(..at).unwrap_or_default();
        match fs::symlink_metadata(root.join(folder)) {
            Ok(found) if found.is_symlink() => return Ok(Some(folder.to_owned())),
            Ok(_) => {}
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Refuses a key behind a link to a folder, before something is written there.
pub(crate) fn is_apart(root: &Path, key: &str) -> io::Result<()> {
    let Some(link) = above(root, key)? else { return Ok(()) };
    let why =
        format!("{link} is a link, and nothing is written or deleted behind one: make it a folder");
    Err(io::Error::new(ErrorKind::InvalidInput, why))
}

/// Whether a folder of the root is there, and lies behind a link; `None` if it is not there.
///
/// # Errors
///
/// If something is in its place that is no folder, such as a link that leads nowhere.
pub(super) fn enter(root: &Path, folder: &str) -> io::Result<Option<bool>> {
    let link = above(root, &format!("{folder}/"))?;
    let leads = root.join(link.as_deref().unwrap_or(folder));
    match fs::metadata(&leads) {
        Ok(found) if found.is_dir() => Ok(Some(link.is_some())),
        Ok(found) => {
            let why = format!("it is {}, and not a folder", regular_file::kind_of(&found));
            Err(io::Error::new(ErrorKind::InvalidInput, why))
        }
        Err(error) if is_absent(&error) => match link {
            None => Ok(None),
            Some(link) => {
                let why = format!("{link} is a link that leads nowhere");
                Err(io::Error::new(ErrorKind::InvalidInput, why))
            }
        },
        Err(error) => Err(error),
    }
}

/// Removes a file, and nothing behind a link to a folder.
pub(crate) fn delete(root: &Path, key: &str) -> io::Result<()> {
    match folder::remove_beneath(root, Path::new(key)) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Makes a regular file young, if this process may.
pub(super) fn touch(root: &Path, key: &str) {
    let path = root.join(key);
    let ours = matches!(above(root, key), Ok(None));
    if !ours || !fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
        return;
    }
    if let Ok(file) = regular_file::open_regular(&path) {
        let _not_its_owner = file.set_modified(SystemTime::now());
    }
}
