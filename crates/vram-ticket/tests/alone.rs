//! Tickets without a manager: creation, transport, checks.

#![expect(clippy::unwrap_used, reason = "a panic is the failure of the test")]

#[macro_use]
extern crate vram_testkit;

use core::time::Duration;

use vram_alloc::{ByteLen, DeviceUuid};
use vram_id::Timestamp;
use vram_seal::{ContentDigest, KeyId, Protection, TicketKey};
use vram_ticket::{
    Checked, Evidence, ShardTicket, Site, Statement, TICKET_NAME_LEN_MAX, TicketError,
    TicketExpectation, TicketOptions, TicketState, TicketVerifier,
};

const NONCE: [u8; 32] = [42; 32];
const NOW: Timestamp = Timestamp::from_unix_millis(1_800_000_000_000);

fn key() -> TicketKey {
    TicketKey::from_bytes(&[9; 32])
}

fn statement() -> Statement {
    Statement {
        nonce: NONCE,
        manager: [1; 16],
        node: Some("node-1".into()),
        shard_id: "orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
        model_id: "llama".into(),
        owner: None,
        gpu_uuid: DeviceUuid::new([2; 16]),
        gpu_index: 3,
        plaintext_len: ByteLen::new(9000),
        protection: Protection::Authenticated,
        record_mac: [4; 32],
        digest: Some(ContentDigest::from_bytes([5; 32])),
        key_id: KeyId::from_bytes([6; 16]),
        generation: 7,
        state: TicketState::Sound,
        last_verified: None,
        checked: None,
        unverified: Duration::from_nanos(1_000_001),
        issued_at: NOW,
    }
}

fn ticket() -> ShardTicket {
    statement().sign(&key()).unwrap()
}

#[test]
fn a_ticket_says_what_was_stated_and_is_accepted_for_it() {
    let ticket = ticket();
    assert_eq!((ticket.version, ticket.nonce, ticket.unverified_ms), (2, NONCE, 2));
    assert_eq!((ticket.gpu_index, ticket.generation), (3, 7));
    let expected = TicketExpectation::new(NONCE, NOW)
        .max_age(Duration::ZERO)
        .clock_skew(Duration::ZERO)
        .model_id("llama")
        .node("node-1")
        .gpu_uuid(DeviceUuid::new([2; 16]))
        .record_mac([4; 32])
        .max_unverified(Duration::from_millis(2));
    assert_eq!(TicketVerifier::new(key()).verify(&ticket, &expected), Ok(()));
}

#[test]
fn a_ticket_names_the_key_that_signed_it_and_a_refusal_names_both() {
    let (ticket, expected) = (ticket(), TicketExpectation::new(NONCE, NOW));
    let verifier = TicketVerifier::new(key());
    assert_eq!((ticket.signed_by, verifier.key_id()), (key().id(), key().id()));
    let stranger = TicketVerifier::new(TicketKey::from_bytes(&[8; 32]));
    let (named, own) = (key().id(), stranger.key_id());
    assert_ne!(named, own);
    assert_eq!(stranger.verify(&ticket, &expected), Err(TicketError::OtherKey { named, own }));

    // The name is bound: neither another name for this key, nor this name for another key.
    let mut renamed = ticket;
    renamed.signed_by = own;
    let refused = Err(TicketError::OtherKey { named: own, own: named });
    assert_eq!(verifier.verify(&renamed, &expected), refused);
    assert_eq!(stranger.verify(&renamed, &expected), Err(TicketError::Signature));
    let bytes = renamed.to_bytes();
    renamed.signature = key().sign(&bytes[..bytes.len() - 32]);
    assert_eq!(verifier.verify(&renamed, &expected), refused, "also if a holder signed it");
}

#[test]
fn a_protection_a_generation_and_a_key_can_be_demanded() {
    let (ticket, verifier) = (ticket(), TicketVerifier::new(key()));
    let refused = |expected: TicketExpectation| verifier.verify(&ticket, &expected);
    let expected = || TicketExpectation::new(NONCE, NOW);
    for (expected, field) in [
        (expected().protection(Protection::Encrypted), "protection"),
        (expected().generation(6), "generation"),
        (expected().generation(8), "generation"),
        (expected().key_id(KeyId::from_bytes([7; 16])), "key"),
    ] {
        assert_eq!(refused(expected), Err(TicketError::Field { field }));
    }
    let all = expected()
        .protection(Protection::Authenticated)
        .generation(7)
        .key_id(KeyId::from_bytes([6; 16]));
    assert_eq!(refused(all), Ok(()));
}

#[test]
fn a_ticket_survives_its_bytes_and_every_flipped_bit_is_refused() {
    let ticket = ticket();
    let bytes = ticket.to_bytes();
    assert_eq!(ShardTicket::from_bytes(&bytes), Ok(ticket));
    let verifier = TicketVerifier::new(key());
    let expected = TicketExpectation::new(NONCE, NOW);
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let accepted = ShardTicket::from_bytes(&altered)
            .and_then(|ticket| verifier.verify(&ticket, &expected));
        assert!(accepted.is_err(), "bit {bit}");
    }
}

