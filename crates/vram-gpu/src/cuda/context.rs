//! The primary context of a device: bound for each call, lost after a sticky error, renewed by a
//! reset.

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

/// The existing cores, by ordinal: a device has one primary context, so it has one core.
static CORES: Mutex<BTreeMap<u32, Weak<Core>>> = Mutex::new(BTreeMap::new());

/// A device of this process: its primary context and the values that depend on it.
pub(super) struct Core {
    device: CustDevice,
    context: RwLock<Option<Context>>,
    // Incremented by every reset, under the write lock.
    epoch: AtomicU64,
    // The code of the sticky error that made the device unusable; zero for none.
    lost: AtomicU32,
    // Codes in a row that are no answer: see `codes::is_no_answer`.
    unanswered: AtomicU32,
    lanes: Mutex<Vec<Arc<Lane>>>,
    bounces: Mutex<Vec<Bounce>>,
    // Host pages that the driver may still have locked: kept until its context is destroyed.
    buried: Mutex<Vec<Pages>>,
}

/// So many codes in a row that are no answer, and the device is lost.
const UNANSWERED_MAX: u32 = 3;

/// A core together with the index that one user gave the device.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) core: Arc<Core>,
    pub(super) gpu: GpuIndex,
}

impl Core {
    /// Returns the core of a device; creates it if the device is not open.
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
            unanswered: AtomicU32::new(0),
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

    /// The code of the sticky error, if the device is lost.
    pub(super) fn lost(&self) -> Option<u32> {
        Some(self.lost.load(Ordering::Acquire)).filter(|&code| code != 0)
    }

