//! Whole models: every piece is resident, or none is.

use core::panic::AssertUnwindSafe;
use std::fs;
use std::panic::catch_unwind;

use vram_residency::{
    AdmitRequest, ByteLen, CancelToken, FileSource, GpuChoice, ModelPlan, ModelSource, Piece,
    Protection, SegmentSize, SliceSource, SourceError, Threads, Verify, VramError, VramManager,
};

use vram_test_rigs::{Rig, content};

/// Two files, and pieces of all sizes from them.
pub(crate) fn plan() -> (Vec<Vec<u8>>, ModelPlan) {
    let files = vec![content(40_000, 1), content(20_000, 2)];
    let piece = |name: &str, file, offset, len| Piece::new(name, file, offset, ByteLen::new(len));
    let plan = ModelPlan::new([
        piece("embeddings", 0, 8, 20_000),
        piece("norm", 0, 20_008, 100),
        piece("empty", 0, 20_108, 0),
        piece("head", 0, 30_000, 10_000),
        piece("bias", 1, 0, 1),
        piece("layer", 1, 1, 19_999),
    ]);
    (files, plan.unwrap())
}

pub(crate) fn sources(files: &[Vec<u8>]) -> Vec<SliceSource<'_>> {
    files.iter().map(|file| SliceSource::new(file)).collect()
}

pub(crate) fn bytes_of<'a>(files: &'a [Vec<u8>], piece: &Piece) -> &'a [u8] {
    let file = &files[usize::try_from(piece.file).unwrap()];
    let start = usize::try_from(piece.source_offset).unwrap();
    &file[start..start + piece.len.to_usize().unwrap()]
}

pub(crate) fn request() -> AdmitRequest<'static> {
    AdmitRequest::new("model", GpuChoice::MostRoomFirst)
}

#[test]
fn every_piece_of_a_plan_becomes_a_shard_of_its_own() {
    let (files, plan) = plan();
    let folder = tempfile::tempdir().unwrap();
    let opened: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(number, bytes)| {
            let path = folder.path().join(number.to_string());
            fs::write(&path, bytes).unwrap();
            FileSource::open(path).unwrap()
        })
        .collect();
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        let rig = Rig::new(&[1 << 17]);
        let mut told = Vec::new();
        let request = request().protection(protection).owner("pool").progress(|p| told.push(p));
        let model = rig.manager.admit(request, &plan, &opened).unwrap();
        assert_eq!(told.last().map(|last| last.done), Some(plan.total().get()));

        assert_eq!(model.total(), plan.total());
        assert_eq!(model.pieces.len(), plan.pieces().len());
        for (index, (made, piece)) in (0..).zip(model.pieces.iter().zip(plan.pieces())) {
            assert_eq!(made.piece, *piece);
            assert_eq!(rig.manager.unseal_model(&made.shard).unwrap(), bytes_of(&files, piece));
            assert!(rig.manager.verify(&made.shard, Verify::Full).unwrap().sound);
            let fields = made.shard.sealed_data.parse_unauthenticated().unwrap();
            assert_eq!(fields.shard_index(), index);
        }
        assert_eq!(model.tensor("head").count(), 1);
        assert_eq!(model.tensor("tail").count(), 0);
        assert_eq!(rig.manager.shards_of("model").len(), 6);
        assert_eq!(rig.manager.free_model(&model).unwrap().len(), 6);
        assert!(rig.manager.free_model(&model).unwrap().is_empty());
        rig.settle(true);
    }
}

#[test]
fn two_pieces_of_equal_bytes_are_sealed_differently() {
    let bytes = content(3000, 3);
    let twice = [bytes.clone(), bytes].concat();
    let plan = ModelPlan::new([
        Piece::new("a", 0, 0, ByteLen::new(3000)),
        Piece::new("b", 0, 3000, ByteLen::new(3000)),
    ]);
    let rig = Rig::new(&[1 << 16]);
    let model = rig.manager.admit(request(), &plan.unwrap(), &sources(&[twice])).unwrap();
    assert_ne!(model.pieces[0].shard.sealed_data, model.pieces[1].shard.sealed_data);
    assert_ne!(
        model.pieces[0].shard.sealed_data.parse_unauthenticated().unwrap().metadata_code(),
        model.pieces[1].shard.sealed_data.parse_unauthenticated().unwrap().metadata_code()
    );
}

