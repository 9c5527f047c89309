//! The audit: no line can be changed, removed, moved or added without detection.

use core::time::Duration;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use vram_residency::{
    AuditError, AuditHead, AuditSummary, AuditWriter, ByteLen, EventSink, TicketKey, VramManager,
    verify_audit, verify_audit_against,
};

const LONG: Duration = Duration::from_mins(1);

fn key() -> TicketKey {
    TicketKey::from_bytes(&[7; 32])
}

fn manager(audit: AuditWriter) -> VramManager {
    VramManager::builder().host_device(ByteLen::MIB).event_sink(audit).build().unwrap()
}

fn verify(bytes: &[u8]) -> Result<AuditSummary, AuditError> {
    verify_audit(bytes, &key())
}

struct Folder {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn folder() -> Folder {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    Folder { _folder: folder, path }
}

/// Bytes of a small audit (opened, sealed, freed, refused, dropped), and its head.
fn small() -> (Vec<u8>, AuditHead) {
    let at = folder();
    let mut audit = AuditWriter::create(&at.path, key()).unwrap();
    audit.dropped(3);
    let handle = audit.handle();
    let manager = manager(audit);
    let shard = manager.seal_model("model \"x\"\n", 0, b"weights").unwrap();
    manager.free_shard(&shard).unwrap();
    manager.seal_model("m", 9, b"").unwrap_err();
    drop(manager);
    (fs::read(&at.path).unwrap(), handle.head())
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[test]
fn an_audit_holds_every_event_one_line_each_and_verifies() {
    let (bytes, head) = small();
    let summary = verify(&bytes).unwrap();
    assert_eq!(summary.head, head);
    assert_eq!((summary.head.lines, summary.events, summary.dropped), (5, 3, 3));
    assert_eq!((summary.failed, summary.torn, summary.resumed, summary.unknown), (0, 0, 0, 0));
    assert_eq!(verify_audit_against(bytes.as_slice(), &key(), &head).unwrap(), summary);
    let events: Vec<_> = lines(&bytes)
        .iter()
        .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap())
        .filter_map(|line| Some(line["event"]["kind"]["event"].as_str()?.to_owned()))
        .collect();
    assert_eq!(events, ["sealed", "freed", "refused"]);
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains("weights"));
    assert_eq!(head.to_string().parse::<AuditHead>().unwrap(), head);
}

#[test]
fn every_flipped_bit_is_found() {
    let (mut bytes, _) = small();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            let error = verify(&bytes).unwrap_err();
            assert!(!matches!(error, AuditError::Io { .. }), "bit {bit} of byte {at}: {error}");
            bytes[at] ^= 1 << bit;
        }
    }
    verify(&bytes).unwrap();
}

#[test]
fn every_line_that_is_removed_repeated_swapped_or_cut_is_named() {
    let (bytes, head) = small();
    let whole = lines(&bytes);
    let count = whole.len();
    for at in 0..count {
        let mut fewer = whole.clone();
        fewer.remove(at);
        let fewer = fewer.concat();
        let (line, expected) = (at as u64 + 1, at as u64);
        if at + 1 < count {
            match verify(&fewer).unwrap_err() {
                AuditError::Missing { line: l, expected: e, found } => {
                    assert_eq!((l, e, found), (line, expected, expected + 1));
                }
                other => panic!("{at}: {other}"),
            }
        } else {
            // Removing the last line: only an anchor detects it.
            verify(&fewer).unwrap();
        }
        let error = verify_audit_against(fewer.as_slice(), &key(), &head).unwrap_err();
        assert!(error.is_integrity());

        let mut twice = whole.clone();
        twice.insert(at, whole[at].clone());
        match verify(&twice.concat()).unwrap_err() {
            AuditError::Reordered { line: l, expected: e, found } => {
                assert_eq!((l, e, found), (line + 1, expected + 1, expected));
            }
            other => panic!("{at}: {other}"),
        }
        for other in at + 1..count {
            let mut swapped = whole.clone();
            swapped.swap(at, other);
            let error = verify(&swapped.concat()).unwrap_err();
            assert!(
                matches!(error, AuditError::Reordered { line: l, .. } if l == line),
                "{at} and {other}: {error}"
            );
        }
        // Truncated inside a line, at the end of the file and in the middle.
        let before: usize = whole[..at].iter().map(Vec::len).sum();
        for len in [1, 70, whole[at].len() - 1] {
            let cut = &bytes[..before + len];
            match verify(cut).unwrap_err() {
                AuditError::Torn { line: l, bytes } if at > 0 => {
                    assert_eq!((l, bytes), (line, len as u64));
                }
                AuditError::Empty { .. } if at == 0 => {}
                other => panic!("{at}: {other}"),
            }
            if at + 1 < count {
                let middle = [&bytes[..before + len], &whole[at + 1..].concat()].concat();
                let error = verify(&middle).unwrap_err();
                match error {
                    // A line without its end joins the next: the form is right, and the bytes are
                    // wrong.
                    AuditError::Altered { line: l } | AuditError::NotALine { line: l } => {
                        assert_eq!(l, line);
                    }
                    other => panic!("{at}: {other}"),
                }
            }
        }
    }
}

