//! Resets and restorations that fail: at every device call, in every way.

use core::time::Duration;

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op};
use vram_residency::{
    GpuIndex, MemoryMode, Protection, ReaderSource, ResetOptions, SealOptions, SealRequest,
    VramError,
};

use vram_test_rigs::{ActingReader, ActingWriter, content};

use super::{LEN, MODES, TAKEN, is_lost, seal, two_gpus};

fn error() -> GpuError {
    GpuError::driver(GpuIndex::new(0), 1)
}

#[test]
fn a_reset_that_the_device_refuses_leaves_it_as_lost_as_before_and_can_be_tried_again() {
    for mode in MODES {
        let ask = if mode == MemoryMode::Blocks { Op::Memory } else { Op::Allocate };
        let mut faults = vec![
            (Op::Reset, Action::Fail(error())),
            (Op::Reset, Action::Driver(999)),
            (Op::Reset, Action::Panic),
            (ask, Action::Fail(error())),
            (ask, Action::Driver(214)),
            (ask, Action::Panic),
        ];
        if mode == MemoryMode::Region {
            faults.push((Op::Allocate, Action::OutOfMemory));
        }
        for (op, action) in faults {
            let rig = two_gpus(mode);
            let shard = seal(&rig, 0, Protection::Encrypted, 1);
            rig.manager.back_up(&shard).unwrap();
            rig.lose(&shard);
            let what = format!("{mode:?} {op:?} {action:?}");
            rig.devices[0].next(op, action).unwrap();
            let refused = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap_err();
            assert!(refused.is_device(), "{what}: {refused}");

            // Nothing is left half done: no running call, no place, no byte in the ledger.
            let calls = rig.devices[0].calls().len();
            assert!(is_lost(rig.manager.unseal_model(&shard)), "{what}");
            assert!(is_lost(rig.manager.seal_model("more", 0, b"more")), "{what}");
            assert!(is_lost(rig.manager.free_shard(&shard)), "{what}");
            assert_eq!(rig.devices[0].calls().len(), calls, "{what}");
            assert_eq!(rig.used(0), TAKEN);
            assert!(rig.manager.report().gpus[0].lost.is_some());
            assert!(rig.manager.report().shards[0].backed_up);

            let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
            let back = &report.restored[0];
            assert_eq!(rig.manager.unseal_and_free(back).unwrap(), content(LEN, 1), "{what}");
            rig.is_whole(0);
        }
    }
}

/// A reset waits for running calls, and no longer than requested. It does not wait for a call from
/// inside which it was made.
#[test]
fn a_reset_from_inside_a_call_on_that_gpu_is_refused_at_once() {
    for mode in MODES {
        let rig = two_gpus(mode);
        let shard = seal(&rig, 0, Protection::Encrypted, 1);
        let data = content(LEN, 2);
        let manager = &rig.manager;
        let mut lost = false;
        let source = ReaderSource::new(
            ActingReader::new(&data, || {
                if !lost {
                    lost = true;
                    rig.lose(&shard);
                    let options = ResetOptions::new().within(Duration::MAX);
                    let refused = manager.reset_gpu(0, options).unwrap_err();
                    assert!(matches!(refused, VramError::GpuInUse { gpu: 0, .. }));
                }
            }),
            u64::try_from(LEN).unwrap(),
        );
        let sealed = manager.seal_from(SealRequest::new("model", 0), source, SealOptions::new());
        assert!(is_lost(sealed));
        assert_eq!(rig.used(0), TAKEN);
        drop(manager.reset_gpu(0, ResetOptions::new()).unwrap());

        // A sink of a shard on a working GPU: the reset is refused, and the read goes on.
        let shard = seal(&rig, 0, Protection::Encrypted, 1);
        let mut asked = false;
        let sink = ActingWriter(|bytes: &[u8]| {
            asked = true;
            let force = ResetOptions::new().force().within(Duration::MAX);
            let refused = manager.reset_gpu(0, force).unwrap_err();
            assert!(matches!(refused, VramError::GpuInUse { gpu: 0, .. }));
            Ok(bytes.len())
        });
        manager.unseal_to(&shard, sink).unwrap();
        assert!(asked);
        assert_eq!(manager.unseal_and_free(&shard).unwrap(), content(LEN, 1));
        rig.is_whole(0);
    }
}
