//! Models on a GPU that is reset: what lay there comes back in one moment or is parked together, and no
//! request takes a part of it meanwhile (P58).

use core::time::Duration;
use std::sync::{Mutex, mpsc};

use vram_residency::device::fault::{Action, Hook, Op, When};
use vram_residency::{
    AdmitRequest, ByteLen, EventKind, EventLog, ExportOptions, GpuChoice, Lru, ModelHandle,
    ModelPlan, ModelState, NotRestored, OnEviction, Piece, ResetOptions, SliceSource, VramError,
};
use vram_test_rigs::{Rig, SEGMENT, content};

/// Admits a model of as many pieces of one segment on GPU 0.
fn admit(rig: &Rig, model: &str, count: usize) -> ModelHandle {
    let len = ByteLen::from_usize(SEGMENT);
    let at = |index: usize| ByteLen::from_usize(index * SEGMENT).get();
    let piece = |index| Piece::new(format!("t{index}"), 0, at(index), len);
    let plan = ModelPlan::new((0..count).map(piece)).unwrap();
    let request = AdmitRequest::new(model, GpuChoice::One(0)).on_eviction(OnEviction::Park);
    let bytes = content(count * SEGMENT, 5);
    rig.manager.admit(request, &plan, &vec![SliceSource::new(&bytes)]).unwrap()
}

fn back_up(rig: &Rig, model: &ModelHandle, pieces: core::ops::Range<usize>) {
    for piece in &model.pieces[pieces] {
        rig.manager.back_up(&piece.shard).unwrap();
    }
}

fn limit(rig: &Rig, segments: usize) {
    rig.manager.set_budget(0, ByteLen::from_usize(segments * SEGMENT)).unwrap();
}

/// The content of a model of `count` pieces is where it was.
fn is_sound(rig: &Rig, model: &ModelHandle) {
    let model = rig.manager.refresh_model(model).unwrap();
    let bytes = content(model.pieces.len() * SEGMENT, 5);
    for (shard, part) in model.shards().zip(bytes.chunks(SEGMENT)) {
        assert_eq!(rig.manager.unseal_model(shard).unwrap(), part);
    }
}

fn states(rig: &Rig) -> Vec<ModelState> {
    rig.manager.models().iter().map(|model| model.state).collect()
}

fn no_room<T>(outcome: &Result<T, VramError>) -> bool {
    matches!(outcome, Err(VramError::InsufficientVram(_)))
}

#[test]
fn while_a_reset_restores_a_model_no_request_takes_a_part_of_it() {
    let rig = Rig::with(&[8 * SEGMENT, 3 * SEGMENT], |builder| builder.eviction(Lru));
    let manager = &rig.manager;
    let model = admit(&rig, "model", 6);
    for piece in &model.pieces[4..] {
        manager.migrate_shard(&piece.shard, 1).unwrap();
    }
    let model = manager.refresh_model(&model).unwrap();
    let small = admit(&rig, "small", 2);
    back_up(&rig, &model, 0..6);
    back_up(&rig, &small, 0..2);
    rig.lose(&model.pieces[0].shard);

    // Held up while the third piece is written: two have their places.
    let (arrived, has_arrived) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let hook = Hook::new(move || {
        arrived.send(()).unwrap();
        let _left = may_go_on.lock().unwrap().recv();
    });
    rig.devices[0].add(Op::QueueWrite, When::Nth(3), Action::Run(hook)).unwrap();
    let report = std::thread::scope(|scope| {
        let reset = scope.spawn(|| manager.reset_gpu(0, ResetOptions::new()).unwrap());
        has_arrived.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(states(&rig), [ModelState::UnderWay; 2]);
        let counts = manager.metrics().models;
        assert_eq!((counts.under_way, counts.whole, counts.partial), (2, 0, 0));
        assert!(no_room(&manager.seal_model("new", 0, &content(6 * SEGMENT, 1))));
        assert!(no_room(&manager.seal_model("new", 1, &content(2 * SEGMENT, 1))), "its other half");
        drop(go_on);
        reset.join().unwrap()
    });
    assert!(manager.take_evicted_models().is_empty());
    assert_eq!((report.restored.len(), report.lost.len()), (6, 0), "{report:?}");
    assert!(report.restored.is_sorted_by_key(|shard| &shard.shard_id));
    assert_eq!(states(&rig), [ModelState::Whole; 2]);
    is_sound(&rig, &model);
    is_sound(&rig, &small);

    // Once it is all there, it may go as a whole.
    manager.seal_model("new", 1, &content(2 * SEGMENT, 1)).unwrap();
    let gone = manager.take_evicted_models();
    assert!(gone.len() == 1 && gone[0].is_whole(), "{gone:?}");
}

