//! The frozen vectors of format 1 (P12): made by an independent implementation, never by this one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers, checked in test builds")]

#[macro_use]
extern crate vram_testkit;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vram_seal::{
    ContentHasher, Expected, HashKind, Opener, Protection, SealContext, SealKey, SealParams,
    SealRecord, SegmentSize, SegmentTags, SivScope, Suite, Threads, image, seal, unseal, verify,
};

/// The file itself is pinned: changing a vector changes the format, and needs two edits.
const FROZEN: &str = include_str!("vectors/seal-v1.json");
const FROZEN_BLAKE3: &str = "44ae37aebd258e8e7c9e5f2345c1239016a1d871111bfb6cbac4bf3d6fb999e5";

fn frozen() -> Value {
    assert_eq!(blake3(FROZEN.as_bytes()), FROZEN_BLAKE3, "the frozen vectors were altered");
    serde_json::from_str(FROZEN).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty());
    pairs
        .iter()
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn content(len: u64) -> Vec<u8> {
    (0..len).map(|i| (131 * i + 17 * (i >> 8) + 7).to_le_bytes()[0]).collect()
}

fn blake3(bytes: &[u8]) -> String {
    ContentHasher::digest(HashKind::Blake3, bytes).to_string()
}

fn params(case: &Value) -> SealParams {
    let log2 = u8::try_from(case["segment_log2"].as_u64().unwrap()).unwrap();
    let base = SealParams::new()
        .with_scope(SivScope::Shard)
        .with_segment(SegmentSize::from_log2(log2).unwrap());
    match text(case, "mode") {
        "authenticated" => base.with_protection(Protection::Authenticated),
        "segment-aes-256-gcm" => base.with_scope(SivScope::Segment),
        "segment-chacha20-poly1305" => {
            base.with_scope(SivScope::Segment).with_suite(Suite::ChaCha20Poly1305)
        }
        "shard-aes-256-gcm" => base,
        "shard-chacha20-poly1305" => base.with_suite(Suite::ChaCha20Poly1305),
        other => panic!("a mode that is not known: {other}"),
    }
}

#[test]
fn sealing_gives_the_frozen_bytes() {
    let frozen = frozen();
    let key = SealKey::from_hex(text(&frozen, "key")).unwrap();
    assert_eq!(key.id().to_string(), text(&frozen, "key_id"));
    let ticket_key = key.ticket_key();
    assert_eq!(blake3(ticket_key.expose_bytes().as_slice()), text(&frozen, "ticket_key_blake3"));
    let (bytes, metadata) = (hex(text(&frozen, "context")), hex(text(&frozen, "metadata")));
    let context = SealContext::new(text(&frozen, "model_id"))
        .unwrap()
        .context(&bytes)
        .metadata(&metadata)
        .shard_index(frozen["shard_index"].as_u64().unwrap())
        .revision(frozen["revision"].as_u64().unwrap());

    let cases = frozen["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 65, "thirteen sizes, five modes");
    for case in cases {
        let plaintext = content(case["len"].as_u64().unwrap());
        let mut data = vec![0; plaintext.len()];
        let sealed =
            seal(&key, &context, params(case), Threads::AUTO, &plaintext, &mut data).unwrap();
        let name = format!("{}, {} bytes", text(case, "mode"), plaintext.len());
        assert_eq!(sealed.digest.to_string(), text(case, "content_digest"), "{name}");
        assert_eq!(&sealed.record[..], hex(text(case, "record")), "{name}");
        assert_eq!(blake3(sealed.tags.as_bytes()), text(case, "table_blake3"), "{name}");
        assert_eq!(blake3(&data), text(case, "data_blake3"), "{name}");
        if let Some(whole) = case["table"].as_str() {
            assert_eq!(sealed.tags.as_bytes(), hex(whole), "{name}");
        }
        if let Some(whole) = case["data"].as_str() {
            assert_eq!(data, hex(whole), "{name}");
        }
    }
}

#[test]
fn what_is_frozen_opens_without_ever_having_been_sealed_here() {
    let frozen = frozen();
    let key = SealKey::from_hex(text(&frozen, "key")).unwrap();
    let context = hex(text(&frozen, "context"));
    let expected = Expected::new(text(&frozen, "model_id")).unwrap().context(&context);
    let mut count = 0;
    for case in frozen["cases"].as_array().unwrap() {
        let (Some(table), Some(data)) = (case["table"].as_str(), case["data"].as_str()) else {
            continue;
        };
        let record = SealRecord::try_from(&hex(text(case, "record"))[..]).unwrap();
        let tags =
            SegmentTags::from_bytes(&record.parse_unauthenticated().unwrap(), hex(table)).unwrap();
        let mut whole = image::head(&record, &tags).unwrap();
        whole.extend_from_slice(&hex(data));
        let fields = record.parse_unauthenticated().unwrap();
        let (tags, data) = image::split(&fields, &whole).unwrap();

        let opener = Opener::open(&key, &record, tags, &expected).unwrap();
        let mut plaintext = vec![0; data.len()];
        unseal(&opener, Threads::ONE, data, &mut plaintext).unwrap();
        assert_eq!(plaintext, content(case["len"].as_u64().unwrap()));
        assert_eq!(verify(&opener, Threads::ONE, data), Ok(vec![]));
        count += 1;
    }
    assert_eq!(count, 25, "five sizes up to 17 bytes, five modes");
}

/// Runs the independent implementation if its interpreter and packages are installed. Writes past
/// the test harness's capture, so that a skip is visible.
#[test]
fn an_independent_implementation_derives_the_frozen_vectors() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/derive.py");
    let python = std::env::var("VRAM_SEAL_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let report = |line: &str| writeln!(std::io::stderr(), "vectors: {line}").unwrap();
    let Ok(run) = Command::new(&python).arg(&script).output() else {
        return report(&format!("skipped: `{python}` does not start, nothing was re-derived"));
    };
    let said = String::from_utf8_lossy(&run.stdout);
    match run.status.code() {
        Some(0) => report(said.trim()),
        Some(77) => report(&format!("skipped: {python}: {}, nothing was re-derived", said.trim())),
        _ => panic!("{said}{}", String::from_utf8_lossy(&run.stderr)),
    }
}
