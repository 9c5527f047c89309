//! Every public call on a closed manager, and its result.

use core::time::Duration;
use std::io::{self};

use vram_residency::{
    AdmitRequest, ByteLen, CompactBudget, ExportOptions, GpuChoice, ImportRequest, LinkState,
    MemoryMode, ModelPlan, Piece, Protection, RepairOptions, ReservePlanRequest, ReserveRequest,
    ResetOptions, ScrubCursor, ScrubOptions, ScrubRate, SealKey, SealOptions, SealRequest,
    SliceSource, TicketOptions, Verify, VramError,
};
use vram_test_rigs::weights;

use super::{LEN, TOTAL, is_complete, is_gone, seal, two_gpus};

/// Every public call, and its result.
#[expect(clippy::too_many_lines, reason = "it is a table")]
#[test]
fn every_call_of_a_closed_manager_is_refused_but_for_figures() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let rig = two_gpus(MemoryMode::Region);
    let m = &rig.manager;
    let shard = seal(&rig, 0, Protection::Encrypted);
    let data = vec![SliceSource::new(b"weights")];
    let plan = ModelPlan::new([Piece::new("a", 0, 0, ByteLen::new(7))]).unwrap();
    let admit = || AdmitRequest::new("model", GpuChoice::One(0));
    let model = m.admit(admit(), &plan, &data).unwrap();
    let parked = m.park(&seal(&rig, 0, Protection::Encrypted)).unwrap();
    let parked_model = m.park_model(&m.admit(admit(), &plan, &data).unwrap()).unwrap();
    m.export_to(&shard, path("image"), ExportOptions::new()).unwrap();
    let mut room = m.reserve(1, ByteLen::new(1 << 10)).unwrap();
    let mut places = m.reserve_plan(&plan, GpuChoice::One(1)).unwrap();
    let evictions = m.plan_eviction(0, ByteLen::from_usize(TOTAL)).unwrap();
    let (active, other) = (m.active_key(), SealKey::from_bytes(&[3; 32]).id());
    let report = m.close(Duration::ZERO);
    assert_eq!((report.freed, report.reservations, report.complete), (2, 2, false));

    let request = || SealRequest::new("model", 0);
    let import = || ImportRequest::new("model", 0);
    let one = GpuChoice::One(0);
    let (source, mut cursor) = (SliceSource::new(b"weights"), ScrubCursor::new());
    let bytes = ByteLen::new(1);
    let soon = Duration::ZERO;
    let calls: Vec<(&str, Result<(), VramError>)> = vec![
        ("seal_model", m.seal_model("model", 0, b"1").map(drop)),
        ("seal", m.seal(request(), b"1").map(drop)),
        ("seal_from", m.seal_from(request(), SliceSource::new(b"1"), SealOptions::new()).map(drop)),
        ("seal_reserved", m.seal_reserved(&mut room, SealRequest::new("model", 1), b"1").map(drop)),
        ("admit", m.admit(admit(), &plan, &data).map(drop)),
        ("admit_reserved", m.admit_reserved(&mut places, admit(), &data).map(drop)),
        ("import", m.import(import(), &b""[..]).map(drop)),
        ("import_from", m.import_from(import(), path("image")).map(drop)),
        ("wake", m.wake(parked, 0).map(drop).map_err(|error| error.error().clone())),
        (
            "wake_model",
            m.wake_model(parked_model, one).map(drop).map_err(|error| error.error().clone()),
        ),
        ("reserve", m.reserve(0, bytes).map(drop)),
        ("reserve_with", m.reserve_with(ReserveRequest::new(0, bytes)).map(drop)),
        ("reserve_plan", m.reserve_plan(&plan, one).map(drop)),
        ("reserve_plan_with", m.reserve_plan_with(&plan, ReservePlanRequest::new(one)).map(drop)),
        ("unseal_model", m.unseal_model(&shard).map(drop)),
        ("unseal_into", m.unseal_into(&shard, &mut weights(LEN))),
        ("unseal_to", m.unseal_to(&shard, io::sink())),
        ("unseal_and_free", m.unseal_and_free(&shard).map(drop)),
        ("read_shard_at_offset", m.read_shard_at_offset(&shard, 0, 1).map(drop)),
        ("read_into", m.read_into(&shard, 0, &mut [0])),
        ("verify_shard_integrity", m.verify_shard_integrity(&shard).map(drop)),
        ("ensure_intact", m.ensure_intact(&shard)),
        ("verify", m.verify(&shard, Verify::Record).map(drop)),
        ("verify_model", m.verify_model(&model, Verify::Record).map(drop)),
        ("content_digest", m.content_digest(&shard).map(drop)),
        ("free_shard", m.free_shard(&shard).map(drop)),
        ("free_shard_within", m.free_shard_within(&shard, soon).map(drop)),
        ("free_model", m.free_model(&model).map(drop)),
        ("free_model_within", m.free_model_within(&model, soon).map(drop)),
        ("refresh_model", m.refresh_model(&model).map(drop)),
        ("migrate_shard", m.migrate_shard(&shard, 1).map(drop)),
        ("migrate_shard_within", m.migrate_shard_within(&shard, 1, soon).map(drop)),
        ("migrate_model", m.migrate_model(&model, 1).map(drop)),
        ("migrate_model_within", m.migrate_model_within(&model, 1, soon).map(drop)),
        ("park", m.park(&shard).map(drop)),
        ("park_model", m.park_model(&model).map(drop)),
        ("park_model_within", m.park_model_within(&model, soon).map(drop)),
        ("back_up", m.back_up(&shard).map(drop)),
        ("drop_backup", m.drop_backup(&shard).map(drop)),
        ("export", m.export(&shard, io::sink()).map(drop)),
        ("export_with", m.export_with(&shard, io::sink(), ExportOptions::new()).map(drop)),
        ("export_to", m.export_to(&shard, path("more"), ExportOptions::new()).map(drop)),
        ("open_resident", m.open_resident(&shard).map(drop)),
        ("close_resident", m.close_resident(&shard).map(drop)),
        ("reseal_shard", m.reseal_shard(&shard, &active).map(drop)),
        ("lease", m.lease(&shard).map(drop)),
        ("lease_within", m.lease_within(&shard, soon).map(drop)),
        ("lease_model", m.lease_model(&model).map(drop)),
        ("pin", m.pin(&shard)),
        ("unpin", m.unpin(&shard)),
        ("fits", m.fits(&plan, one).map(drop)),
        ("plan_eviction", m.plan_eviction(0, bytes).map(drop)),
        ("evict", m.evict(&evictions).map(drop)),
        ("compact", m.compact(0, CompactBudget::new()).map(drop)),
        ("set_budget", m.set_budget(0, bytes)),
        ("set_headroom", m.set_headroom(0, bytes)),
        ("refresh", m.refresh(0).map(drop)),
        ("reset_gpu", m.reset_gpu(0, ResetOptions::new().force()).map(drop)),
        ("ticket", m.ticket(&shard, [0; 32]).map(drop)),
        ("ticket_with", m.ticket_with(&shard, TicketOptions::new([0; 32])).map(drop)),
        ("reconcile", m.reconcile(0).map(drop)),
        ("repair_from", m.repair_from(&shard, source, RepairOptions::new()).map(drop)),
        (
            "repair_from_image",
            m.repair_from_image(&shard, path("image"), RepairOptions::new()).map(drop),
        ),
        ("start_scrubber", m.start_scrubber(ScrubOptions::new(ScrubRate::Share(1.0))).map(drop)),
        ("scrub_step", m.scrub_step(&mut cursor, bytes).error.map_or(Ok(()), Err)),
        ("add_key", m.add_key(SealKey::from_bytes(&[9; 32]))),
        ("set_active_key", m.set_active_key(&other)),
        ("retire_key", m.retire_key(&other)),
    ];
    for (name, answer) in calls {
        let error = answer.expect_err(name);
        assert!(matches!(error, VramError::Closed), "{name}: {error}");
        assert_eq!((error.code(), error.class()), ("closed", vram_residency::Class::Caller));
    }
    let links = m.probe_links();
    assert!(
        links.iter().all(|link| link.state == LinkState::Unknown
            && matches!(link.error, Some(VramError::Closed)))
    );

    let accounts = m.reconcile_all();
    assert!(
        accounts.len() == 2 && accounts.iter().all(|one| matches!(one, Err(VramError::Closed)))
    );

    // Figures.
    let metrics = m.metrics();
    let refused = metrics
        .calls
        .iter()
        .flat_map(|call| &call.failures)
        .filter(|failure| &*failure.code == "closed");
    assert!(refused.map(|failure| failure.count).sum::<u64>() > 50);
    let state = m.snapshot().state;
    assert!(state.shards.is_empty() && state.parked.is_empty() && state.reservations.len() == 2);
    assert!(m.event_counts().is_empty() && m.flush_events(Duration::ZERO));
    assert_eq!(m.scrub_bound(&cursor, 1), Duration::ZERO);
    assert!(m.shards().is_empty() && m.shard(&shard.shard_id).is_none());
    assert!(m.shards_of("model").is_empty() && m.report().shards.is_empty());
    assert_eq!((m.gpu_count(), m.gpus().len()), (2, 2));
    assert_eq!((m.get_used_vram(0).unwrap(), m.get_free_vram(0).unwrap()), (0, 0));
    assert_eq!(m.capacity(1).unwrap().reserved.get(), 1024 + 256);
    assert_eq!(m.reservations().len(), 2);
    assert!(m.take_evicted().is_empty());
    assert!(m.key_ids().is_empty(), "the keys are wiped");
    assert_eq!(m.active_key(), active);
    assert_eq!(m.park_capacity().shard_count, 0, "those above were dropped");
    drop((room, places));
    is_complete(&m.close(Duration::ZERO));
    is_gone(&rig, "reservations ended");
}
