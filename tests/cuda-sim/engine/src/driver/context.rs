//! Contexts: primary and created ones, and the current context of each thread.

#![expect(non_snake_case, reason = "named as the driver's functions are")]

use core::ffi::{c_int, c_uint, c_void};
use core::ptr;

use crate::call::Call;
use crate::code;
use crate::fault::{CallKind, Fault};
use crate::handle::{Kind, decode, encode};
use crate::report::MisuseKind;
use crate::spec::Resets;
use crate::world::{Context, thread_contexts};

/// The lowest and the highest priority of a stream.
pub(crate) const PRIORITIES: (c_int, c_int) = (0, -5);

pub(crate) unsafe fn cuDevicePrimaryCtxRetain(
    call: &mut Call<'_>,
    pctx: *mut *mut c_void,
    dev: c_int,
) -> Result<(), u32> {
    let ordinal = call.device(dev)?;
    let primary = primary(call, ordinal)?;
    call.meet_now(primary, CallKind::Context)?;
    let needed = call.world.device(ordinal).map_or(0, |device| device.spec.context_len);
    let room = call.world.room(ordinal);
    let context = call.world.contexts.get_mut(&primary).ok_or(code::INVALID_DEVICE)?;
    if let Some(code) = context.denied {
        return Err(code);
    }
    if !context.active && needed > room {
        return Err(code::OUT_OF_MEMORY);
    }
    put!(pctx, encode(Kind::Context, primary))?;
    context.refs = context.refs.saturating_add(1);
    context.active = true;
    Ok(())
}

pub(crate) unsafe fn cuDevicePrimaryCtxRelease_v2(
    call: &mut Call<'_>,
    dev: c_int,
) -> Result<(), u32> {
    let ordinal = call.device(dev)?;
    let primary = primary(call, ordinal)?;
    let context = call.world.contexts.get_mut(&primary).ok_or(code::INVALID_DEVICE)?;
    context.refs = context.refs.checked_sub(1).ok_or(code::INVALID_CONTEXT)?;
    if context.refs == 0 {
        // Memory in a poisoned context could not be freed, so it is not a leak of the program.
        let poisoned = context.poisoned.is_some();
        call.world.clear_context(primary, poisoned);
        if let Some(context) = call.world.contexts.get_mut(&primary) {
            context.active = false;
        }
    }
    Ok(())
}

pub(crate) unsafe fn cuDevicePrimaryCtxReset_v2(
    call: &mut Call<'_>,
    dev: c_int,
) -> Result<(), u32> {
    let ordinal = call.device(dev)?;
    let primary = primary(call, ordinal)?;
    call.meet_now(primary, CallKind::Reset)?;
    // A reset does not release: a caller that retained the context still has to release it.
    let poison = call.world.contexts.get(&primary).and_then(|context| context.poisoned);
    call.world.clear_context(primary, true);
    let resets = call.world.device(ordinal).map_or(Resets::Heal, |device| device.spec.resets);
    if let Some(context) = call.world.contexts.get_mut(&primary) {
        context.active = false;
        match resets {
            Resets::Heal => {}
            Resets::HealAndRelease => context.refs = 0,
            Resets::Deny => context.denied = context.denied.or(poison),
        }
    }
    Ok(())
}

pub(crate) unsafe fn cuDevicePrimaryCtxSetFlags_v2(
    call: &mut Call<'_>,
    dev: c_int,
    flags: c_uint,
) -> Result<(), u32> {
    let ordinal = call.device(dev)?;
    let primary = primary(call, ordinal)?;
    let context = call.world.contexts.get_mut(&primary).ok_or(code::INVALID_DEVICE)?;
    context.flags = flags;
    Ok(())
}

pub(crate) unsafe fn cuDevicePrimaryCtxGetState(
    call: &mut Call<'_>,
    dev: c_int,
    flags: *mut c_uint,
    active: *mut c_int,
) -> Result<(), u32> {
    let ordinal = call.device(dev)?;
    let primary = primary(call, ordinal)?;
    let context = call.world.contexts.get(&primary).ok_or(code::INVALID_DEVICE)?;
    put!(flags, context.flags)?;
    put!(active, c_int::from(context.active))
}

