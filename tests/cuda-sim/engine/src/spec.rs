//! The description of a simulated device.

/// Where the memory of a device lies. A driver may return any of these for `cuMemAlloc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// Memory of the device: pointer attributes say device, no host pointer, not managed.
    #[default]
    Device,
    /// Managed memory, which migrates between host and device.
    Managed,
    /// Host memory: pointer attributes say host, and there is a host pointer.
    Host,
}

/// What a reset of a primary context does besides emptying it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resets {
    /// It ends a sticky error.
    #[default]
    Heal,
    /// It also gives up every retain of the context. The manual says that it does not.
    HealAndRelease,
    /// After a sticky error the process gets no context again: so did an H100 after an illegal
    /// address.
    Deny,
}

/// The description of a simulated device in a test.
///
/// # Examples
///
/// ```
/// use cuda_sim_engine::DeviceSpec;
///
/// let spec = DeviceSpec { capacity: 64 << 20, ecc: true, ..DeviceSpec::default() };
/// assert_eq!(spec.granularity, 512);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// The result of `cuDeviceGetName`, without the MIG profile.
    pub name: String,
    /// Bytes of memory, at most 2⁴⁴.
    pub capacity: u64,
    /// The UUID; the default is derived from the ordinal and unique in the process.
    pub uuid: Option<[u8; 16]>,
    /// PCI domain, bus and device; the default is derived from the ordinal.
    pub pci: Option<(u32, u8, u8)>,
    /// Compute capability, major and minor.
    pub compute_capability: (u8, u8),
    /// Whether error correction is on.
    pub ecc: bool,
    /// Whether the device has no memory of its own.
    pub integrated: bool,
    /// The kind of memory that `cuMemAlloc` returns.
    pub backing: Backing,
    /// The profile if the device is a slice of a card (`"1g.5gb"`); it becomes part of the name.
    pub mig: Option<String>,
    /// Bytes that other processes hold at first; see `Sim::set_foreign`.
    pub foreign: u64,
    /// Alignment of allocations and unit of accounting, in bytes: a power of two from 1 to 2³⁰.
    pub granularity: u64,
    /// Bytes that a context occupies while it exists.
    pub context_len: u64,
    /// Bytes that the driver takes for itself at a time, for streams, page tables of locked memory
    /// and code of its own, each at first use; 0 for a driver that takes none.
    pub overhead: u64,
    /// What a reset of the primary context does besides emptying it.
    pub resets: Resets,
    /// Whether its memory can be shared with other processes (`cuIpcGetMemHandle`).
    pub ipc: bool,
    /// Devices of one group reach each other; a device without a group reaches none.
    pub peer_group: Option<u32>,
    /// Number of multiprocessors.
    pub multiprocessors: u16,
    /// Seed of the content of fresh memory.
    pub seed: u64,
}

impl Default for DeviceSpec {
    fn default() -> Self {
        Self {
            name: "Simulated GPU".to_owned(),
            capacity: 1 << 30,
            uuid: None,
            pci: None,
            compute_capability: (9, 0),
            ecc: true,
            integrated: false,
            backing: Backing::Device,
            mig: None,
            foreign: 0,
            granularity: 512,
            context_len: 0,
            overhead: 0,
            resets: Resets::Heal,
            ipc: true,
            peer_group: Some(0),
            multiprocessors: 132,
            seed: 0,
        }
    }
}

impl DeviceSpec {
    /// The full name, as the driver reports it.
    pub(crate) fn full_name(&self) -> String {
        self.mig
            .as_ref()
            .map_or_else(|| self.name.clone(), |profile| format!("{} MIG {profile}", self.name))
    }

    /// Returns the fault of the description, if any.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.capacity > crate::memory::SPAN {
            return Err(format!("capacity {} is above 2^44 bytes", self.capacity));
        }
        if !self.granularity.is_power_of_two() || self.granularity > 1 << 30 {
            return Err(format!("granularity {} is no power of two to 2^30", self.granularity));
        }
        Ok(())
    }
}
