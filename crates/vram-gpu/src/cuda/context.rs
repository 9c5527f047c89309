//! The primary context of a device: bound for each call, lost to sticky errors, renewed by resets.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};

use cust::context::Context;
use cust::device::Device as CustDevice;
use cust::sys::CUcontext;
use vram_alloc::{ByteLen, GpuIndex};

use super::driver::{self, log_failure};
use super::lane::{BOUNCE_LEN, Bounce, Lane, Locked};
use super::pages::Pages;
use crate::{GpuError, codes};

/// The cores that exist, by ordinal: a device has one primary context, so it has one core.
static CORES: Mutex<BTreeMap<u32, Weak<Core>>> = Mutex::new(BTreeMap::new());

/// A device of this process: its context and what belongs to it.
pub(super) struct Core {
    device: CustDevice,
    context: RwLock<Option<Context>>,
    // Raised by every reset, under the write lock.
    epoch: AtomicU64,
    // The code of the sticky error that took the device; zero for none.
    lost: AtomicU32,
    lanes: Mutex<Vec<Arc<Lane>>>,
    bounces: Mutex<Vec<Bounce>>,
    // Host pages that the driver may still have locked: kept until its context is gone.
    buried: Mutex<Vec<Pages>>,
}

/// A core under the index that one user knows it by.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) core: Arc<Core>,
    pub(super) gpu: GpuIndex,
}

impl Core {
    /// The core of a device, made if nobody has it open.
    pub(super) fn of(device: CustDevice, ordinal: u32) -> Result<Arc<Self>, u32> {
        let mut cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(core) = cores.get(&ordinal).and_then(Weak::upgrade) {
            return Ok(core);
        }
        let context = retain(device)?;
        let core = Arc::new(Self {
            device,
            context: RwLock::new(Some(context)),
            epoch: AtomicU64::new(0),
            lost: AtomicU32::new(0),
            lanes: Mutex::new(Vec::new()),
            bounces: Mutex::new(Vec::new()),
            buried: Mutex::new(Vec::new()),
        });
        cores.insert(ordinal, Arc::downgrade(&core));
        Ok(core)
    }

    pub(super) const fn device(&self) -> CustDevice {
        self.device
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The code that took the device, if one did.
    pub(super) fn lost(&self) -> Option<u32> {
        Some(self.lost.load(Ordering::Acquire)).filter(|&code| code != 0)
    }

    /// Takes the device away: the first error to do so is the one that is remembered.
    pub(super) fn lose(&self, code: u32) {
        let _first = self.lost.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Keeps pages that the driver may still have locked.
    pub(super) fn bury(&self, pages: Pages) {
        lock(&self.buried).push(pages);
    }

    /// Destroys the context with everything in it and starts an epoch with a new one.
    pub(super) fn reset(&self, gpu: GpuIndex) -> Result<(), GpuError> {
        let mut context = self.context.write().unwrap_or_else(PoisonError::into_inner);
        driver::through_cust(|| {
            // SAFETY: nobody is using the context: every call of this process holds the lock for
            // reading, and this is the only core of the device. Handles from before are told by
            // their epoch, which is raised below, and never passed on.
            unsafe { Context::reset(&self.device) }
        })
        .map_err(|code| GpuError::driver(gpu, code))?;

        self.epoch.fetch_add(1, Ordering::AcqRel);
        // Their handles died with the context. Lanes never destroy themselves.
        lock(&self.lanes).clear();
        lock(&self.bounces).clear();
        lock(&self.buried).clear();
        // The new one first: the old one's release then only lowers the count.
        match retain(self.device) {
            Ok(fresh) => {
                *context = Some(fresh);
                self.lost.store(0, Ordering::Release);
                Ok(())
            }
            Err(code) => {
                self.lost.store(code, Ordering::Release);
                Err(GpuError::driver(gpu, code))
            }
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let lost = self.lost().is_some();
        let context = self.context.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(context) = context else { return };
        // SAFETY: the context is retained until the end of this function, and popped before.
        if !lost && unsafe { driver::push(context.as_raw()) }.is_ok() {
            let lanes = self.lanes.get_mut().unwrap_or_else(PoisonError::into_inner);
            for lane in lanes.drain(..) {
                if let Some(lane) = Arc::into_inner(lane) {
                    lane.destroy();
                }
            }
            let bounces = self.bounces.get_mut().unwrap_or_else(PoisonError::into_inner);
            for bounce in bounces.drain(..) {
                bounce.unlock();
            }
            log_failure("leaving the context", driver::pop());
        }
        log_failure("releasing the context", driver::through_cust(|| release(context)));
        // Fields drop after this: buried and pooled pages, which no context knows any more.
    }
}

/// Retains the primary context, leaving the thread's current context as it is.
fn retain(device: CustDevice) -> Result<Context, u32> {
    driver::keeping_current(|| driver::through_cust(|| Context::new(device)))
}

fn release(context: Context) -> cust::error::CudaResult<()> {
    Context::drop(context).map_err(|(error, context)| {
        // Dropping it would try once more; a context that cannot be released is left alone.
        core::mem::forget(context);
        error
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The context, held in place: no reset while this exists.
pub(super) struct Held<'p> {
    context: RwLockReadGuard<'p, Option<Context>>,
    port: &'p Port,
}

/// The context, current on this thread until this is dropped.
pub(super) struct Bound<'p> {
    held: Held<'p>,
}

impl Port {
    /// Holds the context, for an operation on handles of that epoch.
    ///
    /// A thread that has one must not ask for the same device's again: a reset that waits between
    /// the two would stop both.
    pub(super) fn hold(&self, epoch: Option<u64>) -> Result<Held<'_>, GpuError> {
        let context = self.core.context.read().unwrap_or_else(PoisonError::into_inner);
        if epoch.is_some_and(|epoch| epoch != self.core.epoch()) {
            return Err(GpuError::StaleAllocation { gpu: self.gpu });
        }
        self.ready()?;
        Ok(Held { context, port: self })
    }

    /// Holds the context and makes it current.
    pub(super) fn bind(&self, epoch: Option<u64>) -> Result<Bound<'_>, GpuError> {
        self.hold(epoch)?.bind()
    }

    /// Refuses if the device is lost.
    pub(super) fn ready(&self) -> Result<(), GpuError> {
        match self.core.lost() {
            Some(code) => Err(GpuError::Lost { gpu: self.gpu, code, name: codes::name(code) }),
            None => Ok(()),
        }
    }

    /// The error for a code; a sticky one takes the device.
    pub(super) fn fail(&self, code: u32) -> GpuError {
        self.heed(GpuError::driver(self.gpu, code))
    }

    /// The same error; if it is the driver's and sticky, the device is taken.
    fn heed(&self, error: GpuError) -> GpuError {
        if let GpuError::Driver { code, sticky: true, .. } = error {
            self.core.lose(code);
        }
        error
    }
}

impl<'p> Held<'p> {
    /// The raw handle, alive as long as this is.
    pub(super) fn raw(&self) -> CUcontext {
        self.context.as_ref().map_or(core::ptr::null_mut(), Context::as_raw)
    }

    /// Makes the context current on this thread.
    pub(super) fn bind(self) -> Result<Bound<'p>, GpuError> {
        // SAFETY: the context is alive while it is held, and `Bound` holds it until it pops.
        unsafe { driver::push(self.raw()) }.map_err(|code| self.port.fail(code))?;
        Ok(Bound { held: self })
    }
}

impl<'p> Bound<'p> {
    pub(super) fn raw(&self) -> CUcontext {
        self.held.raw()
    }

