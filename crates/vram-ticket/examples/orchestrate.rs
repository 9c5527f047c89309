//! An orchestrator asks a node which shard is resident, and accepts only what it can verify.
//!
//! ```sh
//! cargo run -p vram-ticket --example orchestrate
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use core::error::Error;
use core::time::Duration;

use vram_alloc::{ByteLen, DeviceUuid, GpuIndex};
use vram_id::{Clock as _, IdSource, SystemClock};
use vram_seal::{KeyId, Protection, TicketKey};
use vram_ticket::{
    ShardTicket, Statement, TicketError, TicketExpectation, TicketState, TicketVerifier,
};

/// The key that both sides share with no other party.
fn shared_key() -> TicketKey {
    TicketKey::from_bytes(&[7; 32])
}

/// The node's side: the work of a manager of shards that gets a request.
fn node_answers(nonce: [u8; 32]) -> Result<Vec<u8>, TicketError> {
    let statement = Statement {
        nonce,
        manager: [1; 16],
        node: Some("node-17".into()),
        shard_id: IdSource::Process.next(&SystemClock),
        model_id: "llama-3-8b".into(),
        owner: Some("pool-a".into()),
        gpu_uuid: DeviceUuid::for_host(GpuIndex::new(0)),
        gpu_index: 0,
        plaintext_len: ByteLen::GIB,
        protection: Protection::Encrypted,
        record_mac: [3; 32],
        digest: None,
        key_id: KeyId::from_bytes([4; 16]),
        generation: 0,
        state: TicketState::Sound,
        last_verified: Some(SystemClock.now()),
        checked: None,
        unverified: Duration::from_secs(90),
        issued_at: SystemClock.now(),
    };
    Ok(statement.sign(&shared_key())?.to_bytes())
}

fn main() -> Result<(), Box<dyn Error>> {
    let verifier = TicketVerifier::new(shared_key());
    let nonce = [42; 32]; // 32 fresh random bytes for each question
    let answer = node_answers(nonce)?;
    println!("the node answers with {} bytes", answer.len());

    let expected = TicketExpectation::new(nonce, SystemClock.now())
        .node("node-17")
        .model_id("llama-3-8b")
        .max_unverified(Duration::from_hours(1));
    let ticket = ShardTicket::from_bytes(&answer)?;
    verifier.verify(&ticket, &expected)?;
    println!("accepted: {} lies on {}", ticket.shard_id, ticket.gpu_uuid);

    // A relay changes one field: the signature does not match any more.
    let mut changed = ticket.clone();
    changed.gpu_index = 5;
    let refused = verifier.verify(&changed, &expected);
    println!("refused: {}", refused.as_ref().err().ok_or("a changed ticket was accepted")?);

    // A ticket of yesterday carries the nonce of yesterday's request.
    let today = TicketExpectation::new([43; 32], SystemClock.now());
    assert_eq!(verifier.verify(&ticket, &today), Err(TicketError::Nonce));

    // A policy that requires a check of the whole shard within the last minute.
    let strict = expected.max_unverified(Duration::from_mins(1));
    let refused = verifier.verify(&ticket, &strict);
    println!("refused: {}", refused.as_ref().err().ok_or("a ticket too old was accepted")?);
    Ok(())
}
