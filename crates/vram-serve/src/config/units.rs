//! Values that are texts in the file: sizes, times, shares, devices. A value that cannot be read is an
//! error of its line.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use vram_residency::{Budget, ByteLen};

/// How much of a device may be used: bytes, or a share of what is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BudgetConfig {
    /// So many bytes.
    Bytes(ByteLen),
    /// So many hundredths of what is free at the start: 1 to 100.
    Percent(u8),
}

impl BudgetConfig {
    /// The budget, for the library.
    #[must_use]
    pub fn budget(self) -> Budget {
        match self {
            Self::Bytes(bytes) => Budget::Bytes(bytes),
            Self::Percent(percent) => Budget::FractionOfFree(f64::from(percent) / 100.0),
        }
    }
}

impl fmt::Display for BudgetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(percent) => write!(f, "{percent}% of what is free"),
        }
    }
}

impl FromStr for BudgetConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(number) = text.strip_suffix('%') else {
            let bytes = text.parse().map_err(|error| format!("{error}"))?;
            return Ok(Self::Bytes(bytes));
        };
        match number.trim_end().parse() {
            Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
            _ => Err(format!("`{text}` is not a share: write 1% to 100%")),
        }
    }
}

/// Reads a time such as `500ms`, `30s`, `10min` or `2h`.
///
/// # Errors
///
/// Says what a time looks like.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: write it like 500ms, 30s, 10min or 2h");
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_not_one| wrong())?;
    let milliseconds = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(wrong)
}

/// A value that is written as a text.
pub(super) fn from_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

/// The same, of a field that may be left out.
pub(super) fn from_text_option<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    from_text(deserializer).map(Some)
}

/// One text, or a list of texts.
pub(super) fn from_texts<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text, or a list of texts")]
    enum Texts {
        One(String),
        Many(Vec<String>),
    }

    let texts = match Texts::deserialize(deserializer)? {
        Texts::One(text) => vec![text],
        Texts::Many(texts) => texts,
    };
    if texts.is_empty() {
        return Err(D::Error::custom("it names nothing: leave it out for the default"));
    }
    texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
}

/// A time.
pub(super) fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_span(&text).map_err(D::Error::custom)
}

/// A time that may be left out.
pub(super) fn span_option<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    span(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_shares_are_read_strictly() {
        assert_eq!(parse_span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_span("10 min"), Ok(Duration::from_mins(10)));
        assert_eq!(parse_span("0s"), Ok(Duration::ZERO));
        for wrong in ["", "s", "10", "-1s", "1.5h", "1d", "99999999999999999999h", "5124095576031h"]
        {
            assert!(parse_span(wrong).unwrap_err().contains("30s"), "{wrong}");
        }
        assert_eq!("80%".parse(), Ok(BudgetConfig::Percent(80)));
        assert_eq!("1GiB".parse(), Ok(BudgetConfig::Bytes(ByteLen::GIB)));
        for wrong in ["0%", "101%", "%", "-1%", "8G", ""] {
            assert!(wrong.parse::<BudgetConfig>().is_err(), "{wrong}");
        }
    }
}
