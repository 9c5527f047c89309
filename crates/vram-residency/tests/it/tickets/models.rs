//! Tickets of whole models: for all shards at one moment, or none (P49).

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use vram_residency::device::fault::FaultPlan;
use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, MemoryMode, ModelHandle, ModelPlan, ModelTicket,
    ModelTicketExpectation, Piece, Protection, SliceSource, TicketError, Verify, VramError,
    VramManager, model_root,
};
use vram_test_rigs::{Rig, devices};

use super::{NONCE, key, verifier};

const LEN: usize = 700;

fn rig() -> Rig {
    let devices = devices(&[1 << 20, 1 << 20], &FaultPlan::new(1));
    Rig::over(devices, MemoryMode::Region, |builder| builder.ticket_key(key()).node("node-1"))
}

/// Admits a model of three tensors.
fn admit(manager: &VramManager) -> ModelHandle {
    let at = |index: usize| u64::try_from(index * LEN).unwrap();
    let piece = |index| Piece::new(format!("t{index}"), 0, at(index), ByteLen::from_usize(LEN));
    let plan = ModelPlan::new((0..3).map(piece)).unwrap();
    let request = AdmitRequest::new("llama", GpuChoice::One(0)).owner("pool");
    manager.admit(request, &plan, &vec![SliceSource::new(&[7; 3 * LEN])]).unwrap()
}

/// The root, as a party computes it that kept ids and records of the model.
fn root(model: &ModelHandle) -> [u8; 32] {
    let shards = model.pieces.iter().map(|piece| &piece.shard);
    model_root(shards.map(|shard| (&shard.shard_id, &shard.sealed_data)))
}

fn expected(ticket: &ModelTicket) -> ModelTicketExpectation {
    ModelTicketExpectation::new(NONCE, ticket.issued_at)
}

#[test]
fn a_ticket_of_a_model_says_what_the_manager_knows_of_all_its_shards() {
    let rig = rig();
    let manager = &rig.manager;
    let _other = admit(manager);
    let model = admit(manager);
    let never = manager.ticket_model(&model, NONCE).unwrap();
    assert_eq!(never.last_verified, None, "a sample is no verification of all");
    let _sound = manager.verify_model(&model, Verify::Full).unwrap();
    let mut model = model;
    model.pieces[2].shard = manager.open_resident(&model.pieces[2].shard).unwrap();
    model.pieces[1].shard = manager.migrate_shard(&model.pieces[1].shard, 1).unwrap();

    let ticket = manager.ticket_model(&model, NONCE).unwrap();
    assert_eq!((&*ticket.model_id, ticket.owner.as_deref()), ("llama", Some("pool")));
    assert_eq!((ticket.node.as_deref(), ticket.admission), (Some("node-1"), 1));
    let mut uuids: Vec<_> = manager.gpus().iter().map(|gpu| gpu.uuid).collect();
    uuids.sort_by_key(|uuid| *uuid.as_bytes());
    assert_eq!(ticket.gpus, uuids);
    assert_eq!((ticket.shard_count, ticket.plaintext_len.get()), (3, 2100));
    assert_eq!((ticket.authenticated, ticket.quarantined), (1, 0));
    let report = manager.report();
    let verified = report.shards.iter().filter(|shard| shard.admission == Some(1));
    assert_eq!(ticket.last_verified, verified.map(|shard| shard.last_verified).min().unwrap());

    let all = expected(&ticket)
        .max_age(Duration::ZERO)
        .model_id("llama")
        .owner("pool")
        .node("node-1")
        .root(root(&model))
        .shard_count(3)
        .plaintext_len(ByteLen::new(2100))
        .on_gpus(uuids)
        .max_unverified(Duration::from_hours(1));
    assert_eq!(verifier().verify_model(&ticket, &all), Ok(()));
    let encrypted = expected(&ticket).protection(Protection::Encrypted);
    let refused = Err(TicketError::Field { field: "protection" });
    assert_eq!(verifier().verify_model(&ticket, &encrypted), refused);
    // Sealed anew, it is another model to a party that expects the records of before.
    let before = expected(&ticket).root(root(&admit(manager)));
    let refused = Err(TicketError::Field { field: "root" });
    assert_eq!(verifier().verify_model(&ticket, &before), refused);
    let back = ModelTicket::from_bytes(&ticket.to_bytes()).unwrap();
    assert_eq!(back, ticket);
}

