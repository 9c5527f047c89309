//! Tickets of models without a manager: the frozen vectors, transport, checks.

#![expect(clippy::unwrap_used, reason = "a panic is the failure of the test")]

#[macro_use]
extern crate vram_testkit;

use core::time::Duration;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vram_ticket::{
    ByteLen, Checked, DeviceUuid, Evidence, ModelStatement, ModelTicket, ModelTicketExpectation,
    Protection, SealRecord, ShardId, ShardTicket, Site, TICKET_GPUS_MAX, TICKET_NAME_LEN_MAX,
    TicketError, TicketKey, TicketVerifier, Timestamp, model_root,
};

const NONCE: [u8; 32] = [42; 32];
const NOW: Timestamp = Timestamp::from_unix_millis(1_800_000_000_000);

fn key() -> TicketKey {
    TicketKey::from_bytes(&[9; 32])
}

fn statement() -> ModelStatement {
    ModelStatement {
        nonce: NONCE,
        manager: [1; 16],
        node: Some("node-1".into()),
        model_id: "llama".into(),
        owner: Some("pool".into()),
        admission: 3,
        gpus: vec![DeviceUuid::new([2; 16]), DeviceUuid::new([1; 16]), DeviceUuid::new([2; 16])],
        shard_count: 5,
        plaintext_len: ByteLen::new(9000),
        authenticated: 2,
        root: [4; 32],
        quarantined: 0,
        last_verified: Some(NOW),
        checked: None,
        unverified: Duration::from_nanos(1_000_001),
        issued_at: NOW,
    }
}

fn ticket() -> ModelTicket {
    statement().sign(&key()).unwrap()
}

