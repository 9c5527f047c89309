//! Each operation emits exactly its events, once, and none if nothing happened.

use std::sync::Arc;

use vram_residency::{
    AdmitRequest, ByteLen, Checked, CompactBudget, EventKind, EvictedFor, ExportOptions, GpuChoice,
    ImportRequest, ModelPlan, OnEviction, Piece, Protection, SealKey, SealOptions, SealRequest,
    SliceSource, Verify, VramError,
};

use vram_test_rigs::{SEGMENT, weights};

use super::{LONG, rig, rig_with};

const NOTHING: [&str; 0] = [];

#[test]
fn each_operation_on_a_shard_tells_exactly_what_happened() {
    let rig = rig(&[64 * SEGMENT, 64 * SEGMENT]);
    let manager = &rig.manager;
    let bytes = weights(3 * SEGMENT);
    let shard = manager.seal(SealRequest::new("model", 0).owner("pool"), &bytes).unwrap();
    let id = shard.shard_id.clone();
    let len = ByteLen::from_usize(bytes.len());
    let kinds = |rig: &super::Telling| -> Vec<EventKind> {
        rig.told().into_iter().map(|event| event.kind).collect()
    };
    let sealed = EventKind::Sealed {
        shard: id.clone(),
        model_id: "model".into(),
        owner: Some("pool".into()),
        gpu: 0,
        bytes: len,
    };
    assert_eq!(kinds(&rig), [sealed]);

    manager.unseal_model(&shard).unwrap();
    manager.read_shard_at_offset(&shard, 5, 5).unwrap();
    manager.content_digest(&shard).unwrap();
    let _verdict = manager.verify(&shard, Verify::Record).unwrap();
    assert_eq!(rig.names(), NOTHING, "reading changes nothing, and a record is no device byte");

    let verified = |bytes| EventKind::Verified {
        shard: id.clone(),
        gpu: 0,
        bytes: ByteLen::from_usize(bytes),
        by: Checked::BY_HOST,
    };
    let _verdict = manager.verify(&shard, Verify::Full).unwrap();
    let _verdict = manager.verify(&shard, Verify::Range { offset: 0, length: 1 }).unwrap();
    manager.ensure_intact(&shard).unwrap();
    assert!(manager.verify_shard_integrity(&shard).unwrap());
    let all = bytes.len();
    assert_eq!(kinds(&rig), [verified(all), verified(SEGMENT), verified(all), verified(all)]);

    let anew = |protection| EventKind::SealedAnew { shard: id.clone(), gpu: 0, protection };
    let shard = manager.open_resident(&shard).unwrap();
    let shard = manager.open_resident(&shard).unwrap();
    drop(manager.lease(&shard).unwrap());
    let shard = manager.close_resident(&shard).unwrap();
    let key = SealKey::from_bytes(&[8; 32]);
    let key_id = key.id();
    manager.add_key(key).unwrap();
    let shard = manager.reseal_shard(&shard, &key_id).unwrap();
    let (open, closed) = (Protection::Authenticated, Protection::Encrypted);
    assert_eq!(kinds(&rig), [anew(open), anew(closed), anew(closed)], "each once");

    let shard = manager.migrate_shard(&shard, 1).unwrap();
    let shard = manager.migrate_shard(&shard, 1).unwrap();
    assert_eq!(kinds(&rig), [EventKind::Moved { shard: id.clone(), from: 0, to: 1, bytes: len }]);

    let parked = manager.park(&shard).unwrap();
    let host = parked.host_len();
    let shard = manager.wake(parked, 0).unwrap();
    assert_eq!(
        kinds(&rig),
        [
            EventKind::Parked { shard: id.clone(), gpu: 1, bytes: host },
            EventKind::Woken { shard: id.clone(), gpu: 0, bytes: len },
        ]
    );

    let mut image = Vec::new();
    manager.export(&shard, &mut image).unwrap();
    let folder = tempfile::tempdir().unwrap();
    manager.export_to(&shard, folder.path().join("image"), ExportOptions::default()).unwrap();
    let image_len = ByteLen::from_usize(image.len());
    let exported = EventKind::Exported { shard: id.clone(), gpu: 0, bytes: image_len };
    assert_eq!(kinds(&rig), [exported.clone(), exported]);

    let copy = manager.import(ImportRequest::new("model", 1), image.as_slice()).unwrap();
    manager.unseal_and_free(&copy).unwrap();
    let receipt = manager.free_shard(&shard).unwrap();
    let freed = |shard: &vram_residency::ShardId, gpu| EventKind::Freed {
        shard: shard.clone(),
        gpu,
        bytes: receipt.bytes,
        wiped: true,
    };
    let told = kinds(&rig);
    assert!(matches!(&told[0], EventKind::Sealed { gpu: 1, shard, .. } if *shard == copy.shard_id));
    assert_eq!(told[1..], [freed(&copy.shard_id, 1), freed(&id, 0)]);
}

