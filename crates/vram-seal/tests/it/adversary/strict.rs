//! P11 and the order of checks: records that are genuine but not of this format are refused, and
//! the error names the fault. The test makes them with the key, from the text of the format.

use ring::hmac;
use vram_seal::{
    CONTEXT_LEN_MAX, ContextField, Expected, KeyRing, OpenLimits, SealContext, SealError, SealKey,
    SealParams, SealRecord, SivScope, Suite, open_record, open_record_in,
};

use vram_testkit::content;

use crate::support::{S, Shard, key, kinds};

/// Alters a record and signs it again, as only a holder of the key can.
fn forge(record: &SealRecord, alter: impl FnOnce(&mut [u8])) -> SealRecord {
    let mut forged = record.clone();
    alter(&mut forged);
    let secret = blake3::derive_key("vram-seal v1 2026-11 header-mac", &[7; 32]);
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), &forged[..224]);
    forged[224..].copy_from_slice(mac.as_ref());
    forged
}

fn refusal(record: &SealRecord) -> Option<SealError> {
    let expected = Expected::new("model").unwrap().any_protection();
    open_record(&key(7), record, &expected, OpenLimits::default()).err()
}

#[test]
fn the_forger_of_this_test_makes_genuine_records() {
    for params in kinds() {
        let record = Shard::of(params, &content(2 * S, 1)).record;
        assert!(forge(&record, |_| ()) == record);
        assert_eq!(refusal(&record), None);
    }
}

#[test]
fn only_the_five_kinds_of_seal_are_opened() {
    let record = Shard::of(kinds()[1], &content(2 * S, 1)).record;
    let mut opened = vec![];
    for protection in 0..4 {
        for scope in 0..4 {
            for suite in 0..4 {
                let forged = forge(&record, |bytes| {
                    bytes[10..13].copy_from_slice(&[protection, scope, suite]);
                    if scope != 2 {
                        bytes[128..160].fill(0);
                    }
                });
                match refusal(&forged) {
                    None => opened.push((protection, scope, suite)),
                    Some(SealError::MalformedRecord { field }) => {
                        assert_eq!(field, "combination of mode, scope and cipher");
                    }
                    Some(other) => panic!("{other}"),
                }
            }
        }
    }
    assert_eq!(opened, [(1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 2), (2, 0, 0)]);
}

#[test]
fn every_field_is_read_strictly_even_from_the_keys_holder() {
    for params in kinds() {
        let record = Shard::of(params, &content(2 * S, 1)).record;
        let has_siv = record[11] == 2;
        let malformed = |alter: &dyn Fn(&mut [u8]), field| {
            assert_eq!(
                refusal(&forge(&record, alter)),
                Some(SealError::MalformedRecord { field }),
                "{params:?}"
            );
        };
        for bit in 0..8 {
            malformed(&|bytes| bytes[15] = 1 << bit, "flag");
        }
        for at in 192..224 {
            malformed(&|bytes| bytes[at] = 0x40, "reserved byte");
        }
        if !has_siv {
            for at in 128..160 {
                malformed(&|bytes| bytes[at] = 1, "synthetic IV where there is none");
            }
        }
        for log2 in [0, 11, 25, 63, 64, 255] {
            malformed(&|bytes| bytes[14] = log2, "segment size");
        }
        for len in [(1 << 48) + 1, u64::MAX] {
            malformed(
                &|bytes| bytes[16..24].copy_from_slice(&len.to_le_bytes()),
                "plaintext length",
            );
        }
        for count in [0_u64, 1, 3, u64::MAX] {
            malformed(
                &|bytes| bytes[24..32].copy_from_slice(&count.to_le_bytes()),
                "segment count",
            );
        }
        for (len, log2) in [((1_u64 << 36) + 1, 12), ((1 << 42) + 1, 18), (1 << 48, 23)] {
            malformed(
                &|bytes| {
                    bytes[14] = log2;
                    bytes[16..24].copy_from_slice(&len.to_le_bytes());
                    bytes[24..32].copy_from_slice(&len.div_ceil(1 << log2).to_le_bytes());
                },
                "segment count",
            );
        }
    }
}

