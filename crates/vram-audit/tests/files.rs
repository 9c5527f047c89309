//! An audit that is resumed after an anchor, and an audit of several files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use core::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use vram_audit::{
    AuditCheck, AuditError, AuditFileId, AuditHandle, AuditHead, AuditSummary, AuditWriter,
    verify_audit,
};
use vram_events::EventSink;
use vram_seal::TicketKey;

fn key() -> TicketKey {
    TicketKey::from_bytes(&[7; 32])
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, number: usize) -> PathBuf {
        self.0.path().join(format!("audit.{number}"))
    }

    /// The bytes of the files of these numbers.
    fn read(&self, numbers: &[usize]) -> Vec<Vec<u8>> {
        numbers.iter().map(|number| fs::read(self.file(*number)).unwrap()).collect()
    }
}

fn check(files: &[Vec<u8>]) -> Result<AuditSummary, AuditError> {
    AuditCheck::new(&key()).files(files.iter().map(Vec::as_slice))
}

/// A file with lines of dropped events, and the head after each line but the first.
fn written(path: &Path, count: u64) -> (AuditWriter, Vec<AuditHead>) {
    let mut audit = AuditWriter::create(path, key()).unwrap();
    let heads = (1..=count).map(|dropped| {
        audit.dropped(dropped);
        audit.handle().head()
    });
    let heads = heads.collect();
    audit.flush();
    (audit, heads)
}

/// Three files: one line of dropped events in each, the last one closed for no other.
fn three(folder: &Folder) -> AuditHead {
    let (mut audit, _) = written(&folder.file(0), 1);
    let handle: AuditHandle = audit.handle();
    for (number, lines) in [(1, 3), (2, 6)] {
        let closed = handle.rotate(folder.file(number)).unwrap();
        assert_eq!(closed.lines, lines);
        audit.dropped(10);
    }
    handle.close().unwrap()
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[test]
fn a_log_that_was_cut_before_its_anchor_is_not_gone_on_with() {
    let folder = Folder::new();
    let path = folder.file(0);
    let (audit, heads) = written(&path, 4);
    drop(audit);
    let whole = fs::read(&path).unwrap();
    let anchor = heads.last().unwrap();
    for kept in 1..5 {
        let cut = lines(&whole)[..kept].concat();
        fs::write(&path, &cut).unwrap();
        let error = AuditWriter::append_after(&path, key(), anchor).unwrap_err();
        assert!(matches!(error, AuditError::CutShort { .. }), "{kept}: {error}");
        assert_eq!(fs::read(&path).unwrap(), cut, "a refused file stays as it is");
    }
    fs::write(&path, &whole).unwrap();
    let (audit, found) = AuditWriter::append_after(&path, key(), anchor).unwrap();
    assert_eq!(found.head, *anchor);
    drop(audit);
}

#[test]
fn a_log_that_does_not_contain_its_anchor_is_not_gone_on_with() {
    let folder = Folder::new();
    let (audit, heads) = written(&folder.file(0), 4);
    drop(audit);
    let (other, theirs) = written(&folder.file(1), 4);
    drop(other);
    for anchor in &theirs {
        let error = AuditWriter::append_after(folder.file(0), key(), anchor).unwrap_err();
        assert!(matches!(error, AuditError::NotAnchored { .. }), "{error}");
    }
    // Lines after the anchor are those that were written after the head was stored.
    for anchor in &heads {
        drop(AuditWriter::append_after(folder.file(0), key(), anchor).unwrap());
    }
}

#[test]
fn the_line_that_resumes_names_its_anchor_or_says_that_there_was_none() {
    let folder = Folder::new();
    let (audit, heads) = written(&folder.file(0), 1);
    drop(audit);
    let resumed = || {
        let text = fs::read_to_string(folder.file(0)).unwrap();
        let line = text.lines().last().unwrap().to_owned();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["line"], "resumed");
        (line["prev"].as_str().unwrap().to_owned(), line["anchor"].clone())
    };
    let (audit, found) = AuditWriter::append_after(folder.file(0), key(), &heads[0]).unwrap();
    let after_it = audit.handle().head();
    drop(audit);
    let (prev, anchor) = resumed();
    assert_eq!(anchor, heads[0].to_string());
    assert!(found.head.to_string().ends_with(&prev), "it goes on from the last line");

    drop(AuditWriter::append_trusting_the_file(folder.file(0), key()).unwrap());
    let (prev, anchor) = resumed();
    assert!(anchor.is_null());
    assert!(after_it.to_string().ends_with(&prev));
    let summary = verify_audit(fs::File::open(folder.file(0)).unwrap(), &key()).unwrap();
    assert_eq!((summary.resumed, summary.trusted), (2, 1));
}

