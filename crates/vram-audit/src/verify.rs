//! Reading an audit: verifies the code of every line, and names the first line that fails.

use std::io::{BufRead, BufReader, Read};

use vram_seal::TicketKey;

use crate::error::AuditError;
use crate::head::AuditHead;
use crate::line::{Body, LEN_MAX, Parsed, key_id};

/// What an audit holds, all of it verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct AuditSummary {
    /// The number of lines, and the last one's code.
    pub head: AuditHead,
    /// Events in the audit.
    pub events: u64,
    /// Events that were dropped before they reached the writer.
    pub dropped: u64,
    /// Events that could not be written.
    pub failed: u64,
    /// How often a writer resumed the audit.
    pub resumed: u64,
    /// Bytes of unfinished lines that those writers cut off.
    pub cut: u64,
    /// Bytes of an unfinished line at the end. Only
    /// [`AuditWriter::append`](crate::AuditWriter::append) accepts any.
    pub torn: u64,
    /// Lines of a kind that this version does not know, genuine like all others.
    pub unknown: u64,
}

/// Reads a whole audit and verifies every line. Host memory stays bounded for input of any length.
///
/// By itself, this call does not find that lines are missing at the very end, or that the file is
/// an older copy, or another audit under the same key: see [`verify_audit_against`].
///
/// # Errors
///
/// The first line that fails, and why: [`AuditError::BadKey`], [`AuditError::NotALine`],
/// [`AuditError::Altered`], [`AuditError::Missing`], [`AuditError::Reordered`],
/// [`AuditError::OtherAudit`], [`AuditError::Torn`], [`AuditError::TooLong`],
/// [`AuditError::Empty`]; [`AuditError::Io`].
pub fn verify_audit(audit: impl Read, key: &TicketKey) -> Result<AuditSummary, AuditError> {
    verify(audit, key, None)
}

/// As [`verify_audit`], and compares with an anchor that was kept elsewhere: every line up to the
/// anchor must be as it was when the anchor was taken.
///
/// # Errors
///
/// As [`verify_audit`]; [`AuditError::CutShort`], [`AuditError::NotAnchored`].
pub fn verify_audit_against(
    audit: impl Read,
    key: &TicketKey,
    anchor: &AuditHead,
) -> Result<AuditSummary, AuditError> {
    verify(audit, key, Some(anchor))
}

fn verify(
    audit: impl Read,
    key: &TicketKey,
    anchor: Option<&AuditHead>,
) -> Result<AuditSummary, AuditError> {
    let (summary, _len) = read(&mut BufReader::new(audit), key, anchor)?;
    if summary.torn > 0 {
        let line = summary.head.lines.saturating_add(1);
        return Err(AuditError::Torn { line, bytes: summary.torn });
    }
    Ok(summary)
}

/// Reads a whole audit. Returns its summary, and how many bytes its whole lines take. An unfinished
/// last line is no error here.
pub(crate) fn read(
    audit: &mut dyn BufRead,
    key: &TicketKey,
    anchor: Option<&AuditHead>,
) -> Result<(AuditSummary, u64), AuditError> {
    let mut summary = AuditSummary {
        head: AuditHead { lines: 0, code: [0; 32] },
        events: 0,
        dropped: 0,
        failed: 0,
        resumed: 0,
        cut: 0,
        torn: 0,
        unknown: 0,
    };
    if let Some(anchor) = anchor.filter(|anchor| anchor.lines == 0 && **anchor != summary.head) {
        return Err(AuditError::NotAnchored { anchor: *anchor });
    }
    let (mut buffer, mut len) = (Vec::new(), 0_u64);
    loop {
        let line = summary.head.lines.saturating_add(1);
        let bytes = next_line(audit, &mut buffer, line)?;
        let Some(content) = buffer.strip_suffix(b"\n") else {
            summary.torn = bytes;
            break;
        };
        let parsed = check(content, key, &summary, line)?;
        match parsed {
            Ok(parsed) => summary.add(&parsed),
            Err(found) => {
                let expected = summary.head.lines;
                let moved = found < expected || occurs(audit, key, expected)?;
                return Err(if moved {
                    AuditError::Reordered { line, expected, found }
                } else {
                    AuditError::Missing { line, expected, found }
                });
            }
        }
        len = len.saturating_add(bytes);
        if let Some(anchor) = anchor.filter(|anchor| anchor.lines == summary.head.lines)
            && *anchor != summary.head
        {
            return Err(AuditError::NotAnchored { anchor: *anchor });
        }
    }
    if summary.head.lines == 0 {
        return Err(AuditError::Empty { bytes: summary.torn });
    }
    if let Some(anchor) = anchor.filter(|anchor| anchor.lines > summary.head.lines) {
        return Err(AuditError::CutShort { found: summary.head.lines, anchor: *anchor });
    }
    Ok((summary, len))
}

