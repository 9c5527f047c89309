//! Streams with their events, and the page-locked buffers through which bytes of unlocked memory
//! are copied.

use cust::sys::CUstream;
use vram_alloc::{ByteLen, GpuIndex};

use super::driver::{self, log_failure};
use super::pages::Pages;
use super::stream::{Event, Stream};
use crate::{GpuError, codes};

/// Bytes of one bounce buffer: large enough that the driver call is cheap compared with the copy,
/// small enough that the buffer is still in the processor's cache when the device reads it.
pub(super) const BOUNCE_LEN: usize = 1 << 20;

/// A stream with two events, for one operation at a time.
///
/// Dropping it makes no driver call: after a reset its handles are invalid, and passing them to the
/// driver is undefined behaviour.
pub(super) struct Lane {
    stream: Stream,
    events: [Event; 2],
}

impl Lane {
    /// Creates a lane in the context that is bound to this thread.
    ///
    /// # Errors
    ///
    /// The driver's code.
    pub(super) fn new() -> Result<Self, u32> {
        let stream = Stream::new()?;
        let first = match Event::new() {
            Ok(first) => first,
            Err(code) => {
                destroy(stream, []);
                return Err(code);
            }
        };
        match Event::new() {
            Ok(second) => Ok(Self { stream, events: [first, second] }),
            Err(code) => {
                destroy(stream, [first]);
                Err(code)
            }
        }
    }

    /// The handle of its stream, alive as long as the lane.
    pub(super) const fn stream(&self) -> CUstream {
        self.stream.as_raw()
    }

    /// Records one of the two events behind all work queued so far.
    pub(super) fn mark(&self, which: usize) -> Result<(), u32> {
        self.event(which).record(&self.stream)
    }

    /// Waits for one of the two events. Returns the error of the work before it, if that failed.
    pub(super) fn wait_for(&self, which: usize) -> Result<(), u32> {
        self.event(which).wait()
    }

    /// Waits for all queued work.
    pub(super) fn wait(&self) -> Result<(), u32> {
        self.stream.wait()
    }

    /// Destroys stream and events; their context is bound.
    pub(super) fn destroy(self) {
        destroy(self.stream, self.events);
    }

    const fn event(&self, which: usize) -> &Event {
        let [even, odd] = &self.events;
        if which.is_multiple_of(2) { even } else { odd }
    }
}

/// Destroys the parts of a lane; their context is bound.
fn destroy<const N: usize>(stream: Stream, events: [Event; N]) {
    for event in events {
        log_failure("destroying an event", event.destroy());
    }
    log_failure("destroying a stream", stream.destroy());
}

/// Two page-locked buffers: the host fills one while the device copies the other.
pub(super) struct Bounce {
    buffers: [Locked; 2],
    used: usize,
}

/// Host pages, page-locked if the driver agrees.
#[derive(Debug)]
pub(super) struct Locked {
    pages: Pages,
    locked: bool,
}

impl Locked {
    /// Allocates pages and locks them, in the context that is bound to this thread. If the driver
    /// refuses the lock with an error that is not sticky, the pages stay unlocked: copies are then
    /// slower but correct.
    ///
    /// # Errors
    ///
    /// [`GpuError::HostMemory`]; or a sticky error, which the caller has to handle.
    pub(super) fn new(gpu: GpuIndex, len: ByteLen) -> Result<Self, GpuError> {
        let mut pages = Pages::new(len)?;
        let (start, spanned) = pages.span();
        // SAFETY: the pages belong to this buffer and have the stated length. They are freed only
        // after `unlock`, or after the context is destroyed: see `Core::bury`.
        let locked = match unsafe { driver::register(start, spanned) } {
            Ok(()) => true,
            Err(code) if codes::is_sticky(code) => return Err(GpuError::driver(gpu, code)),
            Err(code) => {
                let bytes = len.get();
                tracing::warn!(%gpu, bytes, code, "host memory is not page-locked");
                false
            }
        };
        Ok(Self { pages, locked })
    }

    pub(super) const fn is_locked(&self) -> bool {
        self.locked
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.pages.as_slice()
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.pages.as_mut_slice()
    }

    /// Unlocks the pages, in a bound context. No copy may use them.
    ///
    /// # Errors
    ///
    /// The driver's code; the pages are then still locked.
    pub(super) fn unlock(&mut self) -> Result<(), u32> {
        if self.locked {
            let (start, _) = self.pages.span();
            // SAFETY: no copy uses the pages, since every user waits for its copies before it
            // releases the pages.
            unsafe { driver::unregister(start) }?;
            self.locked = false;
        }
        Ok(())
    }

    /// Takes the pages out, for burying.
    pub(super) fn take_pages(&mut self) -> Pages {
        self.locked = false;
        core::mem::take(&mut self.pages)
    }
}

impl Bounce {
    /// A pair of two buffers of [`BOUNCE_LEN`] bytes.
    pub(super) const fn of(buffers: [Locked; 2]) -> Self {
        Self { buffers, used: 0 }
    }

    /// The first `len` bytes of one of the two buffers.
    pub(super) fn part(&mut self, which: usize, len: usize) -> &mut [u8] {
        self.used = self.used.max(len);
        let [even, odd] = &mut self.buffers;
        let buffer = if which.is_multiple_of(2) { even } else { odd };
        buffer.as_mut_slice().get_mut(..len).unwrap_or_default()
    }

    /// Overwrites the bytes that were copied through the buffers.
    pub(super) fn wipe(&mut self) {
        let used = self.used;
        for buffer in &mut self.buffers {
            let passed = buffer.as_mut_slice().get_mut(..used).unwrap_or_default();
            zeroize::Zeroize::zeroize(passed);
        }
        self.used = 0;
    }

    /// Unlocks both buffers, in a bound context, and frees their memory.
    pub(super) fn unlock(self) {
        for mut buffer in self.buffers {
            if let Err(code) = buffer.unlock() {
                log_failure("unlocking host memory", Err(code));
                // Still locked: after a free, other values could be placed there while the driver
                // has it locked.
                core::mem::forget(buffer.take_pages());
            }
        }
    }

    /// Both buffers' pages, for burying.
    pub(super) fn into_pages(self) -> [Pages; 2] {
        self.buffers.map(|mut buffer| buffer.take_pages())
    }
}
