#![doc = include_str!("../README.md")]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a library for tests alone: what its text gets wrong stops the test"
)]

mod text;

use core::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_ulonglong};
use core::ptr;
use core::time::Duration;
use std::sync::Mutex;
use std::thread::sleep;

use nvml_wrapper_sys::bindings::{
    NvmlLib, field_id, nvmlDevice_t, nvmlEccCounterType_t, nvmlEnableState_t, nvmlEventData_t,
    nvmlEventSet_t, nvmlFieldValue_t, nvmlMemoryErrorType_t, nvmlProcessInfo_t, nvmlReturn_t,
};

use crate::text::{Card, Text};

const OK: nvmlReturn_t = 0;
const INVALID_ARGUMENT: nvmlReturn_t = 2;
const NOT_SUPPORTED: nvmlReturn_t = 3;
const NOT_FOUND: nvmlReturn_t = 6;
const INSUFFICIENT_SIZE: nvmlReturn_t = 7;
const TIMEOUT: nvmlReturn_t = 10;
const GPU_IS_LOST: nvmlReturn_t = 15;
/// The type of a value that is 64 bits wide and has no sign.
const UNSIGNED_LONG_LONG: u32 = 3;

/// The sets of events: the card of each, its waits, and the XIDs that it has reported.
static SETS: Mutex<Vec<Set>> = Mutex::new(Vec::new());

#[derive(Debug, Default)]
struct Set {
    card: Option<usize>,
    waits: u64,
    reported: Vec<(u64, u64)>,
}

/// Reads the text, and does not return while it says that this function hangs.
fn enter(function: &str) -> Text {
    loop {
        let text = text::read();
        if !text.hang.iter().any(|hangs| hangs == function) {
            return text;
        }
        sleep(Duration::from_millis(2));
    }
}

/// A handle: 16 for the first card, 32 for the second; 8 more for its partition.
fn handle(card: usize, part: bool) -> nvmlDevice_t {
    ptr::without_provenance_mut((card + 1) * 16 + if part { 8 } else { 0 })
}

fn card_of(text: &Text, device: nvmlDevice_t) -> Result<&Card, nvmlReturn_t> {
    let card = (device.addr() / 16).checked_sub(1).and_then(|card| text.cards.get(card));
    match card {
        None => Err(INVALID_ARGUMENT),
        Some(card) if card.lost => Err(GPU_IS_LOST),
        Some(card) => Ok(card),
    }
}

/// Writes what was found, or returns why there is nothing.
unsafe fn put<T>(to: *mut T, found: Result<T, nvmlReturn_t>) -> nvmlReturn_t {
    match found {
        Ok(value) => {
            // SAFETY: the caller passes a place that is valid for writing a `T`.
            unsafe { to.write(value) };
            OK
        }
        Err(code) => code,
    }
}

