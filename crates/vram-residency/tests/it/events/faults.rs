//! Events of failures: altered bytes, bytes that were not returned, links that deliver wrong bytes,
//! panics.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    ByteLen, EventKind, Protection, ScrubCursor, SealOptions, SealRequest, SliceSource, Timestamp,
    Verify, VramError, VramManager,
};

use vram_test_rigs::{CallingClock, SEGMENT, weights};

use super::{rig, rig_with};

#[test]
fn altered_bytes_are_told_each_time_and_the_quarantine_once() {
    let rig = rig(&[64 * SEGMENT]);
    let request = SealRequest::new("m", 0).protection(Protection::Authenticated);
    let shard = rig.manager.seal(request, &weights(5 * SEGMENT)).unwrap();
    rig.told();
    let flip = |byte: usize| {
        let at = vram_residency::DeviceOffset::new(u64::try_from(byte).unwrap());
        rig.devices[0].flip_bit_at(None, at, 0).unwrap();
    };
    // The only shard lies at the start of the region, or at its end.
    let region = rig.devices[0].live()[0];
    let start = vram_residency::DeviceOffset::START;
    let held = rig.devices[0].inspect(Some(region.0), start, region.1).unwrap();
    let wanted = weights(5 * SEGMENT);
    let base = held.windows(wanted.len()).position(|bytes| bytes == wanted).unwrap();

    flip(base + SEGMENT);
    rig.manager.unseal_model(&shard).unwrap_err();
    flip(base + 3 * SEGMENT);
    assert!(!rig.manager.verify(&shard, Verify::Segments).unwrap().sound);
    rig.manager.unseal_model(&shard).unwrap_err();

    let told: Vec<_> = rig.told().into_iter().map(|event| event.kind).collect();
    let id = &shard.shard_id;
    let altered = |segments: &[u64]| EventKind::Altered {
        shard: id.clone(),
        gpu: 0,
        segments: segments.into(),
    };
    let refused = |code: &str| EventKind::Refused {
        call: "unseal".into(),
        shard: Some(id.clone()),
        gpu: None,
        code: code.into(),
    };
    let quarantined = EventKind::Quarantined { shard: id.clone(), gpu: 0 };
    let expected = [
        altered(&[1]),
        quarantined,
        refused("shard-altered"),
        altered(&[1, 3]),
        refused("quarantined"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_free_that_cannot_wipe_tells_of_the_bytes_and_that_the_shard_is_gone() {
    let rig = rig(&[64 * SEGMENT]);
    let shard = rig.manager.seal_model("m", 0, &weights(SEGMENT)).unwrap();
    rig.told();
    rig.devices[0].add(Op::Fill, When::From(1), Action::Driver(1)).unwrap();
    let error = rig.manager.free_shard(&shard).unwrap_err();
    assert!(matches!(error, VramError::NotReturned { .. }), "{error}");
    let told: Vec<_> = rig.told().into_iter().map(|event| event.kind).collect();
    let bytes = ByteLen::from_usize(SEGMENT);
    assert_eq!(told[0], EventKind::NotReturned { gpu: 0, bytes });
    let (id, none) = (shard.shard_id.clone(), ByteLen::ZERO);
    let freed = EventKind::Freed { shard: id.clone(), gpu: 0, bytes: none, wiped: false };
    assert_eq!(told[1], freed);
    let refused = EventKind::Refused {
        call: "free".into(),
        shard: Some(id),
        gpu: None,
        code: "not-returned".into(),
    };
    assert_eq!(told[2..], [refused]);
}

#[test]
fn bytes_of_a_wipe_that_failed_once_come_back_while_the_manager_lives_and_are_told() {
    type Look = fn(&VramManager);
    let looks: [(&str, Look); 6] = [
        ("refresh", |manager| {
            let _figures = manager.refresh(0).unwrap();
        }),
        ("reconcile", |manager| assert!(manager.reconcile(0).unwrap().agrees)),
        ("scrub", |manager| {
            let _step = manager.scrub_step(&mut ScrubCursor::new(), ByteLen::MIB);
        }),
        ("seal", |manager| {
            let _sealed = manager.seal_model("n", 0, &[1; 100]).unwrap();
        }),
        ("reserve", |manager| drop(manager.reserve(0, ByteLen::new(64 * 4096)).unwrap())),
        ("free", |manager| {
            let other = manager.shards_of("other").remove(0);
            manager.free_shard(&other).unwrap();
        }),
    ];
    for (name, look) in looks {
        let rig = rig(&[65 * SEGMENT]);
        let shard = rig.manager.seal_model("m", 0, &weights(SEGMENT)).unwrap();
        let _other = rig.manager.seal_model("other", 0, &weights(SEGMENT)).unwrap();
        rig.devices[0].next(Op::Fill, Action::Driver(600)).unwrap();
        assert_eq!(rig.manager.free_shard(&shard).unwrap_err().code(), "not-returned");
        let bytes = ByteLen::from_usize(SEGMENT);
        assert_eq!(rig.manager.capacity(0).unwrap().unreturned, bytes);
        rig.told();
        look(&rig.manager);
        let capacity = rig.manager.capacity(0).unwrap();
        assert!(capacity.unreturned.is_zero(), "{name}: {capacity:?}");
        let told: Vec<_> = rig.told().into_iter().map(|event| event.kind).collect();
        assert!(told.contains(&EventKind::Returned { gpu: 0, bytes }), "{name}: {told:?}");
    }
}

#[test]
fn a_link_is_distrusted_once() {
    let rig = rig(&[4 << 20, 4 << 20]);
    rig.devices[1].add(Op::PeerCopy, When::From(1), Action::DropCopy).unwrap();
    let _reports = rig.manager.probe_links();
    let _again = rig.manager.probe_links();
    let told: Vec<_> = rig.told().into_iter().map(|event| event.kind).collect();
    assert_eq!(told, [EventKind::LinkDistrusted { from: 0, to: 1 }]);
}

#[test]
fn a_lost_device_is_told_once_and_before_the_refusal() {
    let rig = rig(&[64 * SEGMENT]);
    let shard = rig.manager.seal_model("m", 0, &weights(SEGMENT)).unwrap();
    rig.devices[0].add(Op::Read, When::Nth(1), Action::Driver(700)).unwrap();
    rig.manager.unseal_model(&shard).unwrap_err();
    rig.manager.unseal_model(&shard).unwrap_err();
    assert_eq!(rig.names(), ["sealed", "device_lost", "refused", "refused"]);
}

#[test]
fn a_panic_that_passes_through_is_a_refusal() {
    let rig = rig(&[64 * SEGMENT]);
    let bytes = weights(SEGMENT);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let options = SealOptions::new().progress(|_| panic!("the caller's own"));
        rig.manager.seal_from(SealRequest::new("m", 0), SliceSource::new(&bytes), options)
    }));
    assert!(panicked.is_err());
    let told: Vec<_> = rig.told().into_iter().map(|event| event.kind).collect();
    let refused =
        EventKind::Refused { call: "seal".into(), shard: None, gpu: Some(0), code: "panic".into() };
    assert_eq!(told, [refused]);
}

#[test]
fn a_clock_that_panics_does_not_keep_a_refusal_from_being_told() {
    let clock = CallingClock { on_now: || panic!("no time"), on_monotonic: || {} };
    let rig = rig_with(&[SEGMENT], |builder| builder.clock(Arc::new(clock)));
    rig.manager.seal_model("m", 9, b"x").unwrap_err();
    let [told] = rig.told().try_into().unwrap();
    assert_eq!((told.kind.name(), told.at), ("refused", Timestamp::default()));
}
