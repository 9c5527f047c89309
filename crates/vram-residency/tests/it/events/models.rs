//! Events say whose shard it is, and what happens to a whole model is one event after those of its
//! shards (P48).

use vram_residency::{
    AdmitRequest, ByteLen, Event, EventKind, EventLevel, EventLog, EvictionUnit, GpuChoice,
    ModelHandle, ModelPlan, OnEviction, Piece, SealRequest, SealedShard, SliceSource, Verify,
    Whose,
};

use vram_test_rigs::{SEGMENT, weights};

use super::{LONG, Telling, rig, rig_with};

/// Admits a model of two pieces of one tensor and one of another, each of one segment.
fn admit(rig: &Telling, gpu: u32) -> ModelHandle {
    let len = ByteLen::from_usize(SEGMENT);
    let at = |index: u64| index * len.get();
    let plan = ModelPlan::new([
        Piece::new("embeddings", 0, at(0), len).part_of(0, 2),
        Piece::new("embeddings", 0, at(1), len).part_of(1, 2),
        Piece::new("head", 0, at(2), len),
    ])
    .unwrap();
    let request = AdmitRequest::new("llama", GpuChoice::One(gpu)).owner("pool");
    rig.manager.admit(request, &plan, &vec![SliceSource::new(&weights(3 * SEGMENT))]).unwrap()
}

/// Moves a shard to GPU 1, and flips a bit of it there.
fn alter(rig: &Telling, shard: &SealedShard) {
    let moved = rig.manager.migrate_shard(shard, 1).unwrap();
    assert_eq!(moved.gpu_index, 1);
    rig.flip(1, rig.written_at(1), 3);
}

fn of(event: &Event) -> &Whose {
    event.of.as_deref().unwrap_or_else(|| panic!("{event:?} is nobody's"))
}

/// Tensor and part of the piece that an event is about.
fn piece(event: &Event) -> Option<(&str, u32)> {
    of(event).piece.as_ref().map(|piece| (&*piece.tensor, piece.part))
}

#[test]
fn every_event_about_a_shard_names_model_owner_and_piece() {
    let rig = rig(&[64 * SEGMENT, 64 * SEGMENT]);
    let manager = &rig.manager;
    let model = admit(&rig, 0);
    let shard = &model.pieces[1].shard;
    rig.told();
    let _verdict = manager.verify(shard, Verify::Full).unwrap();
    manager.export(shard, std::io::sink()).unwrap();
    let shard = manager.open_resident(shard).unwrap();
    let shard = manager.migrate_shard(&shard, 1).unwrap();
    let parked = manager.park(&shard).unwrap();
    manager.unseal_model(&shard).unwrap_err();
    let shard = manager.wake(parked, 0).unwrap();
    let parked = manager.park(&shard).unwrap();
    drop(parked);
    let told = rig.told();
    let names: Vec<_> = told.iter().map(|event| event.kind.name()).collect();
    let expected = [
        "verified",
        "exported",
        "sealed_anew",
        "moved",
        "parked",
        "refused",
        "woken",
        "parked",
        "dropped",
    ];
    assert_eq!(names, expected);
    for event in &told {
        let of = of(event);
        assert_eq!((&*of.model_id, of.owner.as_deref()), ("llama", Some("pool")));
        assert_eq!((of.admission, piece(event)), (Some(0), Some(("embeddings", 1))));
    }

    // A shard that was sealed by itself is no piece of a model that was admitted.
    let single = manager.seal(SealRequest::new("other", 0), b"x").unwrap();
    manager.free_shard(&single).unwrap();
    for event in rig.told() {
        let of = of(&event);
        assert_eq!((&*of.model_id, of.owner.as_deref()), ("other", None));
        assert_eq!((of.admission, &of.piece), (None, &None));
    }
    // A call that names no shard of this manager is nobody's.
    manager.seal_model("m", 7, b"x").unwrap_err();
    assert_eq!(rig.told()[0].of, None);
}

#[test]
fn what_is_altered_or_evicted_is_told_with_its_model() {
    let rig = rig(&[64 * SEGMENT, 64 * SEGMENT]);
    let model = admit(&rig, 0);
    alter(&rig, &model.pieces[2].shard);
    rig.told();
    assert!(!rig.manager.verify_model(&model, Verify::Segments).unwrap().sound);
    let told = rig.told();
    let altered: Vec<_> = told.iter().filter(|event| event.kind.name() != "verified").collect();
    let names: Vec<_> = altered.iter().map(|event| event.kind.name()).collect();
    assert_eq!(names, ["altered", "quarantined"]);
    assert!(altered.iter().all(|event| piece(event) == Some(("head", 0))));

    let rig = super::rig(&[2 * SEGMENT]);
    let old = SealRequest::new("old", 0).owner("pool").on_eviction(OnEviction::Free);
    rig.manager.seal(old, &weights(SEGMENT)).unwrap();
    rig.manager.seal_model("new", 0, &weights(2 * SEGMENT)).unwrap();
    let told = rig.told();
    let names: Vec<_> = told.iter().map(|event| event.kind.name()).collect();
    assert_eq!(names, ["sealed", "evicted", "freed", "sealed"]);
    assert_eq!((&*of(&told[1]).model_id, &*of(&told[2]).model_id), ("old", "old"));
}

