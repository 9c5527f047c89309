//! P13: after managers, images and a panic, the process contains neither keys, in any form, nor
//! plaintext.
//!
//! The search runs in a child process, over all of its own writable memory. The child receives the
//! patterns masked, so that the patterns themselves are not found. While the key is in use it must
//! be found: a search that finds nothing then would find nothing later either. The patterns are
//! computed by other code: the master key, raw and in digits, every derived key, keys of segments,
//! the round keys of AES, the states of HMAC-SHA256, and the plaintext.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::panic, reason = "a source of a test panics on purpose")]
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers, checked in test builds")]

#[macro_use]
extern crate vram_testkit;

mod patterns;
mod scan;
mod work;

use core::hint::black_box;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use patterns::{Pattern, digits};

const MASK: u8 = 0x5c;
const MODEL: &str = "memory-test";
/// 256 segments of 4 KiB.
const LEN: usize = 1 << 20;
const CHILD: &str = "VRAM_MEMORY_CHILD";
const FOLDER: &str = "VRAM_MEMORY_FOLDER";
const PATTERNS: &str = "patterns";

/// What is repeated in the plaintext: masked in the program's text, so that it is not found there.
fn marker() -> [u8; 32] {
    *blake3::hash(b"the plaintext of the memory test").as_bytes()
}

/// The content that is sealed. Each 32 bytes of it are the marker.
fn plaintext() -> Vec<u8> {
    let content = repeated();
    overwrite_stack();
    content
}

#[inline(never)]
fn repeated() -> Vec<u8> {
    marker().iter().copied().cycle().take(LEN).collect()
}

/// Overwrites what this test itself left on the stack: its copy of the marker.
#[inline(never)]
fn overwrite_stack() {
    black_box(&mut [0_u8; 1 << 14]).fill(1);
}

fn masked(patterns: &[Pattern]) -> String {
    let line = |(name, bytes): &Pattern| {
        let masked: Vec<u8> = bytes.iter().map(|byte| byte ^ MASK).collect();
        format!("{name}={}\n", digits(&masked))
    };
    patterns.iter().map(line).collect::<Vec<_>>().concat()
}

fn read_masked(folder: &Path) -> Vec<Pattern> {
    let text = fs::read_to_string(folder.join(PATTERNS)).unwrap();
    let line = |line: &str| {
        let (name, digits) = line.split_once('=').unwrap();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (name.to_owned(), (0..digits.len()).step_by(2).map(byte).collect())
    };
    text.lines().map(line).collect()
}

fn child(task: &str) {
    let folder = std::env::var_os(FOLDER).unwrap();
    let (folder, none) = (Path::new(&folder), BTreeSet::new());
    let patterns = read_masked(folder);
    let from_env = task.starts_with("env");
    // The environment itself holds the key: every other form must go all the same.
    let found = || {
        let mut found = scan::found(&patterns);
        if from_env {
            found.retain(|name| !name.starts_with("master key in digits"));
        }
        found
    };
    assert_eq!(found(), none, "before anything was done");
    let key: Vec<u8> = patterns[..2].iter().flat_map(|(_, half)| half.clone()).collect();
    work::run(task, folder, &key, &|| {
        assert!(found().contains("master key"), "the key is found while it is in use");
    });
    assert_eq!(found(), none, "after {task}");
}

fn left_nothing(tasks: &[&str]) {
    let master = *blake3::hash(b"the master key of the memory test").as_bytes();
    let mut patterns = patterns::all(&master);
    patterns.push(("plaintext".to_owned(), marker()[..16].to_vec()));
    patterns.push(("plaintext (end)".to_owned(), marker()[16..].to_vec()));
    let digits = digits(&master);
    let test = std::thread::current().name().unwrap().to_owned();
    for task in tasks {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        fs::write(&key, &digits).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(folder.path().join(PATTERNS), masked(&patterns)).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &test, "--nocapture"]);
        command.env(CHILD, task).env(FOLDER, folder.path());
        if task.starts_with("env") {
            command.env(work::KEY, &digits);
        }
        let run = command.output().unwrap();
        assert!(
            run.status.success(),
            "{task}:\n{}{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        );
    }
}

/// Runs the child's part of a test, if this process is one.
fn is_child() -> bool {
    let task = std::env::var(CHILD);
    task.inspect(|task| child(task)).is_ok()
}

#[test]
fn the_patterns_are_those_of_the_standards() {
    // FIPS 197 gives the schedule of zeros by the first words; SHA-256 of one block is that of
    // another implementation.
    let zeros = patterns::aes_round_keys(&[0; 32]);
    assert_eq!(zeros[2][..4], [0x62, 0x63, 0x63, 0x63]);
    assert_eq!(zeros.len(), 15);
    let mut block = [0; 64];
    block[55] = 0x80;
    block[62..].copy_from_slice(&(55_u16 * 8).to_be_bytes());
    let state: Vec<u8> =
        patterns::sha256_state(&block).iter().flat_map(|word| word.to_be_bytes()).collect();
    let wanted = ring::digest::digest(&ring::digest::SHA256, &[0; 55]);
    assert_eq!(state, wanted.as_ref());
}

#[test]
fn a_key_from_any_source_is_gone_after_it_was_dropped() {
    if !is_child() {
        left_nothing(&["file:load", "bytes:load", "array:load", "descriptor:load", "env:load"]);
    }
}

#[test]
fn neither_keys_nor_plaintext_are_left_after_a_manager() {
    if !is_child() {
        left_nothing(&["file:all", "bytes:all"]);
    }
}

#[test]
fn neither_keys_nor_plaintext_are_left_after_images() {
    if !is_child() {
        left_nothing(&["file:images"]);
    }
}

#[test]
fn neither_keys_nor_plaintext_are_left_after_a_panic() {
    if !is_child() {
        left_nothing(&["file:panic"]);
    }
}
