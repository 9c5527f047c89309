//! Owners and purposes are texts for listings: bounded, and none if they are empty.

use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, ImportRequest, ModelPlan, Piece, ReservePlanRequest,
    ReserveRequest, SealOptions, SealRequest, SliceSource, VramError, VramManager,
};
use vram_test_rigs::ActingReader;

const MAX: usize = 1024;

fn plan() -> ModelPlan {
    ModelPlan::new([Piece::new("piece", 0, 0, ByteLen::new(16))]).unwrap()
}

/// Each call that takes an owner, with this one. What it took is given back at its end.
fn calls(manager: &VramManager, owner: &str) -> Vec<(&'static str, Result<(), VramError>)> {
    let data = [1; 16];
    let seal = || SealRequest::new("model", 0).owner(owner);
    let reserve = || ReserveRequest::new(0, ByteLen::new(256));
    let places = || ReservePlanRequest::new(GpuChoice::One(0));
    let free = |sealed: Result<_, VramError>| manager.free_shard(&sealed?).map(drop);
    let read = || panic!("the image was read");
    let admitted = {
        let request = AdmitRequest::new("model", GpuChoice::One(0)).owner(owner);
        let admitted = manager.admit(request, &plan(), &vec![SliceSource::new(&data)]);
        admitted.and_then(|model| manager.free_model(&model).map(drop))
    };
    let sealed_from = manager.seal_from(seal(), SliceSource::new(&data), SealOptions::new());
    let mut all = vec![
        ("seal", free(manager.seal(seal(), &data))),
        ("seal_from", free(sealed_from)),
        ("admit", admitted),
        ("owner of bytes", manager.reserve_with(reserve().owner(owner)).map(drop)),
        ("purpose of bytes", manager.reserve_with(reserve().purpose(owner)).map(drop)),
        ("owner of a plan", manager.reserve_plan_with(&plan(), places().owner(owner)).map(drop)),
        (
            "purpose of a plan",
            manager.reserve_plan_with(&plan(), places().purpose(owner)).map(drop),
        ),
    ];
    if owner.len() > MAX {
        let request = ImportRequest::new("model", 0).owner(owner);
        let image = ActingReader::new(&data, read);
        all.push(("import", free(manager.import(request, image))));
    }
    all
}

#[test]
fn a_long_owner_or_purpose_is_refused_before_anything_is_taken() {
    let manager = VramManager::new_mock(1 << 16).unwrap();
    for (call, done) in calls(&manager, &"o".repeat(MAX)) {
        done.unwrap_or_else(|error| panic!("{call}: {error}"));
    }
    let ids = manager.reserve(0, ByteLen::new(256)).unwrap().id().get();
    for (call, refused) in calls(&manager, &"o".repeat(MAX + 1)) {
        match refused {
            Err(VramError::LimitExceeded { what, limit: 1024, wanted: 1025 }) => {
                let of = if call.contains("purpose") { "purpose" } else { "owner" };
                assert!(what.contains(of), "{call}: {what}");
            }
            other => panic!("{call}: {other:?}"),
        }
    }
    assert_eq!(manager.reserve(0, ByteLen::new(256)).unwrap().id().get(), ids + 1);
    assert_eq!(manager.get_used_vram(0).unwrap(), 0);
}

#[test]
fn an_empty_owner_or_purpose_is_none() {
    let manager = VramManager::new_mock(1 << 16).unwrap();
    let shard = manager.seal(SealRequest::new("model", 0).owner(""), &[1; 16]).unwrap();
    assert_eq!(manager.report().shards[0].owner, None);
    manager.free_shard(&shard).unwrap();
    let request = ReserveRequest::new(0, ByteLen::new(256)).owner("").purpose("");
    let held = manager.reserve_with(request).unwrap();
    assert_eq!((held.owner(), held.purpose()), (None, None));
}

#[test]
fn a_long_context_or_description_is_refused_before_anything_is_taken() {
    const MAX: usize = 64 << 10;
    let manager = VramManager::new_mock(1 << 16).unwrap();
    let bytes = vec![7; MAX + 1];
    let (longest, too_long) = (&bytes[..MAX], &bytes[..]);
    let seal = |request: SealRequest| manager.seal(request, &[1; 16]);
    for request in [
        SealRequest::new("model", 0).context(longest),
        SealRequest::new("model", 0).metadata(longest),
    ] {
        manager.free_shard(&seal(request).unwrap()).unwrap();
    }
    let read = || panic!("the image was read");
    let import = |request| manager.import(request, ActingReader::new(&[1; 16], read));
    for (what, refused) in [
        ("context", seal(SealRequest::new("model", 0).context(too_long))),
        ("metadata", seal(SealRequest::new("model", 0).metadata(too_long))),
        ("context", import(ImportRequest::new("model", 0).context(too_long))),
        ("metadata", import(ImportRequest::new("model", 0).metadata(too_long))),
    ] {
        match refused {
            Err(VramError::LimitExceeded { what: named, limit: 0x1_0000, wanted: 0x1_0001 }) => {
                assert!(named.contains(what), "{named}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(manager.capacity(0).unwrap().used, ByteLen::ZERO);
}
