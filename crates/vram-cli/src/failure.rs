//! Why the program stops: one line for a person, one exit code for a script.

use core::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use vram_model::ModelError;
use vram_residency::{Protection, SealError, VramError};

/// The class of a failure, which is the program's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes are not what was sealed or expected.
    Integrity,
    /// The command line, its files or its key are not usable.
    Input,
    /// The model does not fit.
    NoRoom,
    /// A device or its driver failed.
    Device,
    /// The user asked to stop.
    Interrupted,
}

impl Kind {
    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Integrity => 1,
            Self::Input => 2,
            Self::NoRoom => 3,
            Self::Device => 4,
            Self::Interrupted => 130,
        }
    }
}

/// Why a command failed: what and where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: Kind,
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), hint: None }
    }

    /// A failure of the command line, a file or a key.
    pub(crate) fn input(what: impl Into<String>) -> Self {
        Self::new(Kind::Input, what)
    }

    /// Bytes that are not what they should be.
    pub(crate) fn integrity(what: impl Into<String>) -> Self {
        Self::new(Kind::Integrity, what)
    }

    /// The user asked to stop.
    pub(crate) fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted; everything taken was released")
    }

    /// A file that could not be used.
    pub(crate) fn file(action: &str, path: &Path, error: &io::Error) -> Self {
        Self::input(format!("cannot {action} {}: {error}", path.display()))
    }

    /// Adds what the user can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The code to exit with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

impl fmt::Display for Failure {
    /// Prints one line, whatever characters the parts contain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;

        let hint = self.hint.iter().flat_map(|hint| ["; ", hint]);
        for character in core::iter::once(self.what.as_str()).chain(hint).flat_map(str::chars) {
            // A path can contain any character, line breaks and terminal escapes included.
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let hint = match &error {
            ModelError::Header { .. } => Some("fetch or export the file again"),
            ModelError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("check the path")
            }
            ModelError::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("check its permissions")
            }
            ModelError::NotAFile { .. } => Some("give the path of a .safetensors file"),
            ModelError::TensorInTwoFiles { .. } => Some("load the files one by one"),
            _ => None,
        };
        let failure = Self::input(error.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<VramError> for Failure {
    fn from(error: VramError) -> Self {
        let what = error.to_string();
        match &error {
            VramError::Cancelled { .. } => Self::interrupted(),
            VramError::HostMemory { .. } => {
                Self::new(Kind::NoRoom, what).hint("close something else on this machine")
            }
            VramError::Seal(source) => Self::from_seal(source, &error),
            VramError::Image { source, .. } => Self::from_seal(source, &error),
            _ => Self::by_kind(&error),
        }
    }
}

impl Failure {
    /// Sorts errors of the seal into mistakes of the user and tampering.
    fn from_seal(source: &SealError, error: &VramError) -> Self {
        let input = |hint| Self::input(error.to_string()).hint(hint);
        match source {
            // The image is sound, but is not the object that the user named.
            SealError::ContextMismatch { .. } => {
                input("give the --model-id, --context and so on that it was sealed with")
            }
            SealError::ProtectionMismatch { found, .. } => input(match found {
                Protection::Authenticated => {
                    "give --mode authenticated, or --mode any, if plaintext is meant"
                }
                _ => "leave --mode out, or give --mode any",
            }),
            SealError::WrongKey { .. } | SealError::UnknownKey { .. } => {
                input("give the key file that it was sealed with")
            }
            SealError::NotASeal => input("give an image that `vram seal` wrote"),
            SealError::UnsupportedVersion { .. } | SealError::UnsupportedHash { .. } => {
                input("open it with the version of this program that wrote it")
            }
            _ => Self::by_kind(error),
        }
    }

    /// Takes over the class that the library gives an error.
    fn by_kind(error: &VramError) -> Self {
        let what = error.to_string();
        if error.is_capacity() {
            Self::new(Kind::NoRoom, what)
                .hint("give a larger --device, or several, or free what holds the memory")
        } else if error.is_integrity() {
            Self::integrity(what)
        } else if error.is_device() {
            Self::new(Kind::Device, what)
        } else {
            Self::input(what)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_a_path_holds() {
        let failure = Failure::input("no file a\nb\u{1b}[2J").hint("try\r\nagain");
        let shown = failure.to_string();
        assert_eq!(shown, "no file a\\nb\\u{1b}[2J; try\\r\\nagain");
    }
}