#[test]
fn a_model_for_which_there_is_half_the_room_after_a_reset_is_parked_whole() {
    let log = EventLog::new(1000);
    let rig = Rig::with(&[8 * SEGMENT], |builder| builder.event_sink(log.clone()));
    let manager = &rig.manager;
    let model = admit(&rig, "model", 4);
    back_up(&rig, &model, 0..4);
    let single = manager.seal_model("single", 0, &content(SEGMENT, 1)).unwrap();
    manager.back_up(&single).unwrap();
    limit(&rig, 3);
    rig.lose(&single);
    drop(log.take());
    let mut report = manager.reset_gpu(0, ResetOptions::new()).unwrap();
    assert_eq!((report.lost.len(), report.parked.len()), (0, 0), "{report:?}");
    assert_eq!(report.restored[0].shard_id, single.shard_id, "the room is for what it suffices");
    assert_eq!(
        (report.restored.len(), states(&rig)),
        (1, vec![ModelState::Parked, ModelState::Single])
    );
    assert_eq!(manager.get_used_vram(0).unwrap(), SEGMENT);
    let (parked, error) = report.parked_models.pop().unwrap().into_parts();
    assert!(no_room::<()>(&Err(error)) && report.parked_models.is_empty());
    assert!(parked.is_whole());
    assert!(parked.pieces.iter().map(|piece| &*piece.piece.name).eq(["t0", "t1", "t2", "t3"]));
    assert!(manager.flush_events(Duration::from_secs(20)));
    let told = log.take().into_iter().filter_map(|event| match event.kind {
        EventKind::ModelParked { shards, .. } => Some(shards),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [4]);

    limit(&rig, 8);
    let woken = manager.wake_model(parked, GpuChoice::One(0)).unwrap();
    is_sound(&rig, &woken);
}

#[test]
fn what_has_no_copy_keeps_the_rest_of_its_model_from_nothing() {
    let rig = Rig::new(&[8 * SEGMENT, 8 * SEGMENT]);
    let model = admit(&rig, "model", 4);
    back_up(&rig, &model, 1..4);
    rig.lose(&model.pieces[0].shard);
    // Half finds its room on the other GPU.
    limit(&rig, 2);
    let report = rig.manager.reset_gpu(0, ResetOptions::new().elsewhere()).unwrap();
    assert_eq!((report.restored.len(), report.parked_models.len()), (3, 0), "{report:?}");
    assert_eq!(report.lost[0].shard_id, model.pieces[0].shard.shard_id);
    assert!(matches!(report.lost[0].why, NotRestored::NoCopy));
    assert!((0..2).all(|gpu| report.restored.iter().any(|shard| shard.gpu_index == gpu)));
    assert_eq!(states(&rig), [ModelState::Partial]);
}

/// A piece of which there is an image alone is brought to the GPU, and parked from there.
#[test]
fn a_piece_from_an_image_is_parked_with_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(&[8 * SEGMENT]);
    let model = admit(&rig, "model", 4);
    back_up(&rig, &model, 0..3);
    let path = folder.path().join("t3");
    rig.manager.export_to(&model.pieces[3].shard, &path, ExportOptions::new()).unwrap();
    limit(&rig, 2);
    rig.lose(&model.pieces[0].shard);
    let mut report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
    assert_eq!((report.restored.len(), report.lost.len()), (0, 0), "{report:?}");
    let parked = report.parked_models.pop().unwrap().into_parked();
    assert!(parked.is_whole());
    limit(&rig, 8);
    is_sound(&rig, &rig.manager.wake_model(parked, GpuChoice::One(0)).unwrap());
}
