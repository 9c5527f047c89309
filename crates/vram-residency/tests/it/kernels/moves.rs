//! Copies that arrive are looked at by kernels.

use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{CompactBudget, Verify};

use super::*;

/// Every way to another place, in every form: the bytes come, and the host reads none of them.
#[test]
fn what_arrives_is_looked_at_where_it_lies() {
    let bytes = content(9 * SEGMENT + 100);
    for (protection, suite) in FORMS {
        for compute in [Compute::Checks, Compute::Card] {
            let rig = rig(&[1 << 20, 1 << 20], compute);
            let shard = rig.manager.seal(request(protection, suite), &bytes).unwrap();
            let reads = || rig.devices.iter().map(|device| device.call_count(Op::Read)).sum();
            let before: u64 = reads();
            let moved = rig.manager.migrate_shard(&shard, 1).unwrap();
            assert_eq!(reads(), before, "{protection:?} {suite:?} {compute:?}");
            assert_eq!(*rig.manager.unseal_model(&moved).unwrap(), bytes);

            let parked = rig.manager.park(&moved).unwrap();
            let before = reads();
            let woken = rig.manager.wake(parked, 0).unwrap();
            assert_eq!(reads(), before, "{protection:?} {suite:?} {compute:?}");
            assert_eq!(*rig.manager.unseal_model(&woken).unwrap(), bytes);
            assert!(rig.manager.verify(&woken, Verify::Fingerprint).unwrap().sound);

            // A hole before it, so that compaction moves it.
            let first = rig.manager.seal(request(protection, suite), &bytes).unwrap();
            let second = rig.manager.seal(request(protection, suite), &bytes).unwrap();
            rig.manager.free_shard(&first).unwrap();
            let report = rig.manager.compact(0, CompactBudget::default()).unwrap();
            assert!(report.moves > 0 && report.skipped.is_empty(), "{report:?}");
            assert_eq!(*rig.manager.unseal_model(&second).unwrap(), bytes);
            for shard in [&woken, &second] {
                assert!(rig.manager.verify(shard, Verify::Full).unwrap().content);
            }
        }
    }
}

/// A bit that flips on the way is found at the new place, whichever copy it was.
#[test]
fn what_arrives_altered_is_not_resident() {
    let bytes = content(9 * SEGMENT);
    let flip = || Action::FlipBit { byte: 5000, bit: 6 };
    for (protection, suite) in FORMS {
        let rig = rig(&[1 << 20, 1 << 20], Compute::Checks);
        let shard = rig.manager.seal(request(protection, suite), &bytes).unwrap();
        // Directly between the devices, then through the host.
        rig.devices[1].add(Op::PeerCopy, When::From(1), flip()).unwrap();
        rig.devices[1].add(Op::QueueWrite, When::From(1), flip()).unwrap();
        let error = rig.manager.migrate_shard(&shard, 1).unwrap_err();
        assert_eq!(error.code(), "write-not-kept", "{protection:?} {suite:?}");
        assert_eq!(rig.used(1), 0);
        rig.clear();
        assert_eq!(*rig.manager.unseal_model(&shard).unwrap(), bytes);
        let parked = rig.manager.park(&shard).unwrap();
        rig.devices[0].add(Op::QueueWrite, When::From(1), flip()).unwrap();
        let error = rig.manager.wake(parked, 0).unwrap_err();
        rig.clear();
        let woken = rig.manager.wake(error.into_parked(), 0).unwrap();
        assert_eq!(*rig.manager.unseal_model(&woken).unwrap(), bytes);
    }
}
