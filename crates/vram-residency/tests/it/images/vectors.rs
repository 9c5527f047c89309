//! The frozen vectors of what must be refused, through every reader of images: each gives the
//! answer, and names the fault, that an independent implementation gives.

use serde_json::Value;
use std::fs;

use vram_residency::{
    ByteLen, Expected, ImageOptions, ImportRequest, KeyError, KeyRing, Limits, Protection,
    SealError, SealKey, SivScope, Suite, VramError, VramManager, unseal_image, unseal_image_to,
    verify_image,
};

use super::{image_error, memory_folder};

const REFUSED: &str = include_str!("../../../../vram-seal/tests/vectors/refused-v1.json");

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

fn expand(pieces: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces.as_array().unwrap() {
        if let Some(text) = piece.as_str() {
            bytes.extend(hex(text));
        } else {
            let byte = u8::try_from(piece["byte"].as_u64().unwrap()).unwrap();
            let count = usize::try_from(piece["count"].as_u64().unwrap()).unwrap();
            bytes.resize(bytes.len() + count, byte);
        }
    }
    bytes
}

fn protection(wanted: &Value) -> Option<Protection> {
    match text(wanted, "protection") {
        "any" => None,
        "authenticated" => Some(Protection::Authenticated),
        "encrypted" => Some(Protection::Encrypted),
        other => panic!("a protection that is not known: {other}"),
    }
}

fn expected<'a>(wanted: &'a Value, context: &'a [u8], metadata: Option<&'a [u8]>) -> Expected<'a> {
    let mut expected = Expected::in_context(text(wanted, "model_id"), context).unwrap();
    expected = match protection(wanted) {
        None => expected.any_protection(),
        Some(named) => expected.protection(named),
    };
    if let Some(metadata) = metadata {
        expected = expected.metadata(metadata);
    }
    if let Some(index) = wanted["shard_index"].as_u64() {
        expected = expected.shard_index(index);
    }
    if let Some(revision) = wanted["revision"].as_u64() {
        expected = expected.revision(revision);
    }
    if wanted["scope"] == "segment" {
        expected = expected.scope(SivScope::Segment);
    }
    if wanted["suite"] == "chacha20-poly1305" {
        expected = expected.suite(Suite::ChaCha20Poly1305);
    }
    expected
}

/// The answer as the vectors write it. A ring of one key knows no other key.
fn answer(error: &SealError) -> (Value, Value) {
    let names = match error {
        SealError::MalformedRecord { field } => (*field).into(),
        SealError::ContextMismatch { field } => field.to_string().into(),
        SealError::SegmentMismatch { segment } => (*segment).into(),
        SealError::Padding { offset } => (*offset).into(),
        _ => Value::Null,
    };
    let code = match error {
        SealError::UnknownKey { .. } => "wrong-key",
        other => other.code(),
    };
    (code.into(), names)
}

#[test]
fn every_reader_of_images_refuses_the_frozen_vectors_with_the_same_answer() {
    let vectors: Value = serde_json::from_str(REFUSED).unwrap();
    let folder = memory_folder();
    let (path, target) = (folder.path().join("image"), folder.path().join("content"));
    let (mut files, mut imports) = (0, 0);
    // The others are a record and a table that belong to no file.
    let images =
        vectors["cases"].as_array().unwrap().iter().filter(|case| case["image"].is_array());
    for case in images {
        let (name, wanted) = (text(case, "name"), &case["expected"]);
        let bytes = |field: &str| wanted[field].as_str().map(hex);
        let (context, metadata) = (bytes("context").unwrap_or_default(), bytes("metadata"));
        let len_max = wanted["max_len"].as_u64().map_or(ByteLen::new(1 << 48), ByteLen::new);
        let expected = expected(wanted, &context, metadata.as_deref());
        let key = || SealKey::from_hex(text(case, "key")).unwrap();
        let keys = KeyRing::new(key());
        let image = expand(&case["image"]);
        fs::write(&path, &image).unwrap();
        let options = || ImageOptions::new().len_max(len_max);
        let right = (case["refused"].clone(), case["names"].clone());

        let verified = match verify_image(&keys, &expected, &path, options()) {
            // Altered segments are a verdict.
            Ok(verdict) => SealError::SegmentMismatch { segment: verdict.altered[0].segment },
            Err(error) => image_error(error),
        };
        assert_eq!(answer(&verified), right, "verify: {name}: {verified}");
        let mut sink = Vec::new();
        for refused in [
            unseal_image(&keys, &expected, &path, &target, options()),
            unseal_image_to(&keys, &expected, &path, &mut sink, options()),
        ] {
            let error = image_error(refused.unwrap_err());
            assert_eq!(answer(&error), right, "unseal: {name}: {error}");
        }
        assert!(sink.is_empty() && !target.exists(), "{name}");
        files += 1;

        // A manager's import is not asked for a scope or a cipher.
        if wanted["scope"].is_string() || wanted["suite"].is_string() {
            continue;
        }
        let node = VramManager::builder()
            .host_device(ByteLen::new(1 << 20))
            .key(key())
            .limits(Limits::default().shard_len_max(len_max))
            .build()
            .unwrap();
        let request = || {
            let mut request = ImportRequest::new(text(wanted, "model_id"), 0).context(&context);
            request = match protection(wanted) {
                None => request.any_protection(),
                Some(named) => request.protection(named),
            };
            if let Some(metadata) = &metadata {
                request = request.metadata(metadata);
            }
            if let Some(index) = wanted["shard_index"].as_u64() {
                request = request.shard_index(index);
            }
            if let Some(revision) = wanted["revision"].as_u64() {
                request = request.revision(revision);
            }
            request
        };
        let streamed = match node.import(request(), image.as_slice()).unwrap_err() {
            VramError::Seal(error) => error,
            VramError::Key(KeyError::UnknownId { id }) => SealError::UnknownKey { id },
            other => panic!("import: {name}: {other:?}"),
        };
        assert_eq!(answer(&streamed), right, "import: {name}: {streamed}");
        let error = image_error(node.import_from(request(), &path).unwrap_err());
        assert_eq!(answer(&error), right, "import from: {name}: {error}");
        assert_eq!(node.capacity(0).unwrap().used, ByteLen::ZERO, "{name}");
        imports += 1;
    }
    assert_eq!((files, imports), (83, 79));
}
