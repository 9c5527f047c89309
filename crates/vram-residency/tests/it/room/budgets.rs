//! Budgets that change while a manager runs (P8), and the driver's figures of foreign memory.

use std::sync::Arc;

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op};
use vram_residency::{
    Budget, ByteLen, Device, Fit, GpuChoice, GpuIndex, HostDevice, VramError, VramManager,
};

use super::hands::{KIB, bytes, faulty, hosts, no_room, plan, room};

/// P8: a budget may shrink below the used bytes: no grant until it fits again, and nothing breaks.
#[test]
fn a_budget_below_what_is_used_grants_nothing_until_it_fits_again() {
    let manager = hosts(&[64 * KIB]).build().unwrap();
    let shards: Vec<_> =
        (0..4).map(|_| manager.seal_model("model", 0, &[7; 8 * 1024]).unwrap()).collect();
    let held = manager.reserve(0, bytes(4 * KIB)).unwrap();

    manager.set_budget(0, bytes(16 * KIB)).unwrap();
    let capacity = manager.capacity(0).unwrap();
    assert_eq!((capacity.total.get(), capacity.used.get()), (16 * KIB, 32 * KIB));
    assert_eq!((capacity.free.get(), capacity.room.get()), (0, 0));
    assert_eq!(manager.get_free_vram(0).unwrap(), 0);
    assert!(no_room(&manager.seal_model("more", 0, b"1")));
    assert!(no_room(&manager.reserve(0, bytes(1))));
    assert!(!manager.fits(&plan(&[1]), GpuChoice::One(0)).unwrap().is_yes());
    assert!(manager.fits(&plan(&[0]), GpuChoice::One(0)).unwrap().is_yes());
    for shard in &shards {
        assert_eq!(manager.unseal_model(shard).unwrap(), [7; 8 * 1024]);
    }
    manager.seal_model("nothing", 0, b"").unwrap();

    drop(held);
    for shard in &shards[..2] {
        manager.free_shard(shard).unwrap();
        assert!(no_room(&manager.seal_model("more", 0, b"1")));
    }
    manager.free_shard(&shards[2]).unwrap();
    manager.seal_model("fits again", 0, &[1; 8 * 1024]).unwrap();
    assert_eq!(room(&manager, 0), 0);

    manager.set_budget(0, bytes(64 * KIB)).unwrap();
    assert_eq!(room(&manager, 0), 48 * KIB);
}

#[test]
fn what_was_promised_before_a_budget_shrank_is_kept() {
    let manager = hosts(&[64 * KIB]).build().unwrap();
    let mut held = manager.reserve(0, bytes(32 * KIB)).unwrap();
    manager.set_budget(0, ByteLen::ZERO).unwrap();
    let request = vram_residency::SealRequest::new("promised", 0);
    manager.seal_reserved(&mut held, request, &[1; 32 * 1024]).unwrap();
    assert_eq!(manager.capacity(0).unwrap().used.get(), 32 * KIB);
}

