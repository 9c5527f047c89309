//! The properties of the VRAM residency property-testing guide, G1 to G13, over host devices.
//!
//! Reference and method stand at the top of `guide/properties.rs`, which holds the bodies: the
//! same properties run over CUDA devices elsewhere. G14 (time) is a benchmark, `benches/facade.rs`.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "the inputs are the test's own"
)]

/// Where the properties run: host devices.
mod home {
    use super::{VramError, VramManager};

    pub(crate) fn manager(capacities: Vec<usize>) -> Result<VramManager, VramError> {
        match capacities.as_slice() {
            [one] => VramManager::new_mock(*one),
            _ => VramManager::new_mock_multi_gpu(capacities),
        }
    }
}

include!("guide/properties.rs");