#[test]
fn what_is_altered_in_a_line_is_told_from_another_key_and_another_audit() {
    let (bytes, head) = small();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let altered = text.replacen("\"gpu\":0", "\"gpu\":1", 1);
    let error = verify(altered.as_bytes()).unwrap_err();
    assert!(matches!(error, AuditError::Altered { line: 3 }), "{error}");
    // The same meaning with other bytes is refused.
    let error = verify(text.replacen("\"seq\":0", "\"seq\": 0", 1).as_bytes()).unwrap_err();
    assert!(matches!(error, AuditError::Altered { line: 3 }), "{error}");

    let other = TicketKey::from_bytes(&[8; 32]);
    assert!(matches!(verify_audit(bytes.as_slice(), &other), Err(AuditError::BadKey)));

    let (theirs, their_head) = small();
    let (ours, mixed) = (lines(&bytes), lines(&theirs));
    let spliced = [ours[..2].concat(), mixed[2..].concat()].concat();
    let error = verify(&spliced).unwrap_err();
    assert!(matches!(error, AuditError::OtherAudit { line: 3 }), "{error}");
    let error = verify_audit_against(theirs.as_slice(), &key(), &head).unwrap_err();
    assert!(matches!(error, AuditError::NotAnchored { .. }), "{error}");
    assert_ne!(head, their_head);

    let error = verify_audit_against(ours[..3].concat().as_slice(), &key(), &head).unwrap_err();
    assert!(matches!(error, AuditError::CutShort { found: 3, .. }), "{error}");
    assert!(matches!(verify(b""), Err(AuditError::Empty { bytes: 0 })));
    assert!(matches!(verify(b"\n"), Err(AuditError::NotALine { line: 1 })));
}

#[test]
fn a_stream_without_an_end_costs_bounded_memory() {
    let error = verify_audit(io::repeat(b'{'), &key()).unwrap_err();
    assert!(matches!(error, AuditError::TooLong { line: 1 }), "{error}");
}

