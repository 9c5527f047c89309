//! A place for the work of one launch: a stream, a part of the scratch memory, and a page-locked
//! host buffer twice as long.
//!
//! A kernel writes where its list says. So the list is read back into the second half of the buffer
//! and compared before the kernel starts: a copy that returned success can still be wrong.

use vram_alloc::ByteLen;
use zeroize::Zeroize;

use super::super::context::Bound;
use super::super::driver::{self, log_failure};
use super::super::lane::Locked;
use super::super::pages::Pages;
use super::super::stream::{Event, Stream};
use crate::{GpuError, codes};

/// Bytes of a slot on the device, and of each half of its buffer on the host.
pub(super) const SLOT_LEN: usize = 480 << 10;

/// One slot. Between two uses its bytes are zeros, on both sides, unless a use failed.
///
/// Dropping it makes no driver call and would free pages that are still locked: it ends in
/// [`destroy`](Self::destroy) or [`bury`](Self::bury).
pub(super) struct Slot {
    stream: Stream,
    done: Event,
    start: u64,
    buffer: Locked,
    /// Bytes from the start that may not be zeros, on either side.
    used: usize,
}

/// What lies where in a slot for one launch: what goes up, from the start, and what comes down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of what goes up.
    pub(super) inputs: usize,
    /// Start of the results.
    pub(super) results: usize,
    /// Bytes of results that come down.
    pub(super) down: usize,
    /// The end of everything that the launch writes.
    pub(super) end: usize,
}

impl Layout {
    /// Results directly behind the inputs, all of which come down.
    pub(super) fn new(inputs: usize, down: usize) -> Self {
        let results = inputs.next_multiple_of(RESULT_ALIGNMENT);
        Self { inputs, results, down, end: results.saturating_add(down) }
    }

    /// With so many more bytes behind the results that stay on the device.
    pub(super) fn with_more(mut self, len: usize) -> Self {
        self.end = self.end.saturating_add(len);
        self
    }
}

/// How often a list is sent until it arrives as it was sent.
const TRIES: u32 = 3;

/// Kernels write up to 32 bytes at once.
const RESULT_ALIGNMENT: usize = 256;

impl Slot {
    /// Creates a slot over scratch memory that starts there, in a bound context.
    pub(super) fn new(bound: &Bound<'_>, start: u64) -> Result<Self, GpuError> {
        let stream = Stream::yielding().map_err(|code| bound.fail(code))?;
        let done = match Event::new() {
            Ok(done) => done,
            Err(code) => {
                log_failure("destroying a stream", stream.destroy());
                return Err(bound.fail(code));
            }
        };
        match bound.lock_pages(ByteLen::from_usize(SLOT_LEN.saturating_mul(2))) {
            Ok(buffer) => Ok(Self { stream, done, start, buffer, used: SLOT_LEN }),
            Err(error) => {
                log_failure("destroying an event", done.destroy());
                log_failure("destroying a stream", stream.destroy());
                Err(error)
            }
        }
    }

    /// Overwrites what the device's memory has from before, and waits.
    pub(super) fn clear(&mut self) -> Result<(), u32> {
        // SAFETY: the slot lies in scratch memory, which is alive in the bound context.
        unsafe { driver::fill(self.start, 0, self.used, self.stream.as_raw()) }?;
        self.stream.wait()?;
        self.used = 0;
        Ok(())
    }

