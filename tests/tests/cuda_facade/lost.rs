//! Sticky errors: the GPU becomes lost, gets no more calls, and returns by a reset.

use cuda_sim::{CallKind, Fault, Sim};
use vram_gpu::{Sharing, codes};
use vram_residency::{ByteLen, Class, ExportOptions, Protection, ResetOptions, Verify, VramError};

use crate::{MODES, Machine, content};

/// P16: the driver of the lost device gets no calls until the reset, which reclaims everything;
/// shards with copies are restored with it.
#[test]
fn after_an_ecc_error_a_reset_brings_back_what_there_are_copies_of() {
    let folder = tempfile::tempdir().unwrap();
    for mode in MODES {
        let machine = Machine::new(mode);
        let manager = &machine.manager;
        let saved = machine.seal(Protection::Authenticated);
        manager.back_up(&saved).unwrap();
        let exported = machine.seal(Protection::Encrypted);
        let image = folder.path().join(format!("{mode:?}"));
        manager.export_to(&exported, &image, ExportOptions::new()).unwrap();
        let unsaved = machine.seal(Protection::Encrypted);
        let there = manager.seal_model("model", 1, &content()).unwrap();
        machine.fault(0, CallKind::CopyOut, Fault::Fail(codes::ECC_UNCORRECTABLE));
        assert_eq!(manager.unseal_model(&unsaved).unwrap_err().code(), "device-lost");

        let calls = Sim::faults(machine.ordinals[0]).all_calls();
        assert_eq!(manager.back_up(&unsaved).unwrap_err().code(), "device-lost");
        let kept = manager.reserve(1, ByteLen::new(1 << 18)).unwrap();
        assert_eq!(Sim::faults(machine.ordinals[0]).all_calls(), calls, "the driver was called");

        let report = manager.reset_gpu(0, ResetOptions::new()).unwrap();
        assert_eq!((report.restored.len(), report.lost.len()), (2, 1), "{mode:?} {report:?}");
        assert_eq!(report.lost[0].shard_id, unsaved.shard_id);
        for (back, before) in report.restored.iter().zip([&saved, &exported]) {
            assert_eq!(back.shard_id, before.shard_id);
            assert_eq!(back.sealed_data, before.sealed_data);
            assert_eq!(manager.unseal_model(back).unwrap(), content());
            assert!(manager.verify(back, Verify::Full).unwrap().sound);
            assert_eq!(manager.unseal_model(before).unwrap_err().code(), "stale-handle");
        }
        assert_eq!(manager.unseal_model(&there).unwrap(), content());
        drop(kept);
        machine.books_agree();

        let closed = manager.close(core::time::Duration::ZERO);
        assert!(closed.complete && closed.freed == 3, "{mode:?} {closed:?}");
        assert_eq!((Sim::used(machine.ordinals[0]), Sim::used(machine.ordinals[1])), (0, 0));
        machine.finish();
    }
}

/// What an H100 answers after an illegal address (docs/gpu-evidence.md): the reset succeeds, and the
/// process gets no context again.
#[test]
fn a_driver_that_gives_no_context_after_a_reset_leaves_the_gpu_lost_and_backups_usable_elsewhere() {
    for mode in MODES {
        let machine = Machine::new(mode);
        let manager = &machine.manager;
        let saved = machine.seal(Protection::Encrypted);
        manager.back_up(&saved).unwrap();
        let there = manager.seal_model("model", 1, &content()).unwrap();
        machine.fault(0, CallKind::CopyOut, Fault::Fail(codes::ILLEGAL_ADDRESS));
        assert_eq!(manager.unseal_model(&saved).unwrap_err().code(), "device-lost");

        machine.fault(0, CallKind::Context, Fault::Fail(codes::ILLEGAL_ADDRESS));
        let refused = manager.reset_gpu(0, ResetOptions::new()).unwrap_err();
        assert_eq!((refused.code(), refused.class()), ("device-lost", Class::Fatal), "{refused}");
        assert!(manager.report().gpus[0].lost.is_some());
        assert_eq!(manager.seal_model("model", 0, b"more").unwrap_err().code(), "device-lost");

        assert_eq!(manager.unseal_model(&there).unwrap(), content());
        let parked = manager.park(&saved).unwrap();
        let woken = manager.wake(parked, 1).unwrap();
        assert_eq!(manager.unseal_model(&woken).unwrap(), content());
        machine.finish();
    }
}

