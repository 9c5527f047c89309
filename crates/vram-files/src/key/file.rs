//! Reading a key file that no other user can read or change.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use vram_seal::SealKey;
use zeroize::Zeroizing;

use super::{KeySourceError, parse};
use crate::regular_file;

/// Longest content of a key file: 64 digits and a newline.
const CONTENT_LEN_MAX: usize = 65;

/// Who may read a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The owner alone.
    Private,
    /// The owner and a group, because the caller says so.
    GroupReadable,
    /// The owner, and a group if root is the owner: systemd gives a service access to a credential
    /// by an access control list, which shows as group permission, inside a folder of its own.
    Credential,
}

impl Rule {
    /// The widest permission bits that are allowed.
    const fn mode_max(self, owner: u32) -> u32 {
        match self {
            Self::GroupReadable => 0o640,
            Self::Credential if owner == 0 => 0o640,
            _ => 0o600,
        }
    }
}

/// Opens the file, checks the opened descriptor, reads and parses.
pub(super) fn load(path: &Path, rule: Rule) -> Result<SealKey, KeySourceError> {
    let name = path.display().to_string();
    let failed = |error| io_error(&name, error);
    let file = regular_file::open(path).map_err(failed)?;
    // Check the descriptor, not the path: the path may lead to another file by now.
    let metadata = file.metadata().map_err(failed)?;
    check(&name, &metadata, rule, rustix::process::geteuid().as_raw())?;
    let content = read(&file, &name)?;
    parse(&format!("key file {name}"), &content)
}

/// Reads to the end, but no further than one byte beyond the longest key.
pub(super) fn read(mut file: &File, name: &str) -> Result<Zeroizing<Vec<u8>>, KeySourceError> {
    // Reserve the full size at once: a growing vector would leave copies of the key in freed
    // memory.
    let mut content = Zeroizing::new(vec![0; CONTENT_LEN_MAX.saturating_add(1)]);
    let mut filled = 0_usize;
    while let Some(rest) = content.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error(name, error)),
        }
    }
    content.truncate(filled);
    Ok(content)
}

fn check(path: &str, found: &Metadata, rule: Rule, user: u32) -> Result<(), KeySourceError> {
    let path = || path.to_owned();
    if !found.is_file() {
        let found = regular_file::kind_of(found);
        return Err(KeySourceError::NotAFile { path: path(), found });
    }
    let owner = found.uid();
    if owner != user && owner != 0 {
        return Err(KeySourceError::Owner { path: path(), owner, user });
    }
    let mode = found.permissions().mode() & 0o7777;
    let wanted = rule.mode_max(owner);
    if mode & !wanted != 0 {
        return Err(KeySourceError::Mode { path: path(), found: mode, wanted });
    }
    Ok(())
}

pub(super) fn io_error(path: &str, error: io::Error) -> KeySourceError {
    KeySourceError::Io { path: path.to_owned(), error: Arc::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_user_is_refused_and_one_of_root_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, [0xff; 32]).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let mine = std::fs::metadata(&path).unwrap();
        let me = mine.uid();
        assert!(check("key", &mine, Rule::Private, me).is_ok());
        // Seen from a process of another user: allowed only if the owner is root.
        let seen_by_another = check("key", &mine, Rule::Private, me + 1);
        if me == 0 {
            assert!(seen_by_another.is_ok());
        } else {
            assert!(matches!(seen_by_another, Err(KeySourceError::Owner { .. })));
        }
    }

    #[test]
    fn root_may_let_a_group_read_a_credential_and_nothing_more() {
        assert_eq!(Rule::Credential.mode_max(0), 0o640);
        assert_eq!(Rule::Credential.mode_max(1000), 0o600);
        assert_eq!(Rule::Private.mode_max(0), 0o600);
    }

    #[test]
    fn a_group_may_read_a_key_only_where_the_caller_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, [0xff; 32]).unwrap();
        for (mode, alone, grouped) in [
            (0o400, true, true),
            (0o600, true, true),
            (0o440, false, true),
            (0o640, false, true),
            (0o444, false, false),
            (0o460, false, false),
            (0o644, false, false),
            (0o450, false, false),
            (0o2440, false, false),
        ] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let found = load(&path, Rule::GroupReadable);
            assert_eq!(found.is_ok(), grouped, "{mode:o}: {found:?}");
            let private = load(&path, Rule::Private);
            assert_eq!(private.is_ok(), alone, "{mode:o}: {private:?}");
        }
    }
}
