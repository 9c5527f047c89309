//! The host device: memory of this machine behind the same traits as a card's.

mod chunk;
mod kernels;
#[expect(unsafe_code, reason = "bytes that others may read lie behind raw pointers")]
mod map;
mod memory;

use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vram_alloc::{ByteLen, GpuIndex};

use self::kernels::HostKernels;
pub(crate) use self::memory::HostMemory;
use crate::kernels::{Kernels, NoKernels};
use crate::{
    Device, DeviceInfo, DeviceKind, DeviceMemory, DeviceState, DeviceUuid, GpuError, MemoryInfo,
    Staging,
};

/// A device whose memory is host memory.
///
/// It is bounded by its total like a card, counts what is allocated, and takes host memory only for
/// bytes that were written: a host device of 80 GiB costs nothing until it is used. Fresh bytes
/// read as garbage, as on a card, so that code which relies on zeros fails. Two host devices can
/// copy to each other unless one was built [`isolated`](HostDeviceBuilder::isolated).
///
/// Each allocation is one piece of this process's memory: a mapping, unless it is short, of huge
/// pages where the kernel has them.
/// [`DeviceMemory::address`] is its real address, valid until the value is dropped, after a reset
/// too. Code of this process may read there, but not write, while no call changes the bytes that it
/// reads. Bytes that were never written read as zeros there.
#[derive(Debug)]
pub struct HostDevice {
    shared: Arc<Shared>,
}

/// The state that a host device and its allocations share.
#[derive(Debug)]
struct Shared {
    info: DeviceInfo,
    isolated: bool,
    kernels: bool,
    // Incremented by every reset; an allocation from an earlier epoch is stale.
    epoch: AtomicU64,
    accounts: Mutex<Accounts>,
}

/// The counts of bytes: `used` for the live allocations of this epoch, `foreign` for other holders.
#[derive(Debug)]
struct Accounts {
    used: ByteLen,
    foreign: ByteLen,
    // Number of allocations made so far. It makes the garbage of one differ from that of the next.
    made: u64,
}

impl HostDevice {
    /// The largest device: 256 TiB.
    pub const MAX_TOTAL: ByteLen = ByteLen::new(1 << 48);

    /// A device of `total` bytes, which may be zero, with the defaults of [`HostDeviceBuilder`].
    ///
    /// # Errors
    ///
    /// [`GpuError::TotalTooLarge`] above [`Self::MAX_TOTAL`].
    pub fn new(index: GpuIndex, total: ByteLen) -> Result<Self, GpuError> {
        Self::builder(index, total).build()
    }

    /// Starts the builder of a device.
    pub fn builder(index: GpuIndex, total: ByteLen) -> HostDeviceBuilder {
        HostDeviceBuilder { index, total, uuid: None, name: None, isolated: false, kernels: false }
    }

    /// Creates one device for each total, indexed from zero; all can copy to each other.
    ///
    /// # Errors
    ///
    /// [`GpuError::TotalTooLarge`] above [`Self::MAX_TOTAL`].
    pub fn several(totals: &[ByteLen]) -> Result<Vec<Arc<Self>>, GpuError> {
        (0..)
            .map(GpuIndex::new)
            .zip(totals)
            .map(|(index, &total)| Self::new(index, total).map(Arc::new))
            .collect()
    }

    /// Sets how many bytes other users of the device hold, from now on. If that is more than the
    /// free bytes, nothing is free; existing allocations are not affected.
    pub fn set_foreign(&self, foreign: ByteLen) {
        self.shared.accounts().foreign = foreign;
    }

    /// Bytes that this device's own live allocations take.
    #[must_use]
    pub fn allocated(&self) -> ByteLen {
        self.shared.accounts().used
    }
}

