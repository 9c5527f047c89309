//! Finding the GPUs of this machine.

use std::sync::Arc;

use vram_gpu::Device;
use vram_seal::SealKey;

use crate::error::VramError;
use crate::manager::VramManager;

impl VramManager {
    /// A manager over every CUDA GPU of this machine, nine tenths of what is free of each. For
    /// other budgets, or only some of them, hand those of [`detect_devices`](Self::detect_devices) to the
    /// [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// [`VramError::NoGpu`] in words if there is none, and in a build without the feature `cuda`;
    /// otherwise as [`VramManagerBuilder::build`](crate::VramManagerBuilder::build).
    pub fn detect(key: SealKey) -> Result<Self, VramError> {
        Self::builder().devices(Self::detect_devices()?).key(key).build()
    }

    /// Every CUDA GPU of this machine that can be used, in the driver's order.
    ///
    /// # Errors
    ///
    /// [`VramError::NoGpu`] as for [`detect`](Self::detect).
    #[cfg(feature = "cuda")]
    pub fn detect_devices() -> Result<Vec<Arc<dyn Device>>, VramError> {
        let found = vram_gpu::CudaDevice::detect()
            .map_err(|error| VramError::NoGpu { reason: error.to_string() })?;
        Ok(found.into_iter().map(|device| -> Arc<dyn Device> { device }).collect())
    }

    /// Every CUDA GPU of this machine: none in a build without the feature `cuda`.
    ///
    /// # Errors
    ///
    /// [`VramError::NoGpu`] always.
    #[cfg(not(feature = "cuda"))]
    pub fn detect_devices() -> Result<Vec<Arc<dyn Device>>, VramError> {
        Err(VramError::NoGpu { reason: "this program was built without the feature `cuda`".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_there_is_a_gpu_or_the_error_says_why_not() {
        match VramManager::detect(SealKey::from_bytes([1; 32])) {
            Ok(manager) => assert!(manager.gpu_count() > 0),
            Err(VramError::NoGpu { reason }) => assert!(reason.len() > 20, "{reason}"),
            Err(error) => panic!("{error}"),
        }
    }
}
