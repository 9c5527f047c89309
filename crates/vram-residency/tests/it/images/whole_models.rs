//! P159: a model of several images becomes resident whole, in one moment, or not at all.

use std::io::Read;

use vram_residency::device::fault::Op;
use vram_residency::{
    AdmitRequest, ByteLen, CancelToken, GpuChoice, ModelHandle, ModelPlan, Piece, Protection,
    SealError, SealRequest, VramError, VramManager,
};
use vram_test_rigs::{Faults, Outcome, Rig, Row, SEGMENT, content};

const LENS: [usize; 3] = [3 * SEGMENT + 5, 1, 2 * SEGMENT];

fn bytes(index: usize) -> Vec<u8> {
    content(LENS[index], index as u64)
}

/// The images of a model's shards, and its plan.
fn model() -> (Vec<Vec<u8>>, ModelPlan) {
    let rig = Rig::new(&[1 << 16]);
    let image = |index: usize| {
        let request = SealRequest::new("m", 0).context(b"tenant").revision(3);
        let request = request.shard_index(index as u64);
        let shard = rig.manager.seal(request, &bytes(index)).unwrap();
        let mut image = Vec::new();
        rig.manager.export(&shard, &mut image).unwrap();
        image
    };
    let piece = |index: u32| {
        let len = ByteLen::from_usize(LENS[index as usize]);
        Piece::new(format!("shard {index}"), index, 0, len)
    };
    ((0..3).map(image).collect(), ModelPlan::new((0..3).map(piece)).unwrap())
}

fn request<'a>(protection: Protection) -> AdmitRequest<'a> {
    AdmitRequest::new("m", GpuChoice::MostRoomFirst)
        .context(b"tenant")
        .revision(3)
        .protection(protection)
        .owner("prod")
        .pinned(true)
        .priority(5)
}

fn import(
    manager: &VramManager,
    images: &[Vec<u8>],
    plan: &ModelPlan,
    protection: Protection,
) -> Result<ModelHandle, VramError> {
    let mut import = manager.import_model(request(protection), plan, Protection::Encrypted)?;
    for image in images {
        import.import(image.as_slice())?;
    }
    import.finish()
}

#[test]
fn a_model_of_images_is_resident_as_one_model_in_either_protection() {
    let (images, plan) = model();
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        let rig = Rig::new(&[1 << 16, 1 << 16]);
        let mut import =
            rig.manager.import_model(request(protection), &plan, Protection::Encrypted).unwrap();
        for (index, image) in (0..).zip(&images) {
            assert_eq!(import.next_piece().unwrap().file, index);
            assert!(rig.manager.shards().is_empty(), "nothing is resident before the end");
            import.import(image.as_slice()).unwrap();
        }
        assert!(import.next_piece().is_none());
        let more = import.import(images[0].as_slice());
        assert!(matches!(more, Err(VramError::Config { .. })), "{more:?}");
        let model = import.finish().unwrap();

        for (index, shard) in model.shards().enumerate() {
            assert_eq!(rig.manager.unseal_model(shard).unwrap(), bytes(index));
        }
        let reports = rig.manager.models();
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert_eq!((reports[0].pieces, reports[0].resident, reports[0].pinned), (3, 3, 3));
        assert_eq!(reports[0].owner.as_deref(), Some("prod"));
        rig.manager.unpin_model(&model).unwrap();
        let parked = rig.manager.park_model(&model).unwrap();
        let model = rig.manager.wake_model(parked, GpuChoice::One(1)).unwrap();
        assert!(rig.manager.verify_model(&model, vram_residency::Verify::Full).unwrap().sound);
        rig.manager.free_model(&model).unwrap();
        rig.settle(true);
    }
}