/// P64: other code of the process may have its context there, so that the reset is refused before
/// anything is wiped for it, whether the GPU works or is lost.
#[test]
fn a_gpu_that_is_shared_with_other_code_is_not_reset() {
    for mode in MODES {
        let machine = Machine::of(mode, true, Sharing::WithOthers);
        let manager = &machine.manager;
        let here = machine.seal(Protection::Encrypted);
        manager.back_up(&here).unwrap();
        for lost in [false, true] {
            if lost {
                machine.fault(0, CallKind::CopyOut, Fault::Fail(codes::ECC_UNCORRECTABLE));
                assert_eq!(manager.unseal_model(&here).unwrap_err().code(), "device-lost");
            }
            for options in [ResetOptions::new(), ResetOptions::new().force()] {
                let refused = manager.reset_gpu(0, options).unwrap_err();
                assert_eq!((refused.code(), refused.class()), ("device", Class::Caller));
                assert!(refused.to_string().contains("Sharing::Alone"), "{refused}");
            }
            assert_eq!(manager.report().gpus[0].lost.is_some(), lost);
            if !lost {
                assert_eq!(manager.unseal_model(&here).unwrap(), content());
            }
        }
        let parked = manager.park(&here).unwrap();
        let woken = manager.wake(parked, 1).unwrap();
        assert_eq!(manager.unseal_model(&woken).unwrap(), content());
        machine.finish();
    }
}

/// P16 until the reset.
#[test]
fn after_an_ecc_error_the_gpu_is_lost_and_its_driver_is_left_alone() {
    for mode in MODES {
        let machine = Machine::new(mode);
        let manager = &machine.manager;
        let here = machine.seal(Protection::Encrypted);
        let there = manager.seal_model("model", 1, &content()).unwrap();
        machine.fault(0, CallKind::CopyOut, Fault::Fail(codes::ECC_UNCORRECTABLE));
        let lost = |answer: Result<(), VramError>| match answer {
            Err(error @ VramError::DeviceLost { gpu: 0, .. }) => {
                assert_eq!(error.class(), Class::Fatal);
            }
            other => panic!("{mode:?}: {other:?}"),
        };
        lost(manager.unseal_model(&here).map(drop));
        let (calls, used) = (Sim::faults(machine.ordinals[0]).all_calls(), machine.used(0));
        lost(manager.unseal_model(&here).map(drop));
        lost(manager.read_shard_at_offset(&here, 0, 1).map(drop));
        lost(manager.verify(&here, Verify::Full).map(drop));
        lost(manager.free_shard(&here).map(drop));
        lost(manager.open_resident(&here).map(drop));
        lost(manager.migrate_shard(&here, 1).map(drop));
        lost(manager.migrate_shard(&there, 0).map(drop));
        lost(manager.seal_model("model", 0, b"more").map(drop));
        lost(manager.refresh(0).map(drop));
        assert_eq!(Sim::faults(machine.ordinals[0]).all_calls(), calls, "the driver was called");
        assert_eq!(machine.used(0), used);
        assert!(manager.report().gpus[0].lost.is_some());
        assert_eq!(manager.unseal_and_free(&there).unwrap(), content());
        assert_eq!(machine.used(1), 0);
        machine.finish();
    }
}

#[test]
fn a_sticky_error_while_sealing_leaves_nothing_counted_for_it() {
    for mode in MODES {
        for (kind, fault) in [
            (CallKind::CopyIn, Fault::Fail(700)),
            (CallKind::CopyIn, Fault::FailLater(719)),
            (CallKind::CopyOut, Fault::Fail(codes::ECC_UNCORRECTABLE)),
        ] {
            let machine = Machine::new(mode);
            machine.fault(0, kind, fault);
            let refused = machine.manager.seal_model("model", 0, &content()).unwrap_err();
            assert!(matches!(refused, VramError::DeviceLost { gpu: 0, .. }), "{refused}");
            assert_eq!(machine.used(0), 0);
            assert!(machine.manager.shards().is_empty());
            machine.finish();
        }
    }
}
