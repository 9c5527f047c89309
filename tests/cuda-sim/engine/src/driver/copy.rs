//! Copies and fills, immediate and queued.

#![expect(non_snake_case, reason = "named as the driver's functions are")]

use core::ffi::{c_uchar, c_uint, c_ushort, c_void};
use core::ptr;

use crate::call::Call;
use crate::code;
use crate::driver::{context, pinned, stream::stream_of, wide};
use crate::fault::{CallKind, Fault};
use crate::memory::ordinal_of;
use crate::queue::{Op, Place, Work};
use crate::report::MisuseKind;

/// When an operation runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// After the default stream, and the call waits for it.
    Now,
    /// On the default stream; the call does not wait.
    Later,
    /// On this stream; the call does not wait.
    On(*mut c_void),
}

/// One end of a copy, as the program named it.
#[derive(Clone, Copy)]
enum End {
    Device(u64),
    Host(usize),
}

impl End {
    /// Classifies an address, as unified addressing does.
    fn of(address: u64) -> Self {
        if ordinal_of(address).is_some() {
            Self::Device(address)
        } else {
            Self::Host(usize::try_from(address).unwrap_or(0))
        }
    }
}

pub(crate) unsafe fn cuMemcpy(
    call: &mut Call<'_>,
    dst: u64,
    src: u64,
    byte_count: usize,
) -> Result<(), u32> {
    // SAFETY: the caller's promise for both ends.
    unsafe { copy(call, End::of(dst), End::of(src), byte_count, When::Now) }
}

pub(crate) unsafe fn cuMemcpyAsync(
    call: &mut Call<'_>,
    dst: u64,
    src: u64,
    byte_count: usize,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    // SAFETY: the caller's promise for both ends.
    unsafe { copy(call, End::of(dst), End::of(src), byte_count, When::On(h_stream)) }
}

pub(crate) unsafe fn cuMemcpyHtoD_v2(
    call: &mut Call<'_>,
    dst_device: u64,
    src_host: *const c_void,
    byte_count: usize,
) -> Result<(), u32> {
    let source = End::Host(src_host.expose_provenance());
    // SAFETY: `src_host` is valid for reading `byte_count` bytes, as the caller promises.
    unsafe { copy(call, End::Device(dst_device), source, byte_count, When::Now) }
}

pub(crate) unsafe fn cuMemcpyHtoDAsync_v2(
    call: &mut Call<'_>,
    dst_device: u64,
    src_host: *const c_void,
    byte_count: usize,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    let source = End::Host(src_host.expose_provenance());
    // SAFETY: `src_host` is valid for reading `byte_count` bytes until the copy was waited for, as
    // the caller promises.
    unsafe { copy(call, End::Device(dst_device), source, byte_count, When::On(h_stream)) }
}

pub(crate) unsafe fn cuMemcpyDtoH_v2(
    call: &mut Call<'_>,
    dst_host: *mut c_void,
    src_device: u64,
    byte_count: usize,
) -> Result<(), u32> {
    let target = End::Host(dst_host.expose_provenance());
    // SAFETY: `dst_host` is valid for writing `byte_count` bytes, as the caller promises.
    unsafe { copy(call, target, End::Device(src_device), byte_count, When::Now) }
}

pub(crate) unsafe fn cuMemcpyDtoHAsync_v2(
    call: &mut Call<'_>,
    dst_host: *mut c_void,
    src_device: u64,
    byte_count: usize,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    let target = End::Host(dst_host.expose_provenance());
    // SAFETY: `dst_host` is valid for writing `byte_count` bytes until the copy was waited for, as
    // the caller promises.
    unsafe { copy(call, target, End::Device(src_device), byte_count, When::On(h_stream)) }
}

pub(crate) unsafe fn cuMemcpyDtoD_v2(
    call: &mut Call<'_>,
    dst_device: u64,
    src_device: u64,
    byte_count: usize,
) -> Result<(), u32> {
    // As in the real driver: no host-side wait for a copy that touches no host memory.
    let (target, source) = (End::Device(dst_device), End::Device(src_device));
    // SAFETY: no end is host memory.
    unsafe { copy(call, target, source, byte_count, When::Later) }
}

pub(crate) unsafe fn cuMemcpyDtoDAsync_v2(
    call: &mut Call<'_>,
    dst_device: u64,
    src_device: u64,
    byte_count: usize,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    let (target, source) = (End::Device(dst_device), End::Device(src_device));
    // SAFETY: no end is host memory.
    unsafe { copy(call, target, source, byte_count, When::On(h_stream)) }
}

