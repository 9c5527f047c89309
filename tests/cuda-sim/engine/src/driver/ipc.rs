//! Memory shared between processes: `cuIpcGetMemHandle`, `cuIpcOpenMemHandle`, `cuIpcCloseMemHandle`.

#![expect(non_snake_case, reason = "named as the driver's functions are")]

use core::ffi::{c_char, c_int, c_uint, c_void};

use crate::call::Call;
use crate::code;
use crate::driver::device::uuid_of;
use crate::fault::CallKind;
use crate::memory::{Origin, ordinal_of};
use crate::report::MisuseKind;
use crate::shared::{HANDLE_LEN, Shared, Ticket};

/// The only flag that the manual allows, and requires.
const LAZY_ENABLE_PEER_ACCESS: c_uint = 1;
/// The driver takes what is smaller than this from a larger block, which a handle then opens whole.
const SUBALLOCATED_BELOW: u64 = 2 << 20;

/// `CUipcMemHandle`: 64 bytes that only the driver interprets.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IpcMemHandle {
    /// The bytes.
    pub reserved: [c_char; HANDLE_LEN],
}

pub(crate) unsafe fn cuIpcGetMemHandle(
    call: &mut Call<'_>,
    p_handle: *mut c_void,
    dptr: u64,
) -> Result<(), u32> {
    let context = call.plain(CallKind::Ipc)?;
    let ordinal = supported(call, context)?;
    if p_handle.is_null() {
        return Err(code::INVALID_VALUE);
    }
    let owner = ordinal_of(dptr).filter(|owner| *owner == ordinal);
    let holder = owner.and_then(|_| call.world.device(ordinal)?.memory.holder(dptr));
    let allocation = match holder {
        Some(holder) if holder.address == dptr && holder.origin == Origin::Allocated => holder,
        _ => {
            let detail = format!("{dptr:#x} is no start of memory of cuMemAlloc on this device");
            call.note(MisuseKind::UnknownAddress, Some(ordinal), detail);
            return Err(code::INVALID_VALUE);
        }
    };
    if !allocation.len.is_multiple_of(SUBALLOCATED_BELOW) {
        let detail = format!(
            "{} bytes at {dptr:#x} are exported; a driver opens the whole block of 2 MiB that they \
             are a part of",
            allocation.len
        );
        call.note(MisuseKind::SharesNeighbours, Some(ordinal), detail);
    }
    let uuid = call.world.device(ordinal).map_or([0; 16], |device| uuid_of(&device.spec, ordinal));
    let device = call.world.device_mut(ordinal).ok_or(code::INVALID_DEVICE)?;
    let bytes = device.memory.export(allocation, uuid)?.to_bytes();
    put!(p_handle.cast::<[u8; HANDLE_LEN]>(), bytes)
}

pub(crate) unsafe fn cuIpcOpenMemHandle_v2(
    call: &mut Call<'_>,
    pdptr: *mut u64,
    handle: IpcMemHandle,
    flags: c_uint,
) -> Result<(), u32> {
    let context = call.plain(CallKind::Ipc)?;
    let ordinal = supported(call, context)?;
    if pdptr.is_null() || flags != LAZY_ENABLE_PEER_ACCESS {
        return Err(code::INVALID_VALUE);
    }
    let bytes = handle.reserved.map(|byte| byte.to_ne_bytes()[0]);
    let ticket = Ticket::from_bytes(&bytes).ok_or(code::INVALID_VALUE)?;
    if ticket.process == std::process::id() {
        return Err(code::INVALID_CONTEXT);
    }
    let uuid = call.world.device(ordinal).map(|device| uuid_of(&device.spec, ordinal));
    // The manual lets a context of another device open it; the stricter reading.
    if uuid != Some(ticket.uuid) {
        return Err(code::INVALID_DEVICE);
    }
    let device = call.world.device_mut(ordinal).ok_or(code::INVALID_DEVICE)?;
    let address = match device.memory.open_again(&ticket, context) {
        Some(address) => address,
        None => device.memory.open(Shared::open(ticket)?, context)?,
    };
    put!(pdptr, address)
}

pub(crate) unsafe fn cuIpcCloseMemHandle(call: &mut Call<'_>, dptr: u64) -> Result<(), u32> {
    let context = call.plain(CallKind::Ipc)?;
    let ordinal = supported(call, context)?;
    let holder = call.world.device(ordinal).and_then(|device| device.memory.holder(dptr));
    let is_opened = |origin| matches!(origin, Origin::Opened { .. });
    if !holder.is_some_and(|holder| holder.address == dptr && is_opened(holder.origin)) {
        let detail = format!("{dptr:#x} was not opened, or is closed already");
        call.note(MisuseKind::UnknownAddress, Some(ordinal), detail);
        return Err(code::INVALID_VALUE);
    }
    let what = format!("memory of another process at {dptr:#x}");
    let len = holder.map_or(0, |holder| holder.len);
    call.world.settle_before_free(context, call.name, &what, |work| work.uses_device(dptr, len));
    let device = call.world.device_mut(ordinal).ok_or(code::INVALID_DEVICE)?;
    device.memory.close(dptr).ok_or(code::INVALID_VALUE)
}

/// The device of a context, if its memory can be shared.
fn supported(call: &Call<'_>, context: u64) -> Result<u32, u32> {
    let ordinal = call.world.device_of(context).ok_or(code::INVALID_CONTEXT)?;
    match call.world.device(ordinal) {
        Some(device) if device.spec.ipc => Ok(ordinal),
        _ => Err(code::NOT_SUPPORTED),
    }
}

/// The attribute that says whether a device can share memory and events with other processes.
pub(crate) const IPC_SUPPORTED: c_int = 125;