#[test]
fn a_ticket_of_another_version_is_told_as_that_version() {
    let bytes = ticket().to_bytes();
    for (domain, found) in [(b"0001", 1), (b"0003", 3), (b"0000", 0), (b"9999", 9999)] {
        let mut other = bytes.clone();
        other[12..16].copy_from_slice(domain);
        let refused = ShardTicket::from_bytes(&other).unwrap_err();
        assert_eq!(refused, TicketError::Version { found });
        assert!(refused.to_string().contains(&format!("version {found}")), "{refused}");
        // Whatever its length is.
        other.resize(2 * ShardTicket::LEN_MAX, 0);
        assert_eq!(ShardTicket::from_bytes(&other), Err(TicketError::Version { found }));
        assert_eq!(ShardTicket::from_bytes(&other[..16]), Err(TicketError::Version { found }));
    }
    // Also if it came as text, whose version is a field.
    let mut later = ticket();
    later.version = 3;
    let refused = TicketVerifier::new(key()).verify(&later, &TicketExpectation::new(NONCE, NOW));
    assert_eq!(refused, Err(TicketError::Version { found: 3 }));
    for domain in [b"000x", b"+002", b" 002", b"0x02"] {
        let mut other = bytes.clone();
        other[12..16].copy_from_slice(domain);
        let refused = ShardTicket::from_bytes(&other);
        assert_eq!(refused, Err(TicketError::Malformed { what: "the domain" }));
    }
}

#[test]
fn a_text_that_no_ticket_can_carry_is_not_signed() {
    let longest = "n".repeat(TICKET_NAME_LEN_MAX);
    let signed = |name: &str| {
        Statement { node: Some(name.into()), owner: Some(name.into()), ..statement() }.sign(&key())
    };
    let ticket = signed(&longest).unwrap();
    assert_eq!(ShardTicket::from_bytes(&ticket.to_bytes()), Ok(ticket));
    let refused = signed(&format!("{longest}n"));
    assert!(matches!(refused, Err(TicketError::Malformed { .. })), "{refused:?}");
}

#[test]
fn options_say_what_was_asked_for() {
    let plain = TicketOptions::new(NONCE);
    assert_eq!((plain.nonce(), plain.wants_digest()), (NONCE, false));
    assert!(plain.with_digest().wants_digest());
}

#[test]
fn neither_digest_nor_signature_is_shown() {
    let shown = format!("{:?}", ticket());
    assert!(shown.contains("llama") && !shown.contains("digest") && !shown.contains("signature"));
}

#[cfg(feature = "serde")]
#[test]
fn a_ticket_survives_its_json_and_has_one_spelling() {
    let ticket = ticket();
    let text = serde_json::to_string(&ticket).unwrap();
    assert_eq!(serde_json::from_str::<ShardTicket>(&text).unwrap(), ticket);
    let mac = "04".repeat(32);
    for (from, to) in [
        (mac.as_str(), "0G".repeat(32)),
        (mac.as_str(), "0A".repeat(32)),
        (mac.as_str(), "04".repeat(31)),
        (mac.as_str(), "04".repeat(33)),
        (mac.as_str(), "4".repeat(63)),
        ("\"authenticated\"", "\"Authenticated\"".to_owned()),
        ("\"sound\"", "\"fine\"".to_owned()),
        ("\"version\":2", "\"extra\":0,\"version\":2".to_owned()),
    ] {
        let changed = text.replace(from, &to);
        assert_ne!(changed, text, "{from} is in {text}");
        assert!(serde_json::from_str::<ShardTicket>(&changed).is_err(), "{changed}");
    }
}

#[test]
fn a_ticket_says_what_its_last_check_rests_on() {
    let by = |evidence, site| Checked { evidence, site };
    for (bits, checked) in [
        (0, None),
        (0, Some(by(Evidence::Proof, Site::Host))),
        (32, Some(by(Evidence::Proof, Site::Card))),
        (16, Some(by(Evidence::Fingerprint, Site::Host))),
        (48, Some(by(Evidence::Fingerprint, Site::Card))),
    ] {
        let signed = Statement { last_verified: Some(NOW), checked, ..statement() }.sign(&key());
        let signed = signed.unwrap();
        assert_eq!(signed.checked, checked.or(Some(Checked::BY_HOST)));
        let bytes = signed.to_bytes();
        assert_eq!(bytes[19] & 0x30, bits);
        assert_eq!(ShardTicket::from_bytes(&bytes), Ok(signed));
    }
    // Without a check it rests on nothing, whatever is stated.
    let checked = Some(by(Evidence::Fingerprint, Site::Card));
    let signed = Statement { checked, ..statement() }.sign(&key()).unwrap();
    assert_eq!((signed.checked, signed.to_bytes()[19] & 0x30), (None, 0));
    let mut altered = signed.to_bytes();
    altered[19] |= 16;
    assert!(matches!(ShardTicket::from_bytes(&altered), Err(TicketError::Malformed { .. })));
}