#[test]
fn two_logs_of_one_key_that_begin_in_one_millisecond_are_told_apart() {
    let folder = Folder::new();
    let first = |number| {
        let (audit, _) = written(&folder.file(number), 0);
        drop(audit);
        let summary = verify_audit(fs::File::open(folder.file(number)).unwrap(), &key()).unwrap();
        (summary.file, summary.head)
    };
    let (one, two) = (first(0), first(1));
    assert_ne!(one.0, two.0);
    assert_ne!(one.1, two.1);
    assert_eq!(one.0.to_string().parse::<AuditFileId>().unwrap(), one.0);
    for wrong in ["", &"a".repeat(31), &"A".repeat(32), &"g".repeat(32), &"a".repeat(33)] {
        assert!(wrong.parse::<AuditFileId>().is_err(), "{wrong:?}");
    }
}

#[test]
fn a_log_of_several_files_is_verified_as_one() {
    let folder = Folder::new();
    let head = three(&folder);
    let files = folder.read(&[0, 1, 2]);
    let summary = check(&files).unwrap();
    assert_eq!((summary.head, summary.files, summary.dropped), (head, 3, 21));
    assert!(summary.closed && summary.next.is_none());
    // An anchor may be any line of any file.
    let anchored = |anchor: &AuditHead| {
        AuditCheck::new(&key()).anchor(anchor).files(files.iter().map(Vec::as_slice))
    };
    assert_eq!(anchored(&head).unwrap(), summary);
    let middle = AuditCheck::new(&key()).part().files(files[..2].iter().map(Vec::as_slice));
    assert_eq!(anchored(&middle.unwrap().head).unwrap(), summary);
    let mut wrong = head;
    wrong.lines = 5;
    assert!(matches!(anchored(&wrong).unwrap_err(), AuditError::File { file: 2, .. }));
    // Files before the first can be verified at another time.
    let begins = AuditCheck::new(&key()).part().files([files[0].as_slice()]).unwrap();
    assert!(begins.closed && begins.next.is_some());
    let rest = || files[1..].iter().map(Vec::as_slice);
    let after = AuditCheck::new(&key()).after(&begins.head).files(rest()).unwrap();
    assert_eq!((after.begins, after.head, after.dropped), (begins.head, head, 20));
    let part = AuditCheck::new(&key()).part().files(rest()).unwrap();
    assert_eq!(part, after);
    let error = AuditCheck::new(&key()).after(&head).files(rest()).unwrap_err();
    assert!(error.is_integrity() && error.to_string().contains("another order"), "{error}");
}

#[test]
fn a_file_that_is_missing_moved_or_repeated_is_named() {
    let folder = Folder::new();
    three(&folder);
    for (numbers, file, why) in [
        (&[1, 2][..], 1, "missing"),
        (&[0, 2], 2, "missing"),
        (&[0, 2, 1], 2, "missing"),
        (&[1, 0, 2], 1, "missing"),
        (&[0, 0, 1, 2], 2, "repeated"),
        (&[0, 1, 2, 1], 4, "repeated"),
    ] {
        let error = check(&folder.read(numbers)).unwrap_err();
        assert!(error.is_integrity());
        let text = error.to_string();
        assert!(text.starts_with(&format!("file {file}:")) && text.contains(why), "{text}");
    }
    for numbers in [&[0][..], &[0, 1]] {
        let error = check(&folder.read(numbers)).unwrap_err();
        assert!(matches!(error, AuditError::NextMissing { .. }), "{error}");
        assert!(error.is_integrity());
    }
    assert!(matches!(check(&[]), Err(AuditError::Empty { .. })));
}