#[test]
fn a_file_is_made_once_for_its_owner_and_goes_on_where_it_stopped() {
    let at = folder();
    drop(manager(AuditWriter::create(&at.path, key()).unwrap()));
    assert_eq!(fs::metadata(&at.path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&at.path).unwrap();
    assert!(matches!(AuditWriter::create(&at.path, key()), Err(AuditError::Io { .. })));
    assert_eq!(fs::read(&at.path).unwrap(), before);

    let (audit, found) = AuditWriter::append_trusting_the_file(&at.path, key()).unwrap();
    assert_eq!((found.head.lines, found.torn), (1, 0));
    let error = AuditWriter::append_trusting_the_file(&at.path, key()).unwrap_err();
    assert!(matches!(error, AuditError::InUse { .. }), "{error}");
    let manager = manager(audit);
    let _shard = manager.seal_model("m", 0, b"x").unwrap();
    drop(manager);
    let summary = verify(&fs::read(&at.path).unwrap()).unwrap();
    assert_eq!((summary.head.lines, summary.events, summary.resumed, summary.cut), (3, 1, 1, 0));
    assert!(matches!(
        AuditWriter::append_trusting_the_file(&at.path, TicketKey::from_bytes(&[1; 32])),
        Err(AuditError::BadKey)
    ));
}

#[test]
fn half_a_line_that_a_crash_left_is_cut_off_and_said_so() {
    let (bytes, _) = small();
    let whole = lines(&bytes);
    for kept in [1, 100, whole[4].len() - 1] {
        let at = folder();
        let torn = [whole[..4].concat(), whole[4][..kept].to_vec()].concat();
        fs::write(&at.path, &torn).unwrap();
        let (audit, found) = AuditWriter::append_trusting_the_file(&at.path, key()).unwrap();
        assert_eq!((found.head.lines, found.torn), (4, kept as u64));
        drop(manager(audit));
        let now = fs::read(&at.path).unwrap();
        assert!(now.starts_with(&whole[..4].concat()));
        let summary = verify(&now).unwrap();
        assert_eq!((summary.head.lines, summary.resumed, summary.cut), (5, 1, kept as u64));
    }
}

#[test]
fn an_audit_that_does_not_verify_is_not_gone_on_with_and_stays_as_it_is() {
    let (bytes, _) = small();
    let mut altered = bytes;
    altered[300] ^= 1;
    for bad in [altered.as_slice(), b"", b"half"] {
        let at = folder();
        fs::write(&at.path, bad).unwrap();
        let error = AuditWriter::append_trusting_the_file(&at.path, key()).unwrap_err();
        assert!(error.is_integrity(), "{error}");
        assert_eq!(fs::read(&at.path).unwrap(), bad);
    }
    let at = folder();
    std::os::unix::fs::symlink("elsewhere", &at.path).unwrap();
    assert!(matches!(
        AuditWriter::append_trusting_the_file(&at.path, key()),
        Err(AuditError::Io { .. })
    ));
    assert!(matches!(AuditWriter::create(&at.path, key()), Err(AuditError::Io { .. })));
}

/// Accepts a number of bytes, then refuses; the test can read the accepted bytes.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

impl Disk {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().0.clone()
    }

    fn room(&self, bytes: usize) {
        self.0.lock().unwrap().1 = bytes;
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().unwrap();
        let len = bytes.len().min(disk.1);
        if len == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.0.extend_from_slice(&bytes[..len]);
        disk.1 -= len;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn events_that_could_not_be_written_are_counted_and_said_in_the_audit_later() {
    let disk = Disk::default();
    disk.room(1 << 20);
    let audit = AuditWriter::to_writer(disk.clone(), key()).unwrap();
    let handle = audit.handle();
    let manager = manager(audit);
    let tell = || {
        manager.seal_model("m", 9, b"x").unwrap_err();
        assert!(manager.flush_events(LONG));
    };
    tell();
    disk.room(0);
    tell();
    tell();
    let counts = manager.event_counts()[0];
    assert_eq!((counts.delivered, counts.failed, counts.out_of_service), (3, 2, false));
    assert_eq!(handle.failed(), 2);
    disk.room(1 << 20);
    tell();
    let summary = verify(&disk.bytes()).unwrap();
    assert_eq!((summary.events, summary.failed, summary.head.lines), (2, 2, 4));

    // After a part of a line nothing may follow.
    disk.room(10);
    tell();
    disk.room(1 << 20);
    tell();
    assert_eq!(handle.failed(), 4);
    let bytes = disk.bytes();
    let error = verify(&bytes).unwrap_err();
    assert!(matches!(error, AuditError::Torn { line: 5, bytes: 10 }), "{error}");
    assert!(AuditWriter::to_writer(Disk::default(), key()).is_err());
}

#[test]
fn neither_the_key_nor_content_is_shown() {
    let audit = AuditWriter::to_writer(io::sink(), key()).unwrap();
    let text = format!("{audit:?} {:?}", audit.handle());
    assert!(!text.contains("7, 7, 7"), "{text}");
}
