//! Lengths as text: how people write them, and how they are printed.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::units::ByteLen;

/// Names of the binary units, from large to small, with the power of two of each.
const UNITS: [(&str, u32); 6] =
    [("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// One decimal, rounded down (never more than there is), then the exact count:
/// `12.0 MiB (12582912 bytes)`. Below one KiB only the count.
impl fmt::Display for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.get();
        let fitting = UNITS.iter().find(|(_, power)| bytes >> power != 0);
        let Some((name, power)) = fitting else {
            return write!(f, "{bytes} {}", if bytes == 1 { "byte" } else { "bytes" });
        };
        let tenths = u128::from(bytes).saturating_mul(10) >> power;
        write!(f, "{}.{} {name} ({bytes} bytes)", tenths / 10, tenths % 10)
    }
}

/// Why a text is not a length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseByteLenError {
    /// The text does not begin with a number.
    #[error("`{text}` is not a size; write it like 8GiB, 512 MiB, 8Gi or 4096")]
    NoNumber {
        /// The text.
        text: String,
    },
    /// The unit is none of B, KiB, MiB, GiB, TiB, Ki, Mi, Gi, Ti, KB, MB, GB, TB.
    #[error(
        "`{unit}` is not a unit of size; use B, KiB, MiB, GiB, TiB (or Ki, Mi, Gi, Ti), KB, MB, GB \
         or TB"
    )]
    UnknownUnit {
        /// The part of the text after the number.
        unit: String,
    },
    /// A unit of one letter: some programs count `8G` in powers of 1000, others of 1024.
    #[error(
        "`{number}{letter}` is ambiguous; write {number}{letter}B for powers of 1000, or \
         {number}{letter}iB for powers of 1024"
    )]
    AmbiguousUnit {
        /// The number.
        number: String,
        /// The letter, in upper case.
        letter: char,
    },
    /// The text names a part of a byte, such as `0.3 B`.
    #[error("`{text}` is not a whole number of bytes")]
    PartOfAByte {
        /// The text.
        text: String,
    },
    /// More than `u64::MAX` bytes.
    #[error("`{text}` is more than 2^64 - 1 bytes")]
    TooLarge {
        /// The text.
        text: String,
    },
}

/// Reads `4096`, `512MiB`, `8 GiB`, `1.5GiB`, `8Gi`, `80GB`. The case of a unit does not matter;
/// `KiB` and its kin are powers of 1024, and so are `Ki` and its kin, as Kubernetes writes them;
/// `KB` and its kin are powers of 1000. A bare `G` is refused, because it is ambiguous.
impl FromStr for ByteLen {
    type Err = ParseByteLenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        let number_len =
            trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
            return Err(ParseByteLenError::NoNumber { text: text.into() });
        }
        let unit = unit.trim_start();
        let unit_len = unit_len(unit).ok_or_else(|| match unit.to_ascii_uppercase().as_str() {
            "K" | "M" | "G" | "T" => ParseByteLenError::AmbiguousUnit {
                number: number.into(),
                letter: unit.chars().next().unwrap_or_default().to_ascii_uppercase(),
            },
            _ => ParseByteLenError::UnknownUnit { unit: unit.into() },
        })?;

        let too_large = || ParseByteLenError::TooLarge { text: text.into() };
        let part = || ParseByteLenError::PartOfAByte { text: text.into() };
        let whole: u64 = whole.parse().map_err(|_too_many_digits| too_large())?;
        let whole = whole.checked_mul(unit_len).ok_or_else(too_large)?;

        // The fraction is exact: digits * unit / 10^count must leave no remainder.
        let fraction = fraction.trim_end_matches('0');
        let digits: u64 = match fraction {
            "" => 0,
            digits => digits.parse().map_err(|_too_many_digits| part())?,
        };
        let power = u32::try_from(fraction.len()).ok().and_then(|count| 10_u64.checked_pow(count));
        let power = u128::from(power.ok_or_else(part)?);
        let scaled = u128::from(digits).saturating_mul(u128::from(unit_len));
        if scaled.checked_rem(power) != Some(0) {
            return Err(part());
        }
        let fraction = scaled.checked_div(power).and_then(|bytes| u64::try_from(bytes).ok());
        fraction.and_then(|bytes| whole.checked_add(bytes)).map(Self::new).ok_or_else(too_large)
    }
}

/// Bytes in one `unit`, whose case does not matter; no unit means bytes.
fn unit_len(unit: &str) -> Option<u64> {
    const NAMES: [(&str, u64); 16] = [
        ("", 1),
        ("b", 1),
        ("byte", 1),
        ("bytes", 1),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("ki", 1 << 10),
        ("mi", 1 << 20),
        ("gi", 1 << 30),
        ("ti", 1 << 40),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
    ];
    NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, len)| *len)
}