    /// Marks the device as lost. The first code is kept.
    pub(super) fn lose(&self, code: u32) {
        let _first = self.lost.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Notes that the device did what it was asked, or said why not.
    pub(super) fn answered(&self) {
        self.unanswered.store(0, Ordering::Release);
    }

    /// Keeps pages that the driver may still have locked.
    pub(super) fn bury(&self, pages: Pages) {
        lock(&self.buried).push(pages);
    }

    /// Destroys the context with everything in it, and starts an epoch with a new context.
    pub(super) fn reset(&self, gpu: GpuIndex) -> Result<(), GpuError> {
        let mut context = self.context.write().unwrap_or_else(PoisonError::into_inner);
        driver::through_cust(|| {
            // SAFETY: no thread uses the context: every call of this process holds the lock for
            // reading, and this is the only core of the device. Handles from before have an older
            // epoch than the one that is set below, and are never passed to the driver.
            unsafe { Context::reset(&self.device) }
        })
        .map_err(|code| GpuError::driver(gpu, code))?;

        self.epoch.fetch_add(1, Ordering::AcqRel);
        // Their handles are invalid since the reset. Dropping a lane makes no driver call.
        lock(&self.lanes).clear();
        lock(&self.bounces).clear();
        lock(&self.buried).clear();
        // Given up before the new one is taken: where a reset gives up every retain, as the manual
        // says that it does not, a release after that would destroy the new context.
        if let Some(old) = context.take() {
            let _refused_there = driver::through_cust(|| release(old));
        }
        match retain(self.device).and_then(probed) {
            Ok(fresh) => {
                *context = Some(fresh);
                self.answered();
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
        // Fields are dropped after this: pages that are buried or pooled, which no context has
        // locked any more.
    }
}

/// Retains the primary context and leaves the thread's current context unchanged.
fn retain(device: CustDevice) -> Result<Context, u32> {
    driver::keeping_current(|| driver::through_cust(|| Context::new(device)))
}

/// Returns the context if a call in it succeeds; gives it up otherwise.
fn probed(context: Context) -> Result<Context, u32> {
    // SAFETY: the context is retained, and popped before anything else.
    let answer = unsafe { driver::push(context.as_raw()) }.and_then(|()| {
        let answer = driver::through_cust(cust::memory::mem_get_info).map(drop);
        driver::pop().and(answer)
    });
    match answer {
        Ok(()) => Ok(context),
        Err(code) => {
            log_failure("releasing the context", driver::through_cust(|| release(context)));
            Err(code)
        }
    }
}

fn release(context: Context) -> cust::error::CudaResult<()> {
    Context::drop(context).map_err(|(error, context)| {
        // Dropping it would try to release it once more; a context that cannot be released is
        // leaked.
        core::mem::forget(context);
        error
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The context, held for reading: no reset runs while this value exists.
pub(super) struct Held<'p> {
    context: RwLockReadGuard<'p, Option<Context>>,
    port: &'p Port,
}

/// The context, held for reading and current on this thread until this value is dropped.
pub(super) struct Bound<'p> {
    held: Held<'p>,
}

impl Port {
    /// Holds the context, for an operation on handles of that epoch.
    ///
    /// A thread that holds the context of a device must not call this again for the same device: if
    /// a reset waits for the lock between the two calls, both would deadlock.
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

    /// Returns an error if the device is lost.
    pub(super) fn ready(&self) -> Result<(), GpuError> {
        match self.core.lost() {
            Some(code) => Err(GpuError::Lost { gpu: self.gpu, code, name: codes::name(code) }),
            None => Ok(()),
        }
    }

    /// The error for a code. A sticky code marks the device as lost, and so does the last of
    /// several in a row that are no answer.
    pub(super) fn fail(&self, code: u32) -> GpuError {
        self.heed(GpuError::driver(self.gpu, code), UNANSWERED_MAX)
    }

    /// As [`fail`](Self::fail), for a call that only asks: a device that works always answers it.
    pub(super) fn fail_for_good(&self, code: u32) -> GpuError {
        self.heed(GpuError::driver(self.gpu, code), 1)
    }

    /// Returns the same error, sticky if it is what makes the device lost.
    fn heed(&self, mut error: GpuError, unanswered_max: u32) -> GpuError {
        let GpuError::Driver { code, ref mut sticky, .. } = error else { return error };
        if *sticky {
            self.core.lose(code);
        } else if !codes::is_no_answer(code) {
            self.core.answered();
        } else if self.core.lost().is_none() {
            let before = self.core.unanswered.fetch_add(1, Ordering::AcqRel);
            if before.saturating_add(1) >= unanswered_max {
                self.core.lose(code);
                *sticky = true;
            }
        }
        error
    }
}

impl<'p> Held<'p> {
    /// The raw handle, valid while this value exists.
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

    /// See [`Port::fail_for_good`].
    pub(super) fn fail_for_good(&self, code: u32) -> GpuError {
        self.held.port.fail_for_good(code)
    }

    /// Runs work on a lane and waits until all of it has ended, also after a failure.
    pub(super) fn on_lane(
        &self,
        work: impl FnOnce(&Lane) -> Result<(), u32>,
    ) -> Result<(), GpuError> {
        let lane = self.lane()?;
        let outcome = work(&lane).or_else(|code| self.settle(&lane, code));
        self.put_lane(lane);
        if outcome.is_ok() {
            self.port().core.answered();
        }
        outcome.map_err(|code| self.fail(code))
    }

    /// After a failure: waits until the lane has no running work, and returns the failure.
    ///
    /// If the wait fails too, the device is marked as lost: the driver may still write to those
    /// bytes, so they must not be used again.
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

    /// Returns a lane to the pool after its work was waited for.
    pub(super) fn put_lane(&self, lane: Arc<Lane>) {
        lock(&self.port().core.lanes).push(lane);
    }

    /// Takes a pair of bounce buffers from the pool, or creates one.
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

    /// Host pages, page-locked if the driver agrees.
    pub(super) fn lock_pages(&self, len: ByteLen) -> Result<Locked, GpuError> {
        let port = self.port();
        Locked::new(port.gpu, len).map_err(|error| port.heed(error, UNANSWERED_MAX))
    }

    /// Returns buffers that no copy uses to the pool.
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
    /// Handles are addresses and are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("epoch", &self.epoch())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}
