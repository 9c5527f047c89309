//! The kernels of a GPU's device: whether they are used, why not, and how much they did.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_gpu::kernels::{KernelError, Kernels, NoKernels};

use crate::error::SpaceError;
use crate::gpu::Gpu;
use crate::gpu::compute::{Compute, KernelFigures, KernelWork, KernelsIdle, Known};
use crate::sync::lock;

impl Gpu {
    /// The kernels of the device, if they may be used now. Tells the owner when that changes.
    #[must_use]
    pub fn kernels(&self) -> Option<Arc<dyn Kernels>> {
        if self.compute == Compute::Host {
            return None;
        }
        if self.is_distrusted(*lock(&self.kernels.told)) {
            self.kernels.fallbacks.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        match self.device.kernels() {
            Ok(kernels) => Some(kernels),
            Err(NoKernels::NotOffered) => None,
            Err(why) => {
                self.kernels.fallbacks.fetch_add(1, Ordering::Relaxed);
                // Every start passes through this state.
                if why != NoKernels::Loading {
                    self.note(Known::Idle(KernelsIdle::Absent(why)));
                }
                None
            }
        }
    }

    /// Records what kept kernels from giving results. The caller computes on the host.
    ///
    /// # Errors
    ///
    /// The device is lost.
    pub fn fell_back(&self, error: KernelError) -> Result<(), SpaceError> {
        self.kernels.fallbacks.fetch_add(1, Ordering::Relaxed);
        match error {
            // Of these bytes, or of a kernel that is still loaded: others may do.
            KernelError::Unfit { why, .. } => {
                tracing::debug!(gpu = self.index, %why, "kernels do not apply");
            }
            KernelError::Device(error) => {
                let refused = self.failed(error);
                if matches!(refused, SpaceError::DeviceLost { .. }) {
                    return Err(refused);
                }
                self.note(Known::Idle(KernelsIdle::Refused));
            }
            _ => self.note(Known::Idle(KernelsIdle::Refused)),
        }
        Ok(())
    }

    /// Stops using the kernels until the device is reset: their answer cannot be right.
    pub fn distrust_kernels(&self) {
        self.kernels.fallbacks.fetch_add(1, Ordering::Relaxed);
        self.note(Known::Distrusted { epoch: self.life.epoch() });
    }

    /// Counts bytes that kernels have worked on.
    pub fn kernels_did(&self, work: KernelWork, bytes: ByteLen) {
        let [hashed, fingerprinted, tagged] = &self.kernels.done;
        let count = match work {
            KernelWork::Hash => hashed,
            KernelWork::Fingerprint => fingerprinted,
            KernelWork::Tag => tagged,
        };
        count.fetch_add(bytes.get(), Ordering::Relaxed);
        self.note(Known::Used);
    }

    /// Counts and tells segments that only the kernels called altered.
    pub fn kernels_disagreed(&self, segments: u64) {
        self.kernels.disagreements.fetch_add(segments, Ordering::Relaxed);
        tracing::error!(gpu = self.index, segments, "called altered by kernels, sound to the host");
        self.tenants.kernels_disagreed(self.index, segments);
    }

    /// A number that no other launch on this GPU gets.
    pub fn kernel_turn(&self) -> u64 {
        self.kernels.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// What the kernels did so far.
    #[must_use]
    pub fn kernel_figures(&self) -> KernelFigures {
        let [hashed, fingerprinted, tagged] =
            self.kernels.done.each_ref().map(|count| ByteLen::new(count.load(Ordering::Relaxed)));
        KernelFigures {
            used: *lock(&self.kernels.told) == Known::Used,
            hashed,
            fingerprinted,
            tagged,
            disagreements: self.kernels.disagreements.load(Ordering::Relaxed),
            fallbacks: self.kernels.fallbacks.load(Ordering::Relaxed),
        }
    }

    /// Whether what is known is an answer of this life that cannot be right.
    fn is_distrusted(&self, known: Known) -> bool {
        known == Known::Distrusted { epoch: self.life.epoch() }
    }

    fn note(&self, now: Known) {
        let mut told = lock(&self.kernels.told);
        // Nothing lifts a distrust but a reset: not a launch that was under way, either.
        if *told == now || self.is_distrusted(*told) {
            return;
        }
        *told = now;
        drop(told);
        let idle = match now {
            Known::Nothing | Known::Used => None,
            Known::Idle(why) => Some(why),
            Known::Distrusted { .. } => Some(KernelsIdle::WrongAnswer),
        };
        match &idle {
            None => tracing::info!(gpu = self.index, "kernels are used"),
            Some(why) => tracing::warn!(gpu = self.index, %why, "kernels are not used"),
        }
        self.tenants.kernels(self.index, idle);
    }
}
