//! Why the program stops: one line for a person, one exit code and one object for a script.

mod details;
mod key;
mod model;
mod store;

use core::fmt;
use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use vram_residency::{DeviceInfo, DeviceKind, Protection, SealError, VramError};

pub(crate) use self::details::Details;
use crate::cards;
use crate::output::printable;

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

    /// What to do about a failure that has no closer advice.
    const fn next(self) -> &'static str {
        match self {
            Self::Integrity => "try again; if it happens again, memory or disk is failing",
            Self::Input => "see `vram help`",
            Self::NoRoom => "give a larger --device, or several, or free what holds the memory",
            Self::Device => "see `vram devices`, and `dmesg` for errors of the driver",
            Self::Interrupted => "run it again",
        }
    }

    /// The name of a failure that has no closer one.
    const fn name(self) -> &'static str {
        match self {
            Self::Integrity => "altered",
            Self::Input => "input",
            Self::NoRoom => "insufficient-vram",
            Self::Device => "device",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why a command failed: what and where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: Kind,
    code: Cow<'static, str>,
    what: String,
    hint: Option<String>,
    details: Box<Details>,
}

/// A failure as JSON shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorObject<'a> {
    exit_code: u8,
    /// A stable name.
    code: &'a str,
    /// What, where and how much, in words that may change.
    message: &'a str,
    /// What to do about it.
    next: &'a str,
    details: &'a Details,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        let details = Box::default();
        Self { kind, code: kind.name().into(), what: what.into(), hint: None, details }
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

    /// A thread that the system refused: it may grant one later.
    pub(crate) fn no_thread(error: &io::Error) -> Self {
        Self::new(Kind::Device, format!("could not start a thread: {error}")).code("threads").hint(
            "raise the user's limit of processes (`ulimit -u`, or `LimitNPROC=` and `TasksMax=` of the \
             service), or end some",
        )
    }

    /// Signals that cannot be watched for, which takes a thread.
    pub(crate) fn no_signals(error: ctrlc::Error) -> Self {
        match error {
            ctrlc::Error::System(error) => Self::no_thread(&error),
            other => Self::new(Kind::Device, format!("cannot watch for signals: {other}")),
        }
    }

    /// A file that could not be used.
    pub(crate) fn file(action: &str, path: &Path, error: &io::Error) -> Self {
        let full = store::is_no_room(error.kind());
        let mut failure = Self::input(format!("cannot {action} {}: {error}", path.display()))
            .code(if full { "no-room-on-disk" } else { "io" })
            .kind_if(full, Kind::NoRoom);
        failure.details.file = Some(path.display().to_string());
        failure.hint(match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            _ if full => "free some of the disk; then run it again",
            io::ErrorKind::PermissionDenied => "check the permissions of the file and its folder",
            _ => "check the path, its permissions and the space left",
        })
    }

    /// A command line that cannot be understood.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::input(what).code("usage")
    }

    /// Replaces the stable name.
    pub(crate) fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = code.into();
        self
    }

    /// Puts it into another class, if that is so.
    pub(crate) const fn kind_if(mut self, is_so: bool, kind: Kind) -> Self {
        if is_so {
            self.kind = kind;
        }
        self
    }

    /// Changes the figures and names for programs.
    pub(crate) fn detail(mut self, change: impl FnOnce(&mut Details)) -> Self {
        change(&mut self.details);
        self
    }

    /// Names the tensor at which a step failed.
    pub(crate) fn at_tensor(mut self, tensor: &str) -> Self {
        if self.kind != Kind::Interrupted && self.details.tensor.is_none() {
            self.what = format!("{tensor}: {}", self.what);
            self.details.tensor = Some(tensor.to_owned());
        }
        self
    }

    /// Names the card that the failure is about, if it is about one of these devices.
    pub(crate) fn on_card(mut self, devices: &[DeviceInfo]) -> Self {
        let index = self.details.gpu.and_then(|gpu| usize::try_from(gpu).ok());
        let card = index.and_then(|index| devices.get(index));
        if let Some(info) = card.filter(|info| info.kind != DeviceKind::Host) {
            self.what = format!("{} (gpu {} is {})", self.what, info.index.get(), card_name(info));
            self.details.card(info);
            let more = match self.kind {
                Kind::NoRoom => {
                    let others = cards::others(&[info.uuid]).pop().flatten();
                    others.map(|others| format!("on the card, {others}"))
                }
                Kind::Device => cards::trouble(info.uuid),
                Kind::Integrity | Kind::Input | Kind::Interrupted => None,
            };
            if let Some(more) = more {
                self.what = format!("{}; {more}", self.what);
            }
            if self.kind == Kind::Device && self.hint.is_none() {
                self.hint = Some(
                    "look for Xid messages of this card in `dmesg`, and load onto another with \
                     --device"
                        .to_owned(),
                );
            }
        }
        self
    }

    /// What failed and where, without what to do about it.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// What the user can do about it.
    fn next(&self) -> &str {
        self.hint.as_deref().unwrap_or(self.kind.next())
    }

    /// The failure as JSON shows it.
    pub(crate) fn object(&self) -> ErrorObject<'_> {
        ErrorObject {
            exit_code: self.kind.code(),
            code: &self.code,
            message: &self.what,
            next: self.next(),
            details: &self.details,
        }
    }

    /// Adds what the user can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Its class.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// The code to exit with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

