//! How far an audit has come: what is kept elsewhere, to see that nothing is missing at its end.

use core::fmt;
use core::str::FromStr;

use super::line::{hex, unhex};

/// How many lines an audit has, and the code of the last one. Kept where whoever can change the
/// audit cannot, it is an anchor: [`verify_audit_against`](super::verify_audit_against) finds any
/// change up to there, also a cut.
///
/// Prints as `lines:code`, reads back, and is no secret.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub struct AuditHead {
    /// Lines.
    pub lines: u64,
    /// The code of the last one; zeros if there is none.
    pub code: [u8; 32],
}

/// A text is not a head.
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
        // One head, one spelling: no sign, no leading zeros. Of no lines, there is one head.
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