/// One fault of a record for each check, in the order of the format: bytes to set, and the refusal.
type Fault = (&'static [(usize, u8)], fn(&SealError) -> bool);

const FAULTS: [Fault; 19] = [
    (&[(0, b'X')], |e| *e == SealError::NotASeal),
    (&[(8, 2)], |e| *e == SealError::UnsupportedVersion { found: 2 }),
    (&[(13, 9)], |e| *e == SealError::UnsupportedHash { found: 9 }),
    (&[(48, 0xff)], |e| matches!(e, SealError::WrongKey { .. })),
    (&[(224, 0xff)], |e| *e == SealError::RecordMismatch),
    (&[(10, 3)], |e| malformed(e, "combination of mode, scope and cipher")),
    (&[(15, 1)], |e| malformed(e, "flag")),
    (&[(192, 1)], |e| malformed(e, "reserved byte")),
    (&[(128, 1)], |e| malformed(e, "synthetic IV where there is none")),
    (&[(14, 11)], |e| malformed(e, "segment size")),
    (&[(23, 1)], |e| malformed(e, "plaintext length")),
    (&[(24, 1)], |e| malformed(e, "segment count")),
    (&[(64, 0xff)], |e| another(e, ContextField::ModelAndContext)),
    (&[(96, 0xff)], |e| another(e, ContextField::Metadata)),
    (&[(32, 1)], |e| another(e, ContextField::ShardIndex)),
    (&[(40, 1)], |e| another(e, ContextField::Revision)),
    // Without its mode, a record has no scope and no cipher either: these are checked after it.
    (&[(10, 2), (11, 0), (12, 0)], |e| matches!(e, SealError::ProtectionMismatch { .. })),
    (&[(12, 2)], |e| another(e, ContextField::Suite)),
    (&[], |e| matches!(e, SealError::TooLong { .. })),
];

fn malformed(error: &SealError, wanted: &str) -> bool {
    matches!(error, SealError::MalformedRecord { field } if *field == wanted)
}

fn another(error: &SealError, wanted: ContextField) -> bool {
    *error == SealError::ContextMismatch { field: wanted }
}

/// The fault of byte 224 spoils the code itself; behind it, faults are signed.
const CODE: usize = 4;

#[test]
fn a_record_that_is_wrong_in_two_ways_is_refused_for_the_earlier() {
    let good = Shard::of(kinds()[2], &content(2 * S, 1)).record;
    let expected = Expected::from(&SealContext::new("model").unwrap()).params(kinds()[2]);
    let limits = OpenLimits { max_len: vram_alloc::ByteLen::new(1) };
    for (first, (earlier, right)) in FAULTS.iter().enumerate() {
        for (second, (later, _)) in FAULTS.iter().enumerate().skip(first) {
            let mut record = good.clone();
            for fault in [later, earlier] {
                for (at, byte) in fault.iter().filter(|(at, _)| *at != 224) {
                    record[*at] = *byte;
                }
            }
            let mut record = forge(&record, |_| ());
            if first == CODE || second == CODE {
                record[224] ^= 1;
            }
            let refusal = open_record(&key(7), &record, &expected, limits).err().unwrap();
            // The mode decides whether there is a cipher to be wrong.
            let skipped = first == 16 && second == 17;
            assert!(right(&refusal) || skipped, "{first} before {second}: {refusal}");
        }
    }
}

#[test]
fn a_scope_is_compared_before_a_cipher() {
    let record = Shard::of(kinds()[4], &content(2 * S, 1)).record;
    let expected = Expected::new("model").unwrap().params(kinds()[1]);
    let refusal = |expected| open_record(&key(7), &record, &expected, OpenLimits::default()).err();
    let mismatch = |field| Some(SealError::ContextMismatch { field });
    assert_eq!(refusal(expected), mismatch(ContextField::Scope));
    let expected = expected.scope(SivScope::Segment);
    assert_eq!(refusal(expected), mismatch(ContextField::Suite));
    assert_eq!(refusal(expected.suite(Suite::ChaCha20Poly1305)), None);
}

#[test]
fn a_hostile_length_with_the_right_key_takes_no_memory() {
    // 2^48 bytes, 2^24 segments: a table of 768 MiB, if the record were trusted.
    let record = Shard::of(kinds()[2], &content(2 * S, 1)).record;
    let forged = forge(&record, |bytes| {
        bytes[14] = 24;
        bytes[16..24].copy_from_slice(&(1_u64 << 48).to_le_bytes());
        bytes[24..32].copy_from_slice(&(1_u64 << 24).to_le_bytes());
    });
    let expected = Expected::new("model").unwrap();
    let opened = open_record(&key(7), &forged, &expected, OpenLimits::default()).unwrap();
    assert_eq!(opened.table_len(), 48 << 24);
    let table = Shard::of(kinds()[2], &content(2 * S, 1)).tags;
    assert!(matches!(opened.with_table(table).err(), Some(SealError::WrongLength { .. })));
}

#[test]
fn a_ring_opens_with_the_key_the_record_names_or_says_which_is_missing() {
    let shard = Shard::of(kinds()[1], &content(10, 1));
    let expected = Expected::new("model").unwrap();
    let mut ring = KeyRing::new(key(1));
    assert_eq!(
        open_record_in(&ring, &shard.record, &expected, OpenLimits::default()).err(),
        Some(SealError::UnknownKey { id: key(7).id() })
    );
    ring.add(key(7)).unwrap();
    assert!(open_record_in(&ring, &shard.record, &expected, OpenLimits::default()).is_ok());
}

#[test]
fn model_ids_have_1_to_1024_bytes() {
    for (len, good) in [(0, false), (1, true), (1024, true), (1025, false)] {
        let id = "m".repeat(len);
        assert_eq!(SealContext::new(&id).is_ok(), good);
        assert_eq!(Expected::new(&id).is_ok(), good);
    }
}

#[test]
fn no_error_shows_bytes_of_key_tag_digest_or_content() {
    let shard = Shard::of(kinds()[1], &content(2 * S, 1));
    let shown = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        shard.record,
        shard.tags,
        shard.opener(),
        key(7),
        key(7).ticket_key()
    );
    for secret in [&shard.record[128..160], &shard.record[160..192], &shard.record[224..]] {
        let secret = &secret[..4];
        let list = format!("{secret:?}").replace(['[', ']'], "");
        let hex = format!("{:08x}", u32::from_be_bytes(secret.try_into().unwrap()));
        assert!(!shown.contains(&list) && !shown.contains(&hex));
    }
    assert!(!shown.contains("7, 7, 7") && !shown.contains("070707"));
}

#[test]
fn a_context_or_metadata_beyond_64_kib_is_not_sealed() {
    let key = SealKey::from_bytes(&[7; 32]);
    let long = vec![b'x'; CONTEXT_LEN_MAX + 1];
    let base = SealContext::new("m").unwrap();
    let start = |context: SealContext<'_>| {
        vram_seal::Sealer::new(&key, &context, SealParams::new(), vram_alloc::ByteLen::ZERO)
            .map(|_| ())
    };
    let max = &long[..CONTEXT_LEN_MAX];
    assert_eq!(start(base.context(max).metadata(max)), Ok(()));
    for (context, what) in [(base.context(&long), "context"), (base.metadata(&long), "metadata")] {
        let refused = SealError::ContextTooLong { what, len: 65_537, max: 65_536 };
        assert_eq!(start(context), Err(refused));
    }
}