/// What identifies a card: name, UUID and bus.
pub(crate) fn card_name(info: &DeviceInfo) -> String {
    let bus = info.pci_bus_id.as_ref().map_or_else(String::new, |bus| format!(", PCI {bus}"));
    format!("{}, {}{bus}", info.name, info.uuid)
}

impl fmt::Display for Failure {
    /// Prints one line, whatever characters the parts contain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path can contain any character, line breaks and terminal escapes included.
        write!(f, "{}; {}", printable(&self.what), printable(self.next()))
    }
}

impl From<VramError> for Failure {
    fn from(error: VramError) -> Self {
        let what = error.to_string();
        let mut failure = match &error {
            VramError::Cancelled { .. } => Self::interrupted(),
            VramError::HostMemory { .. } => {
                Self::new(Kind::NoRoom, what).hint("close something else on this machine")
            }
            VramError::Seal(source) => Self::from_seal(source, &error),
            VramError::Image { source, .. } => Self::from_seal(source, &error),
            _ => Self::by_kind(&error),
        };
        if failure.kind != Kind::Interrupted {
            failure.code = error.code().into();
        }
        failure.details = Box::new(Details::of(&error));
        failure
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
            SealError::ProtectionMismatch { expected, found } => {
                Self::another_mode(*expected, *found, error)
            }
            SealError::WrongKey { .. } | SealError::UnknownKey { .. } => {
                input("give the key that it was sealed with")
            }
            SealError::NotASeal => input("give an image that `vram seal` wrote"),
            SealError::UnsupportedVersion { .. } | SealError::UnsupportedHash { .. } => {
                input("open it with the version of this program that wrote it")
            }
            // A file that is too short for a record, or of another length than a proven record says.
            SealError::WrongLength { .. } => Self::integrity(error.to_string()).hint(
                "it was cut short or added to, or is no sealed image: fetch it again, or give one \
                 that `vram seal` wrote",
            ),
            SealError::RecordMismatch => {
                Self::by_kind(error).hint("fetch the image again, or check the key file")
            }
            SealError::SegmentMismatch { .. } => Self::by_kind(error).hint(
                "`vram verify` lists what was altered; fetch the image again, or seal its source \
                 anew",
            ),
            SealError::MalformedRecord { .. }
            | SealError::TableMismatch
            | SealError::Padding { .. }
            | SealError::DigestMismatch => {
                Self::by_kind(error).hint("fetch the image again, or seal its source anew")
            }
            _ => Self::by_kind(error),
        }
    }

    /// A failure of a command on a sealed image.
    pub(crate) fn image(error: VramError) -> Self {
        let VramError::Io { source, .. } = &error else { return error.into() };
        let hint = match source.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "check the permissions of the file and its folder",
            io::ErrorKind::AlreadyExists => "give another path, or --force to replace it",
            io::ErrorKind::InvalidInput => "give another path",
            io::ErrorKind::BrokenPipe => "let the reader take all of it",
            _ => "check the path, its permissions and the space left",
        };
        Self::from(error).hint(hint)
    }

    /// Another mode than expected, in the words of the command line.
    fn another_mode(expected: Protection, found: Protection, error: &VramError) -> Self {
        let mode = |protection| match protection {
            Protection::Authenticated => "authenticated",
            _ => "encrypted",
        };
        let (found_mode, expected_mode) = (mode(found), mode(expected));
        let of = match error {
            VramError::Image { path, .. } => format!("sealed image {}", path.display()),
            _ => "the sealed image".to_owned(),
        };
        let plaintext = match found {
            Protection::Authenticated => ", if plaintext is meant",
            _ => "",
        };
        Self::input(format!("{of} has mode {found_mode}, and {expected_mode} is expected"))
            .hint(format!("give --mode {found_mode}, or --mode any{plaintext}"))
    }

    /// Takes over the class that the library gives an error.
    fn by_kind(error: &VramError) -> Self {
        let what = error.to_string();
        if error.is_capacity() {
            return Self::new(Kind::NoRoom, what);
        }
        if error.is_device() {
            return Self::new(Kind::Device, what);
        }
        let kind = if error.is_integrity() { Kind::Integrity } else { Kind::Input };
        let hint = match error {
            VramError::SourceChanged { .. } | VramError::SourceLength { .. } => {
                "leave the file alone while it is read, and try again"
            }
            VramError::DigestMismatch { .. } => "fetch the file again, or check the digest",
            VramError::Source(error) if error.is_change() => {
                "leave the file alone while it is read, and try again"
            }
            VramError::Source(_) => "give a file that can be read",
            VramError::Key(_) | VramError::KeySource(_) => "give a key that `vram keygen` wrote",
            VramError::StagingLimit { .. } | VramError::InUse { .. } => "try again",
            VramError::LimitExceeded { .. } => "give a smaller file, or several",
            _ => return Self::new(kind, what),
        };
        Self::new(kind, what).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_a_path_holds() {
        let failure = Failure::input("no file a\nb\u{1b}[2J\u{202e}").hint("try\r\nagain");
        let shown = failure.to_string();
        assert_eq!(shown, "no file a\\nb\\u{1b}[2J\\u{202e}; try\\r\\nagain");
    }
}
