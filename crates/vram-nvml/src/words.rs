//! What the library says of a card, as parts of sentences for errors and lists.

use core::fmt::Write as _;

use crate::card::{CardHealth, CardScope, Holder};
use crate::figure::Figure;
use crate::monitor::{Answer, Monitor};
use crate::xid::meaning;
use vram_alloc::DeviceUuid;

/// Processes that a sentence names.
const NAMED_MAX: usize = 3;

impl CardHealth {
    /// Who else holds memory of the device: `python3 (pid 71) holds 12.0 GiB, …`. `None` where
    /// nobody else is known to.
    #[must_use]
    pub fn others_in_words(&self) -> Option<String> {
        let holders = self.holders.known()?;
        let others: Vec<&Holder> = holders.others().collect();
        if others.is_empty() {
            return None;
        }
        let mut text = String::new();
        for (holder, before) in others.iter().zip(["", ", ", ", "]).take(NAMED_MAX) {
            let name = holder.name.known().map_or("a process", String::as_str);
            // Writing to a text never fails.
            let _ = match holder.bytes.known() {
                Some(bytes) => write!(text, "{before}{name} (pid {}) holds {bytes}", holder.pid),
                None => write!(text, "{before}{name} (pid {}) is there too", holder.pid),
            };
        }
        let rest = u64::try_from(others.len().saturating_sub(NAMED_MAX)).unwrap_or(u64::MAX);
        match rest.saturating_add(holders.more) {
            0 => {}
            more => {
                let _ = write!(text, ", and {more} more");
            }
        }
        Some(text)
    }

    /// What is wrong with the card, each with what helps; empty where nothing is known to be.
    #[must_use]
    pub fn trouble(&self) -> Vec<String> {
        let whole = match self.scope {
            CardScope::Card => "",
            CardScope::WholeCardOfPartition => " (of the whole card)",
        };
        let mut told = Vec::new();
        let mut tell = |said: String| told.push(said + whole);
        if let Some(count @ 1..) = self.ecc_volatile.uncorrected.known() {
            let errors = if *count == 1 { "error" } else { "errors" };
            tell(format!(
                "{count} uncorrectable ECC {errors} since the driver was loaded: verify what is \
                 resident, and reset the card when it is free"
            ));
        }
        if self.remapped.failed == Figure::Known(true) {
            tell("a row could not be remapped: replace the card".to_owned());
        }
        if self.remapped.pending == Figure::Known(true) {
            tell("rows wait to be remapped: reset the card when it is free".to_owned());
        }
        if self.retired_pending == Figure::Known(true) {
            tell("pages wait to be retired: reset the card when it is free".to_owned());
        }
        told
    }
}

impl Monitor {
    /// What an error of a lost device should say beside it: XIDs that were seen, and what is wrong
    /// with the card. `None` where nothing is known.
    #[must_use]
    pub fn loss_in_words(&self, card: DeviceUuid, answer: &Answer) -> Option<String> {
        let mut told: Vec<String> = Vec::new();
        let last = self.recent_xids().into_iter().rfind(|event| event.card == card);
        if let Some(event) = last {
            let means = meaning(event.xid);
            told.push(format!("XID {}: {}; {}", event.xid, means.what, means.next));
        }
        match answer {
            Answer::Told(reading) => told.extend(reading.health.trouble()),
            Answer::NoCard { why, .. } => {
                told.push(format!("NVIDIA's management library says of the card: {why}"));
            }
            Answer::Late { .. } => {
                told.push("NVIDIA's management library does not answer".to_owned());
            }
            Answer::NoLibrary { .. } | Answer::NotWatched => {}
        }
        if told.is_empty() { None } else { Some(told.join("; ")) }
    }
}

impl Answer {
    /// Everything that is known of a card, in lines for a list. The first says how old it is where
    /// it is not of now.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Told(reading) => {
                let mut lines = lines_of(&reading.health);
                if reading.age.as_secs() >= 60 {
                    lines.insert(0, format!("as of {} s ago", reading.age.as_secs()));
                }
                lines
            }
            Self::NoCard { why, .. } => vec![format!("no figures: {why}")],
            Self::Late { waited } => vec![format!(
                "no figures: NVIDIA's management library has not answered within {:.1} s",
                waited.as_secs_f64()
            )],
            Self::NoLibrary { why } => vec![format!("no figures: {why}")],
            Self::NotWatched => Vec::new(),
        }
    }
}

