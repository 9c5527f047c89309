//! Initialisation, error texts, and the properties of devices.

#![expect(non_snake_case, reason = "named as the driver's functions are")]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::call::Call;
use crate::code;
use crate::driver::ipc::IPC_SUPPORTED;
use crate::spec::DeviceSpec;

/// The reported driver version: CUDA 12.4.
const DRIVER_VERSION: c_int = 12_040;

/// Attributes that are the same for every simulated device; those of an H200.
const CONSTANTS: [(c_int, c_int); 26] = [
    // Threads of a block, blocks in x, y and z, grids in x, y and z.
    (1, 1024),
    (2, 1024),
    (3, 1024),
    (4, 64),
    (5, c_int::MAX),
    (6, 65_535),
    (7, 65_535),
    // Shared and constant memory, warp, registers, clock in kHz.
    (8, 48 << 10),
    (9, 64 << 10),
    (10, 32),
    (12, 64 << 10),
    (13, 1_980_000),
    // Overlap of copies and kernels, mapping of host memory, concurrent kernels.
    (15, 1),
    (19, 1),
    (31, 1),
    // Memory clock in kHz, bus width, L2, threads of a multiprocessor, copy engines.
    (36, 2_619_000),
    (37, 6144),
    (38, 50 << 20),
    (39, 2048),
    (40, 3),
    // Unified addressing: set on every 64-bit device, and no statement about residency.
    (41, 1),
    // Stream priorities, managed memory, also concurrently, memory pools.
    (78, 1),
    (83, 1),
    (89, 1),
    (90, 1),
    (115, 1),
];

pub(crate) unsafe fn cuInit(call: &mut Call<'_>, flags: c_uint) -> Result<(), u32> {
    if flags != 0 {
        return Err(code::INVALID_VALUE);
    }
    crate::environment::apply(call.world);
    if call.world.init_answer != 0 {
        return Err(call.world.init_answer);
    }
    if call.world.devices.is_empty() {
        return Err(code::NO_DEVICE);
    }
    call.world.initialized = true;
    Ok(())
}

pub(crate) unsafe fn cuDriverGetVersion(
    call: &mut Call<'_>,
    driver_version: *mut c_int,
) -> Result<(), u32> {
    // A toolkit's stub answers this to every call.
    crate::environment::apply(call.world);
    if call.world.init_answer == code::STUB_LIBRARY {
        return Err(code::STUB_LIBRARY);
    }
    put!(driver_version, DRIVER_VERSION)
}

pub(crate) unsafe fn cuGetErrorString(
    _call: &mut Call<'_>,
    error: c_int,
    text: *mut *const c_char,
) -> Result<(), u32> {
    let words = match u32::try_from(error).map_err(|_| code::INVALID_VALUE)? {
        0 => c"no error",
        1 => c"invalid argument",
        2 => c"out of memory",
        3 => c"initialization error",
        100 => c"no CUDA-capable device is detected",
        101 => c"invalid device ordinal",
        201 => c"invalid device context",
        214 => c"uncorrectable ECC error encountered",
        400 => c"invalid resource handle",
        600 => c"device not ready",
        700 => c"an illegal memory access was encountered",
        709 => c"context is destroyed",
        719 => c"unspecified launch failure",
        205 => c"mapping of buffer object failed",
        801 => c"operation not supported",
        999 => c"unknown error",
        _ => return Err(code::INVALID_VALUE),
    };
    put!(text, words.as_ptr())
}

pub(crate) unsafe fn cuGetErrorName(
    _call: &mut Call<'_>,
    error: c_int,
    text: *mut *const c_char,
) -> Result<(), u32> {
    let name = match u32::try_from(error).map_err(|_| code::INVALID_VALUE)? {
        0 => c"CUDA_SUCCESS",
        1 => c"CUDA_ERROR_INVALID_VALUE",
        2 => c"CUDA_ERROR_OUT_OF_MEMORY",
        3 => c"CUDA_ERROR_NOT_INITIALIZED",
        100 => c"CUDA_ERROR_NO_DEVICE",
        201 => c"CUDA_ERROR_INVALID_CONTEXT",
        214 => c"CUDA_ERROR_ECC_UNCORRECTABLE",
        700 => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        719 => c"CUDA_ERROR_LAUNCH_FAILED",
        999 => c"CUDA_ERROR_UNKNOWN",
        _ => return Err(code::INVALID_VALUE),
    };
    put!(text, name.as_ptr())
}

