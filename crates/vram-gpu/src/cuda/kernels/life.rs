//! What the kernels of a device have from the driver, in one life of its memory: from their loading
//! to its next reset.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use vram_alloc::ByteLen;

use super::super::allocation::Allocation;
use super::super::context::{Bound, Port};
use super::super::driver::log_failure;
use super::super::memory::CudaMemory;
use super::job;
use super::module::Module;
use super::pool::Pool;
use super::slot::{SLOT_LEN, Slot};
use crate::GpuError;

/// Slots: two for each of two callers.
const SLOTS: usize = 4;

/// Device memory of all slots.
pub(super) const SCRATCH_LEN: usize = SLOTS * SLOT_LEN;

const _: () = assert!(SCRATCH_LEN <= 2 << 20);

/// Scratch memory with its slots, and modules. Dropping it gives everything back, where the device
/// takes calls.
pub(super) struct Life {
    port: Port,
    scratch: Allocation,
    pool: Pool<Slot>,
    modules: Mutex<Vec<Module>>,
    wrong: AtomicBool,
}

impl Life {
    /// Takes scratch memory. Binds the context for itself.
    ///
    /// # Errors
    ///
    /// [`GpuError::OutOfMemory`], and those of any call.
    pub(super) fn new(port: &Port) -> Result<Self, GpuError> {
        let scratch = Allocation::new(port, ByteLen::from_usize(SCRATCH_LEN))?;
        let (pool, modules) = (Pool::new(), Mutex::new(Vec::new()));
        let life =
            Self { port: port.clone(), scratch, pool, modules, wrong: AtomicBool::new(false) };
        // From here on its drop gives back what there is.
        let bound = port.bind(Some(life.epoch()))?;
        let made = life.fill_pool(&bound);
        drop(bound);
        made.map(|()| life)
    }

    fn fill_pool(&self, bound: &Bound<'_>) -> Result<(), GpuError> {
        for number in 0..SLOTS {
            let offset = ByteLen::from_usize(number.saturating_mul(SLOT_LEN)).get();
            let mut slot = Slot::new(bound, self.scratch.address.saturating_add(offset))?;
            // It has the bytes of whoever had the memory before.
            let cleared = slot.clear();
            self.pool.put(slot);
            cleared.map_err(|code| bound.fail(code))?;
        }
        Ok(())
    }

    /// The epoch of the device's memory.
    pub(super) const fn epoch(&self) -> u64 {
        self.scratch.epoch
    }

    pub(super) const fn port(&self) -> &Port {
        &self.port
    }

    /// Keeps a module, to unload it at the end.
    pub(super) fn keep(&self, module: Module) {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner).push(module);
    }

    /// Whether a kernel gave what it never should.
    pub(super) fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Acquire)
    }

    /// Says that one did.
    pub(super) fn is_wrong_from_now_on(&self) {
        self.wrong.store(true, Ordering::Release);
    }

    /// Runs a job over spans that are checked.
    ///
    /// # Safety
    ///
    /// The spans and the kernels of the job are alive until this returns, in the bound context,
    /// which is of this epoch.
    pub(super) unsafe fn run(
        &self,
        bound: &Bound<'_>,
        job: &mut impl job::Job,
    ) -> Result<(), GpuError> {
        // SAFETY: as the caller promises; scratch memory lives as long as this value.
        unsafe { job::run(bound, &self.pool, job) }
    }

    /// Lends the memory of a slot for a trial, and overwrites it afterwards. The context is not
    /// bound.
    ///
    /// # Errors
    ///
    /// Those of the trial, or of any call.
    pub(super) fn lend<T, E: From<GpuError>>(
        &self,
        len: ByteLen,
        trial: impl FnOnce(&CudaMemory) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut slot = self.pool.take();
        slot.soil();
        let len = len.min(ByteLen::from_usize(SLOT_LEN));
        let memory = CudaMemory::of_others(&self.port, slot.start(), len, self.epoch());
        let answer = trial(&memory);
        let bound = self.port.bind(Some(self.epoch()));
        if let Ok(bound) = &bound {
            slot.settle(bound);
        }
        self.pool.put(slot);
        bound?;
        answer
    }
}

impl Drop for Life {
    /// Never runs while this thread has the device bound: calls hold this value for longer.
    fn drop(&mut self) {
        let slots = self.pool.drain();
        let modules = self.modules.get_mut().unwrap_or_else(PoisonError::into_inner);
        match self.port.bind(Some(self.scratch.epoch)) {
            Ok(bound) => {
                for slot in slots {
                    slot.destroy(&bound);
                }
                for module in modules.drain(..) {
                    log_failure("unloading kernels", module.unload());
                }
            }
            // The page locks ended with the context.
            Err(GpuError::StaleAllocation { .. }) => {
                for slot in slots {
                    drop(slot.bury());
                }
            }
            // Still page-locked by a device that takes no calls.
            Err(_) => {
                for slot in slots {
                    self.port.core.bury(slot.bury());
                }
            }
        }
        if let Err(error) = self.scratch.release() {
            tracing::warn!(%error, "scratch memory was not freed");
        }
    }
}
