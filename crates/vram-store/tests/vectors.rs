//! The frozen vectors of store format 1 (P76): made by an independent implementation, never by this one.

#![expect(clippy::unwrap_used, reason = "a panic is the failure of the test")]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers, checked in test builds")]

#[macro_use]
extern crate vram_testkit;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vram_seal::{KeyRing, SealKey};
use vram_store::{
    ImageId, Manifest, ManifestId, PART_LEN, Parts, Unproven, image_key, manifest_key,
    model_folder, parts_key,
};

const FROZEN: &str = include_str!("vectors/store-v1.json");
/// The file itself is pinned: changing a vector changes the format, and needs two edits.
const PIN: &str = "96a84aff6ffc6f98bf746f3f78896e2d6e03e6e48805a88e83e33d9c5ca9a73f";

fn frozen() -> Value {
    assert_eq!(ImageId::of(FROZEN.as_bytes()).to_string(), PIN, "the frozen vectors were altered");
    serde_json::from_str(FROZEN).unwrap()
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

fn bytes(digits: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(digits).unwrap()
}

/// As the format's text gives it.
fn content(len: u64) -> Vec<u8> {
    (0..len).map(|at| (131 * at + 17 * (at >> 8) + 7).to_le_bytes()[0]).collect()
}

#[test]
fn images_have_the_frozen_names_and_parts() {
    let frozen = frozen();
    assert_eq!(list(&frozen, "images").len(), 8);
    for image in list(&frozen, "images") {
        let len = image["len"].as_u64().unwrap();
        let id: ImageId = text(image, "id").parse().unwrap();
        let content = content(len);
        assert_eq!(ImageId::of(&content), id, "{len}");
        assert_eq!(image_key(&id), text(image, "image_key"));
        assert_eq!(parts_key(&id), text(image, "parts_key"));
        let object: Vec<u8> =
            list(image, "parts").iter().flat_map(|part| bytes(part.as_str().unwrap())).collect();
        let parts = Parts::from_bytes(&object, len).unwrap();
        assert_eq!((parts.id(), parts.to_bytes()), (&id, object), "{len}");
        let part_len = usize::try_from(PART_LEN).unwrap();
        let mut pieces: Vec<&[u8]> = content.chunks(part_len).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        assert_eq!(parts.count(), u64::try_from(pieces.len()).unwrap());
        for (part, piece) in (0..).zip(pieces) {
            assert!(parts.holds(part, piece), "{len}, part {part}");
        }
    }
}

#[test]
fn models_have_the_frozen_folders() {
    for model in list(&frozen(), "folders") {
        assert_eq!(model_folder(text(model, "model")), text(model, "folder"));
    }
}

#[test]
fn manifests_are_the_frozen_bytes() {
    let frozen = frozen();
    let master: [u8; 32] = bytes(text(&frozen, "master")).try_into().unwrap();
    let key = SealKey::from_bytes(&master);
    let code = key.manifest_key();
    let keys = KeyRing::new(SealKey::from_bytes(&master));
    assert_eq!(list(&frozen, "manifests").len(), 3);
    for one in list(&frozen, "manifests") {
        let bytes = text(one, "text").as_bytes();
        let manifest = Manifest::from_bytes(bytes).unwrap();
        assert_eq!(manifest.key_id, key.id());
        assert_eq!(manifest.check_code(&code), Ok(()));
        let again = Manifest { mac: [0; 32], ..manifest.clone() }.signed(&code);
        assert_eq!(again.to_bytes(), bytes);
        let id: ManifestId = text(one, "id").parse().unwrap();
        assert_eq!(manifest.id(), id);
        assert_eq!(manifest_key(&manifest.model, manifest.revision, &id), text(one, "key"));
        assert!(Unproven::read(bytes, &id).unwrap().prove(&keys, Some(&id)).is_ok());
    }
}

/// Runs the second implementation over the frozen file. Written straight to standard error, past the
/// test's capture, so that a skip is visible.
#[test]
fn an_independent_implementation_derives_the_frozen_vectors() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/derive.py");
    let report = |line: &str| writeln!(std::io::stderr(), "vectors: {line}").unwrap();
    let Ok(run) = Command::new("python3").arg(&script).output() else {
        return report("skipped: `python3` does not start, nothing was re-derived");
    };
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    report(said.trim());
}
