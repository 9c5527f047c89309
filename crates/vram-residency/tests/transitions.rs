//! Opening and closing a resident shard: the bytes stay, the record changes, nothing is laundered.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "the sweep is for the fault tests")]

mod sweep;

use sweep::{Rig, SEGMENT, content};
use vram_alloc::DeviceOffset;
use vram_residency::device::fault::Op;
use vram_residency::{Protection, SealRequest, SealedShard, SivScope, Suite, Verify, VramError};

/// Sizes around segments and windows, and the empty shard.
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

/// Room for exactly one copy, so that the second half of the tests works in place.
fn rigs(len: usize) -> [Rig; 2] {
    [
        Rig::new((3 * len.max(SEGMENT)).next_multiple_of(256)),
        Rig::new(len.next_multiple_of(256).max(256)),
    ]
}

#[test]
fn a_shard_opens_and_closes_with_and_without_room_for_a_second_copy() {
    for len in SIZES {
        let bytes = content(len, 1);
        for kind in kinds() {
            for rig in rigs(len) {
                let sealed = seal(&rig, kind, &bytes);
                let used = rig.used();
                let digest = rig.manager.content_digest(&sealed).unwrap();

                let open = rig.manager.open_resident(&sealed).unwrap();
                assert_eq!(open.protection, Protection::Authenticated);
                assert_eq!(open.shard_id, sealed.shard_id);
                assert_eq!(rig.manager.unseal_model(&open).unwrap(), bytes);
                assert!(rig.manager.verify(&open, Verify::Full).unwrap().sound);
                assert_eq!(rig.used(), used);
                let at = rig.region().windows(len.max(1)).position(|part| part == bytes);
                assert!(len == 0 || at.is_some(), "the plaintext lies in device memory");

                let closed = rig.manager.close_resident(&open).unwrap();
                assert_eq!(closed.protection, Protection::Encrypted);
                // Deterministic: byte for byte what it was before it was opened.
                assert_eq!(closed.sealed_data, sealed.sealed_data);
                assert_eq!(rig.manager.unseal_model(&closed).unwrap(), bytes);
                assert!(rig.manager.verify(&closed, Verify::Full).unwrap().sound);
                assert_eq!(rig.manager.content_digest(&closed).unwrap(), digest);
                assert_eq!(rig.used(), used);
                if len >= 32 {
                    let left = rig.region().windows(32).any(|part| part == &bytes[..32]);
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
        assert_eq!(rig.manager.shards(), [open.clone()]);

        let closed = rig.manager.close_resident(&open).unwrap();
        // The record is the first one's again, and yet that handle is from before.
        assert!(matches!(rig.manager.unseal_model(&sealed), Err(VramError::StaleHandle { .. })));
        assert!(matches!(rig.manager.unseal_model(&open), Err(VramError::StaleHandle { .. })));
        rig.manager.free_shard(&closed).unwrap();
    }
}

#[test]
fn what_is_open_stays_open_and_nothing_is_touched() {
    let rig = Rig::new(1 << 16);
    let sealed = seal(&rig, (SivScope::Shard, Suite::Aes256Gcm), &content(5000, 2));
    let open = rig.manager.open_resident(&sealed).unwrap();
    rig.device.clear_log();
    assert_eq!(rig.manager.open_resident(&open).unwrap(), open);
    assert_eq!(rig.device.call_count(Op::Read) + rig.device.call_count(Op::QueueWrite), 0);
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
                    let offset = rig.written_at() + segment * 4096 + 3;
                    rig.device.flip_bit_at(None, DeviceOffset::new(offset), 1).unwrap();
                    let used = rig.used();
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
                    // The handle is as good as it was, and the shard in quarantine.
                    assert_eq!(rig.used(), used);
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
    let rig = Rig::new(1 << 16);
    let bytes = content(3 * SEGMENT, 4);
    let shard = seal(&rig, (SivScope::Shard, Suite::Aes256Gcm), &bytes);
    let at = rig.written_at();
    rig.device.flip_bit_at(None, DeviceOffset::new(at), 0).unwrap();
    assert!(!rig.manager.verify_shard_integrity(&shard).unwrap());
    assert!(matches!(rig.manager.open_resident(&shard), Err(VramError::Quarantined { .. })));
    rig.settle(true);
}

#[test]
fn a_bad_handle_changes_nothing() {
    let rig = Rig::new(1 << 16);
    let other = Rig::new(1 << 16);
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
