//! The properties of the VRAM residency property-testing guide, G1 to G13.
//!
//! Reference and method are described at the top of `guide/properties.rs`, which contains the
//! tests: the same properties also run over the simulated driver. G14 (time) is a benchmark,
//! `benches/facade.rs`.
//!
//! The devices are in host memory; with the feature `real-gpu`, the CUDA devices of this machine,
//! or host memory if there are none. `VRAM_TEST_DEVICE=host|cuda` overrides the choice. The test
//! prints which it used.

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

#[cfg(feature = "real-gpu")]
#[path = "guide/cuda.rs"]
mod cuda;

/// The devices and configuration of the properties.
mod home {
    use super::{ProptestConfig, VramError, VramManager};

    pub(crate) fn config() -> ProptestConfig {
        ProptestConfig::default()
    }

    pub(crate) fn manager(capacities: Vec<usize>) -> Result<VramManager, VramError> {
        #[cfg(feature = "real-gpu")]
        if let Some(ordinals) = real_gpus() {
            return super::cuda::manager(ordinals, capacities, vram_residency::Compute::default());
        }
        match capacities.as_slice() {
            [one] => VramManager::new_mock(*one),
            _ => VramManager::new_mock_multi_gpu(capacities),
        }
    }

    /// The CUDA devices of this machine, detected once; the result is printed.
    #[cfg(feature = "real-gpu")]
    fn real_gpus() -> Option<&'static [u32]> {
        use std::io::Write as _;
        use std::sync::{Arc, OnceLock};

        use vram_residency::Device as _;
        use vram_residency::device::CudaDevice;

        // They stay open, so that not every case creates a context and loads kernels.
        static FOUND: OnceLock<Option<(Vec<u32>, Vec<Arc<CudaDevice>>)>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let wanted = std::env::var("VRAM_TEST_DEVICE").unwrap_or_default();
            let detected = match wanted.as_str() {
                "host" => Err("VRAM_TEST_DEVICE=host".to_owned()),
                _ => CudaDevice::detect().map_err(|error| error.to_string()),
            };
            assert!(
                wanted != "cuda" || detected.is_ok(),
                "VRAM_TEST_DEVICE=cuda, and there is none: {detected:?}"
            );
            let (line, found) = match detected {
                Ok(devices) => {
                    let names = devices.iter().map(|device| device.info().name.clone());
                    let line = format!("on CUDA: {}", names.collect::<Vec<_>>().join(", "));
                    let ordinals = devices.iter().map(|device| device.ordinal()).collect();
                    (line, Some((ordinals, devices)))
                }
                Err(why) => (format!("on host memory: {why}"), None),
            };
            // Past the harness, which would capture it: the device in use must be visible.
            let _ = writeln!(std::io::stderr().lock(), "guide properties run {line}");
            found
        });
        found.as_ref().map(|(ordinals, _open)| ordinals.as_slice())
    }
}

include!("guide/properties.rs");