/// As many UUIDs, in ascending order.
fn uuids(count: u16) -> Vec<DeviceUuid> {
    let uuid = |number: u16| {
        let mut bytes = [7; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        DeviceUuid::new(bytes)
    };
    (0..count).map(uuid).collect()
}

fn expected() -> ModelTicketExpectation {
    ModelTicketExpectation::new(NONCE, NOW)
}

fn check(ticket: &ModelTicket, expected: &ModelTicketExpectation) -> Result<(), TicketError> {
    TicketVerifier::new(key()).verify_model(ticket, expected)
}

/// A holder of the key can sign anything.
fn signed_again(mut ticket: ModelTicket) -> ModelTicket {
    let bytes = ticket.to_bytes();
    let (statement, _signature) = bytes.split_last_chunk::<32>().unwrap();
    ticket.signature = key().sign(statement);
    ticket
}

#[test]
fn a_ticket_says_what_was_stated_and_is_accepted_for_it() {
    let ticket = ticket();
    assert_eq!((ticket.version, ticket.unverified_ms), (1, 2), "an age is rounded up");
    assert_eq!(ticket.gpus, [DeviceUuid::new([1; 16]), DeviceUuid::new([2; 16])]);
    let all = expected()
        .max_age(Duration::ZERO)
        .clock_skew(Duration::ZERO)
        .model_id("llama")
        .owner("pool")
        .node("node-1")
        .root([4; 32])
        .shard_count(5)
        .plaintext_len(ByteLen::new(9000))
        .on_gpus([1, 2, 3].map(|byte| DeviceUuid::new([byte; 16])))
        .max_unverified(Duration::from_millis(2));
    assert_eq!(check(&ticket, &all), Ok(()));
    let shown = format!("{ticket:?}");
    assert!(shown.contains("llama") && !shown.contains("signature"), "{shown}");
}

#[test]
fn each_expectation_refuses_what_it_names() {
    let ticket = ticket();
    for (expected, field) in [
        (expected().model_id("other"), "model"),
        (expected().owner("other"), "owner"),
        (expected().node("other"), "node"),
        (expected().root([5; 32]), "root"),
        (expected().shard_count(4), "count"),
        (expected().shard_count(6), "count"),
        (expected().plaintext_len(ByteLen::new(9001)), "length"),
        (expected().protection(Protection::Encrypted), "protection"),
        (expected().protection(Protection::Authenticated), "protection"),
        (expected().on_gpus([DeviceUuid::new([1; 16])]), "gpu"),
    ] {
        assert_eq!(check(&ticket, &expected), Err(TicketError::Field { field }));
    }
    for (authenticated, protection) in [(0, Protection::Encrypted), (5, Protection::Authenticated)]
    {
        let ticket = ModelStatement { authenticated, ..statement() }.sign(&key()).unwrap();
        assert_eq!(check(&ticket, &expected().protection(protection)), Ok(()));
    }
    let at = |millis| Timestamp::from_unix_millis(NOW.unix_millis() + millis);
    let late = ModelTicketExpectation::new(NONCE, at(70_000));
    assert!(matches!(check(&ticket, &late), Err(TicketError::Stale { .. })));
    let other = ModelTicketExpectation::new([43; 32], NOW);
    assert_eq!(check(&ticket, &other), Err(TicketError::Nonce));
    let young = ModelTicketExpectation::new(NONCE, at(1)).max_unverified(Duration::from_millis(2));
    assert!(matches!(check(&ticket, &young), Err(TicketError::ModelUnverified { .. })));
    let altered = ModelStatement { quarantined: 2, ..statement() }.sign(&key()).unwrap();
    assert_eq!(check(&altered, &expected()), Err(TicketError::ModelQuarantined { shards: 2 }));
    assert_eq!(check(&altered, &expected().allow_quarantined()), Ok(()));
}

/// Each field is bound: change any one, and the signature no longer holds.
#[test]
fn a_changed_field_is_refused() {
    let changes: [fn(&mut ModelTicket); 17] = [
        |ticket| ticket.nonce[0] ^= 1,
        |ticket| ticket.manager[0] ^= 1,
        |ticket| ticket.node = None,
        |ticket| ticket.node = Some("node-2".into()),
        |ticket| ticket.model_id = "lama".into(),
        |ticket| ticket.owner = None,
        |ticket| ticket.admission += 1,
        |ticket| ticket.gpus.truncate(1),
        |ticket| ticket.shard_count += 1,
        |ticket| ticket.plaintext_len = ByteLen::new(1),
        |ticket| ticket.authenticated += 1,
        |ticket| ticket.root[31] ^= 1,
        |ticket| ticket.quarantined += 1,
        |ticket| ticket.last_verified = None,
        |ticket| ticket.unverified_ms -= 1,
        |ticket| ticket.issued_at = Timestamp::from_unix_millis(1),
        |ticket| ticket.signature[0] ^= 1,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut other = ticket();
        change(&mut other);
        assert_eq!(check(&other, &expected()), Err(TicketError::Signature), "{index}");
    }
    // Values that no ticket has are refused before.
    let never: [fn(&mut ModelTicket); 4] = [
        |ticket| ticket.gpus.reverse(),
        |ticket| ticket.gpus.push(DeviceUuid::new([2; 16])),
        |ticket| ticket.gpus = uuids(257),
        |ticket| ticket.owner = Some("o".repeat(TICKET_NAME_LEN_MAX + 1).into()),
    ];
    for (index, change) in never.iter().enumerate() {
        let mut other = ticket();
        change(&mut other);
        assert!(other.to_bytes().is_empty(), "{index}");
        let refused = check(&other, &expected());
        assert!(matches!(refused, Err(TicketError::Malformed { .. })), "{index}: {refused:?}");
    }
    let mut later = ticket();
    later.version = 2;
    assert_eq!(check(&later, &expected()), Err(TicketError::ModelVersion { found: 2 }));
    let stranger = TicketVerifier::new(TicketKey::from_bytes(&[8; 32]));
    let refused = stranger.verify_model(&ticket(), &expected());
    assert!(matches!(refused, Err(TicketError::OtherKey { .. })), "{refused:?}");
}

#[test]
fn a_ticket_survives_its_bytes_and_no_other_bytes_are_a_genuine_one() {
    let ticket = ticket();
    let bytes = ticket.to_bytes();
    assert_eq!(ModelTicket::from_bytes(&bytes), Ok(ticket));
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let read = ModelTicket::from_bytes(&altered);
        if let Ok(read) = &read {
            assert_eq!(read.to_bytes(), altered, "one ticket, one spelling");
        }
        assert!(read.and_then(|ticket| check(&ticket, &expected())).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(ModelTicket::from_bytes(&bytes[..len]).is_err(), "{len}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(ModelTicket::from_bytes(&longer).is_err());
    assert!(ModelTicket::from_bytes(&vec![0; ModelTicket::LEN_MAX + 1]).is_err());
    let mut later = bytes.clone();
    later[12..16].copy_from_slice(b"0002");
    assert_eq!(ModelTicket::from_bytes(&later), Err(TicketError::ModelVersion { found: 2 }));
    // Neither kind of ticket is read as the other.
    assert!(matches!(ShardTicket::from_bytes(&bytes), Err(TicketError::Malformed { .. })));
}

#[test]
fn the_longest_ticket_fits_and_a_longer_one_is_not_signed() {
    let max = u16::try_from(TICKET_GPUS_MAX).unwrap();
    let longest = |gpus: u16, name: usize| {
        let name: std::sync::Arc<str> = "n".repeat(name).into();
        let (node, owner) = (Some(name.clone()), Some(name.clone()));
        let gpus = uuids(gpus);
        ModelStatement { node, owner, model_id: "m".repeat(1024).into(), gpus, ..statement() }
            .sign(&key())
    };
    let ticket = longest(max, TICKET_NAME_LEN_MAX).unwrap();
    let bytes = ticket.to_bytes();
    assert!(bytes.len() <= ModelTicket::LEN_MAX, "{}", bytes.len());
    assert_eq!(ModelTicket::from_bytes(&bytes), Ok(ticket));
    for refused in [longest(max + 1, 1), longest(1, TICKET_NAME_LEN_MAX + 1)] {
        assert!(matches!(refused, Err(TicketError::Malformed { .. })), "{refused:?}");
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/model-v1.json")).unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    let (pairs, rest) = value.as_str().unwrap().as_bytes().as_chunks::<2>();
    assert!(rest.is_empty());
    let byte =
        |pair: &[u8; 2]| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.iter().map(byte).collect()
}

fn checked(value: &Value) -> Option<Checked> {
    let pair = value.as_array()?;
    let of = |index: usize, word: &str| pair.get(index).is_some_and(|found| found == word);
    let evidence = if of(0, "fingerprint") { Evidence::Fingerprint } else { Evidence::Proof };
    let site = if of(1, "card") { Site::Card } else { Site::Host };
    Some(Checked { evidence, site })
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    hex(value).try_into().unwrap()
}

/// A shard swapped with another, left out, named twice, or with another record: another root.
#[test]
fn roots_are_the_frozen_ones_and_no_two_are_alike() {
    let vectors = vectors();
    let mut seen = std::collections::BTreeSet::new();
    for case in vectors["roots"].as_array().unwrap() {
        let shards: Vec<(ShardId, SealRecord)> = case["shards"]
            .as_array()
            .unwrap()
            .iter()
            .map(|shard| {
                let record = SealRecord::from_bytes(array(&shard["record"]));
                (shard["id"].as_str().unwrap().parse().unwrap(), record)
            })
            .collect();
        let root = model_root(shards.iter().map(|(id, record)| (id, record)));
        assert_eq!(root, array(&case["root"]), "{}", case["name"]);
        assert!(seen.insert(root), "{}", case["name"]);
    }
    assert_eq!(seen.len(), 10);
}

#[test]
fn tickets_are_the_frozen_bytes() {
    let vectors = vectors();
    let key = TicketKey::from_bytes(&array(&vectors["ticket_key"]));
    assert_eq!(*key.id().as_bytes(), array(&vectors["ticket_key_id"]));
    let cases = vectors["tickets"].as_array().unwrap();
    for case in cases {
        let fields = &case["fields"];
        let text = |name: &str| fields[name].as_str().map(Into::into);
        let number = |name: &str| fields[name].as_u64().unwrap();
        let gpus = fields["gpus"].as_array().unwrap();
        let ticket = ModelStatement {
            nonce: array(&fields["nonce"]),
            manager: array(&fields["manager"]),
            node: text("node"),
            model_id: text("model_id").unwrap(),
            owner: text("owner"),
            admission: number("admission"),
            gpus: gpus.iter().map(|uuid| DeviceUuid::new(array(uuid))).collect(),
            shard_count: number("shard_count"),
            plaintext_len: ByteLen::new(number("plaintext_len")),
            authenticated: number("authenticated"),
            root: array(&fields["root"]),
            quarantined: number("quarantined"),
            last_verified: fields["last_verified"].as_u64().map(Timestamp::from_unix_millis),
            checked: checked(&fields["checked"]),
            unverified: Duration::from_millis(number("unverified_ms")),
            issued_at: Timestamp::from_unix_millis(number("issued_at")),
        };
        // An age of 2^64 - 1 milliseconds is rounded up to itself.
        let ticket = ticket.sign(&key).unwrap();
        let bytes = hex(&case["bytes"]);
        assert_eq!(ticket.to_bytes(), bytes);
        assert_eq!(ModelTicket::from_bytes(&bytes), Ok(ticket));
    }
    assert_eq!(cases.len(), 8);
}

/// Runs the independent implementation if its interpreter is installed. Writes past the harness's
/// capture, so that a skip is visible.
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

#[cfg(feature = "serde")]
#[test]
fn a_ticket_survives_its_json_and_has_one_spelling() {
    let ticket = ticket();
    let text = serde_json::to_string(&ticket).unwrap();
    assert_eq!(serde_json::from_str::<ModelTicket>(&text).unwrap(), ticket);
    let (root, gpu) = ("04".repeat(32), "02".repeat(16));
    for (from, to) in [
        (root.as_str(), "0G".repeat(32)),
        (root.as_str(), "04".repeat(31)),
        (gpu.as_str(), "0A".repeat(16)),
        (gpu.as_str(), "02".repeat(17)),
        ("\"version\":1", "\"extra\":0,\"version\":1".to_owned()),
    ] {
        let changed = text.replace(from, &to);
        assert_ne!(changed, text, "{from} is in {text}");
        assert!(serde_json::from_str::<ModelTicket>(&changed).is_err(), "{changed}");
    }
}

/// One who holds the key can sign other values: an expectation finds each of them.
#[test]
fn an_expectation_holds_against_a_holder_of_the_key() {
    let mut other = ticket();
    other.root = [9; 32];
    let other = signed_again(other);
    assert_eq!(check(&other, &expected()), Ok(()));
    let refused = check(&other, &expected().root([4; 32]));
    assert_eq!(refused, Err(TicketError::Field { field: "root" }));
}
