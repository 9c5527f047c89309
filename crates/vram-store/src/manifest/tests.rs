use vram_seal::{KeyRing, SealKey};

use super::*;

pub(crate) fn manifest() -> Manifest {
    let shard = |index: u64| ShardEntry {
        index,
        plaintext_len: 1000,
        image: ImageId::of(&index.to_le_bytes()),
        image_len: 5096,
        record_mac: [7; 32],
    };
    let key = key();
    Manifest {
        fleet: None,
        model: "llama-3-70b \"x\"\n\u{1}\u{7f}é".into(),
        revision: u64::MAX,
        context: [1; 32],
        key_id: key.id(),
        created: "2026-11-26T11:40:00Z".into(),
        protection: Protection::Encrypted,
        ranks: vec![vec![0, 1], vec![2], vec![]],
        shards: (0..3).map(shard).collect(),
        source: SourceInfo { format: "safetensors".into(), digest: [9; 32] },
        mac: [0; 32],
    }
    .signed(&key.manifest_key())
}

fn key() -> SealKey {
    SealKey::from_bytes(&[3; 32])
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    let manifest = manifest();
    assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest.clone()));
    let other = Manifest { fleet: Some("prod".into()), ..manifest };
    let other = other.signed(&key().manifest_key());
    assert_eq!(Manifest::from_bytes(&other.to_bytes()), Ok(other));
}

/// Any altered byte: refused as bytes, or as a manifest of that digest, or under its key.
#[test]
fn no_altered_byte_is_accepted() {
    let (good, keys) = (manifest().to_bytes(), KeyRing::new(key()));
    let id = ManifestId::of(&good);
    assert!(Unproven::read(&good, &id).unwrap().prove(&keys, Some(&id)).is_ok());
    for at in 0..good.len() {
        for flip in [1, 0x20, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            assert!(matches!(Unproven::read(&bytes, &id), Err(ManifestError::Digest { .. })));
            // Under a name of its own: only who has the key can make one.
            let own = ManifestId::of(&bytes);
            let read = Unproven::read(&bytes, &own).and_then(|one| one.prove(&keys, None));
            assert!(read.is_err(), "byte {at} ^ {flip}");
            let read = Unproven::read(&bytes, &own).and_then(|one| one.prove_by_pin(&id));
            assert!(read.is_err(), "byte {at} ^ {flip}, by its pin");
        }
    }
}

#[test]
fn there_is_one_spelling() {
    let good = String::from_utf8(manifest().to_bytes()).unwrap();
    for (from, to) in [
        (",", ", "),
        ("\"fleet\":null,", ""),
        ("\"fleet\":null,\"model\"", "\"fleet\":null,\"fleet\":null,\"model\""),
        ("{\"vram_manifest\":1", "{\"more\":1,\"vram_manifest\":1"),
        ("\"vram_manifest\":1", "\"vram_manifest\":2"),
        ("é", "\\u00e9"),
        ("\\u0001", "\\u0001\\u0001"),
        ("}", "}\n"),
        ("llama", "Llama"),
        ("\"encrypted\"", "\"none\""),
        ("[0,1],[2]", "[0,1],[3]"),
        ("[0,1],[2]", "[1,0],[2]"),
        ("\"index\":1", "\"index\":2"),
        ("2026-11-26T", "2026-11-26 "),
    ] {
        let wrong = good.replacen(from, to, 1);
        assert_ne!(wrong, good, "{from}");
        let refused = Manifest::from_bytes(wrong.as_bytes())
            .and_then(|manifest| manifest.check_code(&key().manifest_key()));
        assert!(refused.is_err(), "{from} -> {to}");
    }
}

#[test]
fn a_manifest_of_another_key_or_pin_is_refused_by_name() {
    let one = manifest();
    let (bytes, id) = (one.to_bytes(), one.id());
    let read = || Unproven::read(&bytes, &id).unwrap();
    let strangers = KeyRing::new(SealKey::from_bytes(&[4; 32]));
    let refused = read().prove(&strangers, None).unwrap_err();
    assert_eq!(refused, ManifestError::UnknownKey { id: key().id() });
    let pin = ManifestId::from_bytes([5; 32]);
    let refused = read().prove(&KeyRing::new(key()), Some(&pin)).unwrap_err();
    assert_eq!(refused, ManifestError::Digest { expected: pin, found: id });
}
