//! P13: after a key and all values made from it are dropped, the process does not contain its
//! bytes.
//!
//! The scan runs in a child process, which reads all of its own writable memory through
//! `/proc/self/mem`. The child receives the patterns masked, so that the patterns themselves are
//! not found. It also scans once for each kind of pattern while that must exist: this shows that a
//! scan without a result would have found it.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "the child tells the parent where it found what")]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers, checked in test builds")]

#[macro_use]
extern crate vram_testkit;

use core::fmt::Write as _;
use core::hint::black_box;
use std::fs::{File, read_to_string};
use std::os::unix::fs::FileExt;
use std::process::Command;

use blake3::hazmat::HasherExt as _;
use vram_seal::{
    Expected, Opener, Protection, SealContext, SealKey, SealParams, SegmentSize, SivScope, Suite,
    Threads, TicketKey, seal, unseal,
};

const MASK: u8 = 0x5c;
const CHILD: &str = "VRAM_SEAL_MEMORY_CHILD";
const LEN: usize = 5 * 4096 + 77;
/// Where the key of a segment is in the list of secrets: behind the master and eight subkeys.
const SEGMENT_KEY: usize = 9;

fn kind(index: usize) -> SealParams {
    let base = SealParams::new().with_scope(SivScope::Shard).with_segment(SegmentSize::MIN);
    match index {
        0 => base,
        1 => base.with_scope(SivScope::Segment),
        2 => base.with_suite(Suite::ChaCha20Poly1305),
        _ => base.with_protection(Protection::Authenticated),
    }
}

/// Every secret of the seal, by the text of the format; the master key first.
fn secrets(index: usize) -> Vec<[u8; 32]> {
    let master = *blake3::hash(b"the master key of the memory test").as_bytes();
    let derive =
        |purpose: &str| blake3::derive_key(&format!("vram-seal v1 2026-11 {purpose}"), &master);
    let mut secrets = vec![master];
    secrets.extend(
        [
            "header-mac",
            "siv",
            "segment-key",
            "table-mac",
            "attest",
            "binding",
            "metadata",
            "ticket",
        ]
        .map(derive),
    );

    let key = SealKey::from_bytes(&master);
    let (plaintext, mut data) = (vec![3; LEN], vec![0; LEN]);
    let context = SealContext::new("m").unwrap();
    let sealed = seal(&key, &context, kind(index), Threads::ONE, &plaintext, &mut data).unwrap();
    let ctx = blake3::hash(&sealed.record[..128]);
    let entries = sealed.tags.as_bytes().chunks(48);
    let sivs: Vec<&[u8]> = match index {
        0 | 2 => vec![&sealed.record[128..160]; 6],
        1 => entries.map(|entry| &entry[..32]).collect(),
        _ => vec![],
    };
    for (segment, siv) in (0_u64..).zip(sivs) {
        let len: u64 = if segment == 5 { 77 } else { 4096 };
        let mut input = ctx.as_bytes().to_vec();
        input.extend_from_slice(siv);
        input.extend_from_slice(&segment.to_le_bytes());
        input.extend_from_slice(&len.to_le_bytes());
        input.push(u8::from(segment == 5));
        input.extend_from_slice(&[0; 15]);
        secrets.push(*blake3::keyed_hash(&derive("segment-key"), &input).as_bytes());
    }
    // The plain hashes of the segments, which confirm a guess of the content.
    for (offset, piece) in (0_u64..).step_by(4096).zip(plaintext.chunks(4096)) {
        secrets
            .push(blake3::Hasher::new().set_input_offset(offset).update(piece).finalize_non_root());
    }
    secrets
}

/// The masked patterns, or halves of them, that are in this process's writable memory.
fn found(masked: &[[u8; 32]]) -> Vec<usize> {
    let memory = File::open("/proc/self/mem").unwrap();
    let halves: Vec<(usize, &[u8])> =
        masked.iter().enumerate().flat_map(|(i, m)| [(i, &m[..16]), (i, &m[16..])]).collect();
    let mut first = [false; 256];
    for (_, half) in &halves {
        first[usize::from(half[0] ^ MASK)] = true;
    }
    let mut found = vec![];
    let mut buffer = vec![0; 1 << 20];
    for line in read_to_string("/proc/self/maps").unwrap().lines() {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next().unwrap(), words.next().unwrap());
        if !mode.starts_with("rw") || line.ends_with("[vvar]") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (mut at, end) =
            (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        while at < end {
            let len = usize::try_from(end - at).unwrap().min(buffer.len());
            // A guard page within the mapping cannot be read; it cannot have been written either.
            if memory.read_exact_at(&mut buffer[..len], at).is_ok() {
                for (place, window) in buffer[..len].windows(16).enumerate() {
                    if !first[usize::from(window[0])] {
                        continue;
                    }
                    for (index, half) in &halves {
                        if window.iter().zip(*half).all(|(byte, masked)| byte ^ MASK == *masked) {
                            found.push(*index);
                            let place = at + u64::try_from(place).unwrap();
                            eprintln!("secret {index} at {place:#x} of {line}");
                        }
                    }
                }
            }
            // The windows overlap by one byte less than a pattern.
            at = if at + u64::try_from(len).unwrap() >= end {
                end
            } else {
                at + u64::try_from(len).unwrap() - 15
            };
        }
    }
    black_box(&mut buffer).fill(0);
    found.sort_unstable();
    found.dedup();
    found
}

