//! Reading an audit: verifies the code of every line, and names the first line that fails.

use std::io::{BufRead, BufReader, Read};

use vram_seal::TicketKey;

use crate::error::AuditError;
use crate::file_id::AuditFileId;
use crate::head::AuditHead;
use crate::line::{Body, FORMAT, LEN_MAX, Parsed, key_id};
use crate::summary::AuditSummary;

/// Where a file has to begin.
#[derive(Clone, Copy)]
pub(crate) enum Begins {
    /// After this line.
    After(AuditHead),
    /// After a line that is not known here: the file is a part of an audit.
    Anywhere,
}

/// Verifies the files of one audit, in their order. Host memory stays bounded for files of any
/// length.
pub(crate) struct Reading<'a> {
    key: &'a TicketKey,
    anchor: Option<AuditHead>,
    pub(crate) summary: AuditSummary,
    /// The line of the file that is read.
    line: u64,
}

impl<'a> Reading<'a> {
    /// # Errors
    ///
    /// [`AuditError::EmptyAnchor`]: every audit would pass it, and the caller would believe that
    /// something was compared.
    pub(crate) fn new(key: &'a TicketKey, anchor: Option<AuditHead>) -> Result<Self, AuditError> {
        if anchor.is_some_and(|anchor| anchor.lines == 0) {
            return Err(AuditError::EmptyAnchor);
        }
        Ok(Self { key, anchor, summary: AuditSummary::NONE, line: 0 })
    }

    /// Verifies one file. Returns how many bytes its whole lines take. An unfinished last line is
    /// no error here.
    pub(crate) fn file(&mut self, file: impl Read, begins: Begins) -> Result<u64, AuditError> {
        let file: &mut dyn BufRead = &mut BufReader::new(file);
        let (mut buffer, mut len) = (Vec::new(), 0_u64);
        let named = core::mem::take(&mut self.summary.next);
        (self.line, self.summary.torn, self.summary.closed) = (0, 0, false);
        loop {
            let line = self.line.saturating_add(1);
            let bytes = next_line(file, &mut buffer, line)?;
            let Some(content) = buffer.strip_suffix(b"\n") else {
                self.summary.torn = bytes;
                break;
            };
            self.line = line;
            let parsed = self.genuine(content)?;
            let body = parsed.body();
            if line == 1 {
                self.first(file, &parsed, body.as_ref(), begins, named)?;
            } else {
                self.next(file, &parsed, body.as_ref())?;
            }
            self.summary.add(&parsed, body.as_ref());
            len = len.saturating_add(bytes);
            self.compare()?;
        }
        if len == 0 {
            return Err(AuditError::Empty { bytes: self.summary.torn });
        }
        Ok(len)
    }

    /// The number of the last whole line, in its file.
    pub(crate) const fn line(&self) -> u64 {
        self.line
    }

    /// Ends the reading: the anchored line must be among those that were read.
    pub(crate) fn end(self) -> Result<AuditSummary, AuditError> {
        let head = self.summary.head;
        match self.anchor {
            Some(anchor) if anchor.lines > head.lines => {
                Err(AuditError::CutShort { found: head.lines, anchor })
            }
            _ => Ok(self.summary),
        }
    }

    /// The line, if its code is that of its bytes.
    fn genuine<'b>(&self, content: &'b [u8]) -> Result<Parsed<'b>, AuditError> {
        let line = self.line;
        let parsed = Parsed::of(content).ok_or(AuditError::NotALine { line })?;
        if parsed.is_genuine(self.key) {
            return Ok(parsed);
        }
        // The first line names its key, and is the first to fail under another key.
        let first = (line == 1).then(|| parsed.body()).flatten();
        Err(match first {
            Some(Body::Opened { key, .. }) if key != key_id(self.key) => AuditError::BadKey,
            _ => AuditError::Altered { line },
        })
    }

    /// Checks that the first line of a file opens it, and where in the audit.
    fn first(
        &mut self,
        rest: &mut dyn BufRead,
        parsed: &Parsed<'_>,
        body: Option<&Body>,
        begins: Begins,
        named: Option<AuditFileId>,
    ) -> Result<(), AuditError> {
        let found = AuditHead { lines: parsed.number, code: parsed.prev };
        let (format, file, replaces) = match body {
            Some(Body::Opened { format, file, replaces, .. }) => (*format, *file, *replaces),
            _ if found.lines == 0 => return Err(AuditError::NotALine { line: 1 }),
            _ => {
                let expected = match begins {
                    Begins::After(head) => head.lines,
                    Begins::Anywhere => 0,
                };
                return Err(self.misplaced(rest, expected, found.lines)?);
            }
        };
        if format != FORMAT {
            return Err(AuditError::Format { found: format });
        }
        match begins {
            Begins::After(expected) if expected != found => {
                return Err(AuditError::NotTheNext { expected, found });
            }
            // The file that the line before names, or one that says that it replaces that file.
            _ if named.is_some_and(|named| named != replaces.unwrap_or(file)) => {
                return Err(AuditError::OtherAudit { line: 1 });
            }
            _ => {}
        }
        if self.summary.files == 0 {
            self.summary.begins = found;
            match self.anchor {
                // Lines before these cannot be compared with an anchor.
                Some(anchor) if anchor.lines < found.lines => {
                    return Err(AuditError::AnchorInEarlierFile { anchor, begins: found });
                }
                Some(anchor) if anchor.lines == found.lines && anchor != found => {
                    return Err(AuditError::NotAnchored { anchor });
                }
                _ => {}
            }
        }
        (self.summary.head, self.summary.file) = (found, file);
        self.summary.files = self.summary.files.saturating_add(1);
        Ok(())
    }

    /// Checks that a line follows the line before it.
    fn next(
        &self,
        rest: &mut dyn BufRead,
        parsed: &Parsed<'_>,
        body: Option<&Body>,
    ) -> Result<(), AuditError> {
        let (line, expected) = (self.line, self.summary.head);
        if parsed.number != expected.lines {
            return Err(self.misplaced(rest, expected.lines, parsed.number)?);
        }
        if parsed.prev != expected.code {
            return Err(AuditError::OtherAudit { line });
        }
        if self.summary.closed {
            return Err(AuditError::AfterClosed { line });
        }
        if matches!(body, Some(Body::Opened { .. })) {
            return Err(AuditError::NotALine { line });
        }
        Ok(())
    }

    /// Compares with the anchor, after its line.
    fn compare(&self) -> Result<(), AuditError> {
        let head = self.summary.head;
        if let Some(anchor) = self.anchor.filter(|anchor| anchor.lines == head.lines)
            && anchor != head
        {
            return Err(AuditError::NotAnchored { anchor });
        }
        Ok(())
    }

    /// What is wrong if a genuine line has another number than the one that belongs here.
    fn misplaced(
        &self,
        rest: &mut dyn BufRead,
        expected: u64,
        found: u64,
    ) -> Result<AuditError, AuditError> {
        let line = self.line;
        let moved = found < expected || occurs(rest, self.key, expected)?;
        Ok(if moved {
            AuditError::Reordered { line, expected, found }
        } else {
            AuditError::Missing { line, expected, found }
        })
    }
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