pub(crate) unsafe fn cuDeviceGet(
    call: &mut Call<'_>,
    device: *mut c_int,
    ordinal: c_int,
) -> Result<(), u32> {
    call.device(ordinal)?;
    put!(device, ordinal)
}

pub(crate) unsafe fn cuDeviceGetCount(call: &mut Call<'_>, count: *mut c_int) -> Result<(), u32> {
    call.ready()?;
    put!(count, c_int::try_from(call.world.devices.len()).unwrap_or(c_int::MAX))
}

pub(crate) unsafe fn cuDeviceGetName(
    call: &mut Call<'_>,
    name: *mut c_char,
    len: c_int,
    dev: c_int,
) -> Result<(), u32> {
    let text = spec(call, dev)?.full_name();
    // SAFETY: `name` is null or valid for writing `len` bytes, as the caller promises.
    unsafe { put_text(name, len, &text) }
}

pub(crate) unsafe fn cuDeviceGetUuid(
    call: &mut Call<'_>,
    uuid: *mut c_void,
    dev: c_int,
) -> Result<(), u32> {
    let ordinal = call.device(dev)?;
    let bytes = uuid_of(spec(call, dev)?, ordinal);
    put!(uuid.cast::<[u8; 16]>(), bytes)
}

pub(crate) unsafe fn cuDeviceGetUuid_v2(
    call: &mut Call<'_>,
    uuid: *mut c_void,
    dev: c_int,
) -> Result<(), u32> {
    // SAFETY: the same promise.
    unsafe { cuDeviceGetUuid(call, uuid, dev) }
}

pub(crate) unsafe fn cuDeviceTotalMem_v2(
    call: &mut Call<'_>,
    bytes: *mut usize,
    dev: c_int,
) -> Result<(), u32> {
    let capacity = spec(call, dev)?.capacity;
    put!(bytes, usize::try_from(capacity).unwrap_or(usize::MAX))
}

pub(crate) unsafe fn cuDeviceGetAttribute(
    call: &mut Call<'_>,
    pi: *mut c_int,
    attrib: c_int,
    dev: c_int,
) -> Result<(), u32> {
    let ordinal = call.device(dev)?;
    let spec = spec(call, dev)?;
    let (domain, bus, device) = spec.pci.unwrap_or_else(|| default_pci(ordinal));
    let (major, minor) = spec.compute_capability;
    let value = match attrib {
        16 => c_int::from(spec.multiprocessors),
        18 => c_int::from(spec.integrated),
        32 => c_int::from(spec.ecc),
        33 => c_int::from(bus),
        34 => c_int::from(device),
        50 => c_int::try_from(domain).unwrap_or(c_int::MAX),
        75 => c_int::from(major),
        76 => c_int::from(minor),
        IPC_SUPPORTED => c_int::from(spec.ipc),
        i32::MIN..=0 | 200.. => return Err(code::INVALID_VALUE),
        _ => CONSTANTS.iter().find(|(at, _)| *at == attrib).map_or(0, |(_, value)| *value),
    };
    put!(pi, value)
}

pub(crate) unsafe fn cuDeviceGetPCIBusId(
    call: &mut Call<'_>,
    pci_bus_id: *mut c_char,
    len: c_int,
    dev: c_int,
) -> Result<(), u32> {
    let ordinal = call.device(dev)?;
    let text = pci_text(spec(call, dev)?, ordinal);
    // SAFETY: `pci_bus_id` is null or valid for writing `len` bytes, as the caller promises.
    unsafe { put_text(pci_bus_id, len, &text) }
}