/// Checks one line. `Ok(Err(number))` if it is genuine but belongs to another place.
fn check<'a>(
    content: &'a [u8],
    key: &TicketKey,
    before: &AuditSummary,
    line: u64,
) -> Result<Result<Parsed<'a>, u64>, AuditError> {
    let parsed = Parsed::of(content).ok_or(AuditError::NotALine { line })?;
    if !parsed.is_genuine(key) {
        // The first line names its key, and is the first to fail under another key.
        let first = (line == 1).then(|| parsed.body()).flatten();
        return Err(match first {
            Some(Body::Opened { key: name, .. }) if name != key_id(key) => AuditError::BadKey,
            _ => AuditError::Altered { line },
        });
    }
    if parsed.number != before.head.lines {
        return Ok(Err(parsed.number));
    }
    if parsed.prev != before.head.code {
        return Err(AuditError::OtherAudit { line });
    }
    Ok(Ok(parsed))
}

/// Returns true if the line of this number comes later: then it was moved, and is not missing.
fn occurs(audit: &mut dyn BufRead, key: &TicketKey, number: u64) -> Result<bool, AuditError> {
    let mut buffer = Vec::new();
    loop {
        next_line(audit, &mut buffer, 0)?;
        let Some(content) = buffer.strip_suffix(b"\n") else { return Ok(false) };
        let wanted = Parsed::of(content).filter(|parsed| parsed.number == number);
        if wanted.is_some_and(|parsed| parsed.is_genuine(key)) {
            return Ok(true);
        }
    }
}

/// Reads up to the end of a line, or of the input. Returns the number of bytes read.
fn next_line(audit: &mut dyn BufRead, buffer: &mut Vec<u8>, line: u64) -> Result<u64, AuditError> {
    buffer.clear();
    let limit = u64::try_from(LEN_MAX).unwrap_or(u64::MAX);
    let read = audit.take(limit.saturating_add(1)).read_until(b'\n', buffer);
    let bytes = read.map_err(|error| AuditError::io("read the audit", None, error))?;
    if bytes > LEN_MAX {
        return Err(AuditError::TooLong { line });
    }
    Ok(u64::try_from(bytes).unwrap_or(u64::MAX))
}

impl AuditSummary {
    fn add(&mut self, line: &Parsed<'_>) {
        self.head = AuditHead { lines: self.head.lines.saturating_add(1), code: line.code };
        match line.body() {
            Some(Body::Opened { .. }) => {}
            Some(Body::Resumed { cut, .. }) => {
                self.resumed = self.resumed.saturating_add(1);
                self.cut = self.cut.saturating_add(cut);
            }
            Some(Body::Event { .. }) => self.events = self.events.saturating_add(1),
            Some(Body::Dropped { count, .. }) => self.dropped = self.dropped.saturating_add(count),
            Some(Body::Failed { count, .. }) => self.failed = self.failed.saturating_add(count),
            None => self.unknown = self.unknown.saturating_add(1),
        }
    }
}
