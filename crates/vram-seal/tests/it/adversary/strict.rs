//! P11 and the order of checks: records that are genuine but not of this format are refused, and
//! the error names the fault. The test makes them with the key, from the text of the format.

use ring::hmac;
use vram_seal::{
    Expected, KeyRing, OpenLimits, SealError, SealRecord, open_record, open_record_in,
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
    let expected = Expected::new("model").unwrap();
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
    }
}

#[test]
fn the_order_of_checks_is_that_of_the_format() {
    // Every field is wrong at once; each repair reveals the next refusal.
    let good = Shard::of(kinds()[1], &content(2 * S, 1)).record;
    let mut record = good.clone();
    record[0] ^= 1;
    record[8] = 2;
    record[13] = 9;
    record[48] ^= 1;
    record[15] = 1;
    record[40] = 1;
    record[224] ^= 1;
    let expected = Expected::new("model").unwrap().revision(0);
    let limits = OpenLimits { max_len: vram_alloc::ByteLen::new(1) };
    let refusal = |record: &SealRecord| open_record(&key(7), record, &expected, limits).err();

    assert_eq!(refusal(&record), Some(SealError::NotASeal));
    record[0] ^= 1;
    assert_eq!(refusal(&record), Some(SealError::UnsupportedVersion { found: 2 }));
    record[8] = 1;
    assert_eq!(refusal(&record), Some(SealError::UnsupportedHash { found: 9 }));
    record[13] = 1;
    assert!(matches!(refusal(&record), Some(SealError::WrongKey { .. })));
    record[48] ^= 1;
    assert_eq!(refusal(&record), Some(SealError::RecordMismatch));
    let record = forge(&record, |_| ());
    assert_eq!(refusal(&record), Some(SealError::MalformedRecord { field: "flag" }));
    let record = forge(&record, |bytes| bytes[15] = 0);
    assert!(matches!(refusal(&record), Some(SealError::ContextMismatch { .. })));
    let record = forge(&record, |bytes| bytes[40] = 0);
    assert!(matches!(refusal(&record), Some(SealError::TooLong { .. })));
    assert!(record == good);
}

#[test]
fn a_hostile_length_with_the_right_key_takes_no_memory() {
    // 2^48 bytes, 2^36 segments: a table of 3 TiB, if the record were trusted.
    let record = Shard::of(kinds()[2], &content(2 * S, 1)).record;
    let forged = forge(&record, |bytes| {
        bytes[16..24].copy_from_slice(&(1_u64 << 48).to_le_bytes());
        bytes[24..32].copy_from_slice(&(1_u64 << 36).to_le_bytes());
    });
    let expected = Expected::new("model").unwrap();
    let opened = open_record(&key(7), &forged, &expected, OpenLimits::default()).unwrap();
    assert_eq!(opened.table_len(), 48 << 36);
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
        assert_eq!(vram_seal::SealContext::new(&id).is_ok(), good);
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
