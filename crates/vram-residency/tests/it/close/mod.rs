//! Closing a manager: everything is wiped and returned, shards in use are left and reported, and no
//! memory is taken or content returned afterwards.

mod calls;
mod given_back;
mod in_use;
mod inside;
mod resets;

use core::time::Duration;

use vram_residency::device::GpuError;
use vram_residency::device::fault::Action;
use vram_residency::{
    ByteLen, CloseReport, GpuIndex, Limits, Lru, MemoryMode, OnEviction, Protection, SealedShard,
    Threads, VramManagerBuilder,
};
use vram_test_rigs::{Rig, SEGMENT, weights};

const MODES: [MemoryMode; 2] = [MemoryMode::Region, MemoryMode::Blocks];
const KINDS: [Protection; 2] = [Protection::Encrypted, Protection::Authenticated];
const TOTAL: usize = 32 * SEGMENT;
const LEN: usize = 5 * SEGMENT + 9;

fn two_gpus(mode: MemoryMode) -> Rig {
    two_gpus_with(mode, |builder| builder)
}

fn two_gpus_on(mode: MemoryMode, threads: Threads) -> Rig {
    two_gpus_with(mode, |builder| builder.threads(threads))
}

fn two_gpus_with(
    mode: MemoryMode,
    also: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
) -> Rig {
    Rig::in_mode(mode, &[TOTAL; 2], |builder| {
        let builder = builder.limits(Limits::default());
        also(builder.eviction(Lru).on_eviction(OnEviction::Park))
    })
}

fn seal(rig: &Rig, gpu: u32, protection: Protection) -> SealedShard {
    rig.seal(gpu, protection, &weights(LEN))
}

/// Checks that nothing is left, in the ledger and at the driver.
fn is_gone(rig: &Rig, what: &str) {
    for (gpu, device) in (0..).zip(&rig.devices) {
        let books = rig.books(gpu);
        assert_eq!(books.used, ByteLen::ZERO, "{what}");
        assert_eq!(books.reserved, ByteLen::ZERO, "{what}");
        assert_eq!((books.total, books.largest_hole), (ByteLen::ZERO, ByteLen::ZERO), "{what}");
        assert_eq!(device.live(), [], "gpu {gpu}: {what}");
    }
    assert!(rig.manager.shards().is_empty(), "{what}");
    let again = rig.manager.close(Duration::ZERO);
    assert!(again.complete && again.freed == 0, "{what}: {again:?}");
}

fn is_complete(report: &CloseReport) {
    assert!(report.complete, "{report:?}");
    assert!(report.left.is_empty() && report.unreturned.is_empty(), "{report:?}");
    assert_eq!((report.reservations, report.under_way), (0, 0), "{report:?}");
}

fn refuse() -> Action {
    Action::Fail(GpuError::driver(GpuIndex::new(0), 1))
}
