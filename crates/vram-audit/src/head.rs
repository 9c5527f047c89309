//! The head of an audit, kept elsewhere to detect lines that are missing at its end.

use core::fmt::{self, Write as _};
use core::str::FromStr;

/// The number of lines of an audit, and the code of the last one. Kept where a party that can
/// change the audit cannot change it, the head is an anchor:
/// [`verify_audit_against`](crate::verify_audit_against) finds any change up to that line, also
/// lines cut off.
///
/// Prints as `lines:code`, parses from the same text, and is no secret.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub struct AuditHead {
    /// Number of lines.
    pub lines: u64,
    /// The code of the last line; zeros if there is none.
    pub code: [u8; 32],
}

/// The text is not a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the head of an audit is a number of lines, a colon and 64 hexadecimal digits")]
pub struct ParseAuditHeadError;

impl fmt::Display for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.lines, hex(&self.code))
    }
}

impl fmt::Debug for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditHead({self})")
    }
}

impl FromStr for AuditHead {
    type Err = ParseAuditHeadError;

    fn from_str(text: &str) -> Result<Self, ParseAuditHeadError> {
        let (lines, code) = text.split_once(':').ok_or(ParseAuditHeadError)?;
        let lines = lines.parse().map_err(|_not_a_number| ParseAuditHeadError)?;
        let code = unhex(code.as_bytes()).ok_or(ParseAuditHeadError)?;
        let head = Self { lines, code };
        // Each head has one spelling: no sign, no leading zeros. There is one head for an audit of
        // no lines.
        let spelled = head.to_string() == text && (lines > 0 || code == [0; 32]);
        if spelled { Ok(head) } else { Err(ParseAuditHeadError) }
    }
}

impl From<AuditHead> for String {
    fn from(head: AuditHead) -> Self {
        head.to_string()
    }
}

impl TryFrom<String> for AuditHead {
    type Error = ParseAuditHeadError;

    fn try_from(text: String) -> Result<Self, ParseAuditHeadError> {
        text.parse()
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    let mut text = String::with_capacity(64);
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// Reads what [`hex`] writes, and refuses everything else.
pub(crate) fn unhex(digits: &[u8]) -> Option<[u8; 32]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    };
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_reads_as_hexadecimal() {
        let bytes = core::array::from_fn(|at| u8::try_from(at * 8).unwrap_or(255));
        assert_eq!(unhex(hex(&bytes).as_bytes()), Some(bytes));
        let zeros = hex(&[0; 32]);
        assert_eq!(unhex(zeros.as_bytes()), Some([0; 32]));
        for wrong in [&zeros[1..], &zeros.replace('0', "A"), &zeros.replace('0', "g"), ""] {
            assert_eq!(unhex(wrong.as_bytes()), None);
        }
    }
}