/// The work under test: creates a key, seals, opens and signs, and drops every value.
#[inline(never)]
fn use_a_key(params: SealParams, threads: Threads, masked: &[u8; 32], alive: &dyn Fn()) {
    // The key that is used is read like a key file. Others are made in the other ways, and dropped.
    let mut raw: Box<[u8; 32]> = Box::new([0; 32]);
    for (byte, masked) in raw.iter_mut().zip(masked) {
        *byte = masked ^ MASK;
    }
    let key = SealKey::from_key_file_bytes(raw.as_slice()).unwrap();
    let same = SealKey::from_bytes(&raw);
    let again = SealKey::from_hex(&same.expose_hex()).unwrap();
    let ticket_key = TicketKey::from_bytes(&same.ticket_key().expose_bytes());
    assert_eq!((key.id(), ticket_key.id()), (again.id(), key.ticket_key().id()));
    black_box(&mut *raw).fill(0);
    black_box(&raw);

    let (plaintext, mut data, mut back) = (vec![3; LEN], vec![0; LEN], vec![0; LEN]);
    let context = SealContext::new("m").unwrap();
    let sealed = seal(&key, &context, params, threads, &plaintext, &mut data).unwrap();
    let opener =
        Opener::open(&key, &sealed.record, sealed.tags, &Expected::from(&context).params(params))
            .unwrap();
    unseal(&opener, threads, &data, &mut back).unwrap();
    assert_eq!(back, plaintext);
    let ticket_key = key.ticket_key();
    ticket_key.verify(b"statement", &ticket_key.sign(b"statement")).unwrap();
    alive();
}

fn child(task: &str) {
    let mut words = task.split(' ');
    let mut number = || words.next().unwrap().parse::<usize>().unwrap();
    let (index, threads) = (number(), Threads::exactly(number()));
    let masked: Vec<[u8; 32]> = words
        .map(|word| {
            core::array::from_fn(|i| u8::from_str_radix(&word[2 * i..2 * i + 2], 16).unwrap())
        })
        .collect();
    assert_eq!(found(&masked), [0; 0], "before anything was done");

    use_a_key(kind(index), threads, &masked[0], &|| {
        let alive = found(&masked);
        assert!(alive.contains(&0), "the master key is there while it is in use");
        assert!(alive.contains(&2), "so are the keys derived from it");
    });
    assert_eq!(found(&masked), [0; 0], "after everything was dropped");

    // Shows that the scan would find a segment's key in the cipher's own form.
    if let Some(segment) = masked.get(SEGMENT_KEY).filter(|_| index < 3) {
        let mut raw: Vec<u8> = segment.iter().map(|byte| byte ^ MASK).collect();
        let key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &raw).unwrap();
        raw.fill(0);
        black_box(&raw);
        let key = Box::new(ring::aead::LessSafeKey::new(key));
        assert_eq!(found(&masked), [SEGMENT_KEY], "a key that ring keeps is found");
        black_box(&key);
    }
}

#[test]
fn no_key_is_in_memory_after_it_was_dropped() {
    if let Ok(task) = std::env::var(CHILD) {
        return child(&task);
    }
    for index in 0..4 {
        for threads in [1, 2] {
            let mut task = format!("{index} {threads}");
            for secret in secrets(index) {
                task.push(' ');
                for byte in secret {
                    write!(task, "{:02x}", byte ^ MASK).unwrap();
                }
            }
            let run = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "no_key_is_in_memory_after_it_was_dropped", "--nocapture"])
                .env(CHILD, task)
                .output()
                .unwrap();
            assert!(
                run.status.success(),
                "kind {index}, {threads} threads:\n{}{}",
                String::from_utf8_lossy(&run.stdout),
                String::from_utf8_lossy(&run.stderr)
            );
        }
    }
}
