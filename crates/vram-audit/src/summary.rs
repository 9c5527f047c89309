//! What an audit holds.

use crate::file_id::AuditFileId;
use crate::head::AuditHead;
use crate::line::{Body, Parsed};

/// What an audit holds, all of it verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct AuditSummary {
    /// The number of lines, those of all files before these included, and the last one's code.
    pub head: AuditHead,
    /// The head that the first file goes on from. It has no lines, unless these files are a part of
    /// an audit.
    pub begins: AuditHead,
    /// Files that were read.
    pub files: u64,
    /// The id of the last of them.
    pub file: AuditFileId,
    /// Whether the last file was closed.
    pub closed: bool,
    /// The file that goes on from the last one, if the line that closed it names one.
    pub next: Option<AuditFileId>,
    /// Events in the audit.
    pub events: u64,
    /// Events that were dropped before they reached the writer.
    pub dropped: u64,
    /// Events that could not be written.
    pub failed: u64,
    /// How often a writer resumed the audit.
    pub resumed: u64,
    /// How often it did so without an anchor: lines that were cut off before that are not found.
    pub trusted: u64,
    /// Files that stand in place of the file that the closing line before them names
    /// ([`AuditWriter::create_replacing_the_next`](crate::AuditWriter::create_replacing_the_next)).
    /// What those files held is not in this audit.
    pub replaced: u64,
    /// Bytes of unfinished lines that those writers cut off.
    pub cut: u64,
    /// Bytes of an unfinished line at the end. Only a writer that resumes the file accepts any.
    pub torn: u64,
    /// Lines of a kind that this version does not know, genuine like all others.
    pub unknown: u64,
}

impl AuditSummary {
    pub(crate) const NONE: Self = Self {
        head: AuditHead::NONE,
        begins: AuditHead::NONE,
        files: 0,
        file: AuditFileId::ZERO,
        closed: false,
        next: None,
        events: 0,
        dropped: 0,
        failed: 0,
        resumed: 0,
        trusted: 0,
        replaced: 0,
        cut: 0,
        torn: 0,
        unknown: 0,
    };

    /// Counts a line.
    pub(crate) fn add(&mut self, line: &Parsed<'_>, body: Option<&Body>) {
        self.head = AuditHead { lines: self.head.lines.saturating_add(1), code: line.code };
        match body {
            Some(Body::Opened { replaces, .. }) => {
                self.replaced = self.replaced.saturating_add(u64::from(replaces.is_some()));
            }
            Some(Body::Resumed { cut, anchor, .. }) => {
                self.resumed = self.resumed.saturating_add(1);
                self.trusted = self.trusted.saturating_add(u64::from(anchor.is_none()));
                self.cut = self.cut.saturating_add(*cut);
            }
            Some(Body::Closed { next, .. }) => (self.closed, self.next) = (true, *next),
            Some(Body::Event { .. }) => self.events = self.events.saturating_add(1),
            Some(Body::Dropped { count, .. }) => self.dropped = self.dropped.saturating_add(*count),
            Some(Body::Failed { count, .. }) => self.failed = self.failed.saturating_add(*count),
            None => self.unknown = self.unknown.saturating_add(1),
        }
    }
}
