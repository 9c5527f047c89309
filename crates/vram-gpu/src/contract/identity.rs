//! Checks of a device's identity, and of what its `Debug` output hides.

use std::collections::BTreeSet;

use vram_alloc::{ByteLen, DeviceOffset};

use super::{Factory, allocate, range};
use crate::GpuError;

/// Indices and UUIDs distinguish devices; a device has a name and a constant size.
pub fn identities_are_plausible_and_distinct(factory: Factory<'_>) {
    let devices = factory();
    assert!(!devices.is_empty(), "the factory gave no device");
    let uuids: BTreeSet<_> = devices.iter().map(|device| device.info().uuid).collect();
    let indices: BTreeSet<_> = devices.iter().map(|device| device.info().index).collect();
    assert_eq!((uuids.len(), indices.len()), (devices.len(), devices.len()));
    for device in &devices {
        let info = device.info();
        assert!(!info.name.is_empty());
        assert!(!info.copy_window.is_zero(), "a copy of nothing makes no progress");
        assert!(device.state().is_ready());
        let memory = device.memory().unwrap();
        assert_eq!(memory.total, info.total);
        assert!(memory.free <= memory.total);
        assert!(device.can_copy_from_peer(&**device), "a device reaches itself");
    }
}

/// Buffers of any length, including zero; impossible lengths are refused.
pub fn staging_starts_as_zeros_and_has_its_length(factory: Factory<'_>) {
    for device in factory() {
        for len in [0, 1, 4095, 1 << 20] {
            let mut staging = device.staging(ByteLen::from_usize(len)).unwrap();
            assert_eq!(staging.as_slice().len(), len);
            assert!(staging.as_slice().iter().all(|&byte| byte == 0));
            staging.as_mut_slice().fill(3);
            assert!(staging.as_slice().iter().all(|&byte| byte == 3));
            staging.wipe();
            assert!(staging.as_slice().iter().all(|&byte| byte == 0));
        }
        let wanted = ByteLen::new(u64::MAX);
        let refused = device.staging(wanted).map(|_| ()).unwrap_err();
        assert_eq!(refused, GpuError::HostMemory { wanted });
    }
}

/// `Debug` output contains no addresses and no content, so it can be logged.
pub fn nothing_shows_addresses_or_content(factory: Factory<'_>) {
    for device in factory() {
        let memory = allocate(&*device, 16);
        memory.fill(range(&*memory, 0, 16), 0xCD).unwrap();
        let mut staging = device.staging(ByteLen::new(16)).unwrap();
        staging.as_mut_slice().fill(0xCD);
        let address = memory.address();
        let text = format!("{device:?} {memory:?} {staging:?} {address:?}");
        let pending = memory.queue_write(DeviceOffset::START, staging, ByteLen::new(16));
        let text = format!("{text} {pending:?}");
        pending.wait().1.unwrap();
        let raw = address.get();
        for secret in [raw.to_string(), format!("{raw:x}"), "205, 205".into(), "cd, cd".into()] {
            assert!(!text.contains(&secret), "{secret} is in: {text}");
        }
    }
}