#[test]
fn a_budget_cannot_grow_beyond_what_was_taken_and_a_refusal_changes_nothing() {
    let device = Arc::new(HostDevice::new(GpuIndex::new(0), bytes(64 * KIB)).unwrap());
    let shared: Arc<dyn Device> = Arc::<HostDevice>::clone(&device);
    let manager = VramManager::builder()
        .device(shared)
        .budget(0, Budget::Bytes(bytes(32 * KIB)))
        .build()
        .unwrap();
    for too_much in [32 * KIB + 1, 64 * KIB, 1 << 48, u64::MAX] {
        match manager.set_budget(0, bytes(too_much)) {
            Err(VramError::LimitExceeded { limit, wanted, .. }) => {
                assert_eq!((limit, wanted), (32 * KIB, too_much));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(manager.capacity(0).unwrap().total.get(), 32 * KIB);
    manager.set_budget(0, bytes(32 * KIB)).unwrap();
    assert!(matches!(manager.set_budget(1, bytes(1)), Err(VramError::UnknownGpu { .. })));
    assert!(matches!(manager.set_headroom(1, bytes(1)), Err(VramError::UnknownGpu { .. })));
}

#[test]
fn headroom_is_set_and_lifted_while_the_manager_runs() {
    let manager = hosts(&[64 * KIB]).build().unwrap();
    manager.set_headroom(0, bytes(60 * KIB)).unwrap();
    assert_eq!(room(&manager, 0), 4 * KIB);
    assert!(no_room(&manager.seal_model("model", 0, &[0; 5 * 1024])));
    match manager.fits(&plan(&[5 * KIB]), GpuChoice::One(0)).unwrap() {
        Fit::ShortOf { room, .. } => assert_eq!(room.get(), 4 * KIB),
        other => panic!("{other}"),
    }
    manager.set_headroom(0, ByteLen::MAX).unwrap();
    assert_eq!(room(&manager, 0), 0);
    manager.set_headroom(0, ByteLen::ZERO).unwrap();
    manager.seal_model("model", 0, &[0; 5 * 1024]).unwrap();
}

/// Memory that others take beside the region is visible, and takes nothing from the budget.
#[test]
fn others_on_the_card_are_told_from_the_budget() {
    let device = Arc::new(HostDevice::new(GpuIndex::new(0), bytes(100 * KIB)).unwrap());
    let shared: Arc<dyn Device> = Arc::<HostDevice>::clone(&device);
    let manager = VramManager::builder()
        .device(shared)
        .budget(0, Budget::Bytes(bytes(60 * KIB)))
        .build()
        .unwrap();
    device.set_foreign(bytes(30 * KIB));
    let seen = manager.refresh(0).unwrap();
    assert_eq!((seen.total.get(), seen.free.get()), (100 * KIB, 10 * KIB));
    assert_eq!((seen.ours.get(), seen.others.get()), (60 * KIB, 30 * KIB));
    assert_eq!(seen.foreign, ByteLen::ZERO);
    assert_eq!(room(&manager, 0), 60 * KIB);
}

#[test]
fn a_driver_that_does_not_answer_leaves_the_figures_as_they_were() {
    let (device, shared) = faulty(64 * KIB);
    let manager = VramManager::builder().device(shared).build().unwrap();
    let before = manager.capacity(0).unwrap();
    device.next(Op::Memory, Action::Fail(GpuError::HostMemory { wanted: bytes(1) })).unwrap();
    assert!(matches!(manager.refresh(0), Err(VramError::HostMemory { .. })));
    assert_eq!(manager.capacity(0).unwrap(), before);
    // 700: an illegal address, sticky.
    device.next(Op::Memory, Action::Driver(700)).unwrap();
    assert!(matches!(manager.refresh(0), Err(VramError::DeviceLost { .. })));
    assert!(matches!(manager.refresh(0), Err(VramError::DeviceLost { .. })));
    assert_eq!(manager.capacity(0).unwrap(), before);
}

/// A device whose memory shrinks while the manager runs, as a partition can.
mod shrinking {
    use std::sync::{Arc, Mutex};

    use vram_residency::ByteLen;
    use vram_residency::device::{
        Device, DeviceInfo, DeviceMemory, DeviceState, GpuError, HostDevice, MemoryInfo, Staging,
    };

    #[derive(Debug)]
    pub(super) struct Shrinking {
        pub(super) inner: Arc<HostDevice>,
        pub(super) missing: Mutex<ByteLen>,
    }

    impl Device for Shrinking {
        fn info(&self) -> &DeviceInfo {
            self.inner.info()
        }

        fn memory(&self) -> Result<MemoryInfo, GpuError> {
            let real = self.inner.memory()?;
            let missing = *self.missing.lock().unwrap();
            let shrink = |len: ByteLen| len.saturating_sub(missing);
            Ok(MemoryInfo::new(shrink(real.total), shrink(real.free)))
        }

        fn allocate(&self, len: ByteLen) -> Result<Box<dyn DeviceMemory>, GpuError> {
            self.inner.allocate(len)
        }

        fn staging(&self, len: ByteLen) -> Result<Staging, GpuError> {
            self.inner.staging(len)
        }

        fn state(&self) -> DeviceState {
            self.inner.state()
        }

        fn reset(&self) -> Result<(), GpuError> {
            self.inner.reset()
        }

        fn can_copy_from_peer(&self, other: &dyn Device) -> bool {
            self.inner.can_copy_from_peer(other)
        }

        fn backing(&self) -> &dyn Device {
            self.inner.backing()
        }

        fn as_any(&self) -> &dyn core::any::Any {
            self
        }
    }
}

/// Another process takes VRAM that the budget included: no grant for memory that is not available.
#[test]
fn a_budget_that_the_device_no_longer_backs_is_not_granted() {
    let inner = Arc::new(HostDevice::new(GpuIndex::new(0), bytes(64 * KIB)).unwrap());
    let missing = std::sync::Mutex::new(ByteLen::ZERO);
    let device = Arc::new(shrinking::Shrinking { inner, missing });
    let shared: Arc<dyn Device> = Arc::<shrinking::Shrinking>::clone(&device);
    let manager = VramManager::builder().device(shared).build().unwrap();
    *device.missing.lock().unwrap() = bytes(24 * KIB);
    assert_eq!(room(&manager, 0), 64 * KIB);
    assert_eq!(manager.refresh(0).unwrap().foreign.get(), 24 * KIB);
    let capacity = manager.capacity(0).unwrap();
    assert_eq!((capacity.foreign.get(), capacity.room.get()), (24 * KIB, 40 * KIB));
    match manager.seal_model("model", 0, &[0; 41 * 1024]) {
        Err(VramError::InsufficientVram(shortfall)) => {
            assert_eq!(shortfall.foreign.get(), 24 * KIB);
        }
        other => panic!("{other:?}"),
    }
    *device.missing.lock().unwrap() = ByteLen::ZERO;
    manager.refresh(0).unwrap();
    manager.seal_model("model", 0, &[0; 41 * 1024]).unwrap();
}
