//! XIDs: the numbers by which the driver reports what went wrong on a card, and their meaning.

use std::time::SystemTime;

use vram_alloc::DeviceUuid;

/// The number of an XID that the driver reported without saying which.
pub const XID_UNKNOWN: u64 = 999;

/// One XID that a card reported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct XidEvent {
    /// The card; of a partition (MIG), the device that was asked for.
    pub card: DeviceUuid,
    /// The number: [`XID_UNKNOWN`] if the driver did not say which.
    pub xid: u64,
    /// When it was seen.
    pub seen: SystemTime,
    /// How many XIDs were seen before it, on all cards.
    pub number: u64,
}

/// How often a card reported one XID, since the watch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct XidCount {
    /// The number; `None` for all that are beyond the bound of kinds that are counted apart.
    pub xid: Option<u64>,
    /// How often.
    pub count: u64,
}

/// How the XIDs of a card are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "state", content = "why", rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum XidWatch {
    /// Nobody asked for it.
    NotAsked,
    /// The watch has not begun yet.
    Starting,
    /// Each XID is seen from now on.
    Watching,
    /// They cannot be seen, for this reason.
    NotOffered(String),
}

impl XidWatch {
    /// Whether each XID is seen.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        matches!(self, Self::Watching)
    }
}

/// What an XID means, in a line, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct XidMeaning {
    /// What happened.
    pub what: &'static str,
    /// What helps.
    pub next: &'static str,
}

/// What the well-known XIDs mean; of any other number, where to look.
///
/// # Source
///
/// NVIDIA, *XID Errors*, <https://docs.nvidia.com/deploy/xid-errors/index.html>
#[must_use]
pub const fn meaning(xid: u64) -> XidMeaning {
    let (what, next) = match xid {
        13 => (
            "a kernel of a program broke: an index or an instruction out of bounds",
            "look at the program that ran; again with every program: test the card",
        ),
        31 => (
            "a program read or wrote an address of the card that is not its own",
            "look at the program that ran; again with every program: test the card",
        ),
        43 => (
            "a program's work was stopped for an error of its own; the card goes on",
            "look at the program that ran",
        ),
        45 => (
            "the work of a program was removed, after another error or because it ended",
            "look for the XID before this one",
        ),
        48 => (
            "two bits of a word are wrong and cannot be corrected",
            "verify what is resident; reset the card when it is free",
        ),
        63 => (
            "a row was remapped, or a page retired: recorded for the next reset",
            "reset the card when it is free",
        ),
        64 => (
            "a row could not be remapped, or a page not be retired",
            "reset the card; if it comes again, replace the card",
        ),
        74 => (
            "an NVLink failed",
            "copy through the host; reset the cards at both ends; again: check the link",
        ),
        79 => (
            "the card fell off the bus",
            "restart the machine; again: check power, cooling and slot, then replace the card",
        ),
        92 => (
            "corrected errors come at a high rate",
            "watch the card; verify more often, and plan to replace it",
        ),
        94 => (
            "bytes that cannot be corrected were contained: only the program that used them failed",
            "verify what is resident; reset the card when it is free",
        ),
        95 => (
            "bytes that cannot be corrected were not contained: any program on the card may be hit",
            "stop the programs on the card, and reset it; reload what was resident",
        ),
        119 | 120 => (
            "the card's system processor does not answer, or failed",
            "reset the card; if that does not help, restart the machine",
        ),
        XID_UNKNOWN => ("the driver did not say which XID", "look for `NVRM: Xid` in `dmesg`"),
        _ => (
            "an XID whose meaning is not listed here",
            "look it up in NVIDIA's XID catalogue, and for `NVRM: Xid` in `dmesg`",
        ),
    };
    XidMeaning { what, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_well_known_number_has_a_meaning_of_its_own_and_the_others_say_where_to_look() {
        let other = meaning(1);
        for xid in [13, 31, 43, 45, 48, 63, 64, 74, 79, 92, 94, 95, 119, 120, XID_UNKNOWN] {
            assert_ne!(meaning(xid), other, "{xid}");
        }
        assert_eq!(meaning(u64::MAX), other);
        assert!(other.next.contains("dmesg"));
    }
}