impl Shared {
    /// Locks the counts. Every step leaves these plain numbers valid, so a panic of another holder
    /// is ignored.
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gpu(&self) -> GpuIndex {
        self.info.index
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Counts `len` bytes as used. Returns the epoch and the running number of the allocation.
    fn take(&self, len: ByteLen) -> Result<(u64, u64), GpuError> {
        let mut accounts = self.accounts();
        let free = accounts.free(self.info.total);
        let refused = GpuError::OutOfMemory { gpu: self.gpu(), wanted: len, free: Some(free) };
        if len > free {
            return Err(refused);
        }
        accounts.used = accounts.used.checked_add(len).ok_or(refused)?;
        accounts.made = accounts.made.wrapping_add(1);
        Ok((self.epoch(), accounts.made))
    }

    /// Uncounts `len` bytes, unless a reset has already done so.
    fn give_back(&self, len: ByteLen, epoch: u64) {
        let mut accounts = self.accounts();
        if self.epoch() == epoch {
            accounts.used = accounts.used.saturating_sub(len);
        }
    }
}

impl Accounts {
    fn free(&self, total: ByteLen) -> ByteLen {
        total.saturating_sub(self.used).saturating_sub(self.foreign)
    }
}

impl Device for HostDevice {
    fn info(&self) -> &DeviceInfo {
        &self.shared.info
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        let total = self.shared.info.total;
        Ok(MemoryInfo::new(total, self.shared.accounts().free(total)))
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %self.shared.gpu(), bytes = len.get()))]
    fn allocate(&self, len: ByteLen) -> Result<Box<dyn DeviceMemory>, GpuError> {
        if len.is_zero() {
            return Err(GpuError::ZeroLength { gpu: self.shared.gpu() });
        }
        let (epoch, made) = self.shared.take(len)?;
        match HostMemory::new(Arc::clone(&self.shared), len, epoch, made) {
            Ok(memory) => Ok(Box::new(memory)),
            Err(error) => {
                self.shared.give_back(len, epoch);
                Err(error)
            }
        }
    }

    fn staging(&self, len: ByteLen) -> Result<Staging, GpuError> {
        Staging::unpinned(len)
    }

    fn state(&self) -> DeviceState {
        DeviceState::Ready
    }

    fn reset(&self) -> Result<(), GpuError> {
        let mut accounts = self.shared.accounts();
        // Under the lock, so that no allocation of the old epoch is counted in the new one.
        self.shared.epoch.fetch_add(1, Ordering::AcqRel);
        accounts.used = ByteLen::ZERO;
        Ok(())
    }

    fn can_copy_from_peer(&self, other: &dyn Device) -> bool {
        other
            .backing()
            .as_any()
            .downcast_ref::<Self>()
            .is_some_and(|other| self.shared.reaches(&other.shared))
    }

    fn kernels(&self) -> Result<Arc<dyn Kernels>, NoKernels> {
        if self.shared.kernels {
            Ok(Arc::new(HostKernels::new(Arc::clone(&self.shared))))
        } else {
            Err(NoKernels::NotOffered)
        }
    }

    fn backing(&self) -> &dyn Device {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Shared {
    /// Whether a direct copy to or from `other` is supported; within one device it always is.
    fn reaches(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other) || !(self.isolated || other.isolated)
    }
}

/// Builder of a [`HostDevice`]: name, identity, whether peers can copy to it.
#[derive(Clone, Debug)]
#[must_use]
pub struct HostDeviceBuilder {
    index: GpuIndex,
    total: ByteLen,
    uuid: Option<DeviceUuid>,
    name: Option<String>,
    isolated: bool,
    kernels: bool,
}

impl HostDeviceBuilder {
    /// Sets the name; `host memory` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the identity; [`DeviceUuid::for_host`] of the index by default.
    pub const fn uuid(mut self, uuid: DeviceUuid) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// Disables direct copies to and from other devices, as between some pairs of cards: such
    /// copies return [`GpuError::PeerUnsupported`].
    pub const fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// Offers kernels over the memory of the device, which the calling threads compute. By default
    /// there are none, as on a card that is too old for them.
    pub const fn kernels(mut self) -> Self {
        self.kernels = true;
        self
    }

    /// Creates the device; takes no host memory yet.
    ///
    /// # Errors
    ///
    /// [`GpuError::TotalTooLarge`] above [`HostDevice::MAX_TOTAL`].
    pub fn build(self) -> Result<HostDevice, GpuError> {
        let (total, max) = (self.total, HostDevice::MAX_TOTAL);
        if total > max {
            return Err(GpuError::TotalTooLarge { total, max });
        }
        let uuid = self.uuid.unwrap_or(DeviceUuid::for_host(self.index));
        let name = self.name.unwrap_or_else(|| "host memory".to_owned());
        let info = DeviceInfo::new(self.index, uuid, name, DeviceKind::Host, total);
        let accounts = Accounts { used: ByteLen::ZERO, foreign: ByteLen::ZERO, made: 0 };
        Ok(HostDevice {
            shared: Arc::new(Shared {
                info,
                isolated: self.isolated,
                kernels: self.kernels,
                epoch: AtomicU64::new(0),
                accounts: Mutex::new(accounts),
            }),
        })
    }
}
