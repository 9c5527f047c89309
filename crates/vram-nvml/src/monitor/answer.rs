//! What a monitor answers.

use core::time::Duration;

use crate::card::CardHealth;
use crate::library::NoLibrary;

/// What is known of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "state", rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Answer {
    /// What the library said last.
    Told(Box<Reading>),
    /// The library cannot say anything of this card.
    NoCard {
        /// Its reason.
        why: String,
        /// How long ago it said so.
        #[cfg_attr(feature = "serde", serde(rename = "age_ms", serialize_with = "millis"))]
        age: Duration,
    },
    /// The library has not answered yet.
    Late {
        /// For how long it has been asked.
        #[cfg_attr(feature = "serde", serde(rename = "waited_ms", serialize_with = "millis"))]
        waited: Duration,
    },
    /// There is no library.
    NoLibrary {
        /// Why not.
        why: NoLibrary,
    },
    /// The device is not one that is asked about: host memory, say.
    NotWatched,
}

/// What the library said of a card, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Reading {
    /// What it said.
    pub health: CardHealth,
    /// How long ago. Where it grows beyond the time between two questions, the library hangs.
    #[cfg_attr(feature = "serde", serde(rename = "age_ms", serialize_with = "millis"))]
    pub age: Duration,
}

impl Answer {
    /// The last reading, if there is one.
    #[must_use]
    pub fn health(&self) -> Option<&CardHealth> {
        match self {
            Self::Told(reading) => Some(&reading.health),
            Self::NoCard { .. } | Self::Late { .. } | Self::NoLibrary { .. } | Self::NotWatched => {
                None
            }
        }
    }
}

#[cfg(feature = "serde")]
fn millis<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}
