//! Shards that another process may open: what is handed out, what it takes, and what is refused.

use cuda_sim::{CallKind, DeviceSpec, Fault, Sim};
use vram_gpu::{CudaDevice, Device as _, GpuError, SHARE_UNIT, ShareHandle};
use vram_residency::{
    ByteLen, Fit, GpuChoice, GpuIndex, MemoryMode, ModelPlan, Piece, Protection, SealRequest,
    SealedShard, Verify, VramError, VramManager,
};
use vram_tests::reference::bytes;

const CAPACITY: u64 = 64 << 20;
const UNIT: u64 = SHARE_UNIT.get();

/// A manager over one simulated card, used in a mode.
fn manager(spec: DeviceSpec, mode: MemoryMode) -> (u32, VramManager) {
    cuda_sim::install();
    let ordinal = Sim::add_device(DeviceSpec { capacity: CAPACITY, ..spec });
    let device = CudaDevice::open(ordinal, GpuIndex::new(0)).unwrap().without_kernels();
    let manager = VramManager::builder().device(device).memory(0, mode).build().unwrap();
    (ordinal, manager)
}

fn seal(manager: &VramManager, protection: Protection, len: usize) -> SealedShard {
    let request = SealRequest::new("model", 0).protection(protection);
    manager.seal(request, &bytes(len, 7)).unwrap()
}

fn finish(ordinal: u32, manager: VramManager) {
    drop(manager);
    Sim::assert_clean(ordinal);
    Sim::retire_device(ordinal);
}

#[track_caller]
fn reason(manager: &VramManager, shard: &SealedShard) -> String {
    let lease = manager.lease(shard).unwrap();
    let refused = lease.share().unwrap_err();
    assert!(!lease.is_shared() && refused.retry_after().is_none(), "{refused}");
    refused.to_string()
}

/// P150. Nothing but the shard lies in what is handed out, and it is counted in whole.
#[test]
fn a_shared_shard_is_an_allocation_of_whole_pages_with_zeros_behind_it() {
    let (ordinal, manager) = manager(DeviceSpec::default(), MemoryMode::SharedBlocks);
    for len in [1, 4096, 100_003, SHARE_UNIT.to_usize().unwrap(), 5_000_000] {
        let wide = u64::try_from(len).unwrap();
        let taken = wide.next_multiple_of(UNIT);
        let plan = ModelPlan::new([Piece::new("t", 0, 0, ByteLen::new(wide))]).unwrap();
        let fit = manager.fits(&plan, GpuChoice::One(0)).unwrap();
        assert_eq!(fit, Fit::Fits { footprint: ByteLen::new(taken) });
        let shard = seal(&manager, Protection::Authenticated, len);
        assert_eq!(manager.capacity(0).unwrap().used.get(), taken);
        assert_eq!(Sim::used(ordinal), taken, "the driver counts the same");
        let lease = manager.lease(&shard).unwrap();
        let named = lease.share().unwrap();
        assert_eq!(lease.share().unwrap(), named);
        assert!(lease.is_shared());
        assert_eq!((named.offset.get(), named.len.get()), (0, wide));
        assert_eq!(named.allocation.get(), taken);
        assert_eq!(format!("{:?}", named.handle), "ShareHandle(..)");
        let [allocation] = Sim::live_allocations(ordinal)[..] else { panic!("one allocation") };
        assert_eq!(allocation.len, taken);
        let there = Sim::inspect(ordinal, allocation.address, usize::try_from(taken).unwrap());
        assert!(there[..len] == bytes(len, 7) && there[len..].iter().all(|byte| *byte == 0));
        // It goes nowhere while the lease lives, and it is sound.
        assert!(matches!(manager.free_shard(&shard), Err(VramError::InUse { .. })));
        assert!(manager.verify(&shard, Verify::Segments).unwrap().sound);
        drop(lease);
        assert!(manager.free_shard(&shard).unwrap().wiped);
        assert_eq!(manager.capacity(0).unwrap().used, ByteLen::ZERO);
        assert!(manager.reconcile(0).unwrap().agrees);
    }
    finish(ordinal, manager);
}

