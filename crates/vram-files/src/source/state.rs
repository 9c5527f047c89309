//! What the operating system says of a file, to see whether it changed while it was read.

use core::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use super::SourceError;

/// Device, inode, length and times of a file at one moment.
///
/// A reader takes the state before it reads the first byte, and again after the last one. If both are
/// the same, no write was seen in between:
///
/// - A write changes the modification time (`mtime`) and the change time (`ctime`). A program can set
///   the first one back, but not the second.
/// - A file whose last name is deleted, or replaced by a rename, has another change time as well, and
///   no links. Its bytes stay what they are for everybody who has it open. So a change time alone does
///   not count if the file had names and has none any more. It counts if the file was linked, or lost
///   one name of several: it can still be opened by a name, and written.
///
/// What this does not see: a write within the same tick of the clock of the file system as the one
/// before it (up to 10 ms on Linux before 6.13, 2 s on FAT), if the file was opened between the two;
/// stores into a shared mapping whose pages were written before the first state was taken, until the
/// kernel writes them out; and a write whose program sets the modification time back and deletes the last
/// name of the file as well. A digest that the caller expects sees all of these.
///
/// What it sees though no byte changed: a change of owner, mode or times, a rename of the file itself, and
/// on NFS its deletion, which renames it while it is open.
///
/// On Linux the state is asked for with `AT_STATX_FORCE_SYNC`: a network file system answers with the
/// state at its server, not with a cached one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    device: u64,
    inode: u64,
    len: u64,
    links: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What differs between two states of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each says whether one part differs")]
#[non_exhaustive]
pub struct FileDifference {
    /// The device or the inode: the name leads to another file.
    pub file: bool,
    /// The length.
    pub len: bool,
    /// The modification time.
    pub modified: bool,
    /// The change time, of a file that did not lose its last name.
    pub changed: bool,
}

impl FileState {
    /// The present state of an open file.
    ///
    /// # Errors
    ///
    /// Any error of the operating system.
    pub fn of(file: &File) -> io::Result<Self> {
        match synced(file) {
            Some(state) => Ok(state),
            None => Ok(Self::from(&file.metadata()?)),
        }
    }

