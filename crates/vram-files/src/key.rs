//! Where keys come from, and how a new key file is written.

mod create;
mod file;
mod inherited;
mod process;

use core::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vram_seal::{KeyError, SealKey};
use zeroize::Zeroizing;

pub use create::create_key_file;
pub use process::{core_dumps_denied, deny_core_dumps};

/// Where a [`SealKey`] comes from.
///
/// | source | checked | for |
/// |---|---|---|
/// | `File` | a regular file, owned by this user or root, mode 0600 or stricter | most uses |
/// | `GroupReadableFile` | as `File`, but a group may read it: mode 0640 or stricter | secrets that an orchestrator mounts, root's with a group (`fsGroup` and `defaultMode: 0440` of Kubernetes) |
/// | `SystemdCredential` | as `File`, but root may let a group read it, as systemd does | services |
/// | `Descriptor` | content only: the process that opened it decided who may read it | a parent that hands a pipe down |
/// | `Inherited` | as `Descriptor` | the same, where the descriptor's number stands on a command line |
/// | `Bytes` | not all zero | a key unwrapped by a key management service |
/// | `Random` | – | keys that need not outlive the process |
/// | `Env` | content only | tests; discouraged: the environment cannot be wiped, every child process inherits it, and processes of the same user and root read it in `/proc/PID/environ` |
///
/// Zeros alone are no key, from any source.
///
/// Symbolic links are followed, since secrets are mounted through them (Kubernetes, NixOS). The
/// checks use the opened descriptor, so a link can only lead to a file that passes them.
#[non_exhaustive]
pub enum KeySource {
    /// A key file: 64 hexadecimal digits and at most one newline, or exactly 32 raw bytes.
    File(PathBuf),
    /// A key file that a group may read as well. Name this kind only where a group of this process
    /// alone is meant to read the key: each member of the file's group can open what it seals, and
    /// forge seals.
    GroupReadableFile(PathBuf),
    /// The environment variable of this name, with 64 hexadecimal digits.
    Env(String),
    /// The credential of this name that systemd passed to this service (`LoadCredential=`).
    SystemdCredential(String),
    /// An open descriptor, read to its end; content as in a key file.
    Descriptor(OwnedFd),
    /// The descriptor of this number, which the process that started this one left open for it. It
    /// stays open.
    Inherited(u32),
    /// The 32 bytes themselves: see [`bytes`](Self::bytes). Boxed, so that moving them leaves no
    /// copy behind.
    Bytes(Box<Zeroizing<[u8; 32]>>),
    /// A fresh key from the operating system.
    Random,
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::GroupReadableFile(path) => {
                f.debug_tuple("GroupReadableFile").field(path).finish()
            }
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Self::SystemdCredential(name) => {
                f.debug_tuple("SystemdCredential").field(name).finish()
            }
            Self::Descriptor(descriptor) => f.debug_tuple("Descriptor").field(descriptor).finish(),
            Self::Inherited(number) => f.debug_tuple("Inherited").field(number).finish(),
            // Never print the bytes.
            Self::Bytes(_) => f.write_str("Bytes(..)"),
            Self::Random => f.write_str("Random"),
        }
    }
}

/// Why a key could not be loaded or written. No variant carries a byte of a key.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySourceError {
    /// The operating system refused to open, read or write.
    #[error("cannot use {path} as a key file: {error}")]
    Io {
        /// The file, or the name of the source that stands for it.
        path: String,
        /// The error of the operating system.
        #[source]
        error: Arc<io::Error>,
    },
    /// A key file must be a regular file.
    #[error("key file {path} is {found}, not a regular file")]
    NotAFile {
        /// The file.
        path: String,
        /// The kind of file found.
        found: &'static str,
    },
    /// The file's owner is neither this user nor root, and could change it.
    #[error(
        "key file {path} belongs to user {owner}, not to user {user} or root; {}",
        Advice(path, format_args!("chown {user}"))
    )]
    Owner {
        /// The file.
        path: String,
        /// User id of its owner.
        owner: u32,
        /// Effective user id of this process.
        user: u32,
    },
    /// Other users can read or write the file.
    #[error(
        "key file {path} has mode {found:04o}, wanted {wanted:04o} or stricter; {}",
        Advice(path, format_args!("chmod {wanted:o}"))
    )]
    Mode {
        /// The file.
        path: String,
        /// Its permission bits.
        found: u32,
        /// The widest permission bits that are allowed.
        wanted: u32,
    },
    /// The content was read, and is no key.
    #[error("{origin}: {error}")]
    Content {
        /// Where the bytes came from.
        origin: String,
        /// What is wrong with the content.
        #[source]
        error: KeyError,
    },
    /// An environment variable is not set.
    #[error("environment variable {name} is not set")]
    NotSet {
        /// Its name.
        name: String,
    },
    /// The name cannot be the name of a credential.
    #[error("{name:?} is no name of a credential: one file name, without a slash")]
    CredentialName {
        /// The name that the caller gave.
        name: String,
    },
}