pub(crate) unsafe fn cuDeviceGetByPCIBusId(
    call: &mut Call<'_>,
    dev: *mut c_int,
    pci_bus_id: *const c_char,
) -> Result<(), u32> {
    call.ready()?;
    if pci_bus_id.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: not null, and NUL-terminated, as the caller promises.
    let wanted = unsafe { CStr::from_ptr(pci_bus_id) }.to_string_lossy();
    let found = (0..)
        .zip(&call.world.devices)
        .find(|(ordinal, device)| pci_text(&device.spec, *ordinal).eq_ignore_ascii_case(&wanted));
    let (ordinal, _) = found.ok_or(code::INVALID_DEVICE)?;
    put!(dev, c_int::try_from(ordinal).map_err(|_| code::INVALID_DEVICE)?)
}

pub(crate) unsafe fn cuDeviceComputeCapability(
    call: &mut Call<'_>,
    major: *mut c_int,
    minor: *mut c_int,
    dev: c_int,
) -> Result<(), u32> {
    let capability = spec(call, dev)?.compute_capability;
    put!(major, c_int::from(capability.0))?;
    put!(minor, c_int::from(capability.1))
}

pub(crate) unsafe fn cuDeviceCanAccessPeer(
    call: &mut Call<'_>,
    can_access_peer: *mut c_int,
    dev: c_int,
    peer_dev: c_int,
) -> Result<(), u32> {
    let (from, to) = (call.device(dev)?, call.device(peer_dev)?);
    put!(can_access_peer, c_int::from(call.world.reaches(from, to)))
}

pub(crate) unsafe fn cuDeviceGetP2PAttribute(
    call: &mut Call<'_>,
    value: *mut c_int,
    attrib: c_int,
    src_device: c_int,
    dst_device: c_int,
) -> Result<(), u32> {
    let (from, to) = (call.device(src_device)?, call.device(dst_device)?);
    match attrib {
        // Performance rank, access to arrays.
        1 | 4 => put!(value, 0),
        // Access, native atomics.
        2 | 3 => put!(value, c_int::from(call.world.reaches(from, to))),
        _ => Err(code::INVALID_VALUE),
    }
}

fn spec<'c>(call: &'c Call<'_>, dev: c_int) -> Result<&'c DeviceSpec, u32> {
    let ordinal = call.device(dev)?;
    call.world.device(ordinal).map(|device| &device.spec).ok_or(code::INVALID_DEVICE)
}

/// The identity of a device.
pub(super) fn uuid_of(spec: &DeviceSpec, ordinal: u32) -> [u8; 16] {
    spec.uuid.unwrap_or_else(|| default_uuid(ordinal))
}

/// A version 4 UUID that is fixed by the ordinal.
fn default_uuid(ordinal: u32) -> [u8; 16] {
    let mut random = crate::random::Random::new(0x5EED ^ u64::from(ordinal));
    let bits = (u128::from(random.next()) << 64) | u128::from(random.next());
    let without = bits & !(0xF << 76) & !(0x3 << 62);
    (without | (0x4 << 76) | (0x2 << 62)).to_be_bytes()
}

fn default_pci(ordinal: u32) -> (u32, u8, u8) {
    let [bus, low, high, top] = ordinal.to_le_bytes();
    (u32::from_le_bytes([low, high, top, 0]), bus, 0)
}

fn pci_text(spec: &DeviceSpec, ordinal: u32) -> String {
    let (domain, bus, device) = spec.pci.unwrap_or_else(|| default_pci(ordinal));
    format!("{domain:04X}:{bus:02X}:{device:02X}.0")
}

/// Writes a text and its NUL into `len` bytes, truncated to fit.
///
/// # Safety
///
/// `target` is null or valid for writing `len` bytes.
unsafe fn put_text(target: *mut c_char, len: c_int, text: &str) -> Result<(), u32> {
    let len = usize::try_from(len).map_err(|_| code::INVALID_VALUE)?;
    let most = len.checked_sub(1).ok_or(code::INVALID_VALUE)?;
    if target.is_null() {
        return Err(code::INVALID_VALUE);
    }
    let bytes: Vec<u8> = text.bytes().take(most).chain([0]).collect();
    // SAFETY: `target` is valid for `len` bytes and these are at most as many; they do not overlap
    // the caller's memory.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), target.cast(), bytes.len()) };
    Ok(())
}
