//! Events: marks in a stream that calls can wait for.

#![expect(non_snake_case, reason = "named as the driver's functions are")]

use core::ffi::{c_uint, c_void};

use crate::call::Call;
use crate::code;
use crate::driver::stream::stream_of;
use crate::fault::{CallKind, Fault};
use crate::handle::{Kind, decode, encode};
use crate::queue::{Op, Work};
use crate::report::MisuseKind;
use crate::world::Event;

/// The flag of an event without timing.
const DISABLE_TIMING: u32 = 2;

pub(crate) unsafe fn cuEventCreate(
    call: &mut Call<'_>,
    ph_event: *mut *mut c_void,
    flags: c_uint,
) -> Result<(), u32> {
    let context = call.plain(CallKind::StreamOrEvent)?;
    if ph_event.is_null() || flags > 7 {
        return Err(code::INVALID_VALUE);
    }
    let id = call.world.fresh_id();
    call.world.events.insert(id, Event { context, flags, mark: None, reached: None });
    put!(ph_event, encode(Kind::Event, id))
}

pub(crate) unsafe fn cuEventRecord(
    call: &mut Call<'_>,
    h_event: *mut c_void,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    let context = call.plain(CallKind::Order)?;
    let stream = stream_of(call, context, h_stream)?;
    let id = event_of(call, h_event)?;
    let of_stream = call.world.streams.get(&stream).map(|stream| stream.context);
    if of_stream != call.world.events.get(&id).map(|event| event.context) {
        let device = call.world.device_of(context);
        let detail = "event and stream belong to different contexts".to_owned();
        call.note(MisuseKind::WrongContext, device, detail);
        return Err(code::INVALID_HANDLE);
    }
    let op = Op { work: Work::Record { event: id }, fault: None, call: call.name };
    call.world.enqueue(stream, op);
    let executed = call.world.streams.get(&stream).map_or(0, |stream| stream.enqueued);
    if let Some(event) = call.world.events.get_mut(&id) {
        event.mark = Some((stream, executed));
        event.reached = None;
    }
    Ok(())
}

pub(crate) unsafe fn cuEventQuery(call: &mut Call<'_>, h_event: *mut c_void) -> Result<(), u32> {
    call.plain(CallKind::Query)?;
    let id = event_of(call, h_event)?;
    match call.world.events.get(&id).and_then(|event| event.mark) {
        None => Ok(()),
        Some((stream, executed)) if call.world.advance(stream, executed) => {
            call.world.outcome(stream)
        }
        Some(_) => Err(code::NOT_READY),
    }
}

pub(crate) unsafe fn cuEventSynchronize(
    call: &mut Call<'_>,
    h_event: *mut c_void,
) -> Result<(), u32> {
    let context = call.context()?;
    let id = event_of(call, h_event)?;
    if let Some(Fault::Fail(code) | Fault::FailLater(code)) =
        call.meet(context, CallKind::Synchronize)
    {
        return Err(call.world.fail(context, code));
    }
    match call.world.events.get(&id).and_then(|event| event.mark) {
        None => Ok(()),
        Some((stream, executed)) => {
            call.world.run(stream, executed);
            call.world.outcome(stream)
        }
    }
}

pub(crate) unsafe fn cuEventDestroy_v2(
    call: &mut Call<'_>,
    h_event: *mut c_void,
) -> Result<(), u32> {
    call.context()?;
    let id = event_of(call, h_event)?;
    call.world.events.remove(&id);
    Ok(())
}

pub(crate) unsafe fn cuEventElapsedTime(
    call: &mut Call<'_>,
    p_milliseconds: *mut f32,
    h_start: *mut c_void,
    h_end: *mut c_void,
) -> Result<(), u32> {
    call.context()?;
    let ids = [event_of(call, h_start)?, event_of(call, h_end)?];
    let mut times = Vec::new();
    for id in ids {
        let event = call.world.events.get(&id).ok_or(code::INVALID_HANDLE)?;
        if event.mark.is_none() || event.flags & DISABLE_TIMING != 0 {
            return Err(code::INVALID_HANDLE);
        }
        times.push(event.reached.ok_or(code::NOT_READY)?);
    }
    let milliseconds = match times.as_slice() {
        [start, end] => end.saturating_duration_since(*start).as_secs_f32() * 1000.0,
        _ => 0.0,
    };
    put!(p_milliseconds, milliseconds)
}

/// The event of a handle.
pub(crate) fn event_of(call: &mut Call<'_>, handle: *mut c_void) -> Result<u64, u32> {
    let id = decode(Kind::Event, handle).filter(|id| call.world.events.contains_key(id));
    if id.is_none() {
        let device = call.bound_context().ok().and_then(|context| call.world.device_of(context));
        call.note(MisuseKind::UnknownHandle, device, format!("{handle:?} is no event"));
    }
    id.ok_or(code::INVALID_HANDLE)
}
