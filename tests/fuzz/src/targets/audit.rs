//! Audits: what is changed is refused, unless it is the first lines of the audit in its own files.
//!
//! The specimen is written here, from the documented form of a line, so a target can also sign
//! changed lines as a holder of the key.

use std::sync::OnceLock;

use vram_audit::{AuditCheck, AuditFileId, AuditHead, TicketKey, verify_audit};

use crate::Target;
use crate::choices::Choices;
use crate::edits::edit;
use crate::specimens::hex;

/// The target.
pub const TARGET: Target = Target {
    name: "audit",
    promise: "of a changed audit only its own first lines are accepted, and with an anchor only all",
    run,
    seeds,
    len_max: 600,
    cases: 10_000,
};

fn key() -> TicketKey {
    TicketKey::from_bytes(&[0x44; 32])
}

/// Writes lines, each with the code of the one before it.
struct Chain {
    lines: u64,
    code: [u8; 32],
}

impl Chain {
    const fn new() -> Self {
        Self { lines: 0, code: [0; 32] }
    }

    /// The next line, of this content without its braces.
    fn line(&mut self, inside: &[u8]) -> Vec<u8> {
        let mut line =
            format!("{{\"n\":{},\"prev\":\"{}\",", self.lines, hex(&self.code)).into_bytes();
        line.extend_from_slice(inside);
        let signed = [&b"vram-audit/line1"[..], &self.code, &line].concat();
        self.code = key().sign(&signed);
        self.lines += 1;
        line.extend_from_slice(format!(",\"code\":\"{}\"}}\n", hex(&self.code)).as_bytes());
        line
    }
}

/// The contents of the lines of three files, which differ from another audit's in the first line.
fn contents(at: u8) -> Vec<Vec<Vec<u8>>> {
    let name = &hex(&key().sign(b"vram-audit/key/1"))[..16];
    let id = |number: u8| hex(&[number; 16]);
    let shard = "orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let opened = |file: u8| {
        format!(r#""line":"opened","format":2,"key":"{name}","file":"{}","at":{at}"#, id(file))
    };
    let closed = |next: u8| format!(r#""line":"closed","at":9,"next":"{}""#, id(next));
    let sealed = format!(
        r#""line":"event","event":{{"seq":0,"at":6,"kind":{{"event":"sealed","shard":"{shard}","model_id":"m","owner":null,"gpu":0,"bytes":5}}}}"#
    );
    let dropped = r#""line":"dropped","at":7,"count":3"#.to_owned();
    let failed = r#""line":"failed","at":8,"count":2"#.to_owned();
    let resumed = r#""line":"resumed","at":8,"cut":4,"anchor":null"#.to_owned();
    let files = [
        vec![opened(1), sealed, dropped.clone(), closed(2)],
        vec![opened(2), closed(3)],
        vec![opened(3), resumed, failed, dropped],
    ];
    files.map(|file| file.into_iter().map(String::into_bytes).collect()).into()
}

fn written(contents: &[Vec<Vec<u8>>]) -> (Vec<Vec<u8>>, Chain) {
    let mut chain = Chain::new();
    let files = contents.iter().map(|file| file.iter().flat_map(|line| chain.line(line)).collect());
    let files = files.collect();
    (files, chain)
}

fn genuine() -> &'static (Vec<Vec<u8>>, AuditHead) {
    static GENUINE: OnceLock<(Vec<Vec<u8>>, AuditHead)> = OnceLock::new();
    GENUINE.get_or_init(|| {
        let (files, chain) = written(&contents(5));
        let head = format!("{}:{}", chain.lines, hex(&chain.code)).parse().unwrap();
        let key = key();
        let summary = AuditCheck::new(&key).anchor(&head).files(files.iter().map(Vec::as_slice));
        let summary = summary.unwrap();
        assert_eq!((summary.events, summary.dropped, summary.unknown), (1, 6, 0));
        (files, head)
    })
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

fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    match choices.byte() % 4 {
        0 | 1 => changed(&mut choices),
        2 => signed(&mut choices),
        _ => texts(choices.rest()),
    }
}

/// Changes of bytes and files by somebody without the key.
fn changed(choices: &mut Choices<'_>) {
    let (mut files, head) = genuine().clone();
    for _ in 0..choices.byte() % 4 {
        let (what, at) = (choices.byte() % 7, choices.below(files.len()));
        match what {
            0 if !files.is_empty() => drop(files.remove(at)),
            1 if !files.is_empty() => {
                let to = choices.below(files.len());
                files.insert(to, files[at].clone());
            }
            2 if !files.is_empty() => {
                let other = choices.below(files.len());
                files.swap(at, other);
            }
            3 if at + 1 < files.len() => {
                let next = files.remove(at + 1);
                files[at].extend_from_slice(&next);
            }
            4 if !files.is_empty() => {
                let line = lines(&files[at], choices.short());
                let rest = files[at].split_off(line);
                files.insert(at + 1, rest);
            }
            5 if !files.is_empty() => {
                let line = lines(&files[at], choices.short());
                files[at].truncate(line);
            }
            6 if files.len() == 3 => {
                // From here on, the lines of another audit under the same key.
                let line = lines(&files[at], choices.short());
                let (other, _) = written(&contents(6));
                files[at].truncate(line);
                files[at].extend_from_slice(other[at].get(line..).unwrap_or_default());
            }
            _ => {}
        }
    }
    let at = choices.below(files.len());
    if let Some(file) = files.get_mut(at) {
        let others: Vec<&[u8]> = genuine().0.iter().map(Vec::as_slice).collect();
        edit(choices, file, &others, 4);
    }
    let key = key();
    let check = AuditCheck::new(&key);
    let slices = || files.iter().map(Vec::as_slice);
    let verdict = check.files(slices());
    assert_eq!(verdict.is_ok(), is_prefix(&files), "{verdict:?}");
    let anchored = check.anchor(&head).files(slices());
    assert_eq!(anchored.is_ok(), files == genuine().0, "{anchored:?}");
    if let Some(file) = files.first() {
        let other = verify_audit(file.as_slice(), &TicketKey::from_bytes(&[0x45; 32]));
        assert!(other.is_err(), "another key verifies nothing");
    }
}

