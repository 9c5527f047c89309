//! Arbitrary bytes as an audit: refused with a reason, in bounded memory, or equal to the written
//! bytes.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use proptest::prelude::*;
use proptest::sample::Index;
use vram_residency::{
    AuditError, AuditHead, AuditSummary, AuditWriter, ByteLen, EventSink, TicketKey, VramManager,
    verify_audit, verify_audit_against,
};

fn key() -> TicketKey {
    TicketKey::from_bytes(&[7; 32])
}

/// A genuine audit of a few lines, and its head.
fn genuine() -> &'static (Vec<u8>, AuditHead) {
    static GENUINE: OnceLock<(Vec<u8>, AuditHead)> = OnceLock::new();
    GENUINE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let audit = AuditWriter::create(&path, key()).unwrap();
        let handle = audit.handle();
        let manager =
            VramManager::builder().host_device(ByteLen::MIB).event_sink(audit).build().unwrap();
        for len in [0, 1, 1000] {
            let shard = manager.seal_model("model", 0, &vec![1; len]).unwrap();
            manager.free_shard(&shard).unwrap();
        }
        drop(manager);
        (fs::read(&path).unwrap(), handle.head())
    })
}

/// Whether these are the first complete lines of the genuine audit, at least one.
fn is_prefix(bytes: &[u8]) -> bool {
    !bytes.is_empty() && genuine().0.starts_with(bytes) && bytes.ends_with(b"\n")
}

/// An attacker's change of a file.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Copy(Index, Index, usize),
    Cut(Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let structure = prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"\"}\n".to_vec()),
        Just(b",\"code\":\"".to_vec()),
        Just(b"{\"n\":".to_vec()),
        proptest::collection::vec(any::<u8>(), 1..40),
    ];
    let change = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), structure).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), 1..400_usize).prop_map(|(at, len)| Change::Remove(at, len)),
        (any::<Index>(), any::<Index>(), 1..400_usize)
            .prop_map(|(from, to, len)| Change::Copy(from, to, len)),
        any::<Index>().prop_map(Change::Cut),
    ];
    proptest::collection::vec(change, 0..4)
}

fn carry_out(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let count = bytes.len();
    let part = |at: &Index, len: usize| {
        let start = at.index(count);
        start..start.saturating_add(len).min(count)
    };
    match change {
        Change::Set(at, byte) => bytes[at.index(count)] = *byte,
        Change::Insert(at, more) => {
            let at = at.index(count);
            bytes.splice(at..at, more.iter().copied());
        }
        Change::Remove(at, len) => drop(bytes.drain(part(at, *len))),
        Change::Copy(from, to, len) => {
            let copied = bytes[part(from, *len)].to_vec();
            let to = to.index(count);
            bytes.splice(to..to, copied);
        }
        Change::Cut(at) => bytes.truncate(at.index(count)),
    }
}

/// Returns one byte at a time, with interruptions.
struct Trickle<'a>(&'a [u8], bool);

impl Read for Trickle<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = target.len().min(1);
        self.0.read(&mut target[..len])
    }
}

proptest! {
    #[test]
    fn whatever_is_done_to_an_audit_only_its_own_first_lines_are_accepted(changes in changes()) {
        let (mut bytes, head) = genuine().clone();
        for change in &changes {
            carry_out(&mut bytes, change);
        }
        let verdict = verify_audit(bytes.as_slice(), &key());
        prop_assert_eq!(verdict.is_ok(), is_prefix(&bytes), "{:?}", verdict);
        let anchored = verify_audit_against(bytes.as_slice(), &key(), &head);
        prop_assert_eq!(anchored.is_ok(), bytes == genuine().0);
        let trickled = verify_audit(Trickle(&bytes, false), &key());
        prop_assert_eq!(format!("{trickled:?}"), format!("{verdict:?}"));
    }

    #[test]
    fn garbage_is_no_audit(garbage in proptest::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(verify_audit(garbage.as_slice(), &key()).is_err());
    }

    #[test]
    fn what_reads_as_a_head_prints_as_the_same_text(
        text in "[+0-9]{0,3}[0-9]{1,20}:[0-9a-fA-F]{63,65}",
    ) {
        if let Ok(head) = text.parse::<AuditHead>() {
            prop_assert_eq!(head.to_string(), text);
        }
    }
}