    /// Bytes in the file.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Returns true if the file had no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Device and inode: which file it is.
    pub(crate) const fn id(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// What is different `later`; `None` if no write was seen in between.
    #[must_use]
    pub fn difference(&self, later: &Self) -> Option<FileDifference> {
        let lost_its_name = self.links != 0 && later.links == 0;
        let found = FileDifference {
            file: self.id() != later.id(),
            len: self.len != later.len,
            modified: self.modified != later.modified,
            changed: self.changed != later.changed && !lost_its_name,
        };
        (found != FileDifference::default()).then_some(found)
    }

    /// Refuses a file that is not in this state any more.
    ///
    /// # Errors
    ///
    /// [`SourceError::Changed`] with what differs; [`SourceError::Io`].
    pub fn check(&self, file: &File, name: &str) -> Result<(), SourceError> {
        let now = Self::of(file).map_err(|error| SourceError::io(name, error))?;
        self.check_state(&now, name)
    }

    pub(super) fn check_state(&self, now: &Self, name: &str) -> Result<(), SourceError> {
        match self.difference(now) {
            Some(what) => Err(SourceError::Changed { name: name.to_owned(), what }),
            None => Ok(()),
        }
    }
}

/// The state behind metadata that were taken before, such as those of a file whose header was read.
impl From<&Metadata> for FileState {
    fn from(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            len: found.len(),
            links: found.nlink(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// The state at the server of a network file system; `None` where the kernel or a filter of system
/// calls does not know the call.
#[cfg(target_os = "linux")]
fn synced(file: &File) -> Option<FileState> {
    use rustix::fs::{AtFlags, StatxFlags, makedev, statx};

    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    let found = statx(file, c"", flags, StatxFlags::BASIC_STATS).ok()?;
    let wanted = StatxFlags::BASIC_STATS.bits();
    if found.stx_mask & wanted != wanted {
        return None;
    }
    let time = |seconds: i64, nanoseconds: u32| (seconds, i64::from(nanoseconds));
    Some(FileState {
        device: makedev(found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        len: found.stx_size,
        links: u64::from(found.stx_nlink),
        modified: time(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        changed: time(found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
    })
}

#[cfg(not(target_os = "linux"))]
fn synced(_file: &File) -> Option<FileState> {
    None
}

impl fmt::Display for FileDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file {
            return f.write_str("another file has its name now");
        }
        let parts = [
            (self.len, "length"),
            (self.modified, "modification time"),
            (self.changed, "change time"),
        ];
        let differ: Vec<&str> =
            parts.into_iter().filter_map(|(differs, part)| differs.then_some(part)).collect();
        let verb = if differ.len() == 1 { "is" } else { "are" };
        write!(
            f,
            "its {} {verb} not what it was before the first byte was read",
            differ.join(" and its ")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn both_ways_to_ask_give_the_same_state() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"bytes").unwrap();
        let file = file.as_file();
        let state = FileState::of(file).unwrap();
        assert_eq!(state, FileState::from(&file.metadata().unwrap()));
        assert_eq!((state.len(), state.is_empty()), (5, false));
        assert_eq!(state.difference(&state), None);
    }

    #[test]
    fn every_part_of_a_state_is_compared_and_named() {
        let file = tempfile::tempfile().unwrap();
        let state = FileState::of(&file).unwrap();
        let (seconds, nanoseconds) = state.modified;
        for (later, words) in [
            (FileState { device: !state.device, ..state }, "another file"),
            (FileState { inode: !state.inode, ..state }, "another file"),
            (FileState { len: 1, ..state }, "its length is not"),
            (
                FileState { modified: (seconds + 1, nanoseconds), ..state },
                "its modification time is",
            ),
            (FileState { modified: (seconds, nanoseconds ^ 1), ..state }, "modification time"),
            (FileState { changed: (seconds - 1, nanoseconds), ..state }, "its change time is not"),
            (
                FileState { len: 1, modified: (0, 0), changed: (0, 1), ..state },
                "its length and its modification time and its change time are not",
            ),
        ] {
            let shown = state.difference(&later).unwrap().to_string();
            assert!(shown.contains(words), "{shown}");
            let error = state.check_state(&later, "weights").unwrap_err();
            assert!(error.to_string().starts_with("weights changed"), "{error}");
            assert!(error.is_change());
        }
        // A file that lost its last name has no links and another change time, and the same bytes.
        let named = FileState { links: 2, ..state };
        let unlinked = FileState { links: 0, changed: (0, 0), ..state };
        assert_eq!(named.difference(&unlinked), None);
        let rewritten = FileState { modified: (0, 0), ..unlinked };
        assert!(named.difference(&rewritten).is_some());
        // One that has a name can be written by it, and so can one that never had one.
        for (before, links) in [(named, 1), (named, 2), (named, 3), (unlinked, 0), (unlinked, 1)] {
            let later = FileState { links, changed: (1, 1), ..before };
            let found = before.difference(&later);
            assert_eq!(found, Some(FileDifference { changed: true, ..FileDifference::default() }));
        }
    }

    #[test]
    fn a_modification_time_that_is_set_back_does_not_hide_a_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"first").unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        let state = FileState::of(&file).unwrap();
        // Longer than a tick of any clock of a kernel.
        std::thread::sleep(core::time::Duration::from_millis(30));
        fs::write(&path, b"other").unwrap();
        file.set_modified(modified).unwrap();
        let found = state.difference(&FileState::of(&file).unwrap()).unwrap();
        assert_eq!(found, FileDifference { changed: true, ..FileDifference::default() });
    }
}
