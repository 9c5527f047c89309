//! Tickets: genuine ones are accepted for what they say, and nothing else is.

use core::time::Duration;
use std::sync::Arc;

use proptest::prelude::*;
use vram_alloc::DeviceOffset;
use vram_residency::device::FaultDevice;
use vram_residency::device::fault::{Action, FaultPlan, Op, When};
use vram_residency::{
    ByteLen, ContentDigest, Device, DeviceUuid, GpuIndex, HostDevice, KeyId, Protection, SealKey,
    SealRequest, SealedShard, ShardTicket, TICKET_NAME_LEN_MAX, TicketError, TicketExpectation,
    TicketKey, TicketOptions, TicketState, TicketVerifier, Timestamp, Verify, VramError,
    VramManager,
};

const NONCE: [u8; 32] = [42; 32];

fn key() -> TicketKey {
    TicketKey::from_bytes([9; 32])
}

fn verifier() -> TicketVerifier {
    TicketVerifier::new(key())
}

struct Rig {
    device: Arc<FaultDevice>,
    manager: VramManager,
    shard: SealedShard,
}

fn rig() -> Rig {
    let host = HostDevice::new(GpuIndex::new(0), ByteLen::MIB).unwrap();
    let device = FaultDevice::new(Arc::new(host), FaultPlan::new(1));
    let manager = VramManager::builder()
        .device(Arc::<FaultDevice>::clone(&device) as Arc<dyn Device>)
        .key(SealKey::from_bytes([7; 32]))
        .ticket_key(key())
        .node("node-1")
        .build()
        .unwrap();
    let request = SealRequest::new("llama", 0).owner("pool-1");
    let shard = manager.seal(request, &[5; 9000]).unwrap();
    Rig { device, manager, shard }
}

fn expected(ticket: &ShardTicket) -> TicketExpectation {
    TicketExpectation::new(NONCE, ticket.issued_at)
}

#[test]
fn a_ticket_says_what_the_manager_knows_and_is_accepted_for_all_of_it() {
    let Rig { manager, shard, .. } = rig();
    let _sound = manager.verify(&shard, Verify::Full).unwrap();
    let ticket = manager.ticket(&shard, NONCE).unwrap();
    assert_eq!(ticket.node.as_deref(), Some("node-1"));
    assert_eq!(ticket.shard_id, shard.shard_id);
    assert_eq!(&*ticket.model_id, "llama");
    assert_eq!(ticket.owner.as_deref(), Some("pool-1"));
    assert_eq!((ticket.gpu_uuid, ticket.gpu_index), (manager.gpus()[0].uuid, 0));
    assert_eq!(ticket.plaintext_len.get(), 9000);
    assert_eq!(ticket.protection, Protection::Encrypted);
    assert_eq!(ticket.record_mac, shard.sealed_data.mac());
    assert_eq!((ticket.digest, ticket.key_id), (None, manager.active_key()));
    assert_eq!((ticket.generation, ticket.state), (0, TicketState::Sound));
    assert_eq!(ticket.last_verified, manager.report().shards[0].last_verified);

    // To the very moment in which it was issued.
    let all_of = |ticket: &ShardTicket| {
        expected(ticket)
            .max_age(Duration::ZERO)
            .clock_skew(Duration::ZERO)
            .model_id("llama")
            .owner("pool-1")
            .node("node-1")
            .shard_id(shard.shard_id.clone())
            .gpu_uuid(manager.gpus()[0].uuid)
            .record(&shard.sealed_data)
            .max_unverified(Duration::from_hours(1))
    };
    assert_eq!(verifier().verify(&ticket, &all_of(&ticket)), Ok(()));

    let named = manager.ticket_with(&shard, TicketOptions::new(NONCE).with_digest()).unwrap();
    assert_eq!(named.digest, Some(manager.content_digest(&shard).unwrap()));
    assert_eq!(verifier().verify(&named, &all_of(&named)), Ok(()));
    let shown = format!("{named:?}");
    assert!(!shown.contains("digest") && !shown.contains("signature"), "{shown}");
}