/// Writes a text and its zero, if there is room.
unsafe fn put_text(to: *mut c_char, length: c_uint, text: &str) -> nvmlReturn_t {
    if text.len() >= length as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: the caller passes `length` bytes that are valid for writing, which are more than the
    // text has.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), to, text.len()) };
    // SAFETY: as above: one more.
    let end = unsafe { to.add(text.len()) };
    // SAFETY: as above.
    unsafe { end.write(0) };
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    enter("nvmlInit_v2").init
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(to: *mut c_char, length: c_uint) -> nvmlReturn_t {
    let text = enter("nvmlSystemGetDriverVersion");
    // SAFETY: the conditions are those of the caller.
    unsafe { put_text(to, length, &text.driver) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetProcessName(
    pid: c_uint,
    to: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    let text = enter("nvmlSystemGetProcessName");
    let mut processes = text.cards.iter().flat_map(|card| &card.processes);
    match processes.find(|process| process.pid == pid) {
        // SAFETY: the conditions are those of the caller.
        Some(process) => unsafe { put_text(to, length, &process.name) },
        None => NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByUUID(
    uuid: *const c_char,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let text = enter("nvmlDeviceGetHandleByUUID");
    // SAFETY: the caller passes a text that ends in a zero.
    let wanted = unsafe { CStr::from_ptr(uuid) }.to_string_lossy();
    let is = |card: &Card| card.uuid == wanted || card.mig.as_deref() == Some(&*wanted);
    let found = match text.cards.iter().position(is) {
        None => Err(NOT_FOUND),
        Some(card) if text.cards[card].lost => Err(GPU_IS_LOST),
        Some(card) => Ok(handle(card, text.cards[card].uuid != wanted)),
    };
    // SAFETY: the conditions are those of the caller.
    unsafe { put(device, found) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    part: nvmlDevice_t,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let text = enter("nvmlDeviceGetDeviceHandleFromMigDeviceHandle");
    let found = card_of(&text, part).map(|_card| handle(part.addr() / 16 - 1, false));
    // SAFETY: the conditions are those of the caller.
    unsafe { put(device, found) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: nvmlMemoryErrorType_t,
    counter: nvmlEccCounterType_t,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    let text = enter("nvmlDeviceGetTotalEccErrors");
    let found = card_of(&text, device).and_then(|card| {
        let counts = if counter == 0 { card.volatile } else { card.aggregate };
        counts.unwrap_or(Err(NOT_SUPPORTED)).map(|counts| counts[kind as usize])
    });
    // SAFETY: the conditions are those of the caller.
    unsafe { put(count, found) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    let text = enter("nvmlDeviceGetFieldValues");
    let card = match card_of(&text, device) {
        Ok(card) => card,
        Err(code) => return code,
    };
    for at in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller passes `count` values that are valid for reading and writing.
        let value = unsafe { values.add(at) };
        // SAFETY: as above; no other reference to it exists.
        let value = unsafe { &mut *value };
        let place = match value.fieldId {
            field_id::NVML_FI_DEV_REMAPPED_COR => 0,
            field_id::NVML_FI_DEV_REMAPPED_UNC => 1,
            field_id::NVML_FI_DEV_REMAPPED_PENDING => 2,
            field_id::NVML_FI_DEV_REMAPPED_FAILURE => 3,
            _ => return INVALID_ARGUMENT,
        };
        value.valueType = UNSIGNED_LONG_LONG;
        value.timestamp = c_longlong::from(1);
        match card.remapped.unwrap_or(Err(NOT_SUPPORTED)) {
            Ok(rows) => {
                value.nvmlReturn = OK;
                value.value.ullVal = rows[place];
            }
            Err(code) => value.nvmlReturn = code,
        }
    }
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRetiredPagesPendingStatus(
    device: nvmlDevice_t,
    pending: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    let text = enter("nvmlDeviceGetRetiredPagesPendingStatus");
    let found = card_of(&text, device)
        .and_then(|card| card.retired.unwrap_or(Err(NOT_SUPPORTED)).map(u32::from));
    // SAFETY: the conditions are those of the caller.
    unsafe { put(pending, found) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    infos: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    let text = enter("nvmlDeviceGetComputeRunningProcesses_v3");
    let card = match card_of(&text, device) {
        Ok(Card { holders: Some(code), .. }) => return *code,
        Ok(card) => card,
        Err(code) => return code,
    };
    // SAFETY: the caller passes a count that is valid for reading and writing.
    let room = unsafe { count.read() } as usize;
    // SAFETY: as above.
    unsafe { count.write(card.processes.len() as c_uint) };
    if card.processes.len() > room {
        return INSUFFICIENT_SIZE;
    }
    for (at, process) in card.processes.iter().enumerate() {
        let info = nvmlProcessInfo_t {
            pid: process.pid,
            usedGpuMemory: process.bytes.unwrap_or(u64::MAX),
            gpuInstanceId: u32::MAX,
            computeInstanceId: u32::MAX,
        };
        // SAFETY: the caller passes room for as many as it says, which is enough.
        let to = unsafe { infos.add(at) };
        // SAFETY: as above.
        unsafe { to.write(info) };
    }
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    _device: nvmlDevice_t,
    _count: *mut c_uint,
    _infos: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    NOT_SUPPORTED
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> nvmlReturn_t {
    enter("nvmlEventSetCreate");
    let Ok(mut sets) = SETS.lock() else { return INVALID_ARGUMENT };
    sets.push(Set::default());
    let made = ptr::without_provenance_mut(sets.len() * 16);
    // SAFETY: the conditions are those of the caller.
    unsafe { put(set, Ok(made)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    _types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    let text = enter("nvmlDeviceRegisterEvents");
    if let Err(code) = card_of(&text, device) {
        return code;
    }
    let Ok(mut sets) = SETS.lock() else { return INVALID_ARGUMENT };
    sets[set.addr() / 16 - 1].card = Some(device.addr() / 16 - 1);
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout: c_uint,
) -> nvmlReturn_t {
    let text = enter("nvmlEventSetWait_v2");
    let found = {
        let Ok(mut sets) = SETS.lock() else { return INVALID_ARGUMENT };
        let Set { card, waits, reported } = &mut sets[set.addr() / 16 - 1];
        *waits += 1;
        let Some((at, card)) = card.and_then(|at| Some((at, text.cards.get(at)?))) else {
            return INVALID_ARGUMENT;
        };
        let due = |one: &&(u64, u64)| one.1 <= *waits && !reported.contains(one);
        let due = card.xids.iter().find(due).copied();
        reported.extend(due);
        due.map(|(xid, _)| (at, xid))
    };
    let Some((card, xid)) = found else {
        sleep(Duration::from_millis(u64::from(timeout)));
        return TIMEOUT;
    };
    let event = nvmlEventData_t {
        device: handle(card, false),
        eventType: 8,
        eventData: xid,
        gpuInstanceId: u32::MAX,
        computeInstanceId: u32::MAX,
    };
    // SAFETY: the conditions are those of the caller.
    unsafe { put(data, Ok(event)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetFree(_set: nvmlEventSet_t) -> nvmlReturn_t {
    OK
}

/// Binds each function to the type that the bindings declare for its name, so that the compiler
/// compares them. Nobody calls it.
pub fn compare(library: &mut NvmlLib) {
    macro_rules! same {
        ($($name:ident),* $(,)?) => { $(library.$name = Ok($name);)* };
    }
    same!(
        nvmlInit_v2,
        nvmlShutdown,
        nvmlSystemGetDriverVersion,
        nvmlSystemGetProcessName,
        nvmlDeviceGetHandleByUUID,
        nvmlDeviceGetDeviceHandleFromMigDeviceHandle,
        nvmlDeviceGetTotalEccErrors,
        nvmlDeviceGetFieldValues,
        nvmlDeviceGetRetiredPagesPendingStatus,
        nvmlDeviceGetComputeRunningProcesses_v3,
        nvmlDeviceGetGraphicsRunningProcesses_v3,
        nvmlEventSetCreate,
        nvmlDeviceRegisterEvents,
        nvmlEventSetWait_v2,
        nvmlEventSetFree,
    );
}
