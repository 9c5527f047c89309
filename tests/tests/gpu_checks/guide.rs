//! The properties G1 to G13 of the VRAM residency property-testing guide, on the devices there are.

#[path = "../../../crates/vram-residency/tests/guide/cuda.rs"]
mod cuda;

/// Where the properties run.
mod home {
    use std::sync::{Arc, OnceLock};

    use vram_gpu::CudaDevice;

    use super::{ProptestConfig, VramError, VramManager};

    /// An eighth of the usual cases, unless `PROPTEST_CASES` asks for more: each takes a region of a
    /// real device and gives it back.
    pub(crate) fn config() -> ProptestConfig {
        let config = ProptestConfig::default();
        let cases = config.cases.div_ceil(8);
        // The source is not where this binary may have been carried.
        ProptestConfig { cases, failure_persistence: None, ..config }
    }

    pub(crate) fn manager(capacities: Vec<usize>) -> Result<VramManager, VramError> {
        // Held, so that not every case makes a context of its own, which takes its time.
        static DEVICES: OnceLock<Vec<Arc<CudaDevice>>> = OnceLock::new();
        let devices = DEVICES.get_or_init(crate::machine::devices);
        let ordinals: Vec<u32> = devices.iter().map(|device| device.ordinal()).collect();
        super::cuda::manager(&ordinals, capacities)
    }
}

include!("../../../crates/vram-residency/tests/guide/properties.rs");