#[test]
fn each_expectation_refuses_what_it_names() {
    let Rig { manager, shard, .. } = rig();
    let ticket = manager.ticket(&shard, NONCE).unwrap();
    let refused = |expected: TicketExpectation| verifier().verify(&ticket, &expected).unwrap_err();
    let other = [
        (expected(&ticket).model_id("other"), "model"),
        (expected(&ticket).owner("other"), "owner"),
        (expected(&ticket).node("other"), "node"),
        (
            expected(&ticket).shard_id("orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap()),
            "shard",
        ),
        (expected(&ticket).gpu_uuid(DeviceUuid::new([1; 16])), "gpu"),
        (expected(&ticket).record_mac([1; 32]), "record"),
    ];
    for (expected, field) in other {
        assert_eq!(refused(expected), TicketError::Field { field });
    }
    assert_eq!(refused(TicketExpectation::new([43; 32], ticket.issued_at)), TicketError::Nonce);
    let at = |millis| {
        let (age, skew) = (Duration::from_secs(10), Duration::from_secs(2));
        let now = Timestamp::from_unix_millis(millis);
        let expected = TicketExpectation::new(NONCE, now).max_age(age).clock_skew(skew);
        verifier().verify(&ticket, &expected)
    };
    let issued = ticket.issued_at.unix_millis();
    for good in [issued - 2000, issued, issued + 12_000] {
        assert_eq!(at(good), Ok(()));
    }
    assert!(matches!(at(issued + 12_001), Err(TicketError::Stale { .. })));
    assert!(matches!(at(u64::MAX), Err(TicketError::Stale { .. })));
    assert!(matches!(at(issued - 2001), Err(TicketError::FromTheFuture { .. })));
    assert!(matches!(at(0), Err(TicketError::FromTheFuture { .. })));
    // The ticket's own age counts on top of what it says.
    let later = Timestamp::from_unix_millis(issued + 3000);
    let young = TicketExpectation::new(NONCE, later).max_unverified(Duration::from_secs(3));
    let mut ticket = ticket.clone();
    ticket.unverified_ms = 1;
    ticket.signature = sign(&ticket);
    assert!(matches!(verifier().verify(&ticket, &young), Err(TicketError::Unverified { .. })));
    let text = verifier().verify(&ticket, &young).unwrap_err().to_string();
    assert!(text.contains("3.001s"), "{text}");
}

/// What whoever holds the ticket key can do.
fn sign(ticket: &ShardTicket) -> [u8; 32] {
    let bytes = ticket.to_bytes();
    key().sign(&bytes[..bytes.len() - 32])
}

#[test]
fn every_field_is_bound() {
    type Change = (&'static str, fn(&mut ShardTicket));
    let Rig { manager, shard, .. } = rig();
    let ticket = manager.ticket_with(&shard, TicketOptions::new(NONCE).with_digest()).unwrap();
    let changes: [Change; 22] = [
        ("version", |ticket| ticket.version ^= 1),
        ("nonce", |ticket| ticket.nonce[31] ^= 1),
        ("manager", |ticket| ticket.manager[0] ^= 1),
        ("no node", |ticket| ticket.node = None),
        ("node", |ticket| ticket.node = Some("node-2".into())),
        ("empty node", |ticket| ticket.node = Some("".into())),
        ("shard", |ticket| {
            ticket.shard_id = "orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        }),
        ("model", |ticket| ticket.model_id = "llamb".into()),
        ("no owner", |ticket| ticket.owner = None),
        ("owner", |ticket| ticket.owner = Some("pool-2".into())),
        ("uuid", |ticket| ticket.gpu_uuid = DeviceUuid::new([3; 16])),
        ("gpu", |ticket| ticket.gpu_index += 1),
        ("length", |ticket| ticket.plaintext_len = ByteLen::new(9001)),
        ("protection", |ticket| ticket.protection = Protection::Authenticated),
        ("record", |ticket| ticket.record_mac[7] ^= 128),
        ("no digest", |ticket| ticket.digest = None),
        ("digest", |ticket| ticket.digest = Some(ContentDigest::from_bytes([0; 32]))),
        ("key", |ticket| ticket.key_id = KeyId::from_bytes([0; 16])),
        ("generation", |ticket| ticket.generation += 1),
        ("state", |ticket| ticket.state = TicketState::Quarantined),
        ("verified", |ticket| {
            ticket.last_verified = ticket.last_verified.xor(Some(Timestamp::from_unix_millis(0)));
        }),
        ("age", |ticket| ticket.unverified_ms += 1),
    ];
    assert_eq!(verifier().verify(&ticket, &expected(&ticket)), Ok(()));
    for (what, change) in changes {
        let mut forged = ticket.clone();
        change(&mut forged);
        let refused = verifier().verify(&forged, &expected(&ticket)).unwrap_err();
        assert!(
            matches!(refused, TicketError::Signature | TicketError::Malformed { .. }),
            "{what}: {refused}"
        );
    }
    let mut later = ticket.clone();
    later.issued_at = Timestamp::from_unix_millis(ticket.issued_at.unix_millis() + 1);
    assert_eq!(verifier().verify(&later, &expected(&ticket)), Err(TicketError::Signature));
    // Two texts never trade a byte.
    let mut moved = ticket.clone();
    (moved.node, moved.owner) = (Some("node-1p".into()), Some("ool-1".into()));
    assert_eq!(verifier().verify(&moved, &expected(&ticket)), Err(TicketError::Signature));
    let stranger = TicketVerifier::new(TicketKey::from_bytes([8; 32]));
    assert_eq!(stranger.verify(&ticket, &expected(&ticket)), Err(TicketError::Signature));
}

#[test]
fn every_flipped_bit_and_every_cut_of_its_bytes_is_refused() {
    let Rig { manager, shard, .. } = rig();
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
                assert_eq!(refused, Err(TicketError::Signature), "bit {bit}");
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
fn the_ticket_of_a_shard_in_quarantine_says_so_and_is_refused_unless_allowed() {
    let Rig { device, manager, shard } = rig();
    for granule in 0..4096 {
        device.flip_bit_at(None, DeviceOffset::new(granule * 256), 0).unwrap();
    }
    assert!(!manager.verify(&shard, Verify::Segments).unwrap().sound);
    let ticket = manager.ticket(&shard, NONCE).unwrap();
    assert_eq!(ticket.state, TicketState::Quarantined);
    let refused = verifier().verify(&ticket, &expected(&ticket));
    assert_eq!(refused, Err(TicketError::Quarantined { shard: shard.shard_id.clone() }));
    assert_eq!(verifier().verify(&ticket, &expected(&ticket).allow_quarantined()), Ok(()));
}

#[test]
fn what_is_not_resident_gets_no_ticket() {
    let Rig { manager, shard, .. } = rig();
    let parked = manager.park(&shard).unwrap();
    assert!(matches!(manager.ticket(&shard, NONCE), Err(VramError::Parked { .. })));
    let shard = manager.wake(parked, 0).unwrap();
    let open = manager.open_resident(&shard).unwrap();
    assert!(matches!(manager.ticket(&shard, NONCE), Err(VramError::StaleHandle { .. })));
    let ticket = manager.ticket(&open, NONCE).unwrap();
    assert_eq!((ticket.generation, ticket.protection), (1, Protection::Authenticated));
    manager.free_shard(&open).unwrap();
    assert!(matches!(manager.ticket(&open, NONCE), Err(VramError::ShardFreed { .. })));
    let other = rig();
    assert!(matches!(manager.ticket(&other.shard, NONCE), Err(VramError::ForeignHandle { .. })));
}

#[test]
fn on_a_lost_gpu_nothing_gets_a_ticket() {
    let Rig { device, manager, shard } = rig();
    let (first, lost) = (When::Nth(1), Action::Driver(700));
    device.add(Op::Read, first, lost).unwrap();
    manager.verify(&shard, Verify::Full).unwrap_err();
    assert!(matches!(manager.ticket(&shard, NONCE), Err(VramError::DeviceLost { .. })));
}

#[test]
fn without_a_ticket_key_it_is_derived_from_the_active_seal_key() {
    let build = || VramManager::builder().host_device(ByteLen::MIB);
    let manager = build().key(SealKey::from_bytes([7; 32])).build().unwrap();
    let shard = manager.seal_model("llama", 0, b"weights").unwrap();
    let of = |secret| TicketVerifier::new(SealKey::from_bytes([secret; 32]).ticket_key());
    let ticket = manager.ticket(&shard, NONCE).unwrap();
    assert_eq!(of(7).verify(&ticket, &expected(&ticket)), Ok(()));
    assert_eq!(ticket.node, None);

    let next = SealKey::from_bytes([8; 32]);
    let id = next.id();
    manager.add_key(next).unwrap();
    manager.set_active_key(&id).unwrap();
    let ticket = manager.ticket(&shard, NONCE).unwrap();
    assert_eq!(of(7).verify(&ticket, &expected(&ticket)), Err(TicketError::Signature));
    assert_eq!(of(8).verify(&ticket, &expected(&ticket)), Ok(()));

    let long = "n".repeat(TICKET_NAME_LEN_MAX + 1);
    assert!(matches!(build().node(&long).build(), Err(VramError::Config { .. })));
    assert!(matches!(build().node("").build(), Err(VramError::Config { .. })));
    let request = SealRequest::new("llama", 0).owner(&long);
    let shard = manager.seal(request, b"weights").unwrap();
    let refused = manager.ticket(&shard, NONCE);
    assert!(matches!(refused, Err(VramError::LimitExceeded { wanted: 1025, .. })));
}

#[test]
fn texts_that_are_none_and_lengths_that_lie_are_refused() {
    let Rig { manager, shard, .. } = rig();
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
    // The longest names that there can be are one ticket, and one byte more is none.
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

/// One key for both is not wise, and no help to a forger: nothing that is signed for the one passes
/// for the other.
#[cfg(feature = "audit")]
#[test]
fn a_code_of_an_audit_under_the_same_key_signs_no_ticket() {
    let Rig { manager, shard, .. } = rig();
    let ticket = manager.ticket(&shard, NONCE).unwrap();
    let bytes = ticket.to_bytes();
    let statement = &bytes[..bytes.len() - 32];
    for domain in [&b"vram-audit/line1"[..], b"vram-audit/key/1", b""] {
        let signed = [domain, &[0; 32], statement].concat();
        let mut forged = ticket.clone();
        forged.signature = key().sign(&signed);
        assert_eq!(verifier().verify(&forged, &expected(&ticket)), Err(TicketError::Signature));
        assert!(!statement.starts_with(domain) || domain.is_empty());
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_ticket_survives_json_with_its_bytes_as_digits() {
    let Rig { manager, shard, .. } = rig();
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
    /// Whatever a ticket says, its bytes say the same, and no other bytes do.
    #[test]
    fn a_ticket_survives_its_bytes(
        model in "\\PC{1,200}",
        names in (proptest::option::of("\\PC{1,100}"), proptest::option::of("\\PC{0,100}")),
        numbers in any::<(u32, u64, u64, u64, u64)>(),
        verified in proptest::option::of(any::<u64>()),
        bytes in any::<([u8; 32], [u8; 16], [u8; 32])>(),
        digest in proptest::option::of(any::<[u8; 32]>()),
    ) {
        let Rig { manager, shard, .. } = rig();
        let mut ticket = manager.ticket(&shard, NONCE).unwrap();
        ticket.model_id = model.into();
        (ticket.node, ticket.owner) = (names.0.map(Into::into), names.1.map(Into::into));
        ticket.gpu_index = numbers.0;
        ticket.plaintext_len = ByteLen::new(numbers.1);
        (ticket.generation, ticket.unverified_ms) = (numbers.2, numbers.3);
        ticket.issued_at = Timestamp::from_unix_millis(numbers.4);
        ticket.last_verified = verified.map(Timestamp::from_unix_millis);
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

    /// Whatever is done to the bytes of a ticket, what reads is spelled the same, and is genuine
    /// only if nothing was done.
    #[test]
    fn altered_bytes_read_as_the_ticket_that_they_spell_and_never_as_a_genuine_one(
        changes in proptest::collection::vec(
            (any::<proptest::sample::Index>(), any::<u8>(), 0..40_usize, any::<bool>()),
            0..4,
        ),
    ) {
        static TICKET: std::sync::OnceLock<ShardTicket> = std::sync::OnceLock::new();
        let ticket = TICKET.get_or_init(|| {
            let Rig { manager, shard, .. } = rig();
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

    /// Garbage is refused, or is a ticket to the byte: and then not a genuine one.
    #[test]
    fn garbage_is_no_genuine_ticket(garbage in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(ticket) = ShardTicket::from_bytes(&garbage) {
            prop_assert_eq!(ticket.to_bytes(), garbage);
            let expected = TicketExpectation::new(ticket.nonce, ticket.issued_at);
            prop_assert_eq!(verifier().verify(&ticket, &expected), Err(TicketError::Signature));
        }
    }
}