    pub(super) const fn port(&self) -> &'p Port {
        self.held.port
    }

    pub(super) fn fail(&self, code: u32) -> GpuError {
        self.held.port.fail(code)
    }

    /// Runs work on a lane and leaves nothing of it in flight, whatever it answers.
    pub(super) fn on_lane(
        &self,
        work: impl FnOnce(&Lane) -> Result<(), u32>,
    ) -> Result<(), GpuError> {
        let lane = self.lane()?;
        let outcome = work(&lane).or_else(|code| self.settle(&lane, code));
        self.put_lane(lane);
        outcome.map_err(|code| self.fail(code))
    }

    /// After a failure: waits until nothing on the lane is under way. Answers the failure.
    ///
    /// If even that cannot be waited for, the device is taken away: bytes that may still be
    /// written to must not be used again.
    pub(super) fn settle(&self, lane: &Lane, code: u32) -> Result<(), u32> {
        if !codes::is_sticky(code)
            && let Err(second) = lane.wait()
        {
            self.port().core.lose(second);
        }
        Err(code)
    }

    /// A lane from the pool, or a new one.
    pub(super) fn lane(&self) -> Result<Arc<Lane>, GpuError> {
        let pooled = lock(&self.port().core.lanes).pop();
        pooled.map_or_else(|| Lane::new().map(Arc::new).map_err(|code| self.fail(code)), Ok)
    }

    /// Gives a lane back whose work was waited for.
    pub(super) fn put_lane(&self, lane: Arc<Lane>) {
        lock(&self.port().core.lanes).push(lane);
    }

    /// A pair of bounce buffers from the pool, or a new one.
    pub(super) fn bounce(&self) -> Result<Bounce, GpuError> {
        let pooled = lock(&self.port().core.bounces).pop();
        if let Some(pooled) = pooled {
            return Ok(pooled);
        }
        let len = ByteLen::from_usize(BOUNCE_LEN);
        let mut first = self.lock_pages(len)?;
        match self.lock_pages(len) {
            Ok(second) => Ok(Bounce::of([first, second])),
            Err(error) => {
                if first.unlock().is_err() {
                    self.port().core.bury(first.take_pages());
                }
                Err(error)
            }
        }
    }

    /// Host pages, locked by the driver if it would.
    pub(super) fn lock_pages(&self, len: ByteLen) -> Result<Locked, GpuError> {
        let port = self.port();
        Locked::new(port.gpu, len).map_err(|error| port.heed(error))
    }

    /// Gives buffers back that no copy uses.
    pub(super) fn put_bounce(&self, bounce: Bounce) {
        lock(&self.port().core.bounces).push(bounce);
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        log_failure("leaving the context", driver::pop());
    }
}

impl fmt::Debug for Core {
    /// Handles are addresses in disguise and are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("epoch", &self.epoch())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}