pub(crate) unsafe fn cuCtxCreate_v2(
    call: &mut Call<'_>,
    pctx: *mut *mut c_void,
    flags: c_uint,
    dev: c_int,
) -> Result<(), u32> {
    let ordinal = call.device(dev)?;
    let primary = primary(call, ordinal)?;
    call.meet_now(primary, CallKind::Context)?;
    let needed = call.world.device(ordinal).map_or(0, |device| device.spec.context_len);
    if needed > call.world.room(ordinal) {
        return Err(code::OUT_OF_MEMORY);
    }
    if pctx.is_null() {
        return Err(code::INVALID_VALUE);
    }
    let id = call.world.create_context(ordinal, false, flags);
    thread_contexts(|stack| stack.push(id));
    put!(pctx, encode(Kind::Context, id))
}

pub(crate) unsafe fn cuCtxDestroy_v2(call: &mut Call<'_>, ctx: *mut c_void) -> Result<(), u32> {
    call.ready()?;
    let id = known(call, ctx)?;
    let context = call.world.contexts.get(&id).ok_or(code::INVALID_CONTEXT)?;
    if context.primary {
        return Err(code::INVALID_CONTEXT);
    }
    let (poisoned, default_stream) = (context.poisoned.is_some(), context.default_stream);
    call.world.clear_context(id, poisoned);
    call.world.contexts.remove(&id);
    call.world.streams.remove(&default_stream);
    thread_contexts(|stack| {
        if stack.last() == Some(&id) {
            stack.pop();
        }
    });
    Ok(())
}

pub(crate) unsafe fn cuCtxPushCurrent_v2(call: &mut Call<'_>, ctx: *mut c_void) -> Result<(), u32> {
    call.ready()?;
    let id = alive(call, ctx)?;
    thread_contexts(|stack| stack.push(id));
    Ok(())
}

pub(crate) unsafe fn cuCtxPopCurrent_v2(
    call: &mut Call<'_>,
    pctx: *mut *mut c_void,
) -> Result<(), u32> {
    call.ready()?;
    let id = thread_contexts(Vec::pop).ok_or(code::INVALID_CONTEXT)?;
    if pctx.is_null() { Ok(()) } else { put!(pctx, encode(Kind::Context, id)) }
}

pub(crate) unsafe fn cuCtxSetCurrent(call: &mut Call<'_>, ctx: *mut c_void) -> Result<(), u32> {
    call.ready()?;
    let id = if ctx.is_null() { None } else { Some(alive(call, ctx)?) };
    thread_contexts(|stack| {
        stack.pop();
        stack.extend(id);
    });
    Ok(())
}

pub(crate) unsafe fn cuCtxGetCurrent(
    call: &mut Call<'_>,
    pctx: *mut *mut c_void,
) -> Result<(), u32> {
    call.ready()?;
    let current = thread_contexts(|stack| stack.last().copied());
    put!(pctx, current.map_or(ptr::null_mut(), |id| encode(Kind::Context, id)))
}

pub(crate) unsafe fn cuCtxGetDevice(call: &mut Call<'_>, device: *mut c_int) -> Result<(), u32> {
    let ordinal = current(call)?.device;
    put!(device, c_int::try_from(ordinal).map_err(|_| code::INVALID_DEVICE)?)
}

pub(crate) unsafe fn cuCtxGetFlags(call: &mut Call<'_>, flags: *mut c_uint) -> Result<(), u32> {
    let value = current(call)?.flags;
    put!(flags, value)
}

pub(crate) unsafe fn cuCtxGetApiVersion(
    call: &mut Call<'_>,
    ctx: *mut c_void,
    version: *mut c_uint,
) -> Result<(), u32> {
    if ctx.is_null() {
        call.bound_context()?;
    } else {
        known(call, ctx)?;
    }
    put!(version, 3020)
}

pub(crate) unsafe fn cuCtxSynchronize(call: &mut Call<'_>) -> Result<(), u32> {
    let id = call.context()?;
    if let Some(Fault::Fail(code) | Fault::FailLater(code)) = call.meet(id, CallKind::Synchronize) {
        return Err(call.world.fail(id, code));
    }
    call.world.wait_for_context(id)
}

pub(crate) unsafe fn cuCtxSetLimit(
    call: &mut Call<'_>,
    limit: c_int,
    value: usize,
) -> Result<(), u32> {
    let id = call.context()?;
    let context = call.world.contexts.get_mut(&id).ok_or(code::INVALID_CONTEXT)?;
    context.limits.insert(limit, value);
    Ok(())
}

pub(crate) unsafe fn cuCtxGetLimit(
    call: &mut Call<'_>,
    pvalue: *mut usize,
    limit: c_int,
) -> Result<(), u32> {
    let value = current(call)?.limits.get(&limit).copied().unwrap_or(1024);
    put!(pvalue, value)
}