#[test]
fn files_that_are_joined_split_cut_or_mixed_are_refused() {
    let (folder, other) = (Folder::new(), Folder::new());
    three(&folder);
    three(&other);
    let (files, theirs) = (folder.read(&[0, 1, 2]), other.read(&[0, 1, 2]));
    let refused = |files: &[Vec<u8>]| {
        let error = check(files).unwrap_err();
        assert!(error.is_integrity(), "{error}");
        match error {
            AuditError::File { error, .. } => *error,
            other => other,
        }
    };
    let joined = refused(&[files[..2].concat(), files[2].clone()]);
    assert!(matches!(joined, AuditError::AfterClosed { line: 4 }), "{joined}");
    let parts = lines(&files[1]);
    for at in 1..parts.len() {
        let split = refused(&[
            files[0].clone(),
            parts[..at].concat(),
            parts[at..].concat(),
            files[2].clone(),
        ]);
        assert!(matches!(split, AuditError::Missing { line: 1, .. }), "{split}");
        let cut = refused(&[files[0].clone(), parts[..at].concat(), files[2].clone()]);
        assert!(matches!(cut, AuditError::NotTheNext { .. }), "{cut}");
    }
    for at in 0..3 {
        let mut mixed = files.clone();
        mixed[at].clone_from(&theirs[at]);
        let mixed = refused(&mixed);
        assert!(matches!(mixed, AuditError::NotTheNext { .. }), "{mixed}");
        assert!(mixed.to_string().contains("another audit"), "{mixed}");
    }
    // One byte after the line that closes a file.
    let mut more = files.clone();
    more[1].push(b'{');
    assert!(matches!(refused(&more), AuditError::Torn { line: 4, bytes: 1 }));
}

#[test]
fn every_flipped_bit_of_every_file_is_found() {
    let folder = Folder::new();
    three(&folder);
    let mut files = folder.read(&[0, 1, 2]);
    for file in 0..3 {
        for at in 0..files[file].len() {
            for bit in 0..8 {
                files[file][at] ^= 1 << bit;
                let error = check(&files).unwrap_err();
                assert!(
                    matches!(&error, AuditError::File { file: f, .. } if *f >= 1),
                    "bit {bit} of byte {at} of file {file}: {error}"
                );
                files[file][at] ^= 1 << bit;
            }
        }
    }
    check(&files).unwrap();
}

#[test]
fn behind_the_line_that_closes_a_log_nothing_is_written() {
    let folder = Folder::new();
    let (mut audit, _) = written(&folder.file(0), 1);
    let handle = audit.handle();
    let head = handle.close().unwrap();
    let bytes = fs::read(folder.file(0)).unwrap();
    audit.dropped(5);
    assert_eq!((handle.failed(), handle.head()), (5, head));
    assert!(matches!(handle.close(), Err(AuditError::Closed { next: None })));
    let error = handle.rotate(folder.file(1)).unwrap_err();
    assert!(matches!(error, AuditError::Closed { next: None }), "{error}");
    drop(audit);
    assert!(matches!(handle.close(), Err(AuditError::WriterGone)));
    assert!(matches!(handle.rotate(folder.file(1)), Err(AuditError::WriterGone)));
    for error in [
        AuditWriter::append_after(folder.file(0), key(), &head).unwrap_err(),
        AuditWriter::append_trusting_the_file(folder.file(0), key()).unwrap_err(),
        AuditWriter::create_after(folder.file(1), folder.file(0), key(), &head).unwrap_err(),
    ] {
        assert!(matches!(error, AuditError::Closed { next: None }), "{error}");
    }
    assert_eq!(fs::read(folder.file(0)).unwrap(), bytes);
    assert!(!folder.file(1).exists());
}

