//! The head of an audit, kept elsewhere to detect lines that are missing at its end.

use core::fmt;
use core::str::FromStr;

use crate::hex::{hex, unhex};

/// The number of lines of an audit, and the code of the last one. Kept where a party that can
/// change the audit cannot change it, the head is an anchor:
/// [`verify_audit_against`](crate::verify_audit_against) finds any change up to that line, also
/// lines cut off. Lines are counted over all files of the audit.
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

impl AuditHead {
    /// The head before the first line.
    pub(crate) const NONE: Self = Self { lines: 0, code: [0; 32] };
}

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