#[test]
fn a_call_on_a_whole_model_is_one_event_after_those_of_its_shards() {
    let rig = rig(&[64 * SEGMENT, 64 * SEGMENT]);
    let manager = &rig.manager;
    let bytes = ByteLen::from_usize(3 * SEGMENT);
    let step = |expected: &str, kind: EventKind| {
        let told = rig.told();
        let (last, shards) = told.split_last().unwrap();
        assert_eq!(shards.len(), 3, "{told:?}");
        for (event, piece) in shards.iter().zip([("embeddings", 0), ("embeddings", 1), ("head", 0)])
        {
            assert_eq!((event.kind.name(), self::piece(event)), (expected, Some(piece)));
        }
        assert_eq!(last.kind, kind);
        let of = of(last);
        assert_eq!((&*of.model_id, of.owner.as_deref()), ("llama", Some("pool")));
        assert_eq!((of.admission, &of.piece), (Some(0), &None));
    };
    let model = admit(&rig, 0);
    step("sealed", EventKind::ModelAdmitted { shards: 3, bytes });
    let model = manager.migrate_model(&model, 1).unwrap();
    step("moved", EventKind::ModelMoved { to: 1, shards: 3, bytes });
    let model = manager.migrate_model(&model, 1).unwrap();
    assert_eq!(rig.names(), [""; 0], "nothing moved");
    let parked = manager.park_model(&model).unwrap();
    step("parked", EventKind::ModelParked { shards: 3, bytes: parked.host_len() });
    let model = manager.wake_model(parked, GpuChoice::One(0)).unwrap();
    step("woken", EventKind::ModelWoken { shards: 3, bytes });
    manager.free_model(&model).unwrap();
    step("freed", EventKind::ModelFreed { shards: 3, bytes });
    manager.free_model(&model).unwrap();
    assert_eq!(rig.names(), [""; 0], "it was gone");
}

#[test]
fn what_fails_as_a_whole_is_no_event_of_the_model() {
    let rig = rig(&[64 * SEGMENT, 2 * SEGMENT]);
    let manager = &rig.manager;
    let model = admit(&rig, 0);
    rig.told();
    manager.migrate_model(&model, 1).unwrap_err();
    let lease = manager.lease(&model.pieces[0].shard).unwrap();
    manager.park_model(&model).unwrap_err();
    manager.free_model(&model).unwrap_err();
    drop(lease);
    let parked = manager.park_model(&model).unwrap();
    let parked = manager.wake_model(parked, GpuChoice::One(1)).unwrap_err().into_parts().0;
    drop(parked);
    let names = rig.names();
    let models: Vec<_> = names.iter().filter(|name| name.starts_with("model_")).collect();
    assert_eq!(models, [&"model_parked"]);
}

/// A rig with a sink of models, and the events of that.
fn with_sink_of_models(totals: &[usize], unit: EvictionUnit) -> (Telling, EventLog) {
    let log = EventLog::new(100);
    let also = log.clone();
    let rig = rig_with(totals, |builder| {
        builder.eviction_unit(unit).event_sink_at(EventLevel::Models, also)
    });
    (rig, log)
}

/// What a sink of models was told since the last call of this.
fn told_of_models(rig: &Telling, log: &EventLog) -> Vec<&'static str> {
    assert!(rig.manager.flush_events(LONG));
    log.take().iter().map(|event| event.kind.name()).collect()
}

#[test]
fn a_sink_of_models_is_told_an_eviction_once_for_a_model_and_for_each_shard_that_goes_alone() {
    for how in [OnEviction::Park, OnEviction::Free] {
        for unit in [EvictionUnit::Model, EvictionUnit::Shard] {
            let (rig, log) = with_sink_of_models(&[4 * SEGMENT], unit);
            let plan = ModelPlan::new((0..3).map(|at| {
                let len = ByteLen::from_usize(SEGMENT);
                Piece::new(format!("t{at}"), 0, at * len.get(), len)
            }));
            let request = AdmitRequest::new("old", GpuChoice::One(0)).on_eviction(how);
            let bytes = weights(3 * SEGMENT);
            let source = vec![SliceSource::new(&bytes)];
            rig.manager.admit(request, &plan.unwrap(), &source).unwrap();
            rig.manager.seal_model("new", 0, &weights(3 * SEGMENT)).unwrap();
            let mut told = told_of_models(&rig, &log);
            // The outcome of an eviction shard by shard may be told as well.
            told.retain(|name| !["parked", "freed"].contains(name) || unit == EvictionUnit::Model);
            let expected: &[_] = match unit {
                EvictionUnit::Shard => &["model_admitted", "evicted", "evicted", "sealed"],
                _ => &["model_admitted", "model_evicted", "sealed"],
            };
            assert_eq!(told, expected);
        }
    }
}