#[test]
fn whole_models_and_other_ways_in_tell_of_each_shard() {
    let rig = rig(&[64 * SEGMENT, 64 * SEGMENT]);
    let manager = &rig.manager;
    let bytes = weights(2 * SEGMENT);
    let plan = ModelPlan::new([
        Piece::new("a", 0, 0, ByteLen::from_usize(SEGMENT)),
        Piece::new("b", 0, u64::try_from(SEGMENT).unwrap(), ByteLen::from_usize(SEGMENT)),
    ])
    .unwrap();
    let admit = AdmitRequest::new("model", GpuChoice::One(0));
    let model = manager.admit(admit, &plan, &vec![SliceSource::new(&bytes)]).unwrap();
    assert_eq!(rig.names(), ["sealed", "sealed", "model_admitted"]);
    let model = manager.migrate_model(&model, 1).unwrap();
    assert_eq!(rig.names(), ["moved", "moved", "model_moved"]);
    assert!(manager.verify_model(&model, Verify::Segments).unwrap().sound);
    assert_eq!(rig.names(), ["verified"; 2]);
    let parked = manager.park_model(&model).unwrap();
    let model = manager.wake_model(parked, GpuChoice::One(0)).unwrap();
    assert_eq!(rig.names(), ["parked", "parked", "model_parked", "woken", "woken", "model_woken"]);
    manager.free_model(&model).unwrap();
    assert_eq!(rig.names(), ["freed", "freed", "model_freed"]);

    let mut room = manager.reserve(0, ByteLen::from_usize(4 * SEGMENT)).unwrap();
    manager.seal_reserved(&mut room, SealRequest::new("a", 0), &bytes).unwrap();
    drop(room);
    let source = SliceSource::new(&bytes);
    manager.seal_from(SealRequest::new("b", 0), source, SealOptions::new()).unwrap();
    assert_eq!(rig.names(), ["sealed"; 2]);
}

#[test]
fn compaction_tells_of_each_shard_that_moved_on_its_gpu() {
    let rig = rig(&[8 * SEGMENT]);
    let manager = &rig.manager;
    let shards: Vec<_> =
        (0..3).map(|_| manager.seal_model("m", 0, &weights(2 * SEGMENT)).unwrap()).collect();
    manager.free_shard(&shards[0]).unwrap();
    manager.free_shard(&shards[1]).unwrap();
    let last = manager.seal_model("m", 0, &weights(SEGMENT)).unwrap();
    manager.free_shard(&last).unwrap();
    rig.told();
    let report = manager.compact(0, CompactBudget::new()).unwrap();
    let told = rig.told();
    assert!(report.moves > 0 && u64::try_from(told.len()).unwrap() == report.moves, "{told:?}");
    for event in told {
        assert!(matches!(event.kind, EventKind::Moved { from: 0, to: 0, .. }));
    }
}

#[test]
fn what_makes_room_is_told_before_what_gets_it() {
    for (how, what) in [(OnEviction::Free, "freed"), (OnEviction::Park, "parked")] {
        let rig = rig(&[2 * SEGMENT]);
        let manager = &rig.manager;
        let request = SealRequest::new("old", 0).on_eviction(how);
        let old = manager.seal(request, &weights(SEGMENT)).unwrap();
        let request = SealRequest::new("new", 0).owner("pool");
        let new = manager.seal(request, &weights(2 * SEGMENT)).unwrap();
        let told = rig.told();
        let names: Vec<_> = told.iter().map(|event| event.kind.name()).collect();
        assert_eq!(names, ["sealed", "evicted", what, "sealed"]);
        let bytes = ByteLen::from_usize(SEGMENT);
        let evicted_for = Some(Arc::new(EvictedFor::new("new".into(), Some("pool".into()))));
        let (shard, gpu) = (old.shard_id.clone(), 0);
        let evicted = EventKind::Evicted { shard, gpu, bytes, how, evicted_for };
        assert_eq!(told[1].kind, evicted);
        manager.free_shard(&new).unwrap();
    }
}

