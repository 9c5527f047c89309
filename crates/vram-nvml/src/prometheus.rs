//! Writes what is known of cards in Prometheus's text exposition format, version 0.0.4.
//!
//! A figure that a card does not tell has no sample: never a zero.
//!
//! # Source
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use core::fmt::Write as _;
use core::time::Duration;

use vram_alloc::DeviceUuid;

use crate::card::CardHealth;
use crate::figure::Figure;
use crate::monitor::{Answer, Monitor};

/// A card, and the number that a manager gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a pair of names")]
pub struct NamedCard {
    /// Its position in the manager's list.
    pub gpu: u32,
    /// Its identity.
    pub uuid: DeviceUuid,
}

/// A label of its own, and its value where the card tells it.
type Sample = (&'static str, fn(&CardHealth) -> Option<u64>);

/// One metric: its name, type, help, and its samples of one card.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: &'static [Sample],
}

/// A card with its labels and its answer.
struct Asked {
    uuid: DeviceUuid,
    labels: String,
    answer: Answer,
}

fn count(figure: &Figure<u64>) -> Option<u64> {
    figure.known().copied()
}

fn flag(figure: &Figure<bool>) -> Option<u64> {
    figure.known().map(|yes| u64::from(*yes))
}

const METRICS: &[Metric] = &[
    Metric {
        name: "vram_card_ecc_errors_total",
        kind: "counter",
        help: "ECC errors: since the driver was loaded (volatile), in the card's life (aggregate).",
        samples: &[
            (",life=\"volatile\",kind=\"corrected\"", |card| count(&card.ecc_volatile.corrected)),
            (",life=\"volatile\",kind=\"uncorrected\"", |card| {
                count(&card.ecc_volatile.uncorrected)
            }),
            (",life=\"aggregate\",kind=\"corrected\"", |card| count(&card.ecc_aggregate.corrected)),
            (",life=\"aggregate\",kind=\"uncorrected\"", |card| {
                count(&card.ecc_aggregate.uncorrected)
            }),
        ],
    },
    Metric {
        name: "vram_card_remapped_rows",
        kind: "gauge",
        help: "Rows of memory that were replaced by spare ones, by the errors that led to it.",
        samples: &[
            (",kind=\"corrected\"", |card| count(&card.remapped.corrected)),
            (",kind=\"uncorrected\"", |card| count(&card.remapped.uncorrected)),
        ],
    },
    Metric {
        name: "vram_card_remap_pending",
        kind: "gauge",
        help: "Whether rows wait for a reset of the card to be replaced: 0 or 1.",
        samples: &[("", |card| flag(&card.remapped.pending))],
    },
    Metric {
        name: "vram_card_remap_failed",
        kind: "gauge",
        help: "Whether a row could not be replaced: 0 or 1.",
        samples: &[("", |card| flag(&card.remapped.failed))],
    },
    Metric {
        name: "vram_card_retired_pages_pending",
        kind: "gauge",
        help: "Whether pages wait for a start of the driver to be retired: 0 or 1.",
        samples: &[("", |card| flag(&card.retired_pending))],
    },
    Metric {
        name: "vram_card_other_processes",
        kind: "gauge",
        help: "Processes other than this one that hold memory of the card.",
        samples: &[("", |card| {
            let holders = card.holders.known()?;
            let named = u64::try_from(holders.others().count()).unwrap_or(u64::MAX);
            Some(named.saturating_add(holders.more))
        })],
    },
];

/// Writes all that a monitor knows of these cards.
#[must_use]
pub fn to_prometheus(monitor: &Monitor, cards: &[NamedCard]) -> String {
    let mut text = String::new();
    let asked = cards.iter().map(|&NamedCard { gpu, uuid }| Asked {
        uuid,
        labels: format!("gpu=\"{gpu}\",uuid=\"{uuid}\""),
        answer: monitor.card(uuid, Duration::ZERO),
    });
    let asked: Vec<Asked> = asked.filter(|one| one.answer != Answer::NotWatched).collect();
    head(&mut text, "vram_card_told", "gauge", "Whether the card's figures are told: 0 or 1.");
    for Asked { labels, answer, .. } in &asked {
        line(&mut text, "vram_card_told", labels, "", u64::from(answer.health().is_some()));
    }
    let name = "vram_card_answer_age_seconds";
    head(&mut text, name, "gauge", "How old the figures are that are told here.");
    for Asked { labels, answer, .. } in &asked {
        if let Answer::Told(reading) = answer {
            // Writing to a text never fails.
            let _ = writeln!(text, "{name}{{{labels}}} {:.3}", reading.age.as_secs_f64());
        }
    }
    for Metric { name, kind, help, samples } in METRICS {
        head(&mut text, name, kind, help);
        for Asked { labels, answer, .. } in &asked {
            for (own, value) in *samples {
                if let Some(value) = answer.health().and_then(value) {
                    line(&mut text, name, labels, own, value);
                }
            }
        }
    }
    let watched = "vram_card_xid_watched";
    head(&mut text, watched, "gauge", "Whether each XID of the card is seen: 0 or 1.");
    for Asked { uuid, labels, .. } in &asked {
        line(&mut text, watched, labels, "", u64::from(monitor.xid_watch(*uuid).is_on()));
    }
    let name = "vram_card_xids_total";
    head(&mut text, name, "counter", "XIDs that the card reported since the watch began.");
    for Asked { uuid, labels, .. } in &asked {
        for one in monitor.xids(*uuid) {
            let own = match one.xid {
                Some(xid) => format!(",xid=\"{xid}\""),
                None => ",xid=\"other\"".to_owned(),
            };
            line(&mut text, name, labels, &own, one.count);
        }
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn line(text: &mut String, name: &str, labels: &str, own: &str, value: u64) {
    let _ = writeln!(text, "{name}{{{labels}{own}}} {value}");
}
