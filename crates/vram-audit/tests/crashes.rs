//! What an operator finds after a crash around a rotation, and how the audit goes on without a file
//! that is lost in silence.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use core::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use vram_audit::{
    AuditCheck, AuditError, AuditHead, AuditSummary, AuditWriter, verify_audit,
    verify_audit_against,
};
use vram_events::EventSink;
use vram_seal::TicketKey;

fn key() -> TicketKey {
    TicketKey::from_bytes(&[7; 32])
}

fn open(path: &Path) -> File {
    File::open(path).unwrap()
}

fn check(files: &[&Path]) -> Result<AuditSummary, AuditError> {
    AuditCheck::new(&key()).files(files.iter().map(|path| open(path)))
}

fn part(file: &Path, anchor: &AuditHead) -> AuditSummary {
    AuditCheck::new(&key()).part().anchor(anchor).files([open(file)]).unwrap()
}

/// A crash after a rotation, before the next head was stored: 1 event in the first file, 500 in the
/// second, no third. The head was stored before the rotation.
struct Crash {
    _folder: tempfile::TempDir,
    files: [PathBuf; 3],
    stored: AuditHead,
    closed: AuditHead,
    last: AuditHead,
}

impl Crash {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b", "c"].map(|name| folder.path().join(name));
        let mut audit = AuditWriter::create(&files[0], key()).unwrap();
        audit.dropped(1);
        audit.flush();
        let stored = audit.handle().head();
        let closed = audit.handle().rotate(&files[1]).unwrap();
        for _ in 0..5 {
            audit.dropped(100);
        }
        audit.flush();
        let last = audit.handle().head();
        Self { _folder: folder, files, stored, closed, last }
    }
}

#[test]
fn a_crash_between_a_rotation_and_before_the_next_head_is_stored_loses_no_file() {
    let Crash { _folder, files: [a, b, c], stored, closed, last } = Crash::new();
    // Neither file alone can be gone on with, and each answer says where to look instead.
    let earlier = AuditWriter::append_after(&b, key(), &stored).unwrap_err();
    assert!(
        matches!(&earlier, AuditError::AnchorInEarlierFile { anchor, begins }
            if *anchor == stored && *begins == closed),
        "{earlier}"
    );
    assert!(!earlier.is_integrity() && earlier.to_string().contains("the file before this one"));
    let behind = AuditWriter::append_after(&a, key(), &stored).unwrap_err();
    let next = verify_audit(open(&b), &key()).unwrap_err();
    assert!(matches!(next, AuditError::NotTheNext { .. }), "{next}");
    let id = part(&b, &closed).file;
    assert!(matches!(behind, AuditError::Closed { next: Some(next) } if next == id), "{behind}");
    assert!(behind.to_string().contains(&id.to_string()));
    // A call that only means to go on does not leave out the file in between.
    let silent = AuditWriter::create_after(&c, &a, key(), &stored).unwrap_err();
    assert!(matches!(silent, AuditError::Closed { next: Some(next) } if next == id), "{silent}");
    assert!(!c.exists());

    // The way on: the earlier file against the anchor, then its head.
    let before = part(&a, &stored);
    assert_eq!((before.head, before.next), (closed, Some(id)));
    let (mut audit, found) = AuditWriter::append_after(&b, key(), &before.head).unwrap();
    assert_eq!((found.head, found.dropped), (last, 500));
    audit.dropped(1);
    drop(audit);
    let all = check(&[&a, &b]).unwrap();
    assert_eq!((all.dropped, all.resumed, all.trusted, all.replaced), (502, 1, 0, 0));
    // Later parts, too, are told that an anchor lies before them.
    let late = AuditCheck::new(&key()).part().anchor(&stored).files([open(&b)]).unwrap_err();
    assert!(
        matches!(&late, AuditError::File { file: 1, error }
        if matches!(**error, AuditError::AnchorInEarlierFile { .. })),
        "{late}"
    );
    assert!(!late.is_integrity());
}

#[test]
fn a_file_that_takes_the_place_of_the_next_says_so_and_is_told_apart_from_it() {
    let Crash { _folder, files: [a, b, c], stored, closed, last } = Crash::new();
    let lost = part(&b, &closed);
    let (mut audit, before) =
        AuditWriter::create_replacing_the_next(&c, &a, key(), &stored).unwrap();
    assert_eq!((before.head, before.next), (closed, Some(lost.file)));
    audit.dropped(7);
    audit.flush();
    let head = audit.handle().head();
    drop(audit);

    let [kept, replaced] = [check(&[&a, &b]).unwrap(), check(&[&a, &c]).unwrap()];
    assert_eq!((kept.dropped, kept.replaced), (501, 0));
    assert_eq!((replaced.dropped, replaced.replaced, replaced.head), (8, 1, head));
    assert_ne!(kept.file, replaced.file, "two files of one id would hide a fork");
    let first = fs::read_to_string(&c).unwrap();
    let first: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!(first["replaces"], lost.file.to_string());
    assert_eq!(first["file"], replaced.file.to_string());
    // An anchor of one is none of the other, and both of them are no audit.
    let against = |anchor: &AuditHead, last: &Path| {
        AuditCheck::new(&key()).anchor(anchor).files([open(&a), open(last)])
    };
    assert!(against(&head, &c).is_ok() && against(&head, &b).is_err());
    assert!(against(&last, &b).is_ok() && against(&last, &c).is_err());
    assert!(check(&[&a, &b, &c]).is_err() && check(&[&a, &c, &b]).is_err());
    // It is resumed and rotated like any other.
    let (audit, found) = AuditWriter::append_after(&c, key(), &head).unwrap();
    assert_eq!(found.replaced, 1);
    let d = c.with_extension("d");
    audit.handle().rotate(&d).unwrap();
    drop(audit);
    let all = check(&[&a, &c, &d]).unwrap();
    assert_eq!((all.files, all.replaced), (3, 1));
}