fn lines_of(health: &CardHealth) -> Vec<String> {
    let CardHealth { scope, ecc_volatile, ecc_aggregate, remapped, retired_pending, holders } =
        health;
    let yes = |flag: &Figure<bool>| flag.clone().map(|yes| if yes { "yes" } else { "no" });
    let mut lines = Vec::new();
    if *scope == CardScope::WholeCardOfPartition {
        lines.push("a partition: errors and rows are those of the whole card".to_owned());
    }
    lines.extend([
        format!(
            "ECC errors since the driver was loaded: {} corrected, {} uncorrected",
            ecc_volatile.corrected, ecc_volatile.uncorrected
        ),
        format!(
            "ECC errors in its life: {} corrected, {} uncorrected",
            ecc_aggregate.corrected, ecc_aggregate.uncorrected
        ),
        format!(
            "rows remapped: {} for corrected errors, {} for uncorrected; waiting: {}; failed: {}",
            remapped.corrected,
            remapped.uncorrected,
            yes(&remapped.pending),
            yes(&remapped.failed)
        ),
        format!("pages waiting to be retired: {}", yes(retired_pending)),
    ]);
    lines.push(match holders {
        Figure::Known(_) => {
            let others = health.others_in_words();
            format!("others on it: {}", others.as_deref().unwrap_or("nobody is known"))
        }
        unknown => {
            let why = unknown.clone().map(|_| "");
            format!("others on it: {why}")
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use vram_alloc::ByteLen;

    use super::*;
    use crate::card::{EccCounts, Holders, Remapped};

    pub(crate) fn health() -> CardHealth {
        let none = || EccCounts { corrected: Figure::Known(0), uncorrected: Figure::Known(0) };
        CardHealth {
            scope: CardScope::Card,
            ecc_volatile: none(),
            ecc_aggregate: none(),
            remapped: Remapped {
                corrected: Figure::Known(0),
                uncorrected: Figure::Known(0),
                pending: Figure::Known(false),
                failed: Figure::Known(false),
            },
            retired_pending: Figure::Unsupported,
            holders: Figure::Known(Holders::new(Vec::new())),
        }
    }

    #[test]
    fn a_healthy_card_has_no_trouble_and_what_it_lacks_is_said_in_words_not_as_zero() {
        let card = health();
        assert!(card.trouble().is_empty() && card.others_in_words().is_none());
        let lines = lines_of(&card).join("\n");
        assert!(lines.contains("pages waiting to be retired: not on this card"), "{lines}");
        let refused = CardHealth {
            ecc_volatile: EccCounts {
                corrected: Figure::NoPermission,
                uncorrected: Figure::TooOld,
            },
            holders: Figure::Unknown("it hangs".to_owned()),
            ..health()
        };
        let lines = lines_of(&refused).join("\n");
        for said in ["no permission corrected", "too old uncorrected", "unknown (it hangs)"] {
            assert!(lines.contains(said), "{said}: {lines}");
        }
        assert!(refused.trouble().is_empty(), "what is unknown is no trouble");
    }

    #[test]
    fn each_trouble_says_what_helps_and_the_largest_holders_are_named() {
        let holder = |pid, bytes| {
            let name = Figure::Known("python3".to_owned());
            Holder::new(pid, name, Figure::Known(ByteLen::new(bytes)))
        };
        let many = (100_000_001..100_000_006).map(|pid| holder(pid, u64::from(pid)));
        let card = CardHealth {
            scope: CardScope::WholeCardOfPartition,
            ecc_volatile: EccCounts { corrected: Figure::Known(9), uncorrected: Figure::Known(1) },
            remapped: Remapped {
                corrected: Figure::Known(1),
                uncorrected: Figure::Known(2),
                pending: Figure::Known(true),
                failed: Figure::Known(true),
            },
            retired_pending: Figure::Known(true),
            holders: Figure::Known(Holders::new(many.collect())),
            ..health()
        };
        let told = card.trouble();
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told.iter().all(|one| one.contains("card") && one.ends_with("whole card)")));
        assert!(told[0].starts_with("1 uncorrectable ECC error since"), "{told:?}");
        let others = card.others_in_words().unwrap();
        assert!(others.starts_with("python3 (pid 100000005) holds "), "{others}");
        assert!(others.ends_with(", and 2 more"), "{others}");
    }
}