    /// The host's side, for the inputs of the next launch.
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        self.buffer.as_mut_slice().get_mut(..SLOT_LEN).unwrap_or_default()
    }

    /// Where the slot starts on the device.
    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    /// The stream of the slot.
    pub(super) const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Sends the inputs up, runs a launch, fetches its results and overwrites the device's side, all
    /// in the order of the stream. Waits until the inputs have arrived. On failure some of that may
    /// be queued: [`settle`](Self::settle) has to follow.
    ///
    /// # Errors
    ///
    /// The driver's code; `CUDA_ERROR_INVALID_VALUE`, and no launch, if the inputs do not arrive as
    /// they were sent.
    pub(super) fn fly(
        &mut self,
        layout: &Layout,
        launch: impl FnOnce(&Self) -> Result<(), u32>,
    ) -> Result<(), u32> {
        let (stream, start) = (self.stream.as_raw(), self.start);
        let at = |offset: usize| start.saturating_add(ByteLen::from_usize(offset).get());
        if self.used > layout.end {
            // What a failed use left.
            // SAFETY: the slot lies in scratch memory, which is alive in the bound context.
            unsafe { driver::fill(start, 0, self.used, stream) }?;
        }
        self.used = self.used.max(layout.end);
        self.send(layout.inputs)?;
        launch(self)?;
        let down = layout.results..layout.results.saturating_add(layout.down);
        let target = self.buffer.as_mut_slice().get_mut(down).unwrap_or_default();
        let (target, len) = (target.as_mut_ptr(), target.len());
        // SAFETY: the results fit into the slot; the buffer is not touched before `land` has waited.
        unsafe { driver::copy_out(target, at(layout.results), len, stream) }?;
        // SAFETY: the slot lies in scratch memory, which is alive in the bound context.
        unsafe { driver::fill(start, 0, self.used, stream) }?;
        self.done.record(&self.stream)
    }

    /// Sends this many bytes of inputs up, reads them back, and compares.
    fn send(&mut self, len: usize) -> Result<(), u32> {
        let (stream, start) = (self.stream.as_raw(), self.start);
        for _ in 0..TRIES {
            let (inputs, echo) = self.halves(len);
            let (len, inputs, echo) = (inputs.len(), inputs.as_ptr(), echo.as_mut_ptr());
            // SAFETY: the inputs fit into the slot; the buffer is not written before the wait below,
            // or that of `settle`.
            unsafe { driver::copy_in(start, inputs, len, stream) }?;
            // SAFETY: as above; the second half is as long as the slot.
            unsafe { driver::copy_out(echo, start, len, stream) }?;
            self.done.record(&self.stream)?;
            self.done.wait()?;
            let (inputs, echo) = self.halves(len);
            let arrived = inputs == echo;
            echo.zeroize();
            if arrived {
                return Ok(());
            }
            tracing::error!(bytes = len, "a list for kernels arrived altered on the device");
        }
        Err(codes::INVALID_VALUE)
    }

    /// The first bytes of both halves of the buffer.
    fn halves(&mut self, len: usize) -> (&mut [u8], &mut [u8]) {
        let (inputs, echo) =
            self.buffer.as_mut_slice().split_at_mut_checked(SLOT_LEN).unwrap_or_default();
        let half = |bytes| <[u8]>::get_mut(bytes, ..len).unwrap_or_default();
        (half(inputs), half(echo))
    }

    /// Waits for everything that [`fly`](Self::fly) queued, hands the results out and overwrites the
    /// host's side.
    pub(super) fn land<T>(
        &mut self,
        layout: &Layout,
        collect: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, u32> {
        self.done.wait()?;
        let down = layout.results..layout.results.saturating_add(layout.down);
        let collected = collect(self.buffer.as_slice().get(down).unwrap_or_default());
        self.wipe_buffer();
        self.used = 0;
        Ok(collected)
    }

    /// Lets the whole of the slot count as used: something else has written there.
    pub(super) const fn soil(&mut self) {
        self.used = SLOT_LEN;
    }

    /// After a failure: overwrites both sides and waits until nothing runs. If that cannot be waited
    /// for, the device is lost, as after any such copy.
    pub(super) fn settle(&mut self, bound: &Bound<'_>) {
        let device = &bound.port().core;
        if let Some(code) = device.lost() {
            // A sticky error has ended all work of the context.
            if codes::is_sticky(code) {
                self.wipe_buffer();
            }
            return;
        }
        // SAFETY: the slot lies in scratch memory, which is alive in the bound context.
        let filled = unsafe { driver::fill(self.start, 0, self.used, self.stream.as_raw()) };
        match self.stream.wait() {
            Ok(()) => {
                self.wipe_buffer();
                match filled {
                    Ok(()) => self.used = 0,
                    // The next use begins with it, and so does the end.
                    Err(code) => tracing::warn!(code, "scratch memory was not overwritten"),
                }
            }
            Err(code) => {
                device.lose(code);
                if codes::is_sticky(code) {
                    self.wipe_buffer();
                }
            }
        }
    }

    fn wipe_buffer(&mut self) {
        let (inputs, echo) = self.halves(self.used);
        inputs.zeroize();
        echo.zeroize();
    }

    /// Overwrites what a failed use left, and gives everything back, in a bound context.
    pub(super) fn destroy(mut self, bound: &Bound<'_>) {
        if self.used > 0 {
            // SAFETY: the slot lies in scratch memory, which is alive in the bound context.
            let filled = unsafe { driver::fill(self.start, 0, self.used, self.stream.as_raw()) };
            log_failure("overwriting scratch memory", filled);
        }
        log_failure("waiting for kernels", self.stream.wait());
        if let Err(code) = self.buffer.unlock() {
            log_failure("unlocking host memory", Err(code));
            bound.port().core.bury(self.buffer.take_pages());
        }
        log_failure("destroying an event", self.done.destroy());
        log_failure("destroying a stream", self.stream.destroy());
    }

    /// The pages of a slot of a device that takes no calls, for burying.
    pub(super) fn bury(mut self) -> Pages {
        self.buffer.take_pages()
    }
}