pub(crate) unsafe fn cuMemcpyPeer(
    call: &mut Call<'_>,
    dst_device: u64,
    dst_context: *mut c_void,
    src_device: u64,
    src_context: *mut c_void,
    byte_count: usize,
) -> Result<(), u32> {
    let current = call.bound_context()?;
    let ends = peers(call, dst_device, dst_context, src_device, src_context, byte_count)?;
    // Ordered with all earlier and later work of the three contexts, so it runs immediately.
    for context in ends.into_iter().chain([current]) {
        call.world.run_context(context);
    }
    let (target, source) = (End::Device(dst_device), End::Device(src_device));
    // SAFETY: no end is host memory.
    unsafe { copy(call, target, source, byte_count, When::Now) }
}

pub(crate) unsafe fn cuMemcpyPeerAsync(
    call: &mut Call<'_>,
    dst_device: u64,
    dst_context: *mut c_void,
    src_device: u64,
    src_context: *mut c_void,
    byte_count: usize,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    call.bound_context()?;
    peers(call, dst_device, dst_context, src_device, src_context, byte_count)?;
    let (target, source) = (End::Device(dst_device), End::Device(src_device));
    // SAFETY: no end is host memory.
    unsafe { copy(call, target, source, byte_count, When::On(h_stream)) }
}

pub(crate) unsafe fn cuMemsetD8_v2(
    call: &mut Call<'_>,
    dst_device: u64,
    uc: c_uchar,
    n: usize,
) -> Result<(), u32> {
    fill(call, dst_device, &[uc], n, When::Later)
}

pub(crate) unsafe fn cuMemsetD16_v2(
    call: &mut Call<'_>,
    dst_device: u64,
    us: c_ushort,
    n: usize,
) -> Result<(), u32> {
    fill(call, dst_device, &us.to_le_bytes(), n, When::Later)
}

pub(crate) unsafe fn cuMemsetD32_v2(
    call: &mut Call<'_>,
    dst_device: u64,
    ui: c_uint,
    n: usize,
) -> Result<(), u32> {
    fill(call, dst_device, &ui.to_le_bytes(), n, When::Later)
}

pub(crate) unsafe fn cuMemsetD8Async(
    call: &mut Call<'_>,
    dst_device: u64,
    uc: c_uchar,
    n: usize,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    fill(call, dst_device, &[uc], n, When::On(h_stream))
}

pub(crate) unsafe fn cuMemsetD16Async(
    call: &mut Call<'_>,
    dst_device: u64,
    us: c_ushort,
    n: usize,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    fill(call, dst_device, &us.to_le_bytes(), n, When::On(h_stream))
}

pub(crate) unsafe fn cuMemsetD32Async(
    call: &mut Call<'_>,
    dst_device: u64,
    ui: c_uint,
    n: usize,
    h_stream: *mut c_void,
) -> Result<(), u32> {
    fill(call, dst_device, &ui.to_le_bytes(), n, When::On(h_stream))
}

/// A copy of any kind.
///
/// # Safety
///
/// A host end is valid for `len` bytes: until the call returns if it runs now or the memory is
/// pageable, otherwise until the copy was waited for.
unsafe fn copy(
    call: &mut Call<'_>,
    target: End,
    source: End,
    len: usize,
    when: When,
) -> Result<(), u32> {
    let context = call.context()?;
    let kind = match (target, source) {
        (End::Device(_), End::Host(_)) => CallKind::CopyIn,
        (End::Host(_), End::Device(_)) => CallKind::CopyOut,
        (End::Device(a), End::Device(b)) if ordinal_of(a) != ordinal_of(b) => CallKind::CopyPeer,
        _ => CallKind::CopyWithin,
    };
    let fault = meet(call, context, kind, target, source);
    if let Some(Fault::Fail(code)) = fault {
        return Err(call.world.fail(context, code));
    }
    let stream = place_in_order(call, context, when)?;
    if len == 0 {
        return Ok(());
    }
    if [target, source].into_iter().any(|end| matches!(end, End::Host(0))) {
        return Err(code::INVALID_VALUE);
    }
    let mut wait = when == When::Now;
    let target = match target {
        End::Device(address) => device_end(call, context, kind, address, len)?,
        End::Host(address) => {
            // A copy to pageable memory returns only when it is done.
            wait |= !is_pinned(call, context, address, len)?;
            Place::Host(address)
        }
    };
    let source = match source {
        End::Device(address) => device_end(call, context, kind, address, len)?,
        End::Host(address) if wait || is_pinned(call, context, address, len)? => {
            Place::Host(address)
        }
        End::Host(address) => {
            let mut bytes = vec![0_u8; len];
            let source = ptr::with_exposed_provenance(address);
            // SAFETY: the memory belongs to the program and is valid for reading `len` bytes during
            // this call; `bytes` is fresh.
            unsafe { ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), len) };
            Place::Taken(bytes)
        }
    };
    if kind == CallKind::CopyWithin {
        call.need_code(context, "copy within")?;
    }
    let work = Work::Copy { source, target, len: wide(len) };
    call.world.enqueue(stream, Op { work, fault, call: call.name });
    if wait {
        call.world.run_stream(stream);
        return call.world.outcome(stream);
    }
    Ok(())
}