/// Name of the variable in which systemd tells a service the folder of its credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

impl KeySource {
    /// The 32 bytes of a key. The caller wipes its own copy of them.
    #[must_use]
    pub fn bytes(bytes: &[u8; 32]) -> Self {
        let mut held = Box::new(Zeroizing::new([0; 32]));
        held.copy_from_slice(bytes);
        Self::Bytes(held)
    }

    /// Loads the key. All buffers used for reading are wiped.
    ///
    /// # Errors
    ///
    /// [`KeySourceError`]: what was refused, where, and what would help.
    pub fn load(self) -> Result<SealKey, KeySourceError> {
        match self {
            Self::File(path) => file::load(&path, file::Rule::Private),
            Self::GroupReadableFile(path) => file::load(&path, file::Rule::GroupReadable),
            Self::Env(name) => from_env(name),
            Self::SystemdCredential(name) => file::load(&credential(name)?, file::Rule::Credential),
            Self::Descriptor(descriptor) => {
                let file = File::from(descriptor);
                parse("the inherited descriptor", &file::read(&file, "the inherited descriptor")?)
            }
            Self::Inherited(number) => {
                let name = format!("descriptor {number}");
                let file = inherited::open(number).map_err(|error| file::io_error(&name, error))?;
                parse(&name, &file::read(&file, &name)?)
            }
            Self::Bytes(bytes) => from_bytes(&bytes),
            Self::Random => SealKey::random().map_err(|error| KeySourceError::Content {
                origin: "random key".to_owned(),
                error,
            }),
        }
    }
}

fn from_bytes(bytes: &[u8; 32]) -> Result<SealKey, KeySourceError> {
    let any = bytes.iter().fold(0, |any, byte| any | byte);
    if any == 0 {
        let origin = "the bytes of a key".to_owned();
        return Err(KeySourceError::Content { origin, error: KeyError::AllZero });
    }
    Ok(SealKey::from_bytes(bytes))
}

/// The command that makes a key file private, unless the kernel owns the file.
struct Advice<'a>(&'a str, fmt::Arguments<'a>);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, command) = self;
        if ["/proc/", "/sys/", "/dev/"].iter().any(|folder| path.starts_with(folder)) {
            return f.write_str("give a file that only its owner can reach");
        }
        write!(f, "`{command} {path}`")
    }
}

fn from_env(name: String) -> Result<SealKey, KeySourceError> {
    let Some(value) = std::env::var_os(&name) else {
        return Err(KeySourceError::NotSet { name });
    };
    let value = Zeroizing::new(value.into_vec());
    let origin = || format!("environment variable {name}");
    // In the environment raw bytes cannot be told from text, so only the hexadecimal form is
    // accepted.
    let refused = |error| KeySourceError::Content { origin: origin(), error };
    let text = core::str::from_utf8(&value)
        .map_err(|_not_text| refused(KeyError::NotHex { found: value.len() }))?;
    SealKey::from_hex(text).map_err(refused)
}

fn credential(name: String) -> Result<PathBuf, KeySourceError> {
    let plain = !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']);
    if !plain {
        return Err(KeySourceError::CredentialName { name });
    }
    match std::env::var_os(CREDENTIALS_DIRECTORY) {
        Some(folder) if !folder.as_bytes().is_empty() => Ok(Path::new(&folder).join(name)),
        _ => Err(KeySourceError::NotSet { name: CREDENTIALS_DIRECTORY.to_owned() }),
    }
}

/// Reads the content of a key file.
fn parse(origin: &str, content: &[u8]) -> Result<SealKey, KeySourceError> {
    SealKey::from_key_file_bytes(content)
        .map_err(|error| KeySourceError::Content { origin: origin.to_owned(), error })
}