#[test]
fn a_head_has_one_spelling_and_one_of_no_lines_has_no_code() {
    let (bytes, head) = genuine();
    let code = head.to_string().split_once(':').unwrap().1.to_owned();
    for wrong in [
        format!("+{}:{code}", head.lines),
        format!("0{}:{code}", head.lines),
        format!("0:{code}"),
        format!("-1:{code}"),
        format!("{}:{}", head.lines, code.to_uppercase()),
        format!(" {head}"),
        format!("{head}\n"),
        String::new(),
    ] {
        assert!(wrong.parse::<AuditHead>().is_err(), "{wrong:?}");
    }
    // As an anchor it is refused, with a code or without: every audit would pass it.
    let mut coded = *head;
    coded.lines = 0;
    let none = format!("0:{}", "0".repeat(64)).parse::<AuditHead>().unwrap();
    for anchor in [coded, none] {
        let error = verify_audit_against(bytes.as_slice(), &key(), &anchor).unwrap_err();
        assert!(matches!(error, AuditError::EmptyAnchor), "{error}");
    }
}

#[test]
fn a_line_that_nobody_signed_is_refused_however_deep_or_wide_it_is() {
    let zeros = "0".repeat(64);
    for inside in
        ["[".repeat(1 << 20), format!("\"line\":\"opened\",\"x\":\"{zeros}\"").repeat(9999)]
    {
        for number in [0, 1, u64::MAX] {
            let line =
                format!("{{\"n\":{number},\"prev\":\"{zeros}\",{inside},\"code\":\"{zeros}\"}}\n");
            let error = verify_audit(line.as_bytes(), &key()).unwrap_err();
            assert!(matches!(error, AuditError::Altered { line: 1 }), "{error}");
        }
    }
    let error = verify_audit(io::repeat(b'\n'), &key()).unwrap_err();
    assert!(matches!(error, AuditError::NotALine { line: 1 }), "{error}");
    // Also after genuine lines, and where the search for a moved line reaches the end.
    let (bytes, _) = genuine();
    let endless = bytes.as_slice().chain(io::repeat(b'x'));
    let error = verify_audit(endless, &key()).unwrap_err();
    assert!(matches!(error, AuditError::TooLong { .. }), "{error}");
    let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let error = verify_audit(bytes[second..].chain(io::repeat(b'x')), &key()).unwrap_err();
    assert!(matches!(error, AuditError::TooLong { .. }), "{error}");
}

#[test]
fn an_event_that_is_too_long_for_a_line_is_counted_and_what_follows_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    let mut audit = AuditWriter::create(&path, key()).unwrap();
    let handle = audit.handle();
    // A manager's texts are bounded; the loss of a GPU with a million shards is as long as this.
    for len in [17 << 20, 17] {
        let error = "e".repeat(len);
        let kind =
            serde_json::json!({"event": "device_lost", "gpu": 0, "error": error, "shards": []});
        let event = serde_json::json!({"seq": 0, "at": 5, "kind": kind});
        audit.event(&serde_json::from_value(event).unwrap());
    }
    audit.flush();
    drop(audit);
    assert_eq!(handle.failed(), 1);
    let summary = verify_audit(fs::read(&path).unwrap().as_slice(), &key()).unwrap();
    assert_eq!((summary.events, summary.failed, summary.head.lines), (1, 1, 3));
}

/// A disk that refuses, panics or cannot sync, as the test sets it.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    full: bool,
    panics: bool,
    forgets: bool,
    flushes: u64,
}

impl Disk {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn summary(&self) -> AuditSummary {
        verify_audit(self.state().bytes.as_slice(), &key()).unwrap()
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.panics {
            state.bytes.push(bytes[0]);
            panic!("the writer's own fault");
        }
        state.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.flushes += 1;
        if state.forgets { Err(io::Error::other("not durable")) } else { Ok(()) }
    }
}

#[test]
fn what_a_disk_refused_is_said_once_with_all_that_it_stood_for() {
    let disk = Disk::default();
    let mut audit = AuditWriter::to_writer(disk.clone(), key()).unwrap();
    disk.set(|state| state.full = true);
    // One line that would have covered five events.
    audit.dropped(5);
    assert_eq!((audit.handle().failed(), disk.summary().head.lines), (5, 1));
    disk.set(|state| state.full = false);
    for _ in 0..3 {
        audit.dropped(1);
    }
    let summary = disk.summary();
    assert_eq!((summary.failed, summary.dropped, summary.head.lines), (5, 3, 5));
    assert_eq!(audit.handle().failed(), 5);
}

