//! Tickets of models: one spelling each, and accepted only as signed.

use std::sync::OnceLock;

use vram_alloc::{ByteLen, DeviceUuid};
use vram_id::Timestamp;
use vram_seal::TicketKey;
use vram_ticket::{
    Checked, Evidence, ModelStatement, ModelTicket, ModelTicketExpectation, Site, TicketError,
    TicketVerifier,
};

use crate::Target;
use crate::choices::Choices;
use crate::edits::edit;
use crate::specimens::hex;

/// The target.
pub const TARGET: Target = Target {
    name: "model_ticket",
    promise: "a ticket of a model has one spelling, and is accepted only as signed, for its model",
    run,
    seeds,
    len_max: 8300,
    cases: 30_000,
};

const NONCE: [u8; 32] = [0x2b; 32];
const NOW: u64 = 1_800_000_000_000;
const ROOT: [u8; 32] = [7; 32];

/// Bytes that no edit makes by chance, so that a text in which they stand has told them.
fn secret() -> [u8; 32] {
    *blake3::hash(b"model ticket").as_bytes()
}

fn key() -> TicketKey {
    TicketKey::from_bytes(&secret())
}

fn made() -> &'static [ModelTicket] {
    static MADE: OnceLock<Vec<ModelTicket>> = OnceLock::new();
    MADE.get_or_init(|| {
        let statement = |full: bool| ModelStatement {
            nonce: NONCE,
            manager: [1; 16],
            node: full.then(|| "node-1".into()),
            model_id: "llama".into(),
            owner: full.then(|| "pool-1".into()),
            admission: 3,
            gpus: if full {
                vec![DeviceUuid::new([1; 16]), DeviceUuid::new([2; 16])]
            } else {
                vec![]
            },
            shard_count: if full { 291 } else { 0 },
            plaintext_len: ByteLen::new(if full { 12_345 } else { 0 }),
            authenticated: 0,
            root: ROOT,
            quarantined: 0,
            last_verified: full.then(|| Timestamp::from_unix_millis(NOW - 5000)),
            checked: full.then_some(Checked { evidence: Evidence::Fingerprint, site: Site::Card }),
            unverified: core::time::Duration::from_secs(5),
            issued_at: Timestamp::from_unix_millis(NOW),
        };
        [true, false].map(|full| statement(full).sign(&key()).unwrap()).into()
    })
}

/// Whether a ticket that is signed is what is expected here.
fn as_expected(ticket: &ModelTicket) -> bool {
    let issued = ticket.issued_at.unix_millis();
    ticket.signed_by == key().id()
        && ticket.nonce == NONCE
        && (NOW - 65_000..=NOW + 5000).contains(&issued)
        && ticket.quarantined == 0
        && *ticket.model_id == *"llama"
        && ticket.root == ROOT
}

fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let genuine = choices.of(made());
    let how = choices.byte();
    let mut bytes = genuine.to_bytes();
    if how & 2 == 2 {
        bytes = choices.rest().to_vec();
    } else {
        let others: Vec<Vec<u8>> = made().iter().map(ModelTicket::to_bytes).collect();
        let others: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
        edit(&mut choices, &mut bytes, &others, 6);
    }
    let read = ModelTicket::from_bytes(&bytes);
    let mut ticket = match read {
        Ok(ticket) => ticket,
        Err(TicketError::Malformed { .. } | TicketError::ModelVersion { .. }) => return,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(ticket.to_bytes(), bytes, "one ticket, one spelling");
    let text = serde_json::to_string(&ticket).unwrap();
    assert_eq!(serde_json::from_str::<ModelTicket>(&text).unwrap(), ticket);

    let signed = how & 1 == 1;
    if signed {
        ticket.signature = key().sign(&bytes[..bytes.len().saturating_sub(32)]);
    }
    let expected = ModelTicketExpectation::new(NONCE, Timestamp::from_unix_millis(NOW));
    let expected = expected.model_id("llama").root(ROOT);
    let answer = TicketVerifier::new(key()).verify_model(&ticket, &expected);
    let wanted = (signed || made().contains(&ticket)) && as_expected(&ticket);
    assert_eq!(answer.is_ok(), wanted, "{answer:?}");
    if let Err(error) = answer {
        assert!(!error.to_string().contains(&hex(&secret()[..6])), "{error}");
    }
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = made()[0].to_bytes();
    vec![
        ("genuine", vec![0, 0]),
        ("bit", vec![1, 0, 0, 30, 0, 1]),
        ("signed-nonce", vec![0, 1, 0, 30, 0, 1]),
        ("signed-length", vec![0, 1, 6, 224, 0, 1, 12]),
        ("signed-count", vec![0, 1, 6, 100, 0, 3, 25]),
        ("raw", [&[0, 2][..], &bytes].concat()),
        ("raw-signed", [&[0, 3][..], &bytes].concat()),
    ]
}
