//! Failures of stores, with what to do about each.

use std::io::ErrorKind;

use vram_files::FileError;
use vram_residency::VramError;
use vram_store::{ManifestError, Room, StoreError};

use super::{Failure, Kind};

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let what = error.to_string();
        let input = |code, hint: &str| Self::input(what.clone()).code(code).hint(hint);
        let wrong = |code, hint: &str| Self::integrity(what.clone()).code(code).hint(hint);
        match &error {
            StoreError::File(file) if is_limited(file) => {
                return no_room_on_disk(what)
                    .hint("give this process a larger limit on files (`ulimit -f`)");
            }
            StoreError::File(file) if is_full(file) => return full(what, file),
            StoreError::File(file @ FileError::Io { .. }) => {
                return Self::from(VramError::from(file.clone()))
                    .hint("check this path, its permissions and its disk; then run it again");
            }
            StoreError::File(file) => return VramError::from(file.clone()).into(),
            StoreError::Seal(seal) => return VramError::Seal(seal.clone()).into(),
            StoreError::Cancelled => return Self::interrupted(),
            _ => {}
        }
        match &error {
            StoreError::Address { .. } => input("store-address", "check the address of the store"),
            StoreError::NotFound { .. } => input(
                "not-found",
                "`vram store ls` lists what the store has; with --manifest, as `vram push` printed \
                     it, mirrors and a cache are asked as well",
            ),
            StoreError::Ambiguous { .. } => {
                input("ambiguous-manifest", "give --manifest, as `vram push` printed it")
            }
            StoreError::Rivals { .. } => input(
                "ambiguous-manifest",
                "delete the manifest that is not wanted, by its key; push its content under another \
                 --revision",
            ),
            StoreError::Taken { .. } => input("revision-taken", "give another --revision"),
            StoreError::Manifest { source, .. } => match &**source {
                ManifestError::UnknownKey { .. } => {
                    input("unknown-key", "give the key that it was pushed with")
                }
                ManifestError::Unreadable { .. } => {
                    input("store", "check the object, its permissions and the store's address")
                }
                _ => wrong(
                    "manifest",
                    "push it again, add a --mirror that has it, or look who can write the store",
                ),
            },
            StoreError::NoSource { .. } if error.is_integrity() => wrong(
                "source-lied",
                "`vram store verify` lists what was altered; add a --mirror, or push again from the \
                 source",
            ),
            StoreError::NoSource { .. } => {
                input("no-source", "check the sources, or add one with --mirror; then try again")
            }
            StoreError::NotKept { .. } => {
                wrong("not-kept", "push again; `vram store check` tries the store")
            }
            StoreError::Collecting { .. } => input(
                "collecting",
                "end that collection, or delete its mark if none runs; then push again: the manifest is \
                 written, and what was deleted is sent",
            ),
            StoreError::Failed { .. } => input(
                "store",
                "check its address, that it is mounted or reachable, and the credentials in the \
                     environment",
            ),
            StoreError::Deadline { sources, .. } if sources.len() > 1 => input(
                "deadline",
                "leave out a --mirror that does not answer, or give a longer --deadline; then run it again: it \
                 goes on",
            ),
            StoreError::Deadline { .. } => {
                input("deadline", "run it again, with a longer --deadline: it goes on")
            }
            StoreError::InTheWay { path, .. } => {
                let path = path.display().to_string();
                input(
                    "in-the-way",
                    "move it away, or give another folder with -o; it was not changed",
                )
                .detail(|details| details.file = Some(path))
            }
            StoreError::NoRoom { needed, room, of, .. } => no_room_on_disk(what)
                .hint(match of {
                    Room::Limit => "give a larger --cache-limit",
                    _ => "free some of the disk; then run it again: it goes on",
                })
                .detail(|details| {
                    details.needed = Some(needed.get());
                    details.room = Some(room.get());
                }),
            _ => Self::usage(what).hint("check the command line, and `vram help`"),
        }
    }
}

/// Whether the disk, or what the user may write to it, is full.
fn is_full(error: &FileError) -> bool {
    let FileError::Io { source, .. } = error else { return false };
    is_no_room(source.kind())
}

/// Whether an error of the system is of a full disk, or of a full share of it.
pub(super) const fn is_no_room(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// What helps where a file could not be written.
fn full(what: String, error: &FileError) -> Failure {
    let temporary = match error {
        FileError::Io { path: Some(path), .. } => path.starts_with(std::env::temp_dir()),
        _ => false,
    };
    no_room_on_disk(what).hint(if temporary {
        "free some of the disk, or set TMPDIR to one with room; then run it again: it goes on"
    } else {
        "free some of the disk of this path; then run it again: it goes on"
    })
}

/// Whether the file would be larger than this process may make one.
fn is_limited(error: &FileError) -> bool {
    matches!(error, FileError::Io { source, .. } if source.kind() == ErrorKind::FileTooLarge)
}

fn no_room_on_disk(what: String) -> Failure {
    Failure::new(Kind::NoRoom, what).code("no-room-on-disk")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_full_disk_is_no_room() {
        for (kind, code) in [
            (ErrorKind::StorageFull, Kind::NoRoom),
            (ErrorKind::QuotaExceeded, Kind::NoRoom),
            (ErrorKind::FileTooLarge, Kind::NoRoom),
            (ErrorKind::PermissionDenied, Kind::Input),
        ] {
            let path = Some("/store/v1".into());
            let source = Arc::new(kind.into());
            let error = StoreError::File(FileError::Io { action: "write", path, source });
            let failure = Failure::from(error);
            assert_eq!(failure.kind, code, "{kind}");
            let plain = Failure::file("write", std::path::Path::new("/x"), &kind.into());
            let full = !matches!(kind, ErrorKind::PermissionDenied | ErrorKind::FileTooLarge);
            assert_eq!(plain.kind == Kind::NoRoom, full, "{kind}");
            let said = failure.to_string();
            assert!(!said.contains("TMPDIR") && !said.contains("vram help"), "{said}");
        }
    }
}
