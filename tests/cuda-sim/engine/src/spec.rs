//! What a simulated device is like.

/// What the memory of a device really is. A driver may answer any of these for `cuMemAlloc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// Memory of the device: pointer attributes say device, no host pointer, not managed.
    #[default]
    Device,
    /// Managed memory, which wanders between host and device.
    Managed,
    /// Host memory: pointer attributes say host, and there is a host pointer.
    Host,
}

/// A simulated device, as a test describes it.
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
    /// What `cuDeviceGetName` answers, before the MIG profile if there is one.
    pub name: String,
    /// Bytes of memory, at most 2⁴⁴.
    pub capacity: u64,
    /// The UUID; by default one that is made from the ordinal and is unique in the process.
    pub uuid: Option<[u8; 16]>,
    /// PCI domain, bus and device; by default made from the ordinal.
    pub pci: Option<(u32, u8, u8)>,
    /// Compute capability, major and minor.
    pub compute_capability: (u8, u8),
    /// Whether error correction is on.
    pub ecc: bool,
    /// Whether the device has no memory of its own.
    pub integrated: bool,
    /// What `cuMemAlloc` really gives.
    pub backing: Backing,
    /// The profile if the device is a slice of a card (`"1g.5gb"`); it becomes part of the name.
    pub mig: Option<String>,
    /// Bytes that other processes hold at first; see `Sim::set_foreign`.
    pub foreign: u64,
    /// Alignment of allocations and unit of accounting, in bytes: a power of two from 1 to 2³⁰.
    pub granularity: u64,
    /// Bytes that a context takes by itself while there is one.
    pub context_len: u64,
    /// Devices of one group reach each other; a device without a group reaches none.
    pub peer_group: Option<u32>,
    /// Number of multiprocessors.
    pub multiprocessors: u16,
    /// Seed of what fresh memory holds.
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
            peer_group: Some(0),
            multiprocessors: 132,
            seed: 0,
        }
    }
}

impl DeviceSpec {
    /// The full name, as the driver tells it.
    pub(crate) fn full_name(&self) -> String {
        self.mig
            .as_ref()
            .map_or_else(|| self.name.clone(), |profile| format!("{} MIG {profile}", self.name))
    }

    /// What is wrong with it, if anything.
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
