//! Rows of the table: shards that are restored when a lost GPU is reset.

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op};
use vram_residency::{ByteLen, GpuIndex, MemoryMode, ResetOptions, ResetReport};
use vram_test_rigs::{Fault, Faults, Outcome, Rig, Row, content};

use crate::loss::{KINDS, LEN, MODES, is_stale, seal, two_gpus};

/// If restoring a shard fails at any call, the shard is resident, or the caller has its copy.
#[test]
fn a_fault_at_any_call_of_a_restoration_loses_no_copy() {
    let mut met = 0;
    for mode in MODES {
        for kind in KINDS {
            met += Row {
                operation: "restore",
                faults: faults(mode),
                set_up: &|| {
                    let rig = two_gpus(mode);
                    let shard = seal(&rig, 0, kind, 1);
                    rig.manager.back_up(&shard).unwrap();
                    rig.lose(&shard);
                    (rig, shard)
                },
                act: &|rig, _shard| rig.manager.reset_gpu(0, ResetOptions::new()),
                after: &|rig, shard, outcome, what| {
                    let Outcome::Done(report) = outcome else { panic!("{what}: {outcome:?}") };
                    settle(rig, report, what);
                    assert!(is_stale(rig.manager.unseal_model(&shard)), "{what}");
                },
                at_least: 1,
            }
            .count();
        }
    }
    assert!(met > 50, "{met} faults");
}

fn faults(mode: MemoryMode) -> Vec<Faults> {
    let error = GpuError::driver(GpuIndex::new(0), 1);
    let ops = [Op::Allocate, Op::Staging, Op::Write, Op::QueueWrite, Op::Read, Op::Fill];
    let faults = ops.map(|op| {
        let mut actions = vec![Action::Fail(error), Action::Panic];
        if op.moves_bytes() {
            actions.extend([Action::Driver(700), Action::FailAfterwards(error)]);
            actions.extend([Action::DropCopy, Action::FlipBit { byte: 3, bit: 1 }]);
        }
        // Not the call that allocates the region again: its failure refuses the reset.
        let region = mode == MemoryMode::Region && op == Op::Allocate;
        Faults::of(0, op, actions).at(if region { 2 } else { 1 }..=u64::MAX)
    });
    faults.into()
}

fn settle(rig: &Rig, report: ResetReport, what: &Fault) {
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
