//! Tickets as bytes and texts: altered ones and garbage are refused.

use proptest::prelude::*;
use vram_residency::{
    ByteLen, Checked, ContentDigest, ShardTicket, TICKET_NAME_LEN_MAX, TicketError,
    TicketExpectation, TicketOptions, Timestamp,
};
use vram_test_rigs::Rig;

use super::{NONCE, expected, rig, sign, verifier};

#[test]
fn every_flipped_bit_and_every_cut_of_its_bytes_is_refused() {
    let (Rig { manager, .. }, shard) = rig();
    for options in [TicketOptions::new(NONCE), TicketOptions::new(NONCE).with_digest()] {
        let ticket = manager.ticket_with(&shard, options).unwrap();
        let bytes = ticket.to_bytes();
        assert_eq!(ShardTicket::from_bytes(&bytes).unwrap(), ticket);
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = ShardTicket::from_bytes(&altered) {
                assert_eq!(read.to_bytes(), altered, "one ticket, one spelling");
                let refused = verifier().verify(&read, &expected(&ticket));
                let names_its_key = (88 * 8..104 * 8).contains(&bit);
                match refused.unwrap_err() {
                    TicketError::Signature => assert!(!names_its_key, "bit {bit}"),
                    TicketError::OtherKey { .. } => assert!(names_its_key, "bit {bit}"),
                    other => panic!("bit {bit}: {other}"),
                }
            }
        }
        for len in 0..bytes.len() {
            assert!(ShardTicket::from_bytes(&bytes[..len]).is_err(), "{len}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(ShardTicket::from_bytes(&longer).is_err());
    }
    assert!(ShardTicket::from_bytes(&vec![0; ShardTicket::LEN_MAX + 1]).is_err());
}

#[test]
fn texts_that_are_none_and_lengths_that_lie_are_refused() {
    let (Rig { manager, .. }, shard) = rig();
    let ticket = manager.ticket(&shard, NONCE).unwrap();
    let bytes = ticket.to_bytes();
    for text in ["llama", "node-1", "pool-1"] {
        let at = bytes.windows(text.len()).position(|part| part == text.as_bytes()).unwrap();
        for bad in [0xff, 0xc0, 0x80] {
            let mut altered = bytes.clone();
            altered[at] = bad;
            let refused = ShardTicket::from_bytes(&altered).unwrap_err();
            assert!(matches!(refused, TicketError::Malformed { .. }), "{text} {bad}: {refused}");
        }
        for length in [0, 1024_u16, 1025, u16::MAX] {
            let mut altered = bytes.clone();
            altered[at - 2..at].copy_from_slice(&length.to_le_bytes());
            assert!(ShardTicket::from_bytes(&altered).is_err(), "{text} {length}");
        }
    }
    // The longest names form a valid ticket; with one byte more there is none.
    let mut longest = ticket;
    longest.model_id = "m".repeat(1024).into();
    longest.node = Some("n".repeat(TICKET_NAME_LEN_MAX).into());
    longest.owner = Some("o".repeat(TICKET_NAME_LEN_MAX).into());
    longest.signature = sign(&longest);
    let written = longest.to_bytes();
    assert!(written.len() <= ShardTicket::LEN_MAX);
    let back = ShardTicket::from_bytes(&written).unwrap();
    assert_eq!(verifier().verify(&back, &expected(&longest)), Ok(()));
    for change in [
        |ticket: &mut ShardTicket| ticket.model_id = "m".repeat(1025).into(),
        |ticket: &mut ShardTicket| ticket.node = Some("n".repeat(1 << 20).into()),
        |ticket: &mut ShardTicket| ticket.owner = Some("o".repeat(1 << 16).into()),
    ] {
        let mut too_long = longest.clone();
        change(&mut too_long);
        assert!(too_long.to_bytes().is_empty());
        let refused = verifier().verify(&too_long, &expected(&longest));
        assert!(matches!(refused, Err(TicketError::Malformed { .. })));
    }
}

/// One key for both is not recommended, but does not help a forger: a signature for the one is
/// never accepted for the other.
#[cfg(feature = "audit")]
#[test]
fn a_code_of_an_audit_under_the_same_key_signs_no_ticket() {
    let (Rig { manager, .. }, shard) = rig();
    let ticket = manager.ticket(&shard, NONCE).unwrap();
    let bytes = ticket.to_bytes();
    let statement = &bytes[..bytes.len() - 32];
    for domain in [&b"vram-audit/line1"[..], b"vram-audit/key/1", b""] {
        let signed = [domain, &[0; 32], statement].concat();
        let mut forged = ticket.clone();
        forged.signature = super::key().sign(&signed);
        assert_eq!(verifier().verify(&forged, &expected(&ticket)), Err(TicketError::Signature));
        assert!(!statement.starts_with(domain) || domain.is_empty());
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_ticket_survives_json_with_its_bytes_as_digits() {
    let (Rig { manager, .. }, shard) = rig();
    for options in [TicketOptions::new(NONCE), TicketOptions::new(NONCE).with_digest()] {
        let ticket = manager.ticket_with(&shard, options).unwrap();
        let json = serde_json::to_string(&ticket).unwrap();
        assert!(json.contains(&"2a".repeat(32)), "{json}");
        let back: ShardTicket = serde_json::from_str(&json).unwrap();
        assert_eq!(back, ticket);
        assert_eq!(verifier().verify(&back, &expected(&ticket)), Ok(()));
        let forged = json.replace("\"gpu_index\":0", "\"gpu_index\":1");
        let back: ShardTicket = serde_json::from_str(&forged).unwrap();
        assert_eq!(verifier().verify(&back, &expected(&ticket)), Err(TicketError::Signature));
        let upper = json.replace(&"2a".repeat(32), &"2A".repeat(32));
        assert!(serde_json::from_str::<ShardTicket>(&upper).is_err());
    }
}

proptest! {
    /// The bytes of a ticket restore the same ticket, and no other bytes do.
    #[test]
    fn a_ticket_survives_its_bytes(
        model in "\\PC{1,200}",
        names in (proptest::option::of("\\PC{1,100}"), proptest::option::of("\\PC{0,100}")),
        numbers in any::<(u32, u64, u64, u64, u64)>(),
        verified in proptest::option::of(any::<u64>()),
        bytes in any::<([u8; 32], [u8; 16], [u8; 32])>(),
        digest in proptest::option::of(any::<[u8; 32]>()),
    ) {
        let (Rig { manager, .. }, shard) = rig();
        let mut ticket = manager.ticket(&shard, NONCE).unwrap();
        ticket.model_id = model.into();
        (ticket.node, ticket.owner) = (names.0.map(Into::into), names.1.map(Into::into));
        ticket.gpu_index = numbers.0;
        ticket.plaintext_len = ByteLen::new(numbers.1);
        (ticket.generation, ticket.unverified_ms) = (numbers.2, numbers.3);
        ticket.issued_at = Timestamp::from_unix_millis(numbers.4);
        ticket.last_verified = verified.map(Timestamp::from_unix_millis);
        ticket.checked = verified.map(|_when| Checked::BY_HOST);
        (ticket.nonce, ticket.manager, ticket.record_mac) = bytes;
        ticket.digest = digest.map(ContentDigest::from_bytes);
        ticket.signature = sign(&ticket);

        let written = ticket.to_bytes();
        prop_assert!(written.len() <= ShardTicket::LEN_MAX);
        let back = ShardTicket::from_bytes(&written).unwrap();
        prop_assert_eq!(&back, &ticket);
        let expected = TicketExpectation::new(ticket.nonce, ticket.issued_at);
        prop_assert_eq!(verifier().verify(&back, &expected), Ok(()));
    }

    /// After any change of a ticket's bytes, a text that can still be read has the same spelling,
    /// and is genuine only if nothing was changed.
    #[test]
    fn altered_bytes_read_as_the_ticket_that_they_spell_and_never_as_a_genuine_one(
        changes in proptest::collection::vec(
            (any::<proptest::sample::Index>(), any::<u8>(), 0..40_usize, any::<bool>()),
            0..4,
        ),
    ) {
        static TICKET: std::sync::OnceLock<ShardTicket> = std::sync::OnceLock::new();
        let ticket = TICKET.get_or_init(|| {
            let (Rig { manager, .. }, shard) = rig();
            manager.ticket(&shard, NONCE).unwrap()
        });
        let mut bytes = ticket.to_bytes();
        for (at, byte, len, insert) in changes {
            let at = at.index(bytes.len());
            if len == 0 {
                bytes[at] = byte;
            } else if insert {
                bytes.splice(at..at, core::iter::repeat_n(byte, len));
            } else if bytes.len() > len {
                drop(bytes.drain(at..(at + len).min(bytes.len())));
            }
        }
        if let Ok(read) = ShardTicket::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes.clone());
            let verdict = verifier().verify(&read, &expected(ticket));
            prop_assert_eq!(verdict.is_ok(), bytes == ticket.to_bytes());
        }
    }

    /// Garbage is refused, or is exactly the encoding of a ticket, which is then not genuine.
    #[test]
    fn garbage_is_no_genuine_ticket(garbage in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(ticket) = ShardTicket::from_bytes(&garbage) {
            prop_assert_eq!(ticket.to_bytes(), garbage);
            let expected = TicketExpectation::new(ticket.nonce, ticket.issued_at);
            prop_assert!(verifier().verify(&ticket, &expected).is_err());
        }
    }
}
