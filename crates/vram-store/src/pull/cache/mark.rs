//! What makes a folder a cache: a file in it. A cache removes images, so no other folder is taken for one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::error::StoreError;
use crate::options::within;
use crate::store::{CACHE_MARK as MARK, PATIENCE, is_cache, make_folder, mistyped};

/// What stands in the mark, for people.
const MARK_TEXT: &[u8] =
    b"This folder is a cache of vram: images in it are removed when room is needed.\n";

/// What a folder is that is named as a cache.
pub(super) enum Found {
    /// There is none.
    Nothing,
    Empty,
    Cache,
    /// It has this, and no mark.
    Another(String),
}

/// Makes a folder that is not there, or is empty, a cache.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    make_folder(folder, 0o700)?;
    match File::create_new(folder.join(MARK)) {
        Ok(mut mark) => mark.write_all(MARK_TEXT),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a folder is; refused if it is anything but a cache, or a place for one.
pub(super) fn usable(path: &Path) -> Result<Found, StoreError> {
    if path.to_str().is_some_and(|text| mistyped(text).is_some() || text.contains("://")) {
        return Err(StoreError::config(
            "a cache is a folder of this machine, and this looks like an address; a folder of such a name \
             is given as ./NAME",
        ));
    }
    let folder = path.to_path_buf();
    let found = within(PATIENCE, move || look_at(&folder))
        .map_err(|error| StoreError::io("open the cache", path, error))?;
    match found {
        Found::Another(name) if name == MARK => Err(StoreError::config(format!(
            "{} is no cache: its mark {MARK} is no regular file, as the one that a cache has is; give the \
             cache a folder of its own, which is empty or not there",
            path.display()
        ))),
        Found::Another(name) => Err(StoreError::config(format!(
            "{} is no cache: it has {name}, and not the mark {MARK}; a cache removes what it has no room \
             for: give it a folder of its own, which is empty or not there",
            path.display()
        ))),
        found => Ok(found),
    }
}

fn look_at(folder: &Path) -> io::Result<Found> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        other => other?,
    };
    if is_cache(folder) {
        return Ok(Found::Cache);
    }
    let mut other = None;
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // A cache with a file system of its own.
        if name != "lost+found" {
            other = Some(name);
        }
    }
    // One that was made meanwhile by another call.
    if is_cache(folder) {
        return Ok(Found::Cache);
    }
    Ok(other.map_or(Found::Empty, Found::Another))
}
