//! Where a folder lies: in another one, in a store, among the objects of one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::is_absent;

/// Whether one folder is the other, or lies in it, by whatever path and link. Of a folder that is not
/// there, the place is looked at where it would be made.
pub(crate) fn overlap(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = ((ancestry(one)?, whole(one)?), (ancestry(other)?, whole(other)?));
    // The folder itself is the first of its list; `None` if it is not there yet.
    let lies_in = |inner: &[Option<Id>], outer: &[Option<Id>]| {
        outer.first().is_some_and(|outer| outer.is_some() && inner.contains(outer))
    };
    let by_name = one.1.starts_with(&other.1) || other.1.starts_with(&one.1);
    Ok(by_name || lies_in(&one.0, &other.0) || lies_in(&other.0, &one.0))
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

/// The path of a folder with every link resolved, also of one that is not there yet.
fn whole(folder: &Path) -> io::Result<PathBuf> {
    let folder = std::path::absolute(folder)?;
    for at in folder.ancestors() {
        match fs::canonicalize(at) {
            Ok(there) => return Ok(there.join(folder.strip_prefix(at).unwrap_or(Path::new("")))),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(folder)
}

/// Whether a folder is a store's, or lies among its objects: not if it lies beside them.
pub(crate) fn is_among(folder: &Path, root: &Path) -> io::Result<bool> {
    let (folder, root) = (whole(folder)?, whole(root)?);
    Ok(folder == root || folder.starts_with(root.join("v1")))
}

/// The store among whose objects a folder lies, if it does.
pub(super) fn within_store(folder: &Path) -> io::Result<Option<PathBuf>> {
    let folder = whole(folder)?;
    let is_store = |at: &&Path| {
        let named = at.file_name().is_some_and(|name| name == "v1");
        named && (at.join("images").is_dir() || at.join("models").is_dir())
    };
    let found = folder.ancestors().find(is_store).and_then(Path::parent);
    Ok(found.map(Path::to_path_buf))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::make_folder;

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
            ("new", "new/deep", true),
            ("new", "new", true),
            ("new", "newer", false),
        ] {
            assert_eq!(overlap(&at(one), &at(other)).unwrap(), expected, "{one} {other}");
            assert_eq!(overlap(&at(other), &at(one)).unwrap(), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_folder_among_the_objects_of_a_store_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        make_folder(&at("store/v1/models/m"), 0o755).unwrap();
        make_folder(&at("v1/mine"), 0o755).unwrap();
        for (name, among, nested) in [
            ("store", true, false),
            ("store/v1", true, true),
            ("store/v1/models/m", true, true),
            ("store/v1/new/deep", true, true),
            ("store/beside", false, false),
            (".", false, false),
            ("v1/mine", false, false),
        ] {
            assert_eq!(is_among(&at(name), &at("store")).unwrap(), among, "{name}");
            assert_eq!(within_store(&at(name)).unwrap().is_some(), nested, "{name}");
        }
    }
}
