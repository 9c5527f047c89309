//! Failures of keys, with what to do about each.

use std::io;

use vram_residency::KeySourceError;

use super::Failure;

impl From<KeySourceError> for Failure {
    fn from(error: KeySourceError) -> Self {
        let mut failure = Self::input(error.to_string()).code("key-source");
        match error {
            KeySourceError::Io { path, error } => {
                let descriptor = path.starts_with("descriptor ");
                failure.details.file = Some(path);
                failure.hint(match error.kind() {
                    _ if descriptor => "open one for the program, as in: --key-fd 3 3<FILE",
                    io::ErrorKind::NotFound => "check the path, or make one: vram keygen -o FILE",
                    // The key may be there: a new one would open nothing.
                    io::ErrorKind::PermissionDenied => {
                        "check the permissions of the file and its folder"
                    }
                    _ => "check the path",
                })
            }
            KeySourceError::Content { .. } | KeySourceError::NotAFile { .. } => {
                failure.hint("give a key that `vram keygen` wrote")
            }
            KeySourceError::NotSet { name } if name == "CREDENTIALS_DIRECTORY" => {
                failure.hint("systemd sets it for a service with LoadCredential=NAME:FILE")
            }
            KeySourceError::NotSet { .. } => {
                failure.hint("set it to the 64 digits of a key, or give --key-file FILE")
            }
            KeySourceError::CredentialName { .. } => {
                failure.hint("give the NAME of LoadCredential=NAME:FILE")
            }
            KeySourceError::Mode { found, .. } if found & !0o640 == 0 => {
                failure.hint("if its group is meant to read it, say so: --key-mode group-readable")
            }
            KeySourceError::Mode { .. } | KeySourceError::Owner { .. } => {
                failure.hint("a key that others can read or change is refused")
            }
            _ => failure.hint("give a key that `vram keygen` wrote"),
        }
    }
}
