//! Opening and closing a resident shard: the bytes stay, the record changes, and altered bytes get
//! no valid record.

use core::slice::from_ref;

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    GpuIndex, Protection, SealRequest, SealedShard, SivScope, Suite, Verify, VramError,
};
use vram_test_rigs::{Rig, SEGMENT, content};

/// Lengths around segments and windows, and the empty shard.
const SIZES: [usize; 7] =
    [0, 1, SEGMENT - 1, SEGMENT, 2 * SEGMENT + 1, 5 * SEGMENT, 7 * SEGMENT + 77];

fn kinds() -> Vec<(SivScope, Suite)> {
    [SivScope::Shard, SivScope::Segment]
        .into_iter()
        .flat_map(|scope| [(scope, Suite::Aes256Gcm), (scope, Suite::ChaCha20Poly1305)])
        .collect()
}

fn seal(rig: &Rig, kind: (SivScope, Suite), bytes: &[u8]) -> SealedShard {
    let request = SealRequest::new("model", 0).scope(kind.0).suite(kind.1).context(b"tenant");
    rig.manager.seal(request, bytes).unwrap()
}

/// Room for exactly one copy in the second rig, so that the second half of the tests works in
/// place.
fn rigs(len: usize) -> [Rig; 2] {
    [
        Rig::new(&[(3 * len.max(SEGMENT)).next_multiple_of(256)]),
        Rig::new(&[len.next_multiple_of(256).max(256)]),
    ]
}

#[test]
fn a_shard_opens_and_closes_with_and_without_room_for_a_second_copy() {
    for len in SIZES {
        let bytes = content(len, 1);
        for kind in kinds() {
            for rig in rigs(len) {
                let sealed = seal(&rig, kind, &bytes);
                let used = rig.used(0);
                let digest = rig.manager.content_digest(&sealed).unwrap();

                let open = rig.manager.open_resident(&sealed).unwrap();
                assert_eq!(open.protection, Protection::Authenticated);
                assert_eq!(open.shard_id, sealed.shard_id);
                assert_eq!(rig.manager.unseal_model(&open).unwrap(), bytes);
                assert!(rig.manager.verify(&open, Verify::Full).unwrap().sound);
                assert_eq!(rig.used(0), used);
                let at = rig.region(0).windows(len.max(1)).position(|part| part == bytes);
                assert!(len == 0 || at.is_some(), "the plaintext lies in device memory");

                let closed = rig.manager.close_resident(&open).unwrap();
                assert_eq!(closed.protection, Protection::Encrypted);
                // Deterministic: exactly the same bytes as before it was opened.
                assert_eq!(closed.sealed_data, sealed.sealed_data);
                assert_eq!(rig.manager.unseal_model(&closed).unwrap(), bytes);
                assert!(rig.manager.verify(&closed, Verify::Full).unwrap().sound);
                assert_eq!(rig.manager.content_digest(&closed).unwrap(), digest);
                assert_eq!(rig.used(0), used);
                if len >= 32 {
                    let left = rig.region(0).windows(32).any(|part| part == &bytes[..32]);
                    assert!(!left, "plaintext was left in device memory");
                }
                rig.settle(true);
            }
        }
    }
}

#[test]
fn handles_from_before_are_stale_and_a_fresh_one_is_listed() {
    for rig in rigs(5000) {
        let sealed = seal(&rig, (SivScope::Shard, Suite::Aes256Gcm), &content(5000, 2));
        let open = rig.manager.open_resident(&sealed).unwrap();
        assert!(matches!(rig.manager.unseal_model(&sealed), Err(VramError::StaleHandle { .. })));
        assert!(matches!(rig.manager.open_resident(&sealed), Err(VramError::StaleHandle { .. })));
        assert_eq!(rig.manager.shards(), from_ref(&open));

        let closed = rig.manager.close_resident(&open).unwrap();
        // The record equals the first one's, but that handle is stale.
        assert!(matches!(rig.manager.unseal_model(&sealed), Err(VramError::StaleHandle { .. })));
        assert!(matches!(rig.manager.unseal_model(&open), Err(VramError::StaleHandle { .. })));
        rig.manager.free_shard(&closed).unwrap();
    }
}

#[test]
fn what_is_open_stays_open_and_nothing_is_touched() {
    let rig = Rig::new(&[1 << 16]);
    let sealed = seal(&rig, (SivScope::Shard, Suite::Aes256Gcm), &content(5000, 2));
    let open = rig.manager.open_resident(&sealed).unwrap();
    rig.devices[0].clear_log();
    assert_eq!(rig.manager.open_resident(&open).unwrap(), open);
    assert_eq!(rig.devices[0].call_count(Op::Read) + rig.devices[0].call_count(Op::QueueWrite), 0);
    let closed = rig.manager.close_resident(&open).unwrap();
    assert_eq!(rig.manager.close_resident(&closed).unwrap(), closed);
}

