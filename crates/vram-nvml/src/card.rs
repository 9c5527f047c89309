//! What the library says of one card.

use vram_alloc::ByteLen;

use crate::figure::Figure;

/// The most processes that [`Holders`] names.
pub const HOLDERS_MAX: usize = 64;

/// What the library says of one card, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CardHealth {
    /// Whether errors and rows are those of the device, or of the whole card that it is a part of.
    pub scope: CardScope,
    /// Errors since the driver was loaded.
    pub ecc_volatile: EccCounts,
    /// Errors in the life of the card.
    pub ecc_aggregate: EccCounts,
    /// Rows of memory that were replaced by spare ones (Ampere and later).
    pub remapped: Remapped,
    /// Whether pages wait to be retired at the next start of the driver (before Ampere).
    pub retired_pending: Figure<bool>,
    /// The processes that hold memory of the device.
    pub holders: Figure<Holders>,
}

/// What the figures of errors and rows are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CardScope {
    /// The device is a whole card.
    Card,
    /// The device is a partition (MIG): the figures are those of its card. The holders are those of
    /// the partition.
    WholeCardOfPartition,
}

/// Errors of memory, by what became of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct EccCounts {
    /// The hardware corrected them.
    pub corrected: Figure<u64>,
    /// Bytes were lost.
    pub uncorrected: Figure<u64>,
}

/// Rows of memory that were replaced by spare ones.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Remapped {
    /// Rows that were replaced for errors that were corrected.
    pub corrected: Figure<u64>,
    /// Rows that were replaced for errors that were not.
    pub uncorrected: Figure<u64>,
    /// Whether rows wait to be replaced at the next reset of the card.
    pub pending: Figure<bool>,
    /// Whether a row could not be replaced: the card has no spare row left for it.
    pub failed: Figure<bool>,
}

/// The processes that hold memory of a device, according to the library. In a container the library
/// may see none, or give ids of another namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Holders {
    /// The holders of the most bytes, at most [`HOLDERS_MAX`], the largest first.
    pub first: Vec<Holder>,
    /// How many more there are.
    pub more: u64,
}

/// A process that holds memory of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Holder {
    /// Its id, as the library sees it.
    pub pid: u32,
    /// The file name of its program, at most 64 characters, without arguments.
    pub name: Figure<String>,
    /// Bytes that it holds.
    pub bytes: Figure<ByteLen>,
    /// Whether it is known to the library as this process.
    pub this_process: bool,
}

impl Holders {
    /// Sorts processes, the largest holder first, and keeps the first of them.
    #[must_use]
    pub fn new(mut all: Vec<Holder>) -> Self {
        all.sort_by_key(|one| (core::cmp::Reverse(one.bytes.known().copied()), one.pid));
        let more = u64::try_from(all.len().saturating_sub(HOLDERS_MAX)).unwrap_or(u64::MAX);
        all.truncate(HOLDERS_MAX);
        Self { first: all, more }
    }

    /// The processes other than this one.
    pub fn others(&self) -> impl Iterator<Item = &Holder> {
        self.first.iter().filter(|one| !one.this_process)
    }
}

impl Holder {
    /// A process by its id.
    #[must_use]
    pub fn new(pid: u32, name: Figure<String>, bytes: Figure<ByteLen>) -> Self {
        let name = name.map(|name| file_name(&name));
        Self { pid, name, bytes, this_process: pid == std::process::id() }
    }
}

/// The file name of a program, out of its path and arguments: an argument may be a secret.
fn file_name(line: &str) -> String {
    const NAME_MAX: usize = 64;

    let program = line.split_whitespace().next().unwrap_or_default();
    let name = program.rsplit(['/', '\\']).next().unwrap_or_default();
    let shown = name.chars().map(|c| if c.is_control() { '?' } else { c });
    let shown: String = shown.take(NAME_MAX).collect();
    if shown.is_empty() { "-".to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pid: u32, bytes: Figure<ByteLen>) -> Holder {
        Holder::new(pid, Figure::Unsupported, bytes)
    }

    #[test]
    fn a_name_shows_the_program_and_no_argument() {
        assert_eq!(file_name("/usr/bin/python3 serve.py --api-key=hunter2"), "python3");
        assert_eq!(file_name("C:\\tools\\a.exe"), "a.exe");
        assert_eq!(file_name("a\u{1b}[31m"), "a?[31m");
        assert_eq!(file_name(&"x".repeat(1000)).len(), 64);
        assert_eq!(file_name(""), "-");
    }

    #[test]
    fn the_largest_holders_are_kept_and_the_others_counted() {
        let known = |bytes| Figure::Known(ByteLen::new(bytes));
        let mut all: Vec<_> = (0..100).map(|pid| of(pid, known(u64::from(pid)))).collect();
        all.push(of(100, Figure::Unsupported));
        all.push(of(std::process::id(), known(1_000)));
        let holders = Holders::new(all);
        assert_eq!((holders.first.len(), holders.more), (HOLDERS_MAX, 38));
        assert!(holders.first[0].this_process && holders.first[1].pid == 99);
        assert_eq!(holders.others().count(), HOLDERS_MAX - 1);
    }
}