#[test]
fn a_rotation_into_a_file_that_exists_changes_nothing() {
    let folder = Folder::new();
    let (mut audit, _) = written(&folder.file(0), 1);
    fs::write(folder.file(1), b"mine").unwrap();
    let before = fs::read(folder.file(0)).unwrap();
    let error = audit.handle().rotate(folder.file(1)).unwrap_err();
    assert!(matches!(error, AuditError::Io { .. }), "{error}");
    assert_eq!(fs::read(folder.file(1)).unwrap(), b"mine");
    assert_eq!(fs::read(folder.file(0)).unwrap(), before);
    audit.dropped(2);
    assert_eq!(audit.handle().failed(), 0);
    audit.handle().rotate(folder.file(2)).unwrap();
    drop(audit);
    assert_eq!(check(&folder.read(&[0, 2])).unwrap().dropped, 3);
}

#[test]
fn a_log_of_another_format_is_told_apart_from_an_altered_one() {
    let folder = Folder::new();
    drop(written(&folder.file(0), 1));
    let text = fs::read_to_string(folder.file(0)).unwrap();
    // A genuine line of a later version: its code is that of its bytes.
    let changed = text.lines().next().unwrap().replacen("\"format\":2", "\"format\":3", 1);
    let (signed, _) = changed.split_once(",\"code\":").unwrap();
    let statement = [&b"vram-audit/line1"[..], &[0; 32], signed.as_bytes()].concat();
    let mut code = String::new();
    for byte in key().sign(&statement) {
        write!(code, "{byte:02x}").unwrap();
    }
    let line = format!("{signed},\"code\":\"{code}\"}}\n");
    let error = verify_audit(line.as_bytes(), &key()).unwrap_err();
    assert!(matches!(error, AuditError::Format { found: 3 }), "{error}");
    assert!(!error.is_integrity());
}

/// A file as an earlier version wrote it, whose events name no model, and with a kind of event that a
/// later version may add. The codes are those that Python's `hmac` computes.
#[test]
fn files_of_earlier_and_later_versions_verify() {
    let file = [
        concat!(
            r#"{"n":0,"prev":"0000000000000000000000000000000000000000000000000000000000000000","line":"opened","format":2,"key":"09f503b9a986378e","file":"abababababababababababababababab","at":5,"code":"03a74927c1c32b7edbd82ad4448b43c2f86f298a1252aef712eb81fa2e84d230"}"#,
            "\n"
        ),
        concat!(
            r#"{"n":1,"prev":"03a74927c1c32b7edbd82ad4448b43c2f86f298a1252aef712eb81fa2e84d230","line":"event","event":{"seq":0,"at":6,"kind":{"event":"sealed","shard":"orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV","model_id":"m","owner":null,"gpu":0,"bytes":1000}},"code":"99ee04244985250b52c579fde5cf521bed85f06370e57d65e2ad600a6710de60"}"#,
            "\n"
        ),
        concat!(
            r#"{"n":2,"prev":"99ee04244985250b52c579fde5cf521bed85f06370e57d65e2ad600a6710de60","line":"event","event":{"seq":1,"at":7,"kind":{"event":"freed","shard":"orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV","gpu":0,"bytes":1024,"wiped":true}},"code":"455c34eb44d6ea78d9fdc7157bb94f6590f9130ecd6ac557297b447cc722ef18"}"#,
            "\n"
        ),
        concat!(
            r#"{"n":3,"prev":"455c34eb44d6ea78d9fdc7157bb94f6590f9130ecd6ac557297b447cc722ef18","line":"event","event":{"seq":2,"at":8,"of_a_later_version":1,"kind":{"event":"a_later_kind","figure":3}},"code":"ff25c363dd1395c11b53428b058e439edbdc2176a96c3490e9fec05a4743a188"}"#,
            "\n"
        ),
        concat!(
            r#"{"n":4,"prev":"ff25c363dd1395c11b53428b058e439edbdc2176a96c3490e9fec05a4743a188","line":"closed","at":9,"next":null,"code":"5fb70a72db80e0a2fdf8839d0da9ee46b816fab8a3081500a7c4d4082bceaf3f"}"#,
            "\n"
        ),
    ];
    // A kind that is not known is a line as genuine as all others.
    let summary = verify_audit(file.concat().as_bytes(), &TicketKey::from_bytes(&[7; 32])).unwrap();
    assert_eq!((summary.events, summary.unknown, summary.closed), (2, 1, true));
}
