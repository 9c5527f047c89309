//! Copies between devices.

use cuda_sim::{CallKind, DeviceSpec, Fault, Sim};
use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::{Device, GpuError};

use crate::{Bench, GPU, bytes, odd_ones, whole};

#[test]
fn devices_that_cannot_reach_each_other_say_so_and_copy_nothing() {
    let apart = |group| DeviceSpec { peer_group: group, ..DeviceSpec::default() };
    let (one, two) = (Bench::with(apart(Some(1))), Bench::with(apart(None)));
    let (target, source) = (one.filled(1), two.filled(2));
    assert!(!one.device.can_copy_from_peer(&*two.device));
    let refused = target.copy_from(whole(), &*source, whole());
    assert_eq!(refused, Err(GpuError::PeerUnsupported { from: GPU, to: GPU }));
    assert_eq!(odd_ones(&bytes(&*target), 1), 0);
    // The devices report peer access and the driver refuses it: the same error, and the caller
    // copies through the host.
    Sim::set_peer(one.ordinal, two.ordinal, true);
    one.next(CallKind::PeerAccess, Fault::Fail(217));
    let refused = target.copy_from(whole(), &*source, whole());
    assert_eq!(refused, Err(GpuError::PeerUnsupported { from: GPU, to: GPU }));
    target.copy_from(whole(), &*source, whole()).unwrap();
    assert_eq!(odd_ones(&bytes(&*target), 2), 0);
    drop((target, source));
    one.finish();
    two.finish();
}

#[test]
fn peer_writes_that_vanish_are_reported_as_success() {
    let (one, two) = (Bench::new(), Bench::new());
    let (target, source) = (one.filled(1), two.filled(2));
    one.next(CallKind::CopyPeer, Fault::Drop);
    target.copy_from(whole(), &*source, whole()).unwrap();
    assert_eq!(odd_ones(&bytes(&*target), 1), 0);
    drop((target, source));
    one.finish();
    two.finish();
}

#[test]
fn peers_that_copy_both_ways_at_once_do_not_wait_for_each_other() {
    let (one, two) = (Bench::new(), Bench::new());
    let (here, there) = (one.filled(1), two.filled(1));
    std::thread::scope(|scope| {
        scope.spawn(|| (0..40).for_each(|_| here.copy_from(whole(), &*there, whole()).unwrap()));
        scope.spawn(|| (0..40).for_each(|_| there.copy_from(whole(), &*here, whole()).unwrap()));
        scope.spawn(|| (0..40).for_each(|_| assert!(one.device.memory().is_ok())));
    });
    drop((here, there));
    one.finish();
    two.finish();
}

#[test]
fn peers_that_copy_both_ways_while_both_are_reset_end_well() {
    let (one, two) = (Bench::new(), Bench::new());
    let copy = |to: &Bench, from: &Bench| {
        for _ in 0..60 {
            let made = |bench: &Bench| bench.device.allocate(ByteLen::new(4096));
            let (Ok(target), Ok(source)) = (made(to), made(from)) else { continue };
            let range = DeviceRange::whole(target.len());
            if let Err(error) = target.copy_from(range, &*source, range) {
                assert_eq!(error, GpuError::StaleAllocation { gpu: GPU });
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(&one, &two));
        scope.spawn(|| copy(&two, &one));
        scope.spawn(|| (0..60).for_each(|_| one.device.reset().unwrap()));
        scope.spawn(|| (0..60).for_each(|_| two.device.reset().unwrap()));
    });
    one.finish();
    two.finish();
}
