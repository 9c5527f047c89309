//! The seeds of all targets as files, so that a fuzzer of any kind can start from them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{TARGETS, Target};

/// The folder of the seeds of a target.
#[must_use]
pub fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target.name)
}

/// Reads the files of a folder, in the order of their names.
///
/// # Errors
///
/// Those of the file system.
pub fn read(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    paths.iter().filter(|path| path.is_file()).map(fs::read).collect()
}

/// Writes the files of all targets anew.
///
/// # Errors
///
/// Those of the file system.
pub fn write() -> io::Result<()> {
    for target in TARGETS {
        let folder = folder(target);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        for (name, bytes) in (target.seeds)() {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}
