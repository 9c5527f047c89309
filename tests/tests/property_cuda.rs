//! The properties of the VRAM residency property-testing guide, G1 to G13, over CUDA devices on the
//! simulated driver: the same tests as over host memory, through cust and the driver shim.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "the inputs are the test's own"
)]

#[macro_use]
extern crate vram_testkit;

#[path = "../../crates/vram-residency/tests/guide/cuda.rs"]
mod cuda;

/// The devices of the properties: three devices, two of which reach each other; a property that
/// needs more reuses them in turns.
mod home {
    use std::sync::OnceLock;

    use cuda_sim::{DeviceSpec, Sim};
    use vram_residency::Compute;

    use super::{ProptestConfig, VramError, VramManager};

    /// A quarter of the usual cases, unless `PROPTEST_CASES` requests more: the simulated driver
    /// checks every call, which takes time.
    pub(crate) fn config() -> ProptestConfig {
        let config = ProptestConfig::default();
        ProptestConfig { cases: config.cases.div_ceil(4), ..config }
    }

    pub(crate) fn manager(capacities: Vec<usize>) -> Result<VramManager, VramError> {
        static DEVICES: OnceLock<Vec<u32>> = OnceLock::new();
        let ordinals = DEVICES.get_or_init(|| {
            cuda_sim::install();
            let add = |device| {
                let peer_group = (device % 2 == 0).then_some(1);
                Sim::add_device(DeviceSpec {
                    capacity: 1 << 40,
                    peer_group,
                    ..DeviceSpec::default()
                })
            };
            (0..3).map(add).collect()
        });
        // A simulated card runs kernels slowly: suites of their own are about them.
        super::cuda::manager(ordinals, capacities, Compute::Host)
    }
}

include!("../../crates/vram-residency/tests/guide/properties.rs");
