//! Tickets: one spelling each, and accepted only as signed, for what the asking party expects.

use std::sync::OnceLock;

use vram_alloc::{ByteLen, DeviceUuid};
use vram_id::Timestamp;
use vram_seal::{ContentDigest, KeyId, Protection, TicketKey};
use vram_ticket::{
    Checked, Evidence, ShardTicket, Site, Statement, TicketError, TicketExpectation, TicketState,
    TicketVerifier,
};

use crate::Target;
use crate::choices::Choices;
use crate::edits::edit;
use crate::specimens::hex;

/// The target.
pub const TARGET: Target = Target {
    name: "ticket",
    promise: "a ticket has one spelling, and is accepted only as signed and for what is expected",
    run,
    seeds,
    len_max: 4200,
    cases: 30_000,
};

const NONCE: [u8; 32] = [0x2a; 32];
const NOW: u64 = 1_800_000_000_000;

/// Bytes that no edit makes by chance, so that a text in which they stand has told them.
fn secret() -> [u8; 32] {
    *blake3::hash(b"ticket").as_bytes()
}

fn key() -> TicketKey {
    TicketKey::from_bytes(&secret())
}

fn made() -> &'static [ShardTicket] {
    static MADE: OnceLock<Vec<ShardTicket>> = OnceLock::new();
    MADE.get_or_init(|| {
        let statement = |full: bool| Statement {
            nonce: NONCE,
            manager: [1; 16],
            node: full.then(|| "node-1".into()),
            shard_id: "orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
            model_id: "llama".into(),
            owner: full.then(|| "pool-1".into()),
            gpu_uuid: DeviceUuid::new([2; 16]),
            gpu_index: 1,
            plaintext_len: ByteLen::new(12_345),
            protection: if full { Protection::Encrypted } else { Protection::Authenticated },
            record_mac: [3; 32],
            digest: full.then(|| ContentDigest::from_bytes([4; 32])),
            key_id: KeyId::from_bytes([5; 16]),
            generation: 6,
            state: TicketState::Sound,
            last_verified: full.then(|| Timestamp::from_unix_millis(NOW - 5000)),
            checked: full.then_some(Checked { evidence: Evidence::Fingerprint, site: Site::Card }),
            unverified: core::time::Duration::from_secs(5),
            issued_at: Timestamp::from_unix_millis(NOW),
        };
        [true, false].map(|full| statement(full).sign(&key()).unwrap()).into()
    })
}

/// Whether a ticket that is signed is what is expected here.
fn as_expected(ticket: &ShardTicket, quarantined: bool) -> bool {
    let issued = ticket.issued_at.unix_millis();
    ticket.signed_by == key().id()
        && ticket.nonce == NONCE
        && (NOW - 65_000..=NOW + 5000).contains(&issued)
        && (quarantined || ticket.state == TicketState::Sound)
        && *ticket.model_id == *"llama"
        && ticket.generation == 6
}

fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let made = made();
    let genuine = choices.of(made);
    let how = choices.byte();
    let ticket = if how & 2 == 2 {
        as_text(&mut choices, genuine, how & 4 == 4)
    } else {
        as_bytes(&mut choices, genuine, how)
    };
    let Some(mut ticket) = ticket else { return };
    let signed = how & 1 == 1;
    if signed {
        let bytes = ticket.to_bytes();
        let statement = &bytes[..bytes.len().saturating_sub(32)];
        ticket.signature = key().sign(statement);
    }
    let quarantined = how & 8 == 8;
    let expected = TicketExpectation::new(NONCE, Timestamp::from_unix_millis(NOW));
    let mut expected = expected.model_id("llama").generation(6);
    if quarantined {
        expected = expected.allow_quarantined();
    }
    let answer = TicketVerifier::new(key()).verify(&ticket, &expected);
    let spelled = !ticket.to_bytes().is_empty();
    let known = made.contains(&ticket);
    let wanted = spelled && (signed || known) && as_expected(&ticket, quarantined);
    assert_eq!(answer.is_ok(), wanted, "{answer:?}");
    if let Err(error) = answer {
        let by_signature = matches!(
            error,
            TicketError::Signature
                | TicketError::OtherKey { .. }
                | TicketError::Malformed { .. }
                | TicketError::Version { .. }
        );
        assert!(signed || known || by_signature, "{error}");
        assert!(!error.to_string().contains(&hex(&secret()[..6])), "{error}");
    }
}

fn as_bytes(choices: &mut Choices<'_>, genuine: &ShardTicket, how: u8) -> Option<ShardTicket> {
    let mut bytes = genuine.to_bytes();
    if how & 4 == 4 {
        bytes = choices.rest().to_vec();
    } else {
        let others: Vec<Vec<u8>> = made().iter().map(ShardTicket::to_bytes).collect();
        let others: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
        edit(choices, &mut bytes, &others, 6);
    }
    let read = ShardTicket::from_bytes(&bytes);
    let read = read.inspect_err(|error| match error {
        TicketError::Malformed { .. } => {}
        TicketError::Version { found } => {
            let domain = format!("vram-ticket/{found:04}");
            assert!(bytes.starts_with(domain.as_bytes()) && *found != 2, "{found}");
        }
        other => panic!("{other}"),
    });
    let ticket = read.ok()?;
    assert_eq!(ticket.to_bytes(), bytes, "one ticket, one spelling");
    let text = serde_json::to_string(&ticket).unwrap();
    assert_eq!(serde_json::from_str::<ShardTicket>(&text).unwrap(), ticket);
    Some(ticket)
}

fn as_text(choices: &mut Choices<'_>, genuine: &ShardTicket, raw: bool) -> Option<ShardTicket> {
    let mut text = serde_json::to_string(genuine).unwrap().into_bytes();
    if raw {
        text = choices.rest().to_vec();
    } else {
        edit(choices, &mut text, &[], 6);
    }
    let ticket: ShardTicket = serde_json::from_slice(&text).ok()?;
    let bytes = ticket.to_bytes();
    if !bytes.is_empty() && bytes.len() <= ShardTicket::LEN_MAX {
        assert_eq!(ShardTicket::from_bytes(&bytes).unwrap(), ticket);
    }
    Some(ticket)
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = made()[0].to_bytes();
    let text = serde_json::to_vec(&made()[0]).unwrap();
    // The first and the last moment at which a ticket counts, and those beside them.
    let issued = |at: u64| {
        let mut bytes = made()[0].to_bytes();
        bytes[216..224].copy_from_slice(&at.to_le_bytes());
        [&[0, 5][..], &bytes].concat()
    };
    vec![
        ("oldest", issued(NOW - 65_000)),
        ("too-old", issued(NOW - 65_001)),
        ("newest", issued(NOW + 5000)),
        ("too-new", issued(NOW + 5001)),
        ("genuine", vec![0, 0]),
        ("bit", vec![1, 0, 0, 30, 0, 1]),
        ("signed-nonce", vec![0, 1, 0, 30, 0, 1]),
        ("signed-quarantined", vec![0, 9, 1, 18, 0, 2]),
        ("signed-length", vec![0, 1, 6, 224, 0, 1, 12]),
        ("signed-issued", vec![0, 1, 6, 216, 0, 3, 25]),
        ("text", vec![0, 2]),
        ("text-digit", vec![0, 3, 1, 40, 0, b'7']),
        ("raw-text", [&[0, 6][..], &text].concat()),
        ("raw", [&[0, 4][..], &bytes].concat()),
    ]
}
