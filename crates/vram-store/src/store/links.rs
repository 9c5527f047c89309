//! Links to folders below the root of a store or a cache. What lies behind one is of somebody else: it may be
//! read, and is never written or deleted.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::SystemTime;

use vram_files::{Inputs, Overwrite, WholeFile, folder, regular_file};

use super::{is_absent, make_folder};

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

/// Whether a folder of the root is there.
///
/// # Arguments
///
/// * `link`: the first link on the way to it, itself included.
///
/// # Errors
///
/// If something is in its place that is no folder, such as a link that leads nowhere.
pub(super) fn enter(root: &Path, folder: &str, link: Option<&str>) -> io::Result<bool> {
    match fs::metadata(root.join(link.unwrap_or(folder))) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(found) => {
            let why = format!("it is {}, and not a folder", regular_file::kind_of(&found));
            Err(io::Error::new(ErrorKind::InvalidInput, why))
        }
        Err(error) if is_absent(&error) => match link {
            None => Ok(false),
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

/// Begins a file that appears under its key whole and synced, or not at all. Nothing is written behind a link
/// to a folder. What lies there and is neither file nor folder goes: a link, whose target is not ours to
/// write, or a pipe, from which nothing can be read.
///
/// # Arguments
///
/// * `modes`: of the folders that are made, and of the file.
pub(crate) fn begin(root: &Path, key: &str, modes: (u32, u32)) -> io::Result<WholeFile> {
    is_apart(root, key)?;
    let path = root.join(key);
    if let Some(folder) = path.parent() {
        make_folder(folder, modes.0)?;
    }
    if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        delete(root, key)?;
    }
    // A file of this name can only have these bytes, or wrong ones.
    WholeFile::create(&path, modes.1, Overwrite::Replace, Inputs::default())
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
