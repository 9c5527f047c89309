//! Managers in one call: for tests, and for every GPU of this machine.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_core::error::VramError;
use vram_gpu::Device;
use vram_seal::SealKey;

use crate::builder::VramManagerBuilder;
use crate::manager::VramManager;

impl VramManager {
    /// Makes a manager of one GPU in host memory, of `total` bytes, with a fresh random key. For
    /// tests and trials: host memory is taken at its first write.
    ///
    /// # Errors
    ///
    /// [`VramError::Config`] above 2^48 − 1 bytes; [`VramError::Key`] if the operating system
    /// provides no random bytes.
    pub fn new_mock(total: usize) -> Result<Self, VramError> {
        Self::new_mock_multi_gpu(vec![total])
    }

    /// Makes a manager of several GPUs in host memory: GPU `i` has `capacities[i]` bytes.
    ///
    /// # Errors
    ///
    /// As [`new_mock`](Self::new_mock); [`VramError::Config`] for an empty list.
    pub fn new_mock_multi_gpu(capacities: Vec<usize>) -> Result<Self, VramError> {
        let mut builder = Self::builder();
        for capacity in capacities {
            builder = builder.host_device(ByteLen::from_usize(capacity));
        }
        builder.build()
    }

    /// Starts building a manager from its parts.
    pub fn builder() -> VramManagerBuilder {
        VramManagerBuilder::new()
    }

    /// Makes a manager of every CUDA GPU of this machine, with nine tenths of the free memory of
    /// each. For other budgets, or only some GPUs, pass devices of
    /// [`detect_devices`](Self::detect_devices) to the [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// [`VramError::NoGpu`], which says why, if there is none, and in a build without the feature
    /// `cuda`; otherwise as [`VramManagerBuilder::build`](crate::VramManagerBuilder::build).
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
        match VramManager::detect(SealKey::from_bytes(&[1; 32])) {
            Ok(manager) => assert!(manager.gpu_count() > 0),
            Err(VramError::NoGpu { reason }) => assert!(reason.len() > 20, "{reason}"),
            Err(error) => panic!("{error}"),
        }
    }
}