#[test]
fn lines_are_made_durable_as_often_as_was_set_and_those_that_were_not_are_counted() {
    let disk = Disk::default();
    let audit = AuditWriter::to_writer(disk.clone(), key()).unwrap();
    let mut audit = audit.sync_every(3);
    let flushes = |disk: &Disk| core::mem::take(&mut disk.state().flushes);
    assert_eq!(flushes(&disk), 1, "the first line at once");
    for expected in [0, 0, 1, 0, 0, 1] {
        audit.dropped(1);
        assert_eq!(flushes(&disk), expected);
    }
    audit.dropped(1);
    audit.flush();
    assert_eq!((flushes(&disk), audit.handle().failed()), (1, 0));
    disk.set(|state| state.forgets = true);
    for failed in [0, 0, 3] {
        audit.dropped(1);
        assert_eq!(audit.handle().failed(), failed);
    }
    assert_eq!(EventSink::failed(&audit), 3);
}

#[test]
fn a_failed_sync_ends_the_audit_though_later_ones_would_succeed() {
    let disk = Disk::default();
    let mut audit = AuditWriter::to_writer(disk.clone(), key()).unwrap();
    let handle = audit.handle();
    audit.dropped(1);
    audit.flush();
    let (durable, bytes) = (handle.head(), disk.state().bytes.len());
    audit.dropped(1);
    assert_ne!(handle.head(), durable);
    disk.set(|state| state.forgets = true);
    audit.flush();
    assert!(handle.ended());
    assert_eq!((handle.failed(), handle.head()), (1, durable));

    // What a system answers after it has dropped the lines that it could not write.
    disk.set(|state| {
        state.forgets = false;
        state.bytes.truncate(bytes);
    });
    audit.dropped(1);
    audit.flush();
    audit.dropped(2);
    assert_eq!(disk.state().bytes.len(), bytes, "a line follows lines that are gone");
    assert_eq!((handle.failed(), handle.ended()), (4, true));
    assert_eq!(EventSink::failed(&audit), 4);
    assert_eq!(disk.summary().head, durable);
}

#[test]
fn behind_a_writer_that_panicked_halfway_nothing_is_written() {
    let disk = Disk::default();
    let mut audit = AuditWriter::to_writer(disk.clone(), key()).unwrap();
    disk.set(|state| state.panics = true);
    let told = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| audit.dropped(1)));
    assert!(told.is_err());
    disk.set(|state| state.panics = false);
    let before = disk.state().bytes.clone();
    audit.dropped(1);
    assert_eq!(disk.state().bytes, before);
    assert_eq!(audit.handle().failed(), 1);
}

#[test]
fn an_audit_is_never_begun_or_gone_on_with_through_a_link_or_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    fs::write(&victim, &genuine().0).unwrap();
    let link = folder.path().join("link");
    symlink(&victim, &link).unwrap();
    let nowhere = folder.path().join("nowhere");
    symlink(folder.path().join("absent"), &nowhere).unwrap();
    for path in [&link, &nowhere, &folder.path().to_path_buf()] {
        assert!(matches!(AuditWriter::create(path, key()), Err(AuditError::Io { .. })));
        assert!(matches!(
            AuditWriter::append_trusting_the_file(path, key()),
            Err(AuditError::Io { .. })
        ));
    }
    assert!(!folder.path().join("absent").exists());
    assert_eq!(fs::read(&victim).unwrap(), genuine().0);
    // Zeros that a power failure left after the last line are truncated like a part of a line.
    let zeros = [genuine().0.as_slice(), &[0; 5000]].concat();
    fs::write(&victim, &zeros).unwrap();
    let (audit, found) = AuditWriter::append_trusting_the_file(&victim, key()).unwrap();
    assert_eq!((found.head, found.torn), (genuine().1, 5000));
    drop(audit);
    let summary = verify_audit(fs::read(&victim).unwrap().as_slice(), &key()).unwrap();
    assert_eq!((summary.resumed, summary.cut), (1, 5000));
}
