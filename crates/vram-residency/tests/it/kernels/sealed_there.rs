//! Sealing by kernels: the same seal as the host's, whatever happens on the way.

use core::panic::AssertUnwindSafe;
use std::collections::HashSet;

use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    ContentDigest, ReaderSource, SealOptions, SealedShard, SivScope, Verify, VramError,
};

use super::*;

const LENGTHS: [usize; 7] =
    [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 9 * SEGMENT, 9 * SEGMENT + 100];

#[test]
fn the_seal_is_the_one_that_the_host_makes() {
    for (protection, suite) in FORMS {
        for scope in [SivScope::Segment, SivScope::Shard] {
            for len in LENGTHS {
                let bytes = content(len);
                let request = || request(protection, suite).scope(scope);
                let sealed = [Compute::Host, Compute::Card].map(|compute| {
                    let rig = rig(&[1 << 20], compute);
                    let shard = rig.manager.seal(request(), &bytes).unwrap();
                    assert_eq!(*rig.manager.unseal_model(&shard).unwrap(), bytes);
                    assert!(rig.manager.verify(&shard, Verify::Full).unwrap().content);
                    let digest = rig.manager.content_digest(&shard).unwrap();
                    let at = if len == 0 { 0 } else { rig.written_at(0) };
                    let at = usize::try_from(at).unwrap();
                    let stored = rig.region(0)[at..at + len].to_vec();
                    (shard.sealed_data, digest, stored)
                });
                let [host, card] = sealed;
                assert!(host == card, "{protection:?} {suite:?} {scope:?} {len}");
            }
        }
    }
}

/// The processor copies, and encrypts nothing, in either scope.
#[test]
fn the_host_only_copies() {
    let bytes = content(40 * SEGMENT);
    for scope in [SivScope::Segment, SivScope::Shard] {
        let rig = rig(&[1 << 20], Compute::Card);
        let request = request(Protection::Encrypted, Suite::ChaCha20Poly1305).scope(scope);
        let shard = rig.manager.seal(request, &bytes).unwrap();
        assert_eq!(rig.devices[0].call_count(Op::Seal), 2, "once more after it was opened");
        assert_eq!(rig.devices[0].call_count(Op::Read), 0);
        assert_eq!(*rig.manager.unseal_model(&shard).unwrap(), bytes);
    }
}

/// Each call that a seal makes fails, or lies, in turn: the seal is right, or there is none, and
/// then no byte of it is left.
#[test]
fn whatever_fails_on_the_way_the_seal_is_right_or_nothing_is_left() {
    let bytes = content(9 * SEGMENT);
    let mut outcomes = [0, 0];
    for (protection, suite) in FORMS {
        for op in [Op::QueueWrite, Op::Hash, Op::Fingerprint, Op::Seal, Op::Tags, Op::Read] {
            for action in [
                Action::Driver(1),
                Action::Driver(700),
                Action::FlipResult { span: 1, bit: 9 },
                Action::FlipResults,
                Action::FlipBit { byte: 4100, bit: 1 },
                Action::DropCopy,
                Action::Unfit(vram_gpu::kernels::Unfit::OtherMemory),
                Action::Panic,
            ] {
                if !action.applies_to(op) {
                    continue;
                }
                for nth in 1..=3 {
                    let rig = rig(&[1 << 20], Compute::Card);
                    let device = &rig.devices[0];
                    device.add(op, When::Nth(nth), action.clone()).unwrap();
                    let what = format!("{protection:?} {suite:?} {op:?} {nth} {action:?}");
                    let request = request(protection, suite);
                    let seal = || rig.manager.seal(request, &bytes);
                    let sealed = std::panic::catch_unwind(AssertUnwindSafe(seal));
                    device.clear();
                    if let Ok(Ok(shard)) = sealed {
                        outcomes[0] += 1;
                        right(&rig, &shard, &bytes, &what);
                        continue;
                    }
                    outcomes[1] += 1;
                    let lost = matches!(sealed, Ok(Err(VramError::DeviceLost { .. })));
                    if lost {
                        continue;
                    }
                    assert_eq!(rig.used(0), 0, "{what}");
                    // Shards start at multiples of 256.
                    let left = rig.region(0);
                    let left: HashSet<&[u8]> = left.chunks(64).collect();
                    let plain = |part: &[u8]| part.len() == 64 && left.contains(part);
                    assert!(!bytes.chunks(64).any(plain), "plaintext is left: {what}");
                }
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
}

fn right(rig: &Rig, shard: &SealedShard, bytes: &[u8], what: &str) {
    assert!(*rig.manager.unseal_model(shard).unwrap() == *bytes, "{what}");
    let verdict = rig.manager.verify(shard, Verify::Full).unwrap();
    assert!(verdict.content, "{what}: {verdict}");
}

#[test]
fn other_content_than_expected_is_not_encrypted() {
    let bytes = content(9 * SEGMENT);
    let rig = rig(&[1 << 20], Compute::Card);
    let wrong = ContentDigest::from_bytes([7; 32]);
    let request = || request(Protection::Encrypted, Suite::ChaCha20Poly1305);
    let source = || ReaderSource::new(&bytes[..], u64::try_from(bytes.len()).unwrap());
    let options = SealOptions::new().expected_digest(wrong);
    let error = rig.manager.seal_from(request(), source(), options).unwrap_err();
    assert_eq!(error.code(), "digest-mismatch");
    assert_eq!((rig.used(0), rig.devices[0].call_count(Op::Seal)), (0, 0));
    let shard = rig.manager.seal_from(request(), source(), SealOptions::new()).unwrap();
    right(&rig, &shard, &bytes, "from a reader");
}