/// Where one of the lines of a file begins.
fn lines(file: &[u8], which: usize) -> usize {
    let ends: Vec<usize> = (0..file.len()).filter(|at| *at == 0 || file[at - 1] == b'\n').collect();
    which.checked_rem(ends.len()).map_or(0, |which| ends[which])
}

/// Whether a line closes its file. What only begins like one is of a kind that nobody knows.
fn closes(line: &[u8]) -> bool {
    let begins = line.strip_prefix(br#""line":"closed","at":9,"next":""#);
    let id = begins.and_then(|rest| rest.strip_suffix(b"\""));
    let id = id.and_then(|id| core::str::from_utf8(id).ok());
    id.is_some_and(|id| id.parse::<AuditFileId>().is_ok())
}

/// Changes of a holder of the key: whatever it signs, an accepted audit is counted right.
fn signed(choices: &mut Choices<'_>) {
    let mut contents = contents(5);
    for _ in 0..=choices.byte() % 3 {
        let file = choices.below(contents.len());
        let line = choices.below(contents[file].len());
        match choices.byte() % 4 {
            0 => drop(contents[file].remove(line)),
            1 => {
                let again = contents[file][line].clone();
                contents[file].push(again);
            }
            _ => edit(choices, &mut contents[file][line], &[], 2),
        }
        if contents[file].is_empty() {
            break;
        }
    }
    let (files, chain) = written(&contents);
    let key = key();
    let verdict = AuditCheck::new(&key).files(files.iter().map(Vec::as_slice));
    let anchored = AuditCheck::new(&key).anchor(&genuine().1);
    let anchored = anchored.files(files.iter().map(Vec::as_slice));
    // A holder of the key may go on behind the anchored line, and change nothing before it.
    let goes_on = files.concat().starts_with(&genuine().0.concat());
    assert_eq!(anchored.is_ok(), verdict.is_ok() && goes_on, "{anchored:?}");
    if let Ok(summary) = verdict {
        for file in &contents {
            let closed = file.iter().position(|line| closes(line));
            assert!(closed.is_none_or(|line| line + 1 == file.len()), "a line after the last");
        }
        assert_eq!(summary.head.lines, chain.lines);
        assert_eq!(summary.head.code, chain.code);
        assert_eq!(summary.files, u64::try_from(files.len()).unwrap());
        assert_eq!(summary.torn, 0);
        let text = serde_json::to_string(&summary).unwrap();
        assert_eq!(serde_json::from_str::<vram_audit::AuditSummary>(&text).unwrap(), summary);
    }
}

/// Heads and ids of files have one spelling, and bytes without a form are no audit.
fn texts(bytes: &[u8]) {
    assert!(verify_audit(bytes, &key()).is_err() || is_prefix(&[bytes.to_vec()]));
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Ok(head) = text.parse::<AuditHead>() {
        assert_eq!(head.to_string(), text);
    }
    if let Ok(id) = text.parse::<AuditFileId>() {
        assert_eq!(id.to_string(), text);
    }
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let (files, head) = genuine();
    vec![
        ("genuine", vec![0, 0]),
        ("bit", vec![0, 0, 0, 0, 0, 90, 0, 1]),
        ("file-missing", vec![0, 1, 0, 1, 0]),
        ("files-joined", vec![0, 1, 3, 0, 0]),
        ("file-split", vec![0, 1, 4, 0, 0, 2, 0]),
        ("lines-cut", vec![0, 1, 5, 2, 0, 2, 0]),
        ("line-copied", vec![0, 0, 0, 0, 5, 0, 0, 0, 1, 60, 0]),
        ("torn", vec![0, 0, 2, 0, 7, 0x00, 1]),
        ("signed-count", vec![2, 0, 0, 0, 2, 0, 2, 6, 27, 0, 0, 13]),
        ("lines-of-another", vec![0, 1, 6, 0, 0, 2, 0]),
        ("signed-after-the-last", vec![2, 0, 0, 0, 2, 0, 1]),
        ("signed-other-content", vec![2, 0, 2, 0, 2, 0, 2, 1, 23, 0, b'7']),
        ("signed-line-gone", vec![2, 0, 0, 0, 3, 0, 0]),
        ("head", [&[3], head.to_string().as_bytes()].concat()),
        ("file-id", [&[3], hex(&[1; 16]).as_bytes()].concat()),
        ("raw", [&[3][..], &files[1]].concat()),
    ]
}
