//! Tickets: genuine ones are accepted for their own fields, and no other ticket is accepted.

mod bytes;
mod models;

use core::time::Duration;

use vram_alloc::DeviceOffset;
use vram_residency::device::fault::{Action, FaultPlan, Op, When};
use vram_residency::{
    ByteLen, ContentDigest, DeviceUuid, KeyId, MemoryMode, Protection, SealKey, SealRequest,
    SealedShard, ShardTicket, TICKET_NAME_LEN_MAX, TicketError, TicketExpectation, TicketKey,
    TicketOptions, TicketState, TicketVerifier, Timestamp, Verify, VramError, VramManager,
};
use vram_test_rigs::{Rig, devices};

const NONCE: [u8; 32] = [42; 32];

fn key() -> TicketKey {
    TicketKey::from_bytes(&[9; 32])
}

fn verifier() -> TicketVerifier {
    TicketVerifier::new(key())
}

/// A manager that signs tickets, and one of its shards.
fn rig() -> (Rig, SealedShard) {
    let devices = devices(&[1 << 20], &FaultPlan::new(1));
    let rig =
        Rig::over(devices, MemoryMode::Region, |builder| builder.ticket_key(key()).node("node-1"));
    let request = SealRequest::new("llama", 0).owner("pool-1");
    let shard = rig.manager.seal(request, &[5; 9000]).unwrap();
    (rig, shard)
}

fn expected(ticket: &ShardTicket) -> TicketExpectation {
    TicketExpectation::new(NONCE, ticket.issued_at)
}

#[test]
fn a_ticket_says_what_the_manager_knows_and_is_accepted_for_all_of_it() {
    let (Rig { manager, .. }, shard) = rig();
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

    // Up to the exact moment in which it was issued.
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
            .protection(Protection::Encrypted)
            .key_id(manager.active_key())
            .generation(0)
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
    let (Rig { manager, .. }, shard) = rig();
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
        (expected(&ticket).protection(Protection::Authenticated), "protection"),
        (expected(&ticket).key_id(KeyId::from_bytes([1; 16])), "key"),
        (expected(&ticket).generation(1), "generation"),
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
    // The ticket's own age is added to the age that it states.
    let later = Timestamp::from_unix_millis(issued + 3000);
    let young = TicketExpectation::new(NONCE, later).max_unverified(Duration::from_secs(3));
    let mut ticket = ticket.clone();
    ticket.unverified_ms = 1;
    ticket.signature = sign(&ticket);
    assert!(matches!(verifier().verify(&ticket, &young), Err(TicketError::Unverified { .. })));
    let text = verifier().verify(&ticket, &young).unwrap_err().to_string();
    assert!(text.contains("3.001s"), "{text}");
}

/// A holder of the ticket key can sign any ticket.
fn sign(ticket: &ShardTicket) -> [u8; 32] {
    let bytes = ticket.to_bytes();
    key().sign(&bytes[..bytes.len() - 32])
}

#[test]
fn every_field_is_bound() {
    type Change = (&'static str, fn(&mut ShardTicket));
    let (Rig { manager, .. }, shard) = rig();
    let ticket = manager.ticket_with(&shard, TicketOptions::new(NONCE).with_digest()).unwrap();
    let changes: [Change; 23] = [
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
        ("ticket key", |ticket| ticket.signed_by = KeyId::from_bytes([0; 16])),
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
            match refused {
                TicketError::Signature | TicketError::Malformed { .. } => true,
                TicketError::OtherKey { .. } => what == "ticket key",
                TicketError::Version { .. } => what == "version",
                _ => false,
            },
            "{what}: {refused}"
        );
    }
    let mut later = ticket.clone();
    later.issued_at = Timestamp::from_unix_millis(ticket.issued_at.unix_millis() + 1);
    assert_eq!(verifier().verify(&later, &expected(&ticket)), Err(TicketError::Signature));
    // Moving a byte from one text to the next is detected.
    let mut moved = ticket.clone();
    (moved.node, moved.owner) = (Some("node-1p".into()), Some("ool-1".into()));
    assert_eq!(verifier().verify(&moved, &expected(&ticket)), Err(TicketError::Signature));
    let stranger = TicketVerifier::new(TicketKey::from_bytes(&[8; 32]));
    let refused = stranger.verify(&ticket, &expected(&ticket)).unwrap_err();
    assert!(matches!(refused, TicketError::OtherKey { .. }), "{refused}");
}

#[test]
fn the_ticket_of_a_shard_in_quarantine_says_so_and_is_refused_unless_allowed() {
    let (Rig { manager, devices, .. }, shard) = rig();
    for granule in 0..4096 {
        devices[0].flip_bit_at(None, DeviceOffset::new(granule * 256), 0).unwrap();
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
    let (Rig { manager, .. }, shard) = rig();
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
    assert!(matches!(manager.ticket(&other.1, NONCE), Err(VramError::ForeignHandle { .. })));
}

#[test]
fn on_a_lost_gpu_nothing_gets_a_ticket() {
    let (Rig { manager, devices, .. }, shard) = rig();
    let (first, lost) = (When::Nth(1), Action::Driver(700));
    devices[0].add(Op::Read, first, lost).unwrap();
    manager.verify(&shard, Verify::Full).unwrap_err();
    assert!(matches!(manager.ticket(&shard, NONCE), Err(VramError::DeviceLost { .. })));
}

#[test]
fn without_a_ticket_key_it_is_derived_from_the_active_seal_key() {
    let build = || VramManager::builder().host_device(ByteLen::MIB);
    let manager = build().key(SealKey::from_bytes(&[7; 32])).build().unwrap();
    let shard = manager.seal_model("llama", 0, b"weights").unwrap();
    let of = |secret| TicketVerifier::new(SealKey::from_bytes(&[secret; 32]).ticket_key());
    let ticket = manager.ticket(&shard, NONCE).unwrap();
    assert_eq!(of(7).verify(&ticket, &expected(&ticket)), Ok(()));
    assert_eq!(ticket.node, None);

    let next = SealKey::from_bytes(&[8; 32]);
    let id = next.id();
    manager.add_key(next).unwrap();
    manager.set_active_key(&id).unwrap();
    let ticket = manager.ticket(&shard, NONCE).unwrap();
    let (named, own) = (of(8).key_id(), of(7).key_id());
    let refused = of(7).verify(&ticket, &expected(&ticket));
    assert_eq!(refused, Err(TicketError::OtherKey { named, own }));
    assert_eq!(of(8).verify(&ticket, &expected(&ticket)), Ok(()));

    let long = "n".repeat(TICKET_NAME_LEN_MAX + 1);
    assert!(matches!(build().node(&long).build(), Err(VramError::Config { .. })));
    assert!(matches!(build().node("").build(), Err(VramError::Config { .. })));
    // An owner that fits no ticket fits no shard.
    let request = SealRequest::new("llama", 0).owner(&long);
    let refused = manager.seal(request, b"weights");
    assert!(matches!(refused, Err(VramError::LimitExceeded { wanted: 1025, .. })));
}