fn fill(
    call: &mut Call<'_>,
    address: u64,
    pattern: &[u8],
    count: usize,
    when: When,
) -> Result<(), u32> {
    let context = call.context()?;
    let fault = call.meet(context, CallKind::Fill);
    if let Some(Fault::Fail(code)) = fault {
        return Err(call.world.fail(context, code));
    }
    let stream = place_in_order(call, context, when)?;
    let unit = wide(pattern.len());
    let len = wide(count).checked_mul(unit).ok_or(code::INVALID_VALUE)?;
    if address.checked_rem(unit) != Some(0) {
        return Err(code::INVALID_VALUE);
    }
    if len > 0 {
        call.world.check_range(context, call.name, address, len)?;
        note_wrong_context(call, context, address);
        call.need_code(context, "fill")?;
        let work = Work::Fill { address, len, pattern: pattern.to_vec() };
        call.world.enqueue(stream, Op { work, fault, call: call.name });
    }
    Ok(())
}

/// The stream to which an operation is added.
fn place_in_order(call: &mut Call<'_>, context: u64, when: When) -> Result<u64, u32> {
    let handle = if let When::On(handle) = when { handle } else { ptr::null_mut() };
    stream_of(call, context, handle)
}

/// The fault for a copy: from the rules of the current device, and for a peer copy from those of
/// both ends.
fn meet(
    call: &mut Call<'_>,
    context: u64,
    kind: CallKind,
    target: End,
    source: End,
) -> Option<Fault> {
    if kind != CallKind::CopyPeer {
        return call.meet(context, kind);
    }
    let mut met = None;
    for end in [source, target] {
        let End::Device(address) = end else { continue };
        let device = ordinal_of(address).and_then(|ordinal| call.world.device_mut(ordinal));
        met = met.or(device.and_then(|device| device.faults.meet(kind)));
    }
    met
}

/// A checked device end.
fn device_end(
    call: &mut Call<'_>,
    context: u64,
    kind: CallKind,
    address: u64,
    len: usize,
) -> Result<Place, u32> {
    call.world.check_range(context, call.name, address, wide(len))?;
    if kind != CallKind::CopyPeer {
        note_wrong_context(call, context, address);
    }
    Ok(Place::Device(address))
}

/// Unified addressing makes this call work, but the program has bound the wrong context or none.
fn note_wrong_context(call: &mut Call<'_>, context: u64, address: u64) {
    let Some((ordinal, device)) = call.world.device_at(address) else { return };
    let owner = device.memory.holder(address).map(|holder| holder.context);
    if owner.is_some_and(|owner| owner != context) {
        let detail = format!("{address:#x} is used in another context than its own");
        call.note(MisuseKind::WrongContext, Some(ordinal), detail);
    }
}

/// Whether the whole range of host memory is pinned.
fn is_pinned(call: &mut Call<'_>, context: u64, address: usize, len: usize) -> Result<bool, u32> {
    let Some((start, block)) = pinned::holder(call.world, address) else { return Ok(false) };
    let inside = address.saturating_sub(start);
    if block.len.checked_sub(inside).is_some_and(|left| len <= left) {
        return Ok(true);
    }
    let detail = format!(
        "{len} bytes at host address {address:#x} run out of pinned memory of {} bytes at {start:#x}",
        block.len
    );
    let device = call.world.device_of(context);
    call.note(MisuseKind::OutOfBounds, device, detail);
    Err(code::INVALID_VALUE)
}

/// The contexts of a peer copy, each from its address.
fn peers(
    call: &mut Call<'_>,
    target: u64,
    target_context: *mut c_void,
    source: u64,
    source_context: *mut c_void,
    len: usize,
) -> Result<[u64; 2], u32> {
    let ends = [(target, target_context), (source, source_context)];
    let mut contexts = [0, 0];
    for ((address, handle), slot) in ends.into_iter().zip(&mut contexts) {
        *slot = context::alive(call, handle)?;
        if len > 0 && call.world.device_of(*slot) != ordinal_of(address) {
            let detail =
                format!("{address:#x} does not belong to the context that it is named with");
            let device = call.world.device_of(*slot);
            call.note(MisuseKind::WrongContext, device, detail);
            return Err(code::INVALID_VALUE);
        }
    }
    Ok(contexts)
}