#[test]
fn what_did_not_go_was_not_evicted() {
    let rig = rig_with(&[2 * SEGMENT], |builder| builder.park_limit(ByteLen::MIB));
    let manager = &rig.manager;
    let request = SealRequest::new("old", 0).on_eviction(OnEviction::Park);
    let old = manager.seal(request, &weights(SEGMENT)).unwrap();
    let plan = manager.plan_eviction(0, ByteLen::from_usize(2 * SEGMENT)).unwrap();
    let report = {
        use vram_residency::device::fault::{Action, Op, When};
        rig.devices[0].add(Op::Read, When::From(1), Action::Driver(1)).unwrap();
        manager.evict(&plan).unwrap()
    };
    rig.devices[0].clear();
    assert!(!report.is_complete());
    assert_eq!(rig.names(), ["sealed"]);
    manager.free_shard(&old).unwrap();
}

#[test]
fn a_refusal_names_the_call_the_shard_the_gpu_and_the_code() {
    let rig = rig(&[2 * SEGMENT]);
    let manager = &rig.manager;
    let shard = manager.seal_model("m", 0, &weights(SEGMENT)).unwrap();
    rig.told();
    manager.seal_model("m", 7, b"x").unwrap_err();
    manager.migrate_shard(&shard, 9).unwrap_err();
    let mut forged = shard.clone();
    forged.plaintext_len = 1;
    assert!(!manager.verify_shard_integrity(&forged).unwrap(), "an answer, not a refusal");
    let parked = manager.park(&shard).unwrap();
    manager.unseal_model(&shard).unwrap_err();
    let error = manager.wake(parked, 3).unwrap_err();
    assert!(matches!(error.error(), VramError::UnknownGpu { .. }));

    let refused = |call: &str, shard, gpu, code: &str| EventKind::Refused {
        call: call.into(),
        shard,
        gpu,
        code: code.into(),
    };
    let id = Some(shard.shard_id.clone());
    let told: Vec<_> = rig.told().into_iter().map(|event| event.kind).collect();
    assert_eq!(told[0], refused("seal", None, Some(7), "unknown-gpu"));
    assert_eq!(told[1], refused("migrate", id.clone(), Some(9), "unknown-gpu"));
    assert_eq!(told[2].name(), "parked");
    assert_eq!(told[3], refused("unseal", id.clone(), None, "parked"));
    assert_eq!(told[4..], [refused("wake", id, Some(3), "unknown-gpu")]);
}

/// A sink can query the state that an event reports.
#[test]
fn a_sink_that_calls_back_finds_what_it_was_told_of() {
    let manager: Arc<std::sync::OnceLock<std::sync::Weak<vram_residency::VramManager>>> =
        Arc::default();
    let found = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (door, seen) = (Arc::clone(&manager), Arc::clone(&found));
    let rig = rig_with(&[64 * SEGMENT], |builder| {
        builder.event_sink(move |event: &vram_residency::Event| {
            let EventKind::Sealed { shard, .. } = &event.kind else { return };
            let Some(manager) = door.wait().upgrade() else { return };
            let handle = manager.shard(shard).unwrap();
            seen.lock().unwrap().push(manager.unseal_model(&handle).unwrap().len());
            assert!(!manager.flush_events(LONG), "its own thread");
        })
    });
    let shared = Arc::new(rig.rig.manager);
    manager.set(Arc::downgrade(&shared)).unwrap();
    for len in [1, 2, 3] {
        shared.seal_model("m", 0, &weights(len)).unwrap();
    }
    assert!(shared.flush_events(LONG));
    assert_eq!(*found.lock().unwrap(), [1, 2, 3]);
    assert!(shared.event_counts().iter().all(|counts| !counts.out_of_service));
}
