//! Streams: order, waits, queries.

#![expect(non_snake_case, reason = "named as the driver's functions are")]

use core::ffi::{c_int, c_uint, c_void};

use crate::call::Call;
use crate::code;
use crate::driver::context::PRIORITIES;
use crate::driver::event;
use crate::fault::{CallKind, Fault};
use crate::handle::{Kind, decode, encode};
use crate::queue::{Op, Work};
use crate::report::MisuseKind;

pub(crate) unsafe fn cuStreamCreate(
    call: &mut Call<'_>,
    ph_stream: *mut *mut c_void,
    flags: c_uint,
) -> Result<(), u32> {
    // SAFETY: the same promise.
    unsafe { cuStreamCreateWithPriority(call, ph_stream, flags, 0) }
}

pub(crate) unsafe fn cuStreamCreateWithPriority(
    call: &mut Call<'_>,
    ph_stream: *mut *mut c_void,
    flags: c_uint,
    priority: c_int,
) -> Result<(), u32> {
    let context = call.plain(CallKind::StreamOrEvent)?;
    if ph_stream.is_null() || flags > 1 {
        return Err(code::INVALID_VALUE);
    }
    call.need_stream(context)?;
    // As in the real driver: a priority out of range becomes the nearest one in range.
    let priority = priority.clamp(PRIORITIES.1, PRIORITIES.0);
    let id = call.world.create_stream(context, false, flags, priority);
    put!(ph_stream, encode(Kind::Stream, id))
}

pub(crate) unsafe fn cuStreamDestroy_v2(
    call: &mut Call<'_>,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    let context = call.context()?;
    if h_stream.is_null() {
        return Err(code::INVALID_HANDLE);
    }
    let id = stream_of(call, context, h_stream)?;
    let Some(stream) = call.world.streams.get_mut(&id) else { return Err(code::INVALID_HANDLE) };
    // Queued work continues; the stream's handle becomes invalid.
    stream.destroyed = true;
    if stream.is_over() {
        call.world.streams.remove(&id);
    }
    Ok(())
}

pub(crate) unsafe fn cuStreamSynchronize(
    call: &mut Call<'_>,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    let context = call.context()?;
    let id = stream_of(call, context, h_stream)?;
    if let Some(Fault::Fail(code) | Fault::FailLater(code)) =
        call.meet(context, CallKind::Synchronize)
    {
        return Err(call.world.fail(context, code));
    }
    call.world.run_stream(id);
    call.world.outcome(id)
}

pub(crate) unsafe fn cuStreamQuery(call: &mut Call<'_>, h_stream: *mut c_void) -> Result<(), u32> {
    let context = call.plain(CallKind::Query)?;
    let id = stream_of(call, context, h_stream)?;
    let upto = call.world.streams.get(&id).map_or(0, |stream| stream.enqueued);
    if call.world.advance(id, upto) { call.world.outcome(id) } else { Err(code::NOT_READY) }
}

pub(crate) unsafe fn cuStreamWaitEvent(
    call: &mut Call<'_>,
    h_stream: *mut c_void,
    h_event: *mut c_void,
    flags: c_uint,
) -> Result<(), u32> {
    let context = call.plain(CallKind::Order)?;
    if flags > 1 {
        return Err(code::INVALID_VALUE);
    }
    let id = stream_of(call, context, h_stream)?;
    let event = event::event_of(call, h_event)?;
    // An event that was never recorded causes no wait.
    if let Some((stream, executed)) = call.world.events.get(&event).and_then(|event| event.mark) {
        let work = Work::WaitFor { stream, executed };
        call.world.enqueue(id, Op { work, fault: None, call: call.name });
    }
    Ok(())
}

pub(crate) unsafe fn cuStreamGetFlags(
    call: &mut Call<'_>,
    h_stream: *mut c_void,
    flags: *mut c_uint,
) -> Result<(), u32> {
    let context = call.context()?;
    let id = stream_of(call, context, h_stream)?;
    let value = call.world.streams.get(&id).map_or(0, |stream| stream.flags);
    put!(flags, value)
}

pub(crate) unsafe fn cuStreamGetPriority(
    call: &mut Call<'_>,
    h_stream: *mut c_void,
    priority: *mut c_int,
) -> Result<(), u32> {
    let context = call.context()?;
    let id = stream_of(call, context, h_stream)?;
    let value = call.world.streams.get(&id).map_or(0, |stream| stream.priority);
    put!(priority, value)
}

pub(crate) unsafe fn cuStreamGetCtx(
    call: &mut Call<'_>,
    h_stream: *mut c_void,
    pctx: *mut *mut c_void,
) -> Result<(), u32> {
    let context = call.context()?;
    let id = stream_of(call, context, h_stream)?;
    let owner = call.world.streams.get(&id).map_or(context, |stream| stream.context);
    put!(pctx, encode(Kind::Context, owner))
}

pub(crate) unsafe fn cuLaunchHostFunc(
    call: &mut Call<'_>,
    h_stream: *mut c_void,
    function: *mut c_void,
    user_data: *mut c_void,
) -> Result<(), u32> {
    let context = call.context()?;
    let id = stream_of(call, context, h_stream)?;
    if function.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: not null, so a function of this type, as the driver's header declares the parameter.
    let function =
        unsafe { core::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(function) };
    let work = Work::HostCall { function, data: user_data.expose_provenance() };
    call.world.enqueue(id, Op { work, fault: None, call: call.name });
    Ok(())
}

/// The stream of a handle; null, 1 and 2 are the default streams of the current context.
pub(crate) fn stream_of(
    call: &mut Call<'_>,
    context: u64,
    handle: *mut c_void,
) -> Result<u64, u32> {
    if handle.addr() <= 2 {
        let context = call.world.contexts.get(&context).ok_or(code::INVALID_CONTEXT)?;
        return Ok(context.default_stream);
    }
    let id = decode(Kind::Stream, handle)
        .filter(|id| call.world.streams.get(id).is_some_and(|stream| !stream.destroyed));
    if id.is_none() {
        let device = call.world.device_of(context);
        call.note(MisuseKind::UnknownHandle, device, format!("{handle:?} is no stream"));
    }
    id.ok_or(code::INVALID_HANDLE)
}