/// An image that is altered, another shard's, cut short, or of another length than the plan says is refused;
/// the next image for the same piece may be the right one. A model that lacks images never arrives.
#[test]
fn after_a_wrong_image_the_same_piece_is_next_and_without_all_images_nothing_arrives() {
    let (images, plan) = model();
    let rig = Rig::new(&[1 << 16]);
    let mut altered = images[0].clone();
    *altered.last_mut().unwrap() ^= 1;
    let begin = || {
        let request = request(Protection::Encrypted);
        rig.manager.import_model(request, &plan, Protection::Encrypted).unwrap()
    };
    let mut import = begin();
    let wrong = import.import(altered.as_slice());
    assert!(
        matches!(&wrong, Err(VramError::Seal(SealError::SegmentMismatch { segment: 3 }))),
        "{wrong:?}"
    );
    assert!(import.import(images[1].as_slice()).is_err(), "another shard's");
    assert!(import.import(images[0].as_slice().take(4000)).is_err(), "cut short");
    assert_eq!(import.next_piece().unwrap().file, 0);
    import.import(images[0].as_slice()).unwrap();
    import.import(images[1].as_slice()).unwrap();
    let early = import.finish();
    assert!(
        matches!(&early, Err(VramError::Config { what }) if what.contains("2 of 3")),
        "{early:?}"
    );
    rig.settle(true);

    let mut import = begin();
    import.import(images[0].as_slice()).unwrap();
    drop(import);
    rig.settle(true);

    let longer = plan.pieces().iter().cloned().map(|mut piece| {
        piece.len = piece.len.checked_add(ByteLen::new(1)).unwrap();
        piece
    });
    let longer = ModelPlan::new(longer).unwrap();
    let refused = self::import(&rig.manager, &images, &longer, Protection::Encrypted);
    assert!(
        matches!(&refused, Err(VramError::Config { what }) if what.contains("its plan says")),
        "{refused:?}"
    );
    rig.settle(true);
}

/// What fails when it is read: to see that nothing is.
struct Untouched;

impl Read for Untouched {
    fn read(&mut self, _target: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("read"))
    }
}

#[test]
fn a_model_that_does_not_fit_or_was_cancelled_is_refused_before_an_image_is_read() {
    let (images, plan) = model();
    // Room for the first two, and not for the third.
    let rig = Rig::new(&[4 * SEGMENT + 1024]);
    let refused =
        rig.manager.import_model(request(Protection::Encrypted), &plan, Protection::Encrypted);
    assert!(matches!(refused, Err(VramError::InsufficientVram(_))), "{refused:?}");
    rig.settle(true);

    let rig = Rig::new(&[1 << 16]);
    let token = CancelToken::new();
    let mut import = rig
        .manager
        .import_model(
            request(Protection::Encrypted).cancel(token.clone()),
            &plan,
            Protection::Encrypted,
        )
        .unwrap();
    import.import(images[0].as_slice()).unwrap();
    let held = rig.books(0);
    assert!(held.reserved.get() >= plan.total().get(), "all of it is held: {held:?}");
    token.cancel();
    let cancelled = import.import(images[1].as_slice());
    assert!(matches!(cancelled, Err(VramError::Cancelled { .. })), "{cancelled:?}");
    let unread = import.import(Untouched);
    assert!(matches!(unread, Err(VramError::Io { .. })), "{unread:?}");
    drop(import);
    rig.settle(true);
    let none = rig.manager.import_model(
        request(Protection::Encrypted).cancel(token),
        &plan,
        Protection::Encrypted,
    );
    assert!(matches!(none, Err(VramError::Cancelled { .. })), "{none:?}");
}

/// P15: every call of the device fails once while a model of images is imported.
#[test]
fn a_failing_device_leaves_nothing_of_a_model_of_images() {
    let (images, plan) = model();
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        Row {
            operation: "import a model",
            faults: Faults::every(0),
            set_up: &|| (Rig::new(&[1 << 16]), ()),
            act: &|rig, ()| import(&rig.manager, &images, &plan, protection),
            after: &|rig, (), outcome, what| {
                match outcome {
                    Outcome::Done(model) => {
                        for (index, shard) in model.shards().enumerate() {
                            let found = rig.manager.unseal_model(shard).unwrap();
                            assert_eq!(found, bytes(index), "{what}");
                        }
                    }
                    _ => assert_eq!(rig.manager.shards(), [], "{what}"),
                }
                rig.settle(what.op != Op::Fill);
            },
            at_least: 12,
        }
        .sweep();
    }
}
