//! Device memory: allocate, free, count.

#![expect(non_snake_case, reason = "named as the driver's functions are")]

use core::ffi::c_void;

use crate::call::Call;
use crate::code;
use crate::driver::stream::stream_of;
use crate::driver::wide;
use crate::fault::CallKind;
use crate::memory::{Allocation, Origin, ordinal_of};
use crate::queue::{Op, Work};
use crate::report::MisuseKind;

pub(crate) unsafe fn cuMemGetInfo_v2(
    call: &mut Call<'_>,
    free: *mut usize,
    total: *mut usize,
) -> Result<(), u32> {
    let context = call.plain(CallKind::MemoryInfo)?;
    let ordinal = call.world.device_of(context).ok_or(code::INVALID_CONTEXT)?;
    let capacity = call.world.device(ordinal).map_or(0, |device| device.spec.capacity);
    put!(free, usize::try_from(call.world.room(ordinal)).unwrap_or(usize::MAX))?;
    put!(total, usize::try_from(capacity).unwrap_or(usize::MAX))
}

pub(crate) unsafe fn cuMemAlloc_v2(
    call: &mut Call<'_>,
    dptr: *mut u64,
    bytesize: usize,
) -> Result<(), u32> {
    let address = allocate(call, dptr, bytesize, Origin::Allocated)?;
    put!(dptr, address)
}

pub(crate) unsafe fn cuMemAllocAsync(
    call: &mut Call<'_>,
    dptr: *mut u64,
    bytesize: usize,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    let context = call.bound_context()?;
    stream_of(call, context, h_stream)?;
    // The address is returned at once. A pool assigns it in stream order; that order holds here,
    // because work on the address can only be queued after this call.
    let address = allocate(call, dptr, bytesize, Origin::Pooled)?;
    put!(dptr, address)
}

pub(crate) unsafe fn cuMemFree_v2(call: &mut Call<'_>, dptr: u64) -> Result<(), u32> {
    let context = freeing_context(call, dptr)?;
    call.meet_now(context, CallKind::Free)?;
    if dptr == 0 {
        return Ok(());
    }
    let allocation = to_be_freed(call, context, dptr)?;
    let owner = allocation.context;
    let what = format!("{} bytes at {dptr:#x}", allocation.len);
    call.world.settle_before_free(owner, call.name, &what, |work| {
        work.uses_device(allocation.address, allocation.len)
    });
    if let Some(poison) = call.world.contexts.get(&owner).and_then(|owner| owner.poisoned) {
        return Err(poison);
    }
    let device = ordinal_of(dptr).and_then(|ordinal| call.world.device_mut(ordinal));
    let freed = device.and_then(|device| device.memory.free(dptr));
    freed.map(drop).ok_or(code::INVALID_VALUE)
}

pub(crate) unsafe fn cuMemFreeAsync(
    call: &mut Call<'_>,
    dptr: u64,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    let context = freeing_context(call, dptr)?;
    call.meet_now(context, CallKind::Free)?;
    let stream = stream_of(call, context, h_stream)?;
    to_be_freed(call, context, dptr)?;
    let op = Op { work: Work::Free { address: dptr }, fault: None, call: call.name };
    call.world.enqueue(stream, op);
    Ok(())
}

pub(crate) unsafe fn cuMemGetAddressRange_v2(
    call: &mut Call<'_>,
    pbase: *mut u64,
    psize: *mut usize,
    dptr: u64,
) -> Result<(), u32> {
    call.plain(CallKind::Pointer)?;
    let device = call.world.device_at(dptr).map(|(_, device)| device);
    let holder = device.and_then(|device| device.memory.holder(dptr)).ok_or(code::NOT_FOUND)?;
    if !pbase.is_null() {
        put!(pbase, holder.address)?;
    }
    if !psize.is_null() {
        put!(psize, usize::try_from(holder.len).unwrap_or(usize::MAX))?;
    }
    Ok(())
}

fn allocate(
    call: &mut Call<'_>,
    dptr: *mut u64,
    bytesize: usize,
    origin: Origin,
) -> Result<u64, u32> {
    let context = call.context()?;
    call.meet_now(context, CallKind::Alloc)?;
    if dptr.is_null() || bytesize == 0 {
        return Err(code::INVALID_VALUE);
    }
    let ordinal = call.world.device_of(context).ok_or(code::INVALID_CONTEXT)?;
    let room = call.world.room(ordinal);
    let device = call.world.device_mut(ordinal).ok_or(code::INVALID_DEVICE)?;
    device.memory.allocate(wide(bytesize), room, context, origin)
}

/// The current context for a free. Without one the memory would leak silently, so that is logged.
fn freeing_context(call: &mut Call<'_>, address: u64) -> Result<u64, u32> {
    let context = call.context();
    if context == Err(code::INVALID_CONTEXT)
        && let Some((ordinal, _)) = call.world.device_at(address)
    {
        let detail = format!("{address:#x} is freed on a thread without a current context");
        call.note(MisuseKind::NoContext, Some(ordinal), detail);
    }
    context
}

/// The allocation that starts at an address; if there is none, logs the reason.
fn to_be_freed(call: &mut Call<'_>, context: u64, address: u64) -> Result<Allocation, u32> {
    let Some((ordinal, device)) = call.world.device_at(address) else {
        let device = call.world.device_of(context);
        call.note(MisuseKind::UnknownAddress, device, format!("{address:#x} is no device address"));
        return Err(code::INVALID_VALUE);
    };
    let holders = device.memory.holders(address);
    let (kind, detail) = match device.memory.holder(address) {
        Some(Allocation { origin: Origin::Opened { .. }, .. }) => (
            MisuseKind::UnknownAddress,
            format!("{address:#x} is memory of another process: cuIpcCloseMemHandle closes it"),
        ),
        Some(holder) if holder.address == address => {
            if !holders.is_empty() {
                let detail = format!("{address:#x} is open in the processes {holders:?}");
                call.note(MisuseKind::FreedWhileOpen, Some(ordinal), detail);
            }
            if holder.context != context {
                let detail = format!("{address:#x} is freed in another context than its own");
                call.note(MisuseKind::WrongContext, Some(ordinal), detail);
            }
            return Ok(holder);
        }
        Some(holder) => (
            MisuseKind::UnknownAddress,
            format!(
                "{address:#x} is inside the allocation at {:#x}, not its start",
                holder.address
            ),
        ),
        None if device.memory.was_freed(address) => {
            (MisuseKind::DoubleFree, format!("{address:#x} was freed before"))
        }
        None => (MisuseKind::UnknownAddress, format!("nothing was allocated at {address:#x}")),
    };
    call.note(kind, Some(ordinal), detail);
    Err(code::INVALID_VALUE)
}
