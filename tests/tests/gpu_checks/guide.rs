//! The properties G1 to G13 of the VRAM residency property-testing guide, on this machine's
//! devices.

#[path = "../../../crates/vram-residency/tests/guide/cuda.rs"]
mod cuda;

/// The devices and configuration of the properties.
mod home {
    use vram_gpu::Device as _;
    use vram_residency::Compute;

    use super::{ProptestConfig, VramError, VramManager};

    /// An eighth of the usual cases, unless `PROPTEST_CASES` requests more: each case allocates and
    /// frees a region of a real device.
    pub(crate) fn config() -> ProptestConfig {
        let config = ProptestConfig::default();
        let cases = config.cases.div_ceil(8);
        // This binary may run on another machine, where the source is not available.
        ProptestConfig { cases, failure_persistence: None, ..config }
    }

    pub(crate) fn manager(capacities: Vec<usize>) -> Result<VramManager, VramError> {
        // They stay open, so that not every case creates a context.
        let devices = crate::machine::devices();
        let ordinals: Vec<u32> = devices.iter().map(|device| device.ordinal()).collect();
        // A simulated card runs kernels slowly, and has suites of its own for them.
        let simulated = devices.iter().any(|device| device.info().name.starts_with("Simulated"));
        let compute = if simulated { Compute::Host } else { Compute::default() };
        super::cuda::manager(&ordinals, capacities, compute)
    }
}

include!("../../../crates/vram-residency/tests/guide/properties.rs");