/// P153.
#[test]
fn what_cannot_be_shared_says_why_and_what_would_help() {
    for mode in [MemoryMode::Region, MemoryMode::Blocks] {
        let (ordinal, manager) = manager(DeviceSpec::default(), mode);
        let words = reason(&manager, &seal(&manager, Protection::Authenticated, 100));
        assert!(words.contains("MemoryMode::SharedBlocks"), "{words}");
        finish(ordinal, manager);
    }
    let (ordinal, manager) = manager(DeviceSpec::default(), MemoryMode::SharedBlocks);
    let words = reason(&manager, &seal(&manager, Protection::Encrypted, 100));
    assert!(words.contains("Protection::Authenticated"), "{words}");
    let words = reason(&manager, &seal(&manager, Protection::Authenticated, 0));
    assert!(words.contains("no bytes"), "{words}");
    // A driver that fails once: the shard is as before, and the next try succeeds.
    let shard = seal(&manager, Protection::Authenticated, 100);
    Sim::faults(ordinal).next(CallKind::Ipc, Fault::Fail(2));
    let lease = manager.lease(&shard).unwrap();
    let failed = lease.share().unwrap_err();
    assert!(failed.retry_after().is_some() && !lease.is_shared(), "{failed}");
    let named = lease.share().unwrap();
    // An altered shard is shared with nobody.
    let address = Sim::live_allocations(ordinal)[1].address;
    Sim::flip_bit(ordinal, address, 5);
    assert!(!manager.verify(&shard, Verify::Segments).unwrap().sound);
    assert!(matches!(lease.share(), Err(VramError::Quarantined { .. })));
    // The process that shares cannot open it by the handle.
    let device = CudaDevice::open(ordinal, GpuIndex::new(0)).unwrap();
    let own = device.open_shared(&named.handle).map(drop);
    assert!(matches!(own, Err(GpuError::NotShareable { .. })), "{own:?}");
    assert!(device.open_shared(&ShareHandle::from_bytes([0; 64])).is_err());
    drop((lease, device));
    finish(ordinal, manager);

    let spec = DeviceSpec { ipc: false, ..DeviceSpec::default() };
    let (ordinal, manager) = self::manager(spec, MemoryMode::SharedBlocks);
    let words = reason(&manager, &seal(&manager, Protection::Authenticated, 100));
    assert!(words.contains("does not support"), "{words}");
    finish(ordinal, manager);

    let host = VramManager::builder().host_device(ByteLen::new(CAPACITY));
    let manager = host.memory(0, MemoryMode::SharedBlocks).build().unwrap();
    let words = reason(&manager, &seal(&manager, Protection::Authenticated, 100));
    assert!(words.contains("this kind of device"), "{words}");
}

/// What does not fit in whole pages is refused with the figure that it takes.
#[test]
fn room_is_counted_in_whole_pages() {
    let (ordinal, manager) = manager(DeviceSpec::default(), MemoryMode::SharedBlocks);
    let budget = manager.capacity(0).unwrap().total.get();
    let count = budget / UNIT;
    let all: Vec<_> = (0..count).map(|_| seal(&manager, Protection::Authenticated, 1)).collect();
    match manager.seal_model("model", 0, &[1]) {
        Err(VramError::InsufficientVram(lack)) => assert_eq!(lack.needed.get(), UNIT),
        other => panic!("{other:?}"),
    }
    let one = Piece::new("t", 0, 0, ByteLen::new(1));
    let fit = manager.fits(&ModelPlan::new([one]).unwrap(), GpuChoice::One(0)).unwrap();
    assert!(!fit.is_yes(), "{fit}");
    for shard in &all {
        manager.free_shard(shard).unwrap();
    }
    finish(ordinal, manager);
}