#[test]
fn a_handle_that_names_other_shards_than_the_model_gets_no_ticket() {
    let rig = rig();
    let manager = &rig.manager;
    let (model, other) = (admit(manager), admit(manager));
    let changes: [&dyn Fn(&mut ModelHandle); 7] = [
        &|model| model.pieces.swap(0, 2),
        &|model| drop(model.pieces.remove(1)),
        &|model| drop(model.pieces.pop()),
        &|model| model.pieces.push(model.pieces[0].clone()),
        &|model| model.pieces[1] = model.pieces[0].clone(),
        &|model| model.pieces[1].shard = other.pieces[1].shard.clone(),
        &|model| model.model_id = "other".into(),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut named = model.clone();
        change(&mut named);
        let refused = manager.ticket_model(&named, NONCE);
        assert!(matches!(refused, Err(VramError::HandleAltered { .. })), "{index}: {refused:?}");
    }
    let mut empty = model.clone();
    empty.pieces.clear();
    assert!(manager.ticket_model(&empty, NONCE).is_err());
    let mut altered = model.clone();
    altered.pieces[1].shard.sealed_data[9] ^= 1;
    let refused = manager.ticket_model(&altered, NONCE);
    assert!(matches!(refused, Err(VramError::HandleAltered { .. })), "{refused:?}");
    let elsewhere = VramManager::new_mock(1 << 20).unwrap();
    let refused = elsewhere.ticket_model(&model, NONCE);
    assert!(matches!(refused, Err(VramError::ForeignHandle { .. })), "{refused:?}");
    manager.ticket_model(&model, NONCE).unwrap();
}

#[test]
fn a_model_that_is_not_all_there_gets_no_ticket_and_an_altered_one_says_so() {
    let rig = rig();
    let manager = &rig.manager;
    let model = admit(manager);
    let shard = model.pieces[1].shard.clone();
    let parked = manager.park(&shard).unwrap();
    let refused = manager.ticket_model(&model, NONCE);
    assert!(matches!(refused, Err(VramError::Parked { .. })), "{refused:?}");
    manager.wake(parked, 0).unwrap();

    manager.open_resident(&shard).unwrap();
    let refused = manager.ticket_model(&model, NONCE);
    assert!(matches!(refused, Err(VramError::StaleHandle { .. })), "{refused:?}");
    let model = manager.refresh_model(&model).unwrap();

    let moved = manager.migrate_shard(&model.pieces[1].shard, 1).unwrap();
    rig.flip(1, rig.written_at(1), 3);
    manager.unseal_model(&moved).unwrap_err();
    let ticket = manager.ticket_model(&model, NONCE).unwrap();
    assert_eq!(ticket.quarantined, 1);
    let refused = verifier().verify_model(&ticket, &expected(&ticket));
    assert_eq!(refused, Err(TicketError::ModelQuarantined { shards: 1 }));
    let allowed = expected(&ticket).allow_quarantined().root(root(&model));
    assert_eq!(verifier().verify_model(&ticket, &allowed), Ok(()));

    manager.free_shard(&moved).unwrap();
    let refused = manager.ticket_model(&model, NONCE);
    assert!(matches!(refused, Err(VramError::ShardFreed { .. })), "{refused:?}");

    let model = admit(manager);
    rig.lose(&model.pieces[0].shard);
    let refused = manager.ticket_model(&model, NONCE);
    assert!(matches!(refused, Err(VramError::DeviceLost { .. })), "{refused:?}");
    rig.clear();
}

/// A model moves between two GPUs, all of it in one moment: no ticket names both.
#[test]
fn a_ticket_is_of_one_moment_whatever_other_threads_do() {
    let rig = rig();
    let manager = &rig.manager;
    let model = admit(manager);
    let (ends, uuids) = (AtomicBool::new(false), manager.gpus());
    let mut seen = [0_u32; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..400_u32 {
                manager.migrate_model(&model, turn % 2).unwrap();
            }
            ends.store(true, Ordering::SeqCst);
        });
        while !ends.load(Ordering::SeqCst) {
            match manager.ticket_model(&model, NONCE) {
                Ok(ticket) => {
                    let [gpu] = ticket.gpus.as_slice() else { panic!("{ticket:?}") };
                    let index = uuids.iter().position(|info| info.uuid == *gpu).unwrap();
                    seen[index] += 1;
                    assert_eq!(ticket.root, root(&model));
                }
                Err(VramError::TimedOut { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    });
    assert!(seen[0] + seen[1] > 0, "{seen:?}");
}