#[test]
fn an_empty_plan_is_an_empty_model() {
    let rig = Rig::new(&[1 << 16]);
    let nothing: [SliceSource<'_>; 0] = [];
    let plan = ModelPlan::new([]).unwrap();
    let model = rig.manager.admit(request(), &plan, &nothing.to_vec()).unwrap();
    assert!(model.pieces.is_empty());
    assert!(rig.manager.free_model(&model).unwrap().is_empty());
}

fn several(capacities: &[usize]) -> VramManager {
    capacities
        .iter()
        .fold(VramManager::builder(), |builder, total| {
            builder.host_device(ByteLen::from_usize(*total))
        })
        .segment_size(SegmentSize::MIN)
        .threads(Threads::exactly(2))
        .build()
        .unwrap()
}

#[test]
fn the_gpu_with_most_room_comes_first_and_pieces_spill_over_to_the_next() {
    let (files, plan) = plan();
    let gpus = |manager: &VramManager| -> Vec<u32> {
        let model = manager.admit(request(), &plan, &sources(&files)).unwrap();
        for made in &model.pieces {
            let read = manager.unseal_model(&made.shard).unwrap();
            assert_eq!(read, bytes_of(&files, &made.piece));
        }
        let gpus = model.shards().map(|shard| shard.gpu_index).collect();
        manager.free_model(&model).unwrap();
        gpus
    };
    // Of equal GPUs the lowest index is chosen.
    assert_eq!(gpus(&several(&[100_096, 100_096])), [0; 6]);
    assert_eq!(gpus(&several(&[100_096, 200_192, 50_176])), [1; 6]);
    // 20 000 fit only on 1 and, when that is taken, on 0; the small ones go where there is room.
    assert_eq!(gpus(&several(&[20_480, 30_720, 10_240])), [1, 1, 1, 1, 0, 0]);
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_a_byte_is_read() {
    struct Unread;
    impl ModelSource for Unread {
        fn read_at(&self, _: u32, _: u64, _: &mut [u8]) -> Result<(), SourceError> {
            panic!("nothing may be read");
        }
    }
    let (_files, plan) = plan();
    for capacities in [vec![50_000], vec![30_720, 10_240], vec![0]] {
        let manager = several(&capacities);
        match manager.admit(request(), &plan, &Unread) {
            Err(VramError::InsufficientVram(shortfall)) => {
                assert_eq!(shortfall.needed, plan.footprint(), "the model as a whole");
                assert_eq!(shortfall.room.get(), capacities.iter().sum::<usize>() as u64);
                assert_eq!(shortfall.others + 1, manager.gpu_count());
            }
            other => panic!("{other:?}"),
        }
        let one = AdmitRequest::new("model", GpuChoice::One(0));
        match manager.admit(one, &plan, &Unread) {
            Err(VramError::InsufficientVram(shortfall)) => {
                assert_eq!(shortfall.needed, plan.footprint(), "the model as a whole");
            }
            other => panic!("{other:?}"),
        }
        for gpu in 0..manager.gpu_count() {
            assert!(manager.capacity(gpu).unwrap().used.is_zero());
        }
    }
    // Enough room in total, but none for the largest piece: the error names that piece.
    let manager = several(&[19_968, 19_968, 19_968]);
    match manager.admit(request(), &plan, &Unread) {
        Err(VramError::InsufficientVram(shortfall)) => {
            assert_eq!((shortfall.needed.get(), shortfall.others), (20_224, 0));
        }
        other => panic!("{other:?}"),
    }
    assert!(manager.report().gpus.iter().all(|gpu| gpu.capacity.used.is_zero()));
    let manager = several(&[1 << 20]);
    let unknown = AdmitRequest::new("model", GpuChoice::One(7));
    let refused = manager.admit(unknown, &plan, &Unread);
    assert!(matches!(refused, Err(VramError::UnknownGpu { gpu: 7, count: 1 })), "{refused:?}");
}

#[test]
fn a_plan_that_reaches_beyond_its_files_leaves_nothing() {
    let (mut files, plan) = plan();
    files[1].truncate(19_999);
    let rig = Rig::new(&[1 << 17]);
    let refused = rig.manager.admit(request(), &plan, &sources(&files));
    assert!(matches!(refused, Err(VramError::Source(_))), "{refused:?}");
    files.pop();
    let refused = rig.manager.admit(request(), &plan, &sources(&files));
    assert!(matches!(refused, Err(VramError::Source(SourceError::NoSuchBytes { .. }))));
    assert!(rig.manager.shards().is_empty());
    rig.settle(true);
}

#[test]
fn a_cancelled_or_panicking_admission_leaves_nothing() {
    let (files, plan) = plan();
    let rig = Rig::new(&[1 << 17]);
    for at in [1, 20_000, plan.total().get()] {
        let token = CancelToken::new();
        let cancel = token.clone();
        let request_to_stop = request().cancel(token).progress(move |progress| {
            if progress.done >= at {
                cancel.cancel();
            }
        });
        match rig.manager.admit(request_to_stop, &plan, &sources(&files)) {
            // Too late to cancel.
            Ok(model) => {
                assert_eq!(at, plan.total().get());
                rig.manager.free_model(&model).unwrap();
            }
            Err(VramError::Cancelled { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        rig.settle(true);

        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let panics = request().progress(move |progress| assert!(progress.done < at, "told"));
            let _unreached = rig.manager.admit(panics, &plan, &sources(&files));
        }));
        assert!(panicked.is_err());
        assert!(rig.manager.shards().is_empty());
        rig.settle(true);
    }
}

#[test]
fn a_refreshed_model_knows_what_became_of_its_shards() {
    let (files, plan) = plan();
    let (rig, other) = (Rig::new(&[1 << 17]), Rig::new(&[1 << 17]));
    let model = rig.manager.admit(request(), &plan, &sources(&files)).unwrap();
    assert_eq!(rig.manager.refresh_model(&model).unwrap(), model);
    rig.manager.open_resident(&model.pieces[0].shard).unwrap();
    assert!(matches!(rig.manager.free_model(&model), Err(VramError::StaleHandle { .. })));

    let fresh = rig.manager.refresh_model(&model).unwrap();
    assert_eq!(fresh.pieces[0].shard.protection, Protection::Authenticated);
    assert_eq!(fresh.pieces[1], model.pieces[1]);
    assert!(matches!(other.manager.refresh_model(&model), Err(VramError::ForeignHandle { .. })));
    // One that may come back is not called freed.
    let parked = rig.manager.park(&fresh.pieces[2].shard).unwrap();
    assert!(matches!(rig.manager.refresh_model(&model), Err(VramError::Parked { .. })));
    let _back = rig.manager.wake(parked, 0).unwrap();
    rig.manager.free_shard(&fresh.pieces[1].shard).unwrap();
    assert!(matches!(rig.manager.refresh_model(&model), Err(VramError::ShardFreed { .. })));
    assert_eq!(rig.manager.free_model(&fresh).unwrap().len(), 5);
    rig.settle(true);
}

#[test]
fn freeing_a_model_with_a_bad_handle_frees_nothing() {
    let (files, plan) = plan();
    let (rig, other) = (Rig::new(&[1 << 17]), Rig::new(&[1 << 17]));
    let model = rig.manager.admit(request(), &plan, &sources(&files)).unwrap();
    assert!(matches!(other.manager.free_model(&model), Err(VramError::ForeignHandle { .. })));
    let mut forged = model.clone();
    forged.pieces[3].shard.sealed_data[0] ^= 1;
    assert!(matches!(rig.manager.free_model(&forged), Err(VramError::HandleAltered { .. })));
    assert_eq!(rig.manager.shards().len(), 6);

    // One was freed before: the others are freed anyway.
    rig.manager.free_shard(&model.pieces[2].shard).unwrap();
    assert_eq!(rig.manager.free_model(&model).unwrap().len(), 5);
    rig.settle(true);
}
