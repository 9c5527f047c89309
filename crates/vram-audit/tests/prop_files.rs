//! Property: whatever is done to the files of an audit, they are refused, or they are its own first
//! lines, in its own files.
//!
//! Method: an audit of four files is changed by files (removed, repeated, moved, joined, split) and
//! by bytes. The reference is a comparison with what was written: accepted are whole lines of the
//! first files, up to any line of one of them but the line that names a next file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers, checked in test builds")]

#[macro_use]
extern crate vram_testkit;

use std::fs;
use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::sample::Index;
use vram_audit::{AuditCheck, AuditHead, AuditWriter, EventSink, TicketKey};

fn key() -> TicketKey {
    TicketKey::from_bytes(&[7; 32])
}

fn genuine() -> &'static (Vec<Vec<u8>>, AuditHead) {
    static GENUINE: OnceLock<(Vec<Vec<u8>>, AuditHead)> = OnceLock::new();
    GENUINE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = |number: u64| folder.path().join(number.to_string());
        let mut audit = AuditWriter::create(path(0), key()).unwrap();
        for number in 1..4 {
            audit.dropped(number);
            audit.handle().rotate(path(number)).unwrap();
        }
        audit.dropped(4);
        let head = audit.handle().head();
        drop(audit);
        ((0..4).map(|number| fs::read(path(number)).unwrap()).collect(), head)
    })
}

#[derive(Clone, Debug)]
enum Change {
    Remove(Index),
    Repeat(Index, Index),
    Swap(Index, Index),
    Join(Index),
    Split(Index, Index),
    Cut(Index, Index),
    CutLines(Index, Index),
    Byte(Index, Index, u8),
    CopyLine(Index, Index, Index, Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<Index>;
    let change = prop_oneof![
        at().prop_map(Change::Remove),
        (at(), at()).prop_map(|(from, to)| Change::Repeat(from, to)),
        (at(), at()).prop_map(|(one, two)| Change::Swap(one, two)),
        at().prop_map(Change::Join),
        (at(), at()).prop_map(|(file, line)| Change::Split(file, line)),
        (at(), at()).prop_map(|(file, byte)| Change::Cut(file, byte)),
        (at(), at()).prop_map(|(file, line)| Change::CutLines(file, line)),
        (at(), at(), any::<u8>()).prop_map(|(file, byte, to)| Change::Byte(file, byte, to)),
        (at(), at(), at(), at()).prop_map(|(a, b, c, d)| Change::CopyLine(a, b, c, d)),
    ];
    proptest::collection::vec(change, 0..4)
}

/// The ends of the lines of a file, and its beginning.
fn ends(file: &[u8]) -> Vec<usize> {
    let ends = (1..=file.len()).filter(|end| file[end - 1] == b'\n');
    core::iter::once(0).chain(ends).collect()
}

fn carry_out(files: &mut Vec<Vec<u8>>, change: &Change) {
    let count = files.len();
    if count == 0 {
        return;
    }
    match change {
        Change::Remove(at) => drop(files.remove(at.index(count))),
        Change::Repeat(from, to) => {
            let file = files[from.index(count)].clone();
            files.insert(to.index(count), file);
        }
        Change::Swap(one, two) => files.swap(one.index(count), two.index(count)),
        Change::Join(at) => {
            let at = at.index(count);
            if let Some(next) = files.get(at + 1).cloned() {
                files[at].extend_from_slice(&next);
                files.remove(at + 1);
            }
        }
        Change::Split(file, line) => {
            let file = file.index(count);
            let ends = ends(&files[file]);
            let rest = files[file].split_off(ends[line.index(ends.len())]);
            files.insert(file + 1, rest);
        }
        Change::Cut(file, byte) => {
            let file = &mut files[file.index(count)];
            file.truncate(byte.index(file.len() + 1));
        }
        Change::CutLines(file, line) => {
            let file = &mut files[file.index(count)];
            let ends = ends(file);
            file.truncate(ends[line.index(ends.len())]);
        }
        Change::Byte(file, byte, to) => {
            let file = &mut files[file.index(count)];
            if !file.is_empty() {
                let byte = byte.index(file.len());
                file[byte] = *to;
            }
        }
        Change::CopyLine(from, line, to, place) => {
            let from = &files[from.index(count)];
            let lines: Vec<Vec<u8>> =
                from.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if !lines.is_empty() {
                let line = lines[line.index(lines.len())].clone();
                let to = &mut files[to.index(count)];
                let ends = ends(to);
                let place = ends[place.index(ends.len())];
                to.splice(place..place, line);
            }
        }
    }
}

/// Whether these are first lines of the audit, in its own files.
fn is_prefix(files: &[Vec<u8>]) -> bool {
    let (genuine, _) = genuine();
    let Some((last, whole)) = files.split_last() else { return false };
    let Some(own) = genuine.get(whole.len()) else { return false };
    let names_a_next_file = last == own && files.len() < genuine.len();
    genuine.starts_with(whole)
        && !last.is_empty()
        && own.starts_with(last)
        && last.ends_with(b"\n")
        && !names_a_next_file
}

proptest! {
    #[test]
    fn whatever_is_done_to_the_files_only_their_own_first_lines_are_accepted(
        changes in changes(),
    ) {
        let (mut files, head) = genuine().clone();
        for change in &changes {
            carry_out(&mut files, change);
        }
        let key = key();
        let check = AuditCheck::new(&key);
        let slices = || files.iter().map(Vec::as_slice);
        let verdict = check.files(slices());
        prop_assert_eq!(verdict.is_ok(), is_prefix(&files), "{:?}", verdict);
        let anchored = check.anchor(&head).files(slices());
        prop_assert_eq!(anchored.is_ok(), files == genuine().0);
    }
}
