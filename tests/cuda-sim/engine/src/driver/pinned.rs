//! Pinned host memory: allocated by the driver, or memory of the program that was registered.

#![expect(non_snake_case, reason = "named as the driver's functions are")]

use core::ffi::{c_uint, c_void};

use crate::call::Call;
use crate::code;
use crate::driver::wide;
use crate::fault::CallKind;
use crate::host::HostBlock;
use crate::report::MisuseKind;
use crate::world::World;

pub(crate) unsafe fn cuMemAllocHost_v2(
    call: &mut Call<'_>,
    pp: *mut *mut c_void,
    bytesize: usize,
) -> Result<(), u32> {
    // SAFETY: the same promise.
    unsafe { cuMemHostAlloc(call, pp, bytesize, 0) }
}

pub(crate) unsafe fn cuMemHostAlloc(
    call: &mut Call<'_>,
    pp: *mut *mut c_void,
    bytesize: usize,
    flags: c_uint,
) -> Result<(), u32> {
    let context = call.plain(CallKind::Pin)?;
    if pp.is_null() || bytesize == 0 || flags > 7 {
        return Err(code::INVALID_VALUE);
    }
    call.need_lock(context, bytesize)?;
    let (address, block) =
        HostBlock::allocate(bytesize, context, flags).ok_or(code::OUT_OF_MEMORY)?;
    call.world.hosts.insert(address, block);
    put!(pp, core::ptr::with_exposed_provenance_mut(address))
}

pub(crate) unsafe fn cuMemFreeHost(call: &mut Call<'_>, p: *mut c_void) -> Result<(), u32> {
    let context = call.plain(CallKind::Unpin)?;
    let address = p.addr();
    match call.world.hosts.get(&address) {
        Some(block) if block.layout.is_some() => {}
        _ => {
            let device = call.world.device_of(context);
            let detail = format!("{address:#x} is no pinned memory of the driver's");
            call.note(MisuseKind::UnknownAddress, device, detail);
            return Err(code::INVALID_VALUE);
        }
    }
    settle(call, address);
    if let Some(block) = call.world.hosts.remove(&address) {
        block.release(address);
    }
    Ok(())
}

pub(crate) unsafe fn cuMemHostRegister_v2(
    call: &mut Call<'_>,
    p: *mut c_void,
    bytesize: usize,
    flags: c_uint,
) -> Result<(), u32> {
    let context = call.plain(CallKind::Pin)?;
    let start = p.expose_provenance();
    let end = start.checked_add(bytesize).ok_or(code::INVALID_VALUE)?;
    if start == 0 || bytesize == 0 || flags > 15 {
        return Err(code::INVALID_VALUE);
    }
    let before = call.world.hosts.range(..end).next_back();
    if before.is_some_and(|(address, block)| address.saturating_add(block.len) > start) {
        return Err(code::HOST_MEMORY_ALREADY_REGISTERED);
    }
    call.need_lock(context, bytesize)?;
    call.world.hosts.insert(start, HostBlock { len: bytesize, context, flags, layout: None });
    Ok(())
}

pub(crate) unsafe fn cuMemHostUnregister(call: &mut Call<'_>, p: *mut c_void) -> Result<(), u32> {
    call.plain(CallKind::Unpin)?;
    let address = p.addr();
    match call.world.hosts.get(&address) {
        Some(block) if block.layout.is_none() => {}
        _ => return Err(code::HOST_MEMORY_NOT_REGISTERED),
    }
    settle(call, address);
    call.world.hosts.remove(&address);
    Ok(())
}

pub(crate) unsafe fn cuMemHostGetDevicePointer_v2(
    call: &mut Call<'_>,
    pdptr: *mut u64,
    p: *mut c_void,
    flags: c_uint,
) -> Result<(), u32> {
    call.context()?;
    if flags != 0 || holder(call.world, p.addr()).is_none() {
        return Err(code::INVALID_VALUE);
    }
    // Unified addressing: pinned memory has one address for host and device.
    put!(pdptr, wide(p.addr()))
}

pub(crate) unsafe fn cuMemHostGetFlags(
    call: &mut Call<'_>,
    p_flags: *mut c_uint,
    p: *mut c_void,
) -> Result<(), u32> {
    call.context()?;
    let flags = holder(call.world, p.addr()).ok_or(code::INVALID_VALUE)?.1.flags;
    put!(p_flags, flags)
}

/// The pinned block that holds a host address, with its start.
pub(crate) fn holder(world: &World, address: usize) -> Option<(usize, &HostBlock)> {
    let (start, block) = world.hosts.range(..=address).next_back()?;
    (address < start.saturating_add(block.len)).then_some((*start, block))
}

/// Waits for work that may still use a block before it is freed: in the block's context, and in
/// every other context that has queued such a use. Other contexts are not affected: tests of other
/// devices rely on that.
fn settle(call: &mut Call<'_>, address: usize) {
    let Some(block) = call.world.hosts.get(&address) else { return };
    let (len, own) = (block.len, block.context);
    let what = format!("pinned memory of {len} bytes at {address:#x}");
    let contexts: Vec<u64> = call.world.contexts.keys().copied().collect();
    for context in contexts {
        let used = call.world.queued_use(context, |work| work.uses_host(address, len));
        if context != own && !used {
            continue;
        }
        call.world
            .settle_before_free(context, call.name, &what, |work| work.uses_host(address, len));
    }
}
