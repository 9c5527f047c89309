//! The driver's attributes of an address.

#![expect(non_snake_case, reason = "named as the driver's functions are")]

use core::ffi::{c_int, c_uint, c_void};
use core::ptr;

use crate::call::Call;
use crate::code;
use crate::driver::pinned;
use crate::fault::CallKind;
use crate::handle::{Kind, encode};
use crate::spec::Backing;

/// Memory types: host and device.
const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// The value of an attribute, in the width that the driver writes.
#[derive(Clone, Copy)]
enum Value {
    /// One byte, so that a caller's one-byte boolean is enough.
    Flag(bool),
    Int(c_int),
    Word(u32),
    Long(u64),
    Handle(*mut c_void),
}

/// An address that is known to the driver.
struct Known {
    context: u64,
    start: u64,
    len: u64,
    serial: u64,
    backing: Backing,
    is_host: bool,
}

pub(crate) unsafe fn cuPointerGetAttribute(
    call: &mut Call<'_>,
    data: *mut c_void,
    attribute: c_int,
    ptr: u64,
) -> Result<(), u32> {
    call.plain(CallKind::Pointer)?;
    let known = look_up(call, ptr).ok_or(code::INVALID_VALUE)?;
    let value = attribute_of(call, &known, attribute, ptr)?;
    // SAFETY: `data` is null or valid for the attribute's value, as the caller promises.
    unsafe { put_attribute(data, value) }
}

pub(crate) unsafe fn cuPointerGetAttributes(
    call: &mut Call<'_>,
    num_attributes: c_uint,
    attributes: *mut c_int,
    data: *mut *mut c_void,
    ptr: u64,
) -> Result<(), u32> {
    call.plain(CallKind::Pointer)?;
    let count = usize::try_from(num_attributes).map_err(|_| code::INVALID_VALUE)?;
    if count == 0 || attributes.is_null() || data.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: not null, and valid for reading `count` attributes, as the caller promises.
    let attributes = unsafe { core::slice::from_raw_parts(attributes, count) };
    // SAFETY: not null, and valid for reading `count` pointers, as the caller promises.
    let targets = unsafe { core::slice::from_raw_parts(data, count) };
    let known = look_up(call, ptr);
    for (attribute, target) in attributes.iter().zip(targets) {
        // This function returns zeros where the function for one attribute returns an error.
        let value = known
            .as_ref()
            .map_or(Err(code::INVALID_VALUE), |known| attribute_of(call, known, *attribute, ptr))
            .or_else(|_| nothing(*attribute))?;
        // SAFETY: each pointer is null or valid for its attribute's value.
        unsafe { put_attribute(*target, value) }?;
    }
    Ok(())
}

fn look_up(call: &Call<'_>, address: u64) -> Option<Known> {
    if let Some((_, device)) = call.world.device_at(address) {
        let holder = device.memory.holder(address)?;
        return Some(Known {
            context: holder.context,
            start: holder.address,
            len: holder.len,
            serial: holder.serial,
            backing: device.spec.backing,
            is_host: false,
        });
    }
    let (start, block) = pinned::holder(call.world, usize::try_from(address).ok()?)?;
    Some(Known {
        context: block.context,
        start: crate::memory::wide(start),
        len: crate::memory::wide(block.len),
        serial: 0,
        backing: Backing::Host,
        is_host: true,
    })
}

fn attribute_of(
    call: &Call<'_>,
    known: &Known,
    attribute: c_int,
    address: u64,
) -> Result<Value, u32> {
    let own = usize::try_from(address).unwrap_or(0);
    Ok(match (attribute, known.backing) {
        (1, _) => Value::Handle(encode(Kind::Context, known.context)),
        (2, Backing::Host) => Value::Word(HOST),
        (2, _) => Value::Word(DEVICE),
        (3, _) => Value::Long(address),
        // Device memory has no host pointer; this distinguishes it from host memory.
        (4, Backing::Device) => return Err(code::INVALID_VALUE),
        (4, _) => Value::Handle(ptr::without_provenance_mut(own)),
        (7, _) => Value::Long(known.serial),
        (8, backing) => Value::Flag(backing == Backing::Managed),
        (9, _) => {
            let ordinal = call.world.device_of(known.context).ok_or(code::INVALID_VALUE)?;
            Value::Int(c_int::try_from(ordinal).map_err(|_| code::INVALID_VALUE)?)
        }
        (11, _) => Value::Long(known.start),
        (12, _) => Value::Long(known.len),
        (13, _) => Value::Flag(known.is_host || known.backing != Backing::Host),
        _ => return Err(code::INVALID_VALUE),
    })
}

/// The value of an attribute for an address that is unknown to the driver.
fn nothing(attribute: c_int) -> Result<Value, u32> {
    match attribute {
        1 | 4 => Ok(Value::Handle(ptr::null_mut())),
        2 => Ok(Value::Word(0)),
        3 | 7 | 11 | 12 => Ok(Value::Long(0)),
        8 | 13 => Ok(Value::Flag(false)),
        // The device "-2" means none.
        9 => Ok(Value::Int(-2)),
        _ => Err(code::INVALID_VALUE),
    }
}

/// # Safety
///
/// `target` is null or valid for writing the value.
unsafe fn put_attribute(target: *mut c_void, value: Value) -> Result<(), u32> {
    match value {
        Value::Flag(value) => put!(target.cast(), u8::from(value)),
        Value::Int(value) => put!(target.cast(), value),
        Value::Word(value) => put!(target.cast(), value),
        Value::Long(value) => put!(target.cast(), value),
        Value::Handle(value) => put!(target.cast(), value),
    }
}