#[test]
fn a_file_replaces_none_but_the_one_that_the_closing_line_names() {
    let Crash { _folder, files: [a, b, c], stored, closed, .. } = Crash::new();
    drop(AuditWriter::create_replacing_the_next(&c, &a, key(), &stored).unwrap());
    // The same file, signed anew by a holder of the key, in place of a file that nobody named.
    let lost = part(&b, &closed).file.to_string();
    let text = fs::read_to_string(&c).unwrap();
    let changed = text.replace(
        &format!("\"replaces\":\"{lost}\""),
        &format!("\"replaces\":\"{}\"", "0".repeat(32)),
    );
    assert_ne!(changed, text);
    let (signed, _) = changed.split_once(",\"code\":").unwrap();
    let code = key().sign(&[&b"vram-audit/line1"[..], &closed.code, signed.as_bytes()].concat());
    let mut line = format!("{signed},\"code\":\"");
    for byte in code {
        write!(line, "{byte:02x}").unwrap();
    }
    fs::write(&c, line + "\"}\n").unwrap();
    let refused = check(&[&a, &c]).unwrap_err();
    assert!(
        matches!(&refused, AuditError::File { file: 2, error }
        if matches!(**error, AuditError::OtherAudit { line: 1 })),
        "{refused}"
    );
}

#[test]
fn a_rotation_that_a_crash_interrupted_is_completed_in_the_next_process() {
    let Crash { _folder, files: [a, b, c], closed, .. } = Crash::new();
    // What a crash leaves between the line that closes and the line that opens.
    fs::remove_file(&b).unwrap();
    assert!(matches!(check(&[&a]), Err(AuditError::NextMissing { .. })));

    let (mut audit, before) =
        AuditWriter::create_replacing_the_next(&b, &a, key(), &closed).unwrap();
    assert_eq!((before.head, before.closed), (closed, true));
    audit.dropped(3);
    drop(audit);
    let summary = check(&[&a, &b]).unwrap();
    assert_eq!((summary.dropped, summary.replaced), (4, 1));
    assert!(!c.exists());

    // A file that was not closed, and ends within a line, is closed first: nothing is replaced.
    let mut torn = fs::read(&b).unwrap();
    torn.extend_from_slice(b"{\"n\":");
    fs::write(&b, &torn).unwrap();
    let not_closed = |call: fn(&Path, &Path, TicketKey, &AuditHead) -> _| {
        let _gone_before = fs::remove_file(&c);
        fs::write(&b, &torn).unwrap();
        let made: Result<(AuditWriter, AuditSummary), AuditError> =
            call(&c, &b, key(), &summary.head);
        let (mut audit, before) = made.unwrap();
        assert_eq!((before.torn, before.closed), (5, false));
        audit.dropped(1);
        drop(audit);
        let summary = check(&[&a, &b, &c]).unwrap();
        assert_eq!((summary.dropped, summary.cut, summary.trusted), (5, 5, 0));
        assert_eq!(summary.replaced, 1);
    };
    not_closed(|c, b, key, head| AuditWriter::create_replacing_the_next(c, b, key, head));
    not_closed(|c, b, key, head| AuditWriter::create_after(c, b, key, head));
    // Resumed is also the last of several files, with an anchor in it.
    drop(AuditWriter::append_after(&c, key(), &part(&b, &closed).head).unwrap());
    assert_eq!(check(&[&a, &b, &c]).unwrap().resumed, 2);
}

#[test]
fn an_anchor_of_no_lines_is_refused_wherever_one_is_taken() {
    let Crash { _folder, files: [a, b, c], closed, last, .. } = Crash::new();
    let none: AuditHead = format!("0:{}", "0".repeat(64)).parse().unwrap();
    let mut coded = last;
    coded.lines = 0;
    let before = [fs::read(&a).unwrap(), fs::read(&b).unwrap()];
    for anchor in [&none, &coded] {
        for refused in [
            AuditWriter::append_after(&b, key(), anchor).unwrap_err(),
            AuditWriter::create_after(&c, &b, key(), anchor).unwrap_err(),
            AuditWriter::create_replacing_the_next(&c, &a, key(), anchor).unwrap_err(),
            AuditCheck::new(&key()).anchor(anchor).files([open(&a), open(&b)]).unwrap_err(),
            AuditCheck::new(&key()).part().anchor(anchor).files([open(&b)]).unwrap_err(),
            verify_audit_against(open(&a), &key(), anchor).unwrap_err(),
        ] {
            assert!(matches!(refused, AuditError::EmptyAnchor), "{refused}");
            assert!(!refused.is_integrity());
            assert!(refused.to_string().contains("append_trusting_the_file"), "{refused}");
        }
    }
    assert_eq!([fs::read(&a).unwrap(), fs::read(&b).unwrap()], before);
    assert!(!c.exists());
    // Whoever means to trust the file says so, and the audit does too.
    drop(AuditWriter::append_trusting_the_file(&b, key()).unwrap());
    assert_eq!(check(&[&a, &b]).unwrap().trusted, 1);
    assert!(AuditCheck::new(&key()).after(&closed).files([open(&b)]).is_ok());
}
