//! Streams and events as this crate needs them. Those of cust cannot be used: its `Stream::new`
//! drops the flag `NON_BLOCKING`.
//!
//! A stream that blocks keeps order with the default stream of the context. Other code of the
//! process may run kernels there: each copy would wait for them, and hold up those behind it.
//!
//! Dropping a value makes no driver call: after a reset its handle is invalid. `destroy` makes it.

use core::ffi::{c_int, c_uint};
use core::ptr;

use cust::sys::{self, CUevent, CUstream};

use super::driver::raw;

#[expect(clippy::as_conversions, reason = "a C enum of small numbers")]
const NON_BLOCKING: c_uint = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as c_uint;
#[expect(clippy::as_conversions, reason = "a C enum of small numbers")]
const DISABLE_TIMING: c_uint = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as c_uint;

/// The usual priority, which is also the lowest one: copies hold up nobody's kernels.
const USUAL: c_int = 0;

/// A stream that keeps order with no other stream.
pub(super) struct Stream(CUstream);

/// A mark in a stream, without a time.
pub(super) struct Event(CUevent);

// SAFETY: a stream's handle may be used from every thread on which its context is current.
unsafe impl Send for Stream {}
// SAFETY: as above; the driver orders calls of several threads on one stream.
unsafe impl Sync for Stream {}
// SAFETY: an event's handle may be used from every thread on which its context is current.
unsafe impl Send for Event {}
// SAFETY: as above; the driver orders calls of several threads on one event.
unsafe impl Sync for Event {}

impl Stream {
    /// Creates a stream in the context that is bound to this thread.
    pub(super) fn new() -> Result<Self, u32> {
        Self::of_priority(USUAL)
    }

    /// Creates a stream whose kernels run where those of other streams leave room.
    pub(super) fn yielding() -> Result<Self, u32> {
        let (mut lowest, mut highest) = (0, 0);
        // SAFETY: both are valid for writing a number; a context is bound.
        raw(unsafe { sys::cuCtxGetStreamPriorityRange(&raw mut lowest, &raw mut highest) })?;
        Self::of_priority(lowest)
    }

    fn of_priority(priority: c_int) -> Result<Self, u32> {
        let mut stream = ptr::null_mut();
        // SAFETY: `stream` is valid for writing a handle; a context is bound.
        raw(unsafe { sys::cuStreamCreateWithPriority(&raw mut stream, NON_BLOCKING, priority) })?;
        Ok(Self(stream))
    }

    /// The handle, valid until the stream is destroyed or its context is reset.
    pub(super) const fn as_raw(&self) -> CUstream {
        self.0
    }

    /// Waits for all work of the stream.
    pub(super) fn wait(&self) -> Result<(), u32> {
        // SAFETY: the handle is valid in the bound context.
        raw(unsafe { sys::cuStreamSynchronize(self.0) })
    }

    /// Destroys the stream, in a bound context.
    pub(super) fn destroy(self) -> Result<(), u32> {
        // SAFETY: the handle is valid in the bound context, and used for the last time.
        raw(unsafe { sys::cuStreamDestroy_v2(self.0) })
    }
}

impl Event {
    /// Creates an event in the context that is bound to this thread.
    pub(super) fn new() -> Result<Self, u32> {
        let mut event = ptr::null_mut();
        // SAFETY: `event` is valid for writing a handle; a context is bound.
        raw(unsafe { sys::cuEventCreate(&raw mut event, DISABLE_TIMING) })?;
        Ok(Self(event))
    }

    /// Marks the end of the work that is in the stream now.
    pub(super) fn record(&self, stream: &Stream) -> Result<(), u32> {
        // SAFETY: both handles are valid in the bound context.
        raw(unsafe { sys::cuEventRecord(self.0, stream.0) })
    }

    /// Waits for the marked work. Returns its error, if it failed.
    pub(super) fn wait(&self) -> Result<(), u32> {
        // SAFETY: the handle is valid in the bound context.
        raw(unsafe { sys::cuEventSynchronize(self.0) })
    }

    /// Destroys the event, in a bound context.
    pub(super) fn destroy(self) -> Result<(), u32> {
        // SAFETY: the handle is valid in the bound context, and used for the last time.
        raw(unsafe { sys::cuEventDestroy_v2(self.0) })
    }
}
