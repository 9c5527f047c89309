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
    ContentHasher, Expected, HashKind, OpenLimits, Opener, Protection, SealContext, SealError,
    SealKey, SealParams, SealRecord, SegmentSize, SegmentTags, SivScope, Suite, Threads, image,
    open_record, seal, unseal, verify, verify_content,
};

/// The files themselves are pinned: changing a vector changes the format, and needs two edits.
const FROZEN: [(&str, &str); 2] = [
    (
        include_str!("vectors/seal-v1.json"),
        "e5eb5d6cc6eb0a06e97128bbf31628d525f8ad5617ea91701a627bad32668de2",
    ),
    (
        include_str!("vectors/refused-v1.json"),
        "dfb55c7997da957863d52156ce0f631126f169c472da3a809e0ff037d71a3274",
    ),
];

fn frozen((content, pin): (&str, &str)) -> Value {
    assert_eq!(blake3(content.as_bytes()), pin, "the frozen vectors were altered");
    serde_json::from_str(content).unwrap()
}

fn cases(vectors: &Value) -> &[Value] {
    vectors["cases"].as_array().unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap()
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

/// The format takes any key; that of one identity is all zeros, which no file may hold.
fn key_of(identity: &Value) -> SealKey {
    SealKey::from_bytes(&hex(text(identity, "key")).try_into().unwrap())
}

#[test]
fn sealing_gives_the_frozen_bytes() {
    let frozen = frozen(FROZEN[0]);
    for identity in frozen["identities"].as_array().unwrap() {
        let key = key_of(identity);
        assert_eq!(key.id().to_string(), text(identity, "key_id"));
        let ticket_key = key.ticket_key();
        let ticket_key = blake3(ticket_key.expose_bytes().as_slice());
        assert_eq!(ticket_key, text(identity, "ticket_key_blake3"));
    }
    assert_eq!(cases(&frozen).len(), 135, "27 pairs of identity and size, five modes");
    for case in cases(&frozen) {
        let identity = &frozen["identities"][usize::try_from(number(case, "identity")).unwrap()];
        let key = key_of(identity);
        let (bytes, metadata) = (hex(text(identity, "context")), hex(text(identity, "metadata")));
        let context = SealContext::new(text(identity, "model_id"))
            .unwrap()
            .context(&bytes)
            .metadata(&metadata)
            .shard_index(number(identity, "shard_index"))
            .revision(number(identity, "revision"));
        let plaintext = content(number(case, "len"));
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
    let frozen = frozen(FROZEN[0]);
    let mut count = 0;
    for case in cases(&frozen) {
        let (Some(table), Some(data)) = (case["table"].as_str(), case["data"].as_str()) else {
            continue;
        };
        let identity = &frozen["identities"][usize::try_from(number(case, "identity")).unwrap()];
        let key = key_of(identity);
        let (bytes, metadata) = (hex(text(identity, "context")), hex(text(identity, "metadata")));
        let expected = Expected::in_context(text(identity, "model_id"), &bytes)
            .unwrap()
            .metadata(&metadata)
            .shard_index(number(identity, "shard_index"))
            .revision(number(identity, "revision"))
            .params(params(case));
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
        assert_eq!(plaintext, content(number(case, "len")));
        assert_eq!(verify(&opener, Threads::ONE, data), Ok(vec![]));
        count += 1;
    }
    assert_eq!(count, 65, "thirteen pairs of identity and a size up to 17 bytes, five modes");
}

/// The bytes that a list of hexadecimal texts and of runs of one byte stands for.
fn expand(pieces: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces.as_array().unwrap() {
        if let Some(text) = piece.as_str() {
            bytes.extend(hex(text));
        } else {
            let byte = u8::try_from(number(piece, "byte")).unwrap();
            let count = usize::try_from(number(piece, "count")).unwrap();
            bytes.resize(bytes.len() + count, byte);
        }
    }
    bytes
}

/// Opens a vector as far as it goes: record and table, or a whole image and its content.
fn open_vector(case: &Value) -> Result<(), SealError> {
    let key = SealKey::from_hex(text(case, "key")).unwrap();
    let wanted = &case["expected"];
    let bytes = |field: &str| wanted[field].as_str().map(hex);
    let (context, metadata) = (bytes("context").unwrap_or_default(), bytes("metadata"));
    let model = text(wanted, "model_id");
    let mut expected = Expected::in_context(model, &context).unwrap();
    expected = match text(wanted, "protection") {
        "any" => expected.any_protection(),
        "authenticated" => expected.protection(Protection::Authenticated),
        // What is expected unless the caller says otherwise.
        "encrypted" => expected,
        other => panic!("a protection that is not known: {other}"),
    };
    if let Some(metadata) = &metadata {
        expected = expected.metadata(metadata);
    }
    if let Some(index) = wanted["shard_index"].as_u64() {
        expected = expected.shard_index(index);
    }
    if let Some(revision) = wanted["revision"].as_u64() {
        expected = expected.revision(revision);
    }
    match wanted["scope"].as_str() {
        Some("segment") => expected = expected.scope(SivScope::Segment),
        Some(other) => panic!("a scope that is not known: {other}"),
        None => {}
    }
    match wanted["suite"].as_str() {
        Some("chacha20-poly1305") => expected = expected.suite(Suite::ChaCha20Poly1305),
        Some(other) => panic!("a cipher that is not known: {other}"),
        None => {}
    }
    let mut limits = OpenLimits::default();
    if let Some(max) = wanted["max_len"].as_u64() {
        limits.max_len = vram_alloc::ByteLen::new(max);
    }
    if case["table"].is_array() {
        let record = SealRecord::try_from(&expand(&case["record"])[..])?;
        let opened = open_record(&key, &record, &expected, limits)?;
        let tags = SegmentTags::from_bytes(opened.fields(), expand(&case["table"]))?;
        return opened.with_table(tags).map(drop);
    }
    let whole = expand(&case["image"]);
    let record = image::record(&whole)?;
    let opened = open_record(&key, &record, &expected, limits)?;
    let (tags, data) = image::split(opened.fields(), &whole)?;
    verify_content(&opened.with_table(tags)?, Threads::ONE, data).map(drop)
}

/// What an error names: a field, a segment, an offset.
fn names(error: &SealError) -> Value {
    match error {
        SealError::MalformedRecord { field } => (*field).into(),
        SealError::ContextMismatch { field } => field.to_string().into(),
        SealError::SegmentMismatch { segment } => (*segment).into(),
        SealError::Padding { offset } => (*offset).into(),
        _ => Value::Null,
    }
}

#[test]
fn what_another_implementation_refuses_is_refused_here_with_the_same_answer() {
    let frozen = frozen(FROZEN[1]);
    for case in cases(&frozen) {
        let name = text(case, "name");
        match open_vector(case) {
            Ok(()) => assert!(case["refused"].is_null(), "{name}: accepted"),
            Err(error) => {
                assert_eq!(case["refused"], error.code(), "{name}: {error}");
                assert_eq!(case["names"], names(&error), "{name}: {error}");
            }
        }
    }
    let accepted = cases(&frozen).iter().filter(|case| case["refused"].is_null()).count();
    assert_eq!((cases(&frozen).len(), accepted), (86, 1));
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
