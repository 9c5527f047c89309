//! The audit without a manager: events reach it as they reach any sink, and an auditor needs no
//! other crate.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vram_audit::{
    AuditError, AuditHead, AuditSummary, AuditWriter, verify_audit, verify_audit_against,
};
use vram_events::{EventKind, EventSink, Events, Sinks};
use vram_id::SystemClock;
use vram_seal::TicketKey;

fn key() -> TicketKey {
    TicketKey::from_bytes(&[7; 32])
}

/// A folder with an audit of five events, and its head.
fn written() -> (tempfile::TempDir, PathBuf, AuditHead) {
    written_from(0)
}

/// As [`written`], with events numbered from `first`.
fn written_from(first: u64) -> (tempfile::TempDir, PathBuf, AuditHead) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    let audit = AuditWriter::create(&path, key()).unwrap();
    let handle = audit.handle();
    let mut sinks = Sinks::new();
    sinks.add(audit);
    let (events, _threads) = Events::start(Arc::new(SystemClock), sinks).unwrap();
    (first..).take(5).for_each(|left| events.emit(EventKind::Closed { left }));
    assert!(events.flush(None));
    assert_eq!(handle.failed(), 0);
    (folder, path, handle.head())
}

fn verify(path: &Path) -> Result<AuditSummary, AuditError> {
    verify_audit(fs::File::open(path).unwrap(), &key())
}

#[test]
fn what_a_stream_of_events_wrote_is_verified_to_its_last_line() {
    let (_folder, path, head) = written();
    let summary = verify(&path).unwrap();
    assert_eq!((summary.head, summary.events, summary.unknown), (head, 5, 0));
    let file = fs::File::open(&path).unwrap();
    assert_eq!(verify_audit_against(file, &key(), &head).unwrap(), summary);
    let other = verify_audit(fs::File::open(&path).unwrap(), &TicketKey::from_bytes(&[8; 32]));
    assert!(matches!(other, Err(AuditError::BadKey)), "{other:?}");
}

#[test]
fn any_flipped_bit_is_refused() {
    let (_folder, path, head) = written();
    let sound = fs::read(path).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        let refused = verify_audit_against(&bytes[..], &key(), &head).unwrap_err();
        assert!(refused.is_integrity() || matches!(refused, AuditError::BadKey), "{at}: {refused}");
    }
}

#[test]
fn a_line_that_is_missing_moved_or_from_another_audit_is_named() {
    let (_folder, path, head) = written();
    let (_other, other, _) = written_from(7);
    let text = fs::read_to_string(path).unwrap();
    let other = fs::read_to_string(other).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let check = |lines: &[&str]| {
        verify_audit_against(lines.concat().as_bytes(), &key(), &head).unwrap_err()
    };
    let missing = check(&[&lines[..2], &lines[3..]].concat());
    assert!(matches!(missing, AuditError::Missing { line: 3, .. }), "{missing}");
    let moved = check(&[&lines[..2], &[lines[3], lines[2]], &lines[4..]].concat());
    assert!(matches!(moved, AuditError::Reordered { line: 3, .. }), "{moved}");
    let cut = check(&lines[..4]);
    assert!(matches!(cut, AuditError::CutShort { found: 4, .. }), "{cut}");
    let strange: Vec<&str> = other.split_inclusive('\n').collect();
    let strange = check(&[&lines[..5], &strange[5..]].concat());
    assert!(matches!(strange, AuditError::OtherAudit { line: 6 }), "{strange}");
}

#[test]
fn an_audit_is_gone_on_with_after_a_crash_and_by_one_writer_at_a_time() {
    let (_folder, path, head) = written();
    let mut torn = fs::read(&path).unwrap();
    torn.extend_from_slice(b"{\"n\":6,");
    fs::write(&path, torn).unwrap();
    assert!(matches!(verify(&path), Err(AuditError::Torn { line: 7, bytes: 7 })));

    let (mut audit, before) = AuditWriter::append_after(&path, key(), &head).unwrap();
    assert_eq!((before.head, before.torn), (head, 7));
    let second = AuditWriter::append_trusting_the_file(&path, key());
    assert!(matches!(second, Err(AuditError::InUse { .. })), "{second:?}");
    audit.dropped(2);
    audit.flush();
    drop(audit);
    let after = verify(&path).unwrap();
    assert_eq!((after.events, after.dropped, after.resumed, after.cut), (5, 2, 1, 7));
    assert_eq!(after.trusted, 0);
}

#[test]
fn a_head_prints_and_reads_back() {
    let (_folder, _path, head) = written();
    assert_eq!(head.to_string().parse::<AuditHead>().unwrap(), head);
    assert!("6:00".parse::<AuditHead>().is_err());
}
