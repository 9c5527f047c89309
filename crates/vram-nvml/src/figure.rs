//! One figure of a card, or why there is none.

use core::fmt;

/// One figure of a card, or why there is none. What is not known is never a zero.
///
/// With the feature `serde`: `{"state":"known","value":3}`, `{"state":"unsupported"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "state", content = "value", rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Figure<T> {
    /// What the library answered.
    Known(T),
    /// This card does not have it.
    Unsupported,
    /// The installed library is older than this question.
    TooOld,
    /// The library answers it to other users only.
    NoPermission,
    /// The library gave no answer, for this reason.
    Unknown(String),
}

impl<T> Figure<T> {
    /// The value, if it is known.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unsupported | Self::TooOld | Self::NoPermission | Self::Unknown(_) => None,
        }
    }

    /// The figure with its value converted.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Figure<U> {
        match self {
            Self::Known(value) => Figure::Known(convert(value)),
            Self::Unsupported => Figure::Unsupported,
            Self::TooOld => Figure::TooOld,
            Self::NoPermission => Figure::NoPermission,
            Self::Unknown(why) => Figure::Unknown(why),
        }
    }
}

/// The value, or in a word why there is none.
impl<T: fmt::Display> fmt::Display for Figure<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::Unsupported => f.write_str("not on this card"),
            Self::TooOld => f.write_str("the library is too old"),
            Self::NoPermission => f.write_str("no permission"),
            Self::Unknown(why) => write!(f, "unknown ({why})"),
        }
    }
}