/// P10a: no transition turns altered bytes into a valid record.
#[test]
fn a_transition_of_altered_bytes_is_refused_and_the_segment_named() {
    let len = 5 * SEGMENT + 9;
    let bytes = content(len, 3);
    for kind in kinds() {
        for first_open in [false, true] {
            for segment in 0..6_u64 {
                for rig in rigs(len) {
                    let mut shard = seal(&rig, kind, &bytes);
                    if first_open {
                        shard = rig.manager.open_resident(&shard).unwrap();
                    }
                    let offset = rig.written_at(0) + segment * 4096 + 3;
                    rig.flip(0, offset, 1);
                    let used = rig.used(0);
                    let refused = if first_open {
                        rig.manager.close_resident(&shard)
                    } else {
                        rig.manager.open_resident(&shard)
                    };
                    match refused {
                        Err(VramError::ShardAltered { segments, .. }) => {
                            assert_eq!(segments, [segment]);
                        }
                        other => panic!("{other:?}"),
                    }
                    // The handle stays valid, and the shard is in quarantine.
                    assert_eq!(rig.used(0), used);
                    assert!(matches!(
                        rig.manager.unseal_model(&shard),
                        Err(VramError::Quarantined { .. })
                    ));
                    rig.settle(true);
                }
            }
        }
    }
}

#[test]
fn a_quarantined_shard_does_not_change_its_seal() {
    let rig = Rig::new(&[1 << 16]);
    let bytes = content(3 * SEGMENT, 4);
    let shard = seal(&rig, (SivScope::Shard, Suite::Aes256Gcm), &bytes);
    let at = rig.written_at(0);
    rig.flip(0, at, 0);
    assert!(!rig.manager.verify_shard_integrity(&shard).unwrap());
    assert!(matches!(rig.manager.open_resident(&shard), Err(VramError::Quarantined { .. })));
    rig.settle(true);
}

#[test]
fn a_bad_handle_changes_nothing() {
    let rig = Rig::new(&[1 << 16]);
    let other = Rig::new(&[1 << 16]);
    let bytes = content(3 * SEGMENT, 5);
    let shard = seal(&rig, (SivScope::Shard, Suite::Aes256Gcm), &bytes);
    assert!(matches!(other.manager.open_resident(&shard), Err(VramError::ForeignHandle { .. })));
    let mut forged = shard.clone();
    forged.sealed_data[40] ^= 1;
    assert!(matches!(rig.manager.open_resident(&forged), Err(VramError::HandleAltered { .. })));
    assert_eq!(rig.manager.unseal_model(&shard).unwrap(), bytes);
    rig.manager.free_shard(&shard).unwrap();
    assert!(matches!(rig.manager.open_resident(&shard), Err(VramError::ShardFreed { .. })));
}

/// The start of a sweep: an Encrypted shard, or an opened one.
pub(crate) fn sealed(rig: &Rig, scope: SivScope, first_open: bool, bytes: &[u8]) -> SealedShard {
    let shard = seal(rig, (scope, Suite::Aes256Gcm), bytes);
    if first_open { rig.manager.open_resident(&shard).unwrap() } else { shard }
}

/// In place, with a device that also refuses the way back: the shard is lost, and the error says
/// so.
#[test]
fn a_device_that_refuses_the_way_back_leaves_a_quarantine_and_no_wrong_byte() {
    let len = 5 * SEGMENT + 9;
    let bytes = content(len, 7);
    let error = GpuError::driver(GpuIndex::new(0), 1);
    for action in [Action::Fail(error), Action::ShortCopy { keep: 1 }, Action::Panic] {
        for nth in 1..4 {
            let rig = Rig::new(&[len.next_multiple_of(256)]);
            let shard = sealed(&rig, SivScope::Shard, false, &bytes);
            rig.devices[0].add(Op::Write, When::From(nth), action.clone()).unwrap();
            let refused = rig.manager.open_resident(&shard).map(|_| ()).unwrap_err();
            rig.devices[0].clear();
            let read = rig.manager.unseal_model(&shard);
            let verdict = rig.manager.verify(&shard, Verify::Segments).unwrap();
            match refused {
                VramError::Quarantined { segments, .. } => {
                    assert!(!segments.is_empty());
                    assert!(matches!(read, Err(VramError::Quarantined { .. })), "{read:?}");
                    assert!(!verdict.sound && !verdict.altered.is_empty());
                }
                // Nothing had been written, or the writes were undone.
                other => {
                    assert!(nth == 1, "{action:?} {nth}: {other}");
                    assert_eq!(read.unwrap(), bytes);
                    assert!(verdict.sound);
                }
            }
            rig.settle(true);
        }
    }
}

/// P16: after a sticky error no more calls are sent to the device.
#[test]
fn a_device_that_is_lost_halfway_is_left_alone() {
    let len = 5 * SEGMENT + 9;
    let bytes = content(len, 8);
    for total in [2 * len.next_multiple_of(256), len.next_multiple_of(256)] {
        for op in [Op::Read, Op::Write, Op::QueueWrite] {
            for nth in 1..8 {
                let rig = Rig::new(&[total]);
                let shard = sealed(&rig, SivScope::Segment, false, &bytes);
                rig.devices[0].add(op, When::Nth(nth), Action::Driver(700)).unwrap();
                match rig.manager.open_resident(&shard) {
                    Ok(_) => break,
                    Err(VramError::DeviceLost { gpu: 0, .. }) => {}
                    Err(other) => panic!("{op:?} {nth}: {other}"),
                }
                assert_eq!(rig.devices[0].calls_after_loss(), 0, "{op:?} {nth}");
                for refused in
                    [rig.manager.close_resident(&shard), rig.manager.open_resident(&shard)]
                {
                    assert!(matches!(refused, Err(VramError::DeviceLost { .. })), "{refused:?}");
                }
                assert_eq!(rig.devices[0].calls_after_loss(), 0);
            }
        }
    }
}