pub(crate) unsafe fn cuCtxSetCacheConfig(call: &mut Call<'_>, config: c_int) -> Result<(), u32> {
    let id = call.context()?;
    let context = call.world.contexts.get_mut(&id).ok_or(code::INVALID_CONTEXT)?;
    context.cache_config = config;
    Ok(())
}

pub(crate) unsafe fn cuCtxGetCacheConfig(
    call: &mut Call<'_>,
    pconfig: *mut c_int,
) -> Result<(), u32> {
    let value = current(call)?.cache_config;
    put!(pconfig, value)
}

pub(crate) unsafe fn cuCtxSetSharedMemConfig(
    call: &mut Call<'_>,
    config: c_int,
) -> Result<(), u32> {
    let id = call.context()?;
    let context = call.world.contexts.get_mut(&id).ok_or(code::INVALID_CONTEXT)?;
    context.shared_config = config;
    Ok(())
}

pub(crate) unsafe fn cuCtxGetSharedMemConfig(
    call: &mut Call<'_>,
    p_config: *mut c_int,
) -> Result<(), u32> {
    let value = current(call)?.shared_config;
    put!(p_config, value)
}

pub(crate) unsafe fn cuCtxGetStreamPriorityRange(
    call: &mut Call<'_>,
    least_priority: *mut c_int,
    greatest_priority: *mut c_int,
) -> Result<(), u32> {
    current(call)?;
    if !least_priority.is_null() {
        put!(least_priority, PRIORITIES.0)?;
    }
    if !greatest_priority.is_null() {
        put!(greatest_priority, PRIORITIES.1)?;
    }
    Ok(())
}

pub(crate) unsafe fn cuCtxEnablePeerAccess(
    call: &mut Call<'_>,
    peer_context: *mut c_void,
    flags: c_uint,
) -> Result<(), u32> {
    let id = call.plain(CallKind::PeerAccess)?;
    if flags != 0 {
        return Err(code::INVALID_VALUE);
    }
    let peer = alive(call, peer_context)?;
    let from = call.world.device_of(id).ok_or(code::INVALID_CONTEXT)?;
    let to = call.world.device_of(peer).ok_or(code::INVALID_CONTEXT)?;
    if !call.world.reaches(from, to) {
        return Err(code::PEER_ACCESS_UNSUPPORTED);
    }
    let context = call.world.contexts.get_mut(&id).ok_or(code::INVALID_CONTEXT)?;
    if context.peers.insert(peer) { Ok(()) } else { Err(code::PEER_ACCESS_ALREADY_ENABLED) }
}

pub(crate) unsafe fn cuCtxDisablePeerAccess(
    call: &mut Call<'_>,
    peer_context: *mut c_void,
) -> Result<(), u32> {
    let id = call.plain(CallKind::PeerAccess)?;
    let peer = known(call, peer_context)?;
    let context = call.world.contexts.get_mut(&id).ok_or(code::INVALID_CONTEXT)?;
    if context.peers.remove(&peer) { Ok(()) } else { Err(code::PEER_ACCESS_NOT_ENABLED) }
}

fn primary(call: &Call<'_>, ordinal: u32) -> Result<u64, u32> {
    call.world.device(ordinal).map(|device| device.primary).ok_or(code::INVALID_DEVICE)
}

/// The thread's context, for functions that succeed even when it is poisoned.
fn current<'c>(call: &'c Call<'_>) -> Result<&'c Context, u32> {
    let id = call.bound_context()?;
    call.world.contexts.get(&id).ok_or(code::INVALID_CONTEXT)
}

/// The context of a handle.
pub(crate) fn known(call: &mut Call<'_>, handle: *mut c_void) -> Result<u64, u32> {
    let id = decode(Kind::Context, handle).filter(|id| call.world.contexts.contains_key(id));
    if id.is_none() && !handle.is_null() {
        let detail = format!("{handle:?} is no context");
        call.note(MisuseKind::UnknownHandle, None, detail);
    }
    id.ok_or(code::INVALID_CONTEXT)
}

/// The context of a handle, active.
pub(crate) fn alive(call: &mut Call<'_>, handle: *mut c_void) -> Result<u64, u32> {
    let id = known(call, handle)?;
    let active = call.world.contexts.get(&id).is_some_and(|context| context.active);
    if active { Ok(id) } else { Err(code::CONTEXT_IS_DESTROYED) }
}
