//! One line of an audit: its content, its bytes, its code.

use std::io;

use vram_events::Event;
use vram_id::Timestamp;
use vram_seal::TicketKey;

use crate::file_id::AuditFileId;
use crate::head::AuditHead;
use crate::hex::{hex, unhex};

/// Version of the layout of lines.
pub(crate) const FORMAT: u32 = 2;
/// The longest line in bytes, its end included.
pub(crate) const LEN_MAX: usize = 16 << 20;

/// Domain separator of the code of a line; the last digit is the version.
const DOMAIN: &[u8; 16] = b"vram-audit/line1";
/// The text whose code names a key. No line starts with it.
const KEY_NAME: &[u8; 16] = b"vram-audit/key/1";
const CODE: &[u8] = b",\"code\":\"";
const END: &[u8] = b"\"}";

/// The content of a line.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(crate) enum Body {
    /// The first line of a file, and no other line. Its number and the code before it are those of
    /// the line that closed the file before it; the first file of an audit has number 0.
    ///
    /// A file that goes on in place of the one that the closing line names has an id of its own and
    /// names the id of that one: what that one held is not in this audit.
    Opened {
        format: u32,
        key: String,
        file: AuditFileId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<AuditFileId>,
        at: Timestamp,
    },
    /// A writer resumed the file, and cut off this many bytes of an unfinished line. The anchor is
    /// the head that it asked the file to contain; without one, the writer trusted the file.
    Resumed { at: Timestamp, cut: u64, anchor: Option<AuditHead> },
    /// The last line of a file. The audit goes on in the file of this id, or ends here.
    Closed { at: Timestamp, next: Option<AuditFileId> },
    /// An event.
    Event { event: Event },
    /// The sink's queue dropped this many events before they reached the writer.
    Dropped { at: Timestamp, count: u64 },
    /// The writer could not write this many events.
    Failed { at: Timestamp, count: u64 },
}

/// The key, and the head of the chain so far.
pub(crate) struct Chain {
    key: TicketKey,
    head: AuditHead,
}

impl Chain {
    pub(crate) const fn new(key: TicketKey) -> Self {
        Self::after(key, AuditHead::NONE)
    }

    pub(crate) const fn after(key: TicketKey, head: AuditHead) -> Self {
        Self { key, head }
    }

    pub(crate) const fn head(&self) -> AuditHead {
        self.head
    }

    /// The bytes of the next line, and the head after it is written.
    ///
    /// # Errors
    ///
    /// If the content is longer than a line may be.
    pub(crate) fn line(&self, body: &Body) -> io::Result<(Vec<u8>, AuditHead)> {
        let AuditHead { lines, code: prev } = self.head;
        let body = serde_json::to_string(body)?;
        let inside = body.strip_prefix('{').and_then(|body| body.strip_suffix('}'));
        let mut line = format!("{{\"n\":{lines},\"prev\":\"{}\",", hex(&prev)).into_bytes();
        line.extend_from_slice(inside.unwrap_or_default().as_bytes());
        let code = self.key.sign(&statement(&prev, &line));
        line.extend_from_slice(CODE);
        line.extend_from_slice(hex(&code).as_bytes());
        line.extend_from_slice(END);
        line.push(b'\n');
        if line.len() > LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than a line may be"));
        }
        Ok((line, AuditHead { lines: lines.saturating_add(1), code }))
    }

    pub(crate) const fn advance(&mut self, head: AuditHead) {
        self.head = head;
    }

    /// The first line of a file, which may replace another one.
    pub(crate) fn opened(
        &self,
        file: AuditFileId,
        replaces: Option<AuditFileId>,
        at: Timestamp,
    ) -> Body {
        Body::Opened { format: FORMAT, key: key_id(&self.key), file, replaces, at }
    }
}

/// The name of a key, which reveals nothing else about it.
pub(crate) fn key_id(key: &TicketKey) -> String {
    let name = key.sign(KEY_NAME);
    let mut text = hex(&name);
    text.truncate(16);
    text
}

