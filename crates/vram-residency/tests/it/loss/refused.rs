//! Resets and restorations that fail: at every device call, in every way.

use core::time::Duration;

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    ByteLen, GpuIndex, MemoryMode, Protection, ReaderSource, ResetOptions, SealOptions,
    SealRequest, VramError,
};

use super::rig::{KINDS, LEN, MODES, Rig, TAKEN, content, is_lost, is_stale};

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
            let rig = Rig::new(mode);
            let shard = rig.seal(0, Protection::Encrypted, 1);
            rig.manager.back_up(&shard).unwrap();
            rig.lose(&shard);
            let what = format!("{mode:?} {op:?} {action:?}");
            rig.devices[0].next(op, action).unwrap();
            let refused = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap_err();
            assert!(refused.is_device(), "{what}: {refused}");

            // Nothing is half done: no call, no place, no byte of the books.
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

/// Whatever fails while a shard comes back: it is back, or its copy is in the caller's hands.
#[test]
fn a_fault_at_any_call_of_a_restoration_loses_no_copy() {
    let mut met = 0;
    for mode in MODES {
        for kind in KINDS {
            for op in [Op::Allocate, Op::Staging, Op::Write, Op::QueueWrite, Op::Read, Op::Fill] {
                let mut actions = vec![Action::Fail(error()), Action::Panic];
                if op.moves_bytes() {
                    actions.extend([Action::Driver(700), Action::FailAfterwards(error())]);
                    actions.extend([Action::DropCopy, Action::FlipBit { byte: 3, bit: 1 }]);
                }
                for action in actions {
                    for nth in 1.. {
                        let rig = Rig::new(mode);
                        let shard = rig.seal(0, kind, 1);
                        rig.manager.back_up(&shard).unwrap();
                        rig.lose(&shard);
                        // Not the call that takes the region again: that one refuses the reset.
                        let region = mode == MemoryMode::Region && op == Op::Allocate;
                        let at = if region { nth + 1 } else { nth };
                        rig.devices[0].clear_log();
                        rig.devices[0].add(op, When::Nth(at), action.clone()).unwrap();
                        let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
                        let injected =
                            rig.devices[0].calls().iter().any(|call| call.injected.is_some());
                        rig.devices[0].clear();
                        let what = format!("{mode:?} {kind:?} {op:?} {nth} {action:?}");
                        settle(&rig, report, &what);
                        assert!(is_stale(rig.manager.unseal_model(&shard)), "{what}");
                        if !injected {
                            break;
                        }
                        met += 1;
                    }
                }
            }
        }
    }
    assert!(met > 50, "{met} faults");
}

fn settle(rig: &Rig, report: vram_residency::ResetReport, what: &str) {
    assert!(report.lost.is_empty(), "{what}: {report:?}");
    assert_eq!(report.restored.len() + report.parked.len(), 1, "{what}: {report:?}");
    for parked in report.parked {
        let (parked, error) = parked.into_parts();
        assert!(error.is_device() || error.is_integrity(), "{what}: {error}");
        let woken = rig.manager.wake(parked, 1).unwrap();
        assert_eq!(rig.manager.unseal_model(&woken).unwrap(), content(LEN, 1), "{what}");
        assert_eq!(rig.manager.park_capacity().used, ByteLen::ZERO);
    }
    for back in report.restored {
        assert_eq!(rig.manager.unseal_model(&back).unwrap(), content(LEN, 1), "{what}");
    }
    let books = rig.books(0);
    assert_eq!(books.used.get() + books.free.get(), books.total.get(), "{what}");
    assert_eq!(rig.devices[0].calls_after_loss(), 0, "{what}");
}

/// A call that is under way is waited for, and no longer than asked; one that the reset is called
/// from inside of is not waited for at all.
#[test]
fn a_reset_from_inside_a_call_on_that_gpu_is_refused_at_once() {
    for mode in MODES {
        let rig = Rig::new(mode);
        let shard = rig.seal(0, Protection::Encrypted, 1);
        let data = content(LEN, 2);
        let manager = &rig.manager;
        let mut lost = false;
        let source = ReaderSource::new(
            Inside {
                data: &data,
                act: || {
                    if !lost {
                        lost = true;
                        rig.lose(&shard);
                        let options = ResetOptions::new().within(Duration::MAX);
                        let refused = manager.reset_gpu(0, options).unwrap_err();
                        assert!(matches!(refused, VramError::GpuInUse { gpu: 0, .. }));
                    }
                },
            },
            u64::try_from(LEN).unwrap(),
        );
        let sealed = manager.seal_from(SealRequest::new("model", 0), source, SealOptions::new());
        assert!(is_lost(sealed));
        assert_eq!(rig.used(0), TAKEN);
        drop(manager.reset_gpu(0, ResetOptions::new()).unwrap());

        // A sink of a shard on a GPU that works: refused, and the read goes on.
        let shard = rig.seal(0, Protection::Encrypted, 1);
        let mut asked = false;
        let sink = Sink(|| {
            asked = true;
            let force = ResetOptions::new().force().within(Duration::MAX);
            let refused = manager.reset_gpu(0, force).unwrap_err();
            assert!(matches!(refused, VramError::GpuInUse { gpu: 0, .. }));
        });
        manager.unseal_to(&shard, sink).unwrap();
        assert!(asked);
        assert_eq!(manager.unseal_and_free(&shard).unwrap(), content(LEN, 1));
        rig.is_whole(0);
    }
}

struct Sink<F>(F);

impl<F: FnMut()> std::io::Write for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (self.0)();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A reader that does something else as well.
struct Inside<'a, F> {
    data: &'a [u8],
    act: F,
}

impl<F: FnMut()> std::io::Read for Inside<'_, F> {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        (self.act)();
        std::io::Read::read(&mut self.data, target)
    }
}