/// Where no event of the model follows, the step itself is told.
#[test]
fn a_sink_of_models_is_told_what_becomes_of_a_single_piece() {
    let (rig, log) = with_sink_of_models(&[64 * SEGMENT], EvictionUnit::Model);
    let manager = &rig.manager;
    let model = admit(&rig, 0);
    let parked = manager.park(&model.pieces[0].shard).unwrap();
    manager.wake(parked, 0).unwrap();
    let _verdict = manager.verify_model(&model, Verify::Full).unwrap();
    manager.free_shard(&model.pieces[1].shard).unwrap();
    assert_eq!(told_of_models(&rig, &log), ["model_admitted", "parked", "woken", "freed"]);
    manager.free_model(&model).unwrap();

    // A parked model that is dropped: what becomes of each of its shards.
    let model = admit(&rig, 0);
    drop(manager.park_model(&model).unwrap());
    let expected =
        ["model_freed", "model_admitted", "model_parked", "dropped", "dropped", "dropped"];
    assert_eq!(told_of_models(&rig, &log), expected);

    let _left = admit(&rig, 0);
    let _report = manager.close(LONG);
    let told = told_of_models(&rig, &log);
    assert_eq!(told, ["model_admitted", "freed", "freed", "freed", "closed"]);
}

#[test]
fn a_sink_of_models_is_told_of_models_and_of_what_went_wrong() {
    let (rig, log) = with_sink_of_models(&[64 * SEGMENT, 64 * SEGMENT], EvictionUnit::Model);
    let manager = &rig.manager;
    let model = admit(&rig, 0);
    let _verdict = manager.verify_model(&model, Verify::Full).unwrap();
    let model = manager.migrate_model(&model, 1).unwrap();
    let parked = manager.park_model(&model).unwrap();
    let model = manager.wake_model(parked, GpuChoice::One(0)).unwrap();
    alter(&rig, &model.pieces[0].shard);
    manager.unseal_model(&model.pieces[0].shard).unwrap_err();
    manager.free_model(&model).unwrap();
    let single = manager.seal_model("single", 0, b"x").unwrap();
    manager.free_shard(&single).unwrap();
    assert!(manager.flush_events(LONG));
    let told = log.take();
    let names: Vec<_> = told.iter().map(|event| event.kind.name()).collect();
    let expected = [
        "model_admitted",
        "model_moved",
        "model_parked",
        "model_woken",
        "moved",
        "altered",
        "quarantined",
        "refused",
        "model_freed",
        "sealed",
        "freed",
    ];
    assert_eq!(names, expected);
    assert!(told.is_sorted_by_key(|event| event.seq));
    let [all, models] = manager.event_counts().try_into().unwrap();
    assert!(models.dropped == 0 && models.delivered == 11 && all.delivered > 20);
}

/// The JSON has the names beside the others, and reads back; an event of before has none.
#[cfg(feature = "serde")]
#[test]
fn whose_it_is_stands_in_the_json_beside_the_others() {
    let rig = rig(&[64 * SEGMENT]);
    admit(&rig, 0);
    let told = rig.told();
    let json: Vec<_> = told.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    let first = &json[0];
    assert_eq!((&first["model_id"], &first["owner"]), (&"llama".into(), &"pool".into()));
    assert_eq!(first["piece"], serde_json::json!({"tensor": "embeddings", "part": 0}));
    assert_eq!((&first["admission"], &first["kind"]["event"]), (&0.into(), &"sealed".into()));
    assert_eq!(json[3]["kind"]["event"], "model_admitted");
    assert!(json[3].get("piece").is_none() && json[3]["model_id"] == "llama");
    for (event, json) in told.iter().zip(json) {
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), *event);
    }
    let before = r#"{"seq":7,"at":5,"kind":{"event":"closed","left":0}}"#;
    let event: Event = serde_json::from_str(before).unwrap();
    assert_eq!((event.seq, event.of.clone()), (7, None));
    assert_eq!(serde_json::to_string(&event).unwrap(), before);
}