/// The bytes that the code of a line signs: domain, the code before it, and the line's bytes up to
/// its own code.
fn statement(prev: &[u8; 32], signed: &[u8]) -> Vec<u8> {
    let mut statement = Vec::with_capacity(signed.len().saturating_add(48));
    statement.extend_from_slice(DOMAIN);
    statement.extend_from_slice(prev);
    statement.extend_from_slice(signed);
    statement
}

/// A line as it stands in a file, parsed and not yet verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parsed<'a> {
    pub(crate) number: u64,
    pub(crate) prev: [u8; 32],
    pub(crate) code: [u8; 32],
    signed: &'a [u8],
    /// The content of the line, without the braces around it.
    inside: &'a [u8],
}

impl<'a> Parsed<'a> {
    /// Parses a line, without its end. Only the exact form that the writer makes is a line.
    pub(crate) fn of(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_suffix(END)?;
        let (rest, code) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
        let code = unhex(code)?;
        let signed = rest.strip_suffix(CODE)?;

        let rest = signed.strip_prefix(b"{\"n\":")?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = rest.split_at_checked(digits)?;
        let number: u64 = core::str::from_utf8(digits).ok()?.parse().ok()?;
        if number.to_string().as_bytes() != digits {
            return None;
        }
        let rest = rest.strip_prefix(b",\"prev\":\"")?;
        let (prev, rest) = rest.split_at_checked(64)?;
        let prev = unhex(prev)?;
        let inside = rest.strip_prefix(b"\",")?;
        Some(Self { number, prev, code, signed, inside })
    }

    /// Returns true if the code is that of the line, wherever the line stands.
    pub(crate) fn is_genuine(&self, key: &TicketKey) -> bool {
        key.verify(&statement(&self.prev, self.signed), &self.code).is_ok()
    }

    /// The content, if this version knows its kind.
    pub(crate) fn body(&self) -> Option<Body> {
        let mut json = Vec::with_capacity(self.inside.len().saturating_add(2));
        json.push(b'{');
        json.extend_from_slice(self.inside);
        json.push(b'}');
        serde_json::from_slice(&json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes are those that Python's `hmac` computes for the same key and bytes.
    #[test]
    fn lines_are_the_frozen_bytes() {
        let mut chain = Chain::new(TicketKey::from_bytes(&[7; 32]));
        let at = Timestamp::from_unix_millis(5);
        let opened = chain.opened(AuditFileId::from_bytes([0xab; 16]), None, at);
        let next = Some(AuditFileId::from_bytes([0xcd; 16]));
        let mut lines = Vec::new();
        for body in [opened, Body::Dropped { at, count: 3 }, Body::Closed { at, next }] {
            let (line, next) = chain.line(&body).unwrap();
            lines.push(String::from_utf8(line).unwrap());
            chain.advance(next);
        }
        assert_eq!(
            lines,
            [
                concat!(
                    r#"{"n":0,"prev":"0000000000000000000000000000000000000000000000000000000000000000","#,
                    r#""line":"opened","format":2,"key":"09f503b9a986378e","file":"abababababababababababababababab","at":5,"#,
                    r#""code":"03a74927c1c32b7edbd82ad4448b43c2f86f298a1252aef712eb81fa2e84d230"}"#,
                    "\n"
                ),
                concat!(
                    r#"{"n":1,"prev":"03a74927c1c32b7edbd82ad4448b43c2f86f298a1252aef712eb81fa2e84d230","#,
                    r#""line":"dropped","at":5,"count":3,"#,
                    r#""code":"31eb775e2211d92f48f16f1cd2e9a6ea7e298e77531187d0c05ca1aa71b338ec"}"#,
                    "\n"
                ),
                concat!(
                    r#"{"n":2,"prev":"31eb775e2211d92f48f16f1cd2e9a6ea7e298e77531187d0c05ca1aa71b338ec","#,
                    r#""line":"closed","at":5,"next":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","#,
                    r#""code":"f991a6e411de0788080569633d399f14ccd1f86d9bf691b2a39bc49166b31df2"}"#,
                    "\n"
                ),
            ]
        );
    }
}
