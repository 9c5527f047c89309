//! A store in a folder of this machine: plain calls on files, each on a thread that can be left behind.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::SystemTime;

use vram_files::regular_file;

use super::{Object, links};
use crate::naming::layout::parse;

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

/// Everything below a folder that is no folder, and folders that have the name of an object. What is no
/// regular file, and links that lead nowhere, are listed as odd: who reads them learns what is wrong.
///
/// # Errors
///
/// What could hide objects: a folder that cannot be read, and a link in place of the prefix that leads nowhere.
pub(super) fn list(root: &Path, prefix: &str) -> io::Result<Vec<Object>> {
    let mut found = Vec::new();
    let link = links::above(root, &format!("{prefix}/"))?;
    if !links::enter(root, prefix, link.as_deref())? {
        return Ok(found);
    }
    let mut folders = vec![(prefix.to_owned(), 0_u32, link)];
    while let Some((folder, depth, link)) = folders.pop() {
        for name in names(&root.join(&folder))? {
            let key = format!("{folder}/{name}");
            let path = root.join(&key);
            let own = match fs::symlink_metadata(&path) {
                // It went meanwhile.
                Err(error) if is_absent(&error) => continue,
                other => other?,
            };
            let itself = || own.is_symlink().then(|| key.clone());
            let behind_link = link.clone().or_else(itself);
            let at = if own.is_symlink() { fs::metadata(&path).unwrap_or(own) } else { own };
            // A folder with the name of an object is one that cannot be read.
            if at.is_dir() && parse(&key).is_none() {
                if depth < DEPTH_MAX {
                    folders.push((key, depth.saturating_add(1), behind_link));
                }
                continue;
            }
            found.push(Object { behind_link: link.clone(), odd: odd(&at), ..object(key, &at) });
        }
    }
    Ok(found)
}

/// What lies directly in a folder: no link is followed, and all but regular files are odd.
pub(super) fn list_here(root: &Path, prefix: &str) -> io::Result<Vec<Object>> {
    let mut found = Vec::new();
    if let Some(link) = links::above(root, &format!("{prefix}/"))? {
        let at = fs::symlink_metadata(root.join(&link))?;
        found.push(Object { odd: odd(&at), ..object(link, &at) });
        return Ok(found);
    }
    for name in names(&root.join(prefix))? {
        let key = format!("{prefix}/{name}");
        match fs::symlink_metadata(root.join(&key)) {
            Err(error) if is_absent(&error) => {}
            at => {
                let at = at?;
                found.push(Object { odd: odd(&at), ..object(key, &at) });
            }
        }
    }
    Ok(found)
}

/// The names in a folder. None, if it is gone; an error, if only what it leads to is.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absent(&error) && fs::symlink_metadata(folder).is_err() => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    // Keys are ASCII: another name is of nobody here.
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
    entries.filter_map(|entry| name(entry).transpose()).collect()
}

fn object(key: String, at: &Metadata) -> Object {
    let modified = at.modified().unwrap_or_else(|_unknown| SystemTime::now());
    Object::new(key, at.len(), modified)
}

fn odd(at: &Metadata) -> Option<&'static str> {
    match at.is_file() {
        true => None,
        false if at.is_symlink() => Some("a link that leads nowhere"),
        false => Some(regular_file::kind_of(at)),
    }
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
