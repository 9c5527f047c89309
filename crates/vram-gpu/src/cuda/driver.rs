//! Driver calls that cust does not wrap, and the raw result codes of those that it wraps.
//!
//! Unless its comment says otherwise, a function here needs a bound context. On failure it returns
//! the driver's own code, because cust maps many codes to one.

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::ptr;

use cust::error::CudaResult;
use cust::sys::{self, CUcontext, CUresult, CUstream};

use crate::codes;

/// Converts the result of a raw call.
pub(super) fn raw(result: CUresult) -> Result<(), u32> {
    if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(cuda_shim::last_raw_code()) }
}

/// Runs a call of cust. On failure returns the driver's code, not cust's error.
pub(super) fn through_cust<T>(call: impl FnOnce() -> CudaResult<T>) -> Result<T, u32> {
    cuda_shim::clear_raw_code();
    call().map_err(|error| match cuda_shim::last_raw_code() {
        // An error that cust returned without a driver call.
        #[expect(clippy::as_conversions, reason = "`CudaError` is a `repr(u32)` enum")]
        0 => error as u32,
        code => code,
    })
}

/// Logs a failure that cannot be returned to a caller.
pub(super) fn log_failure(what: &'static str, result: Result<(), u32>) {
    if let Err(code) = result {
        tracing::warn!(what, code, name = codes::name(code), "the driver failed");
    }
}

/// Pushes a context on this thread's stack, above the current one.
///
/// # Safety
///
/// `context` is alive, and the caller pops it on this thread before any other code pops.
pub(super) unsafe fn push(context: CUcontext) -> Result<(), u32> {
    // SAFETY: the context is alive, as the caller promises.
    raw(unsafe { sys::cuCtxPushCurrent_v2(context) })
}

/// Pops the current context from this thread's stack.
pub(super) fn pop() -> Result<(), u32> {
    let mut popped = ptr::null_mut();
    // SAFETY: `popped` is valid for writing a handle; the call has no other condition.
    raw(unsafe { sys::cuCtxPopCurrent_v2(&raw mut popped) })
}

/// Runs work that changes the current context (cust does when it retains one), then restores this
/// thread's own. Needs no bound context.
pub(super) fn keeping_current<T>(work: impl FnOnce() -> T) -> T {
    let mut before = ptr::null_mut();
    // SAFETY: `before` is valid for writing a handle; the call has no other condition.
    let known = raw(unsafe { sys::cuCtxGetCurrent(&raw mut before) });
    let done = work();
    if known.is_ok() {
        // SAFETY: the handle was current on this thread just before, or is null for none. If its
        // owner destroyed it meanwhile, the driver refuses it and the thread has no current
        // context.
        let _none_if_refused = raw(unsafe { sys::cuCtxSetCurrent(before) });
    }
    done
}

/// Copies host bytes to the device, in the order of the stream.
///
/// # Safety
///
/// `target..target + len` lies in a live allocation of the bound context. `source` is valid for
/// reading `len` bytes and is not written until the stream has been waited for. The stream is alive.
pub(super) unsafe fn copy_in(
    target: u64,
    source: *const u8,
    len: usize,
    stream: CUstream,
) -> Result<(), u32> {
    let source = source.cast::<c_void>();
    // SAFETY: both ends are valid for `len` bytes until the wait, as the caller promises; the
    // stream is alive, as the caller promises.
    raw(unsafe { sys::cuMemcpyHtoDAsync_v2(target, source, len, stream) })
}

/// Copies device bytes to the host, in the order of the stream.
///
/// # Safety
///
/// `source..source + len` lies in a live allocation of the bound context. `target` is valid for
/// writing `len` bytes and is neither read nor written until the stream has been waited for. The
/// stream is alive.
pub(super) unsafe fn copy_out(
    target: *mut u8,
    source: u64,
    len: usize,
    stream: CUstream,
) -> Result<(), u32> {
    let target = target.cast::<c_void>();
    // SAFETY: both ends are valid for `len` bytes until the wait, as the caller promises; the
    // stream is alive, as the caller promises.
    raw(unsafe { sys::cuMemcpyDtoHAsync_v2(target, source, len, stream) })
}

/// Copies within the device, in the order of the stream.
///
/// # Safety
///
/// Both ranges lie in live allocations of the bound context and do not overlap. The stream is alive.
pub(super) unsafe fn copy_within(
    target: u64,
    source: u64,
    len: usize,
    stream: CUstream,
) -> Result<(), u32> {
    // SAFETY: both ranges are live and apart, as the caller promises; so is the stream.
    raw(unsafe { sys::cuMemcpyDtoDAsync_v2(target, source, len, stream) })
}

/// One end of a copy between devices.
#[derive(Clone, Copy)]
pub(super) struct PeerEnd {
    pub(super) context: CUcontext,
    pub(super) address: u64,
}

/// Copies between devices, in the order of the target's stream.
///
/// # Safety
///
/// Each end names a context that stays alive until the wait and `len` bytes of a live allocation
/// of it. The stream is alive.
pub(super) unsafe fn copy_peer(
    target: PeerEnd,
    source: PeerEnd,
    len: usize,
    stream: CUstream,
) -> Result<(), u32> {
    // SAFETY: contexts and ranges are live until the wait, as the caller promises.
    let result = unsafe {
        sys::cuMemcpyPeerAsync(
            target.address,
            target.context,
            source.address,
            source.context,
            len,
            stream,
        )
    };
    raw(result)
}

/// Sets device bytes, in the order of the stream.
///
/// # Safety
///
/// `target..target + len` lies in a live allocation of the bound context. The stream is alive.
pub(super) unsafe fn fill(target: u64, value: u8, len: usize, stream: CUstream) -> Result<(), u32> {
    // SAFETY: the range is live, as the caller promises; the stream is alive, as the caller promises.
    raw(unsafe { sys::cuMemsetD8Async(target, value, len, stream) })
}

/// Page-locks host memory for every context.
///
/// # Safety
///
/// `start` is valid for `len` bytes, which stay allocated until they are unregistered or the
/// context is gone.
pub(super) unsafe fn register(start: *mut u8, len: usize) -> Result<(), u32> {
    let portable: c_uint = sys::CU_MEMHOSTREGISTER_PORTABLE;
    // SAFETY: the memory is allocated and stays so, as the caller promises.
    raw(unsafe { sys::cuMemHostRegister_v2(start.cast(), len, portable) })
}

/// Ends the page lock of memory that was registered at `start`.
///
/// # Safety
///
/// No copy that was not waited for uses the memory.
pub(super) unsafe fn unregister(start: *mut u8) -> Result<(), u32> {
    // SAFETY: no copy uses the memory, as the caller promises; an unknown address is refused.
    raw(unsafe { sys::cuMemHostUnregister(start.cast()) })
}

/// The name by which another process opens an allocation.
///
/// # Safety
///
/// A live allocation of the bound context starts at `address`.
pub(super) unsafe fn export(address: u64) -> Result<[u8; 64], u32> {
    let mut handle = sys::CUipcMemHandle::default();
    // SAFETY: `handle` is valid for writing; the allocation is live, as the caller promises.
    raw(unsafe { sys::cuIpcGetMemHandle(&raw mut handle, address) })?;
    Ok(handle.reserved.map(byte_of))
}

/// Opens an allocation of another process. Returns its address in the bound context.
pub(super) fn import(handle: [u8; 64]) -> Result<u64, u32> {
    use sys::CUipcMem_flags_enum::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as LAZY;
    let reserved = handle.map(|byte| c_char::from_ne_bytes([byte]));
    let handle = sys::CUipcMemHandle { reserved };
    #[expect(clippy::as_conversions, reason = "a C enum of one small number")]
    let flags = LAZY as c_uint;
    let mut address = 0;
    // SAFETY: `address` is valid for writing; the driver checks the bytes of the handle.
    raw(unsafe { sys::cuIpcOpenMemHandle_v2(&raw mut address, handle, flags) })?;
    Ok(address)
}

/// Closes an allocation of another process.
///
/// # Safety
///
/// `address` was opened in the bound context and not closed as often; no work that uses it runs.
pub(super) unsafe fn close(address: u64) -> Result<(), u32> {
    // SAFETY: opened, and not in use, as the caller promises.
    raw(unsafe { sys::cuIpcCloseMemHandle(address) })
}

/// The start and the length of the allocation that an address lies in.
pub(super) fn extent_of(address: u64) -> Result<(u64, usize), u32> {
    let (mut base, mut len) = (0, 0);
    // SAFETY: both are valid for writing; an address outside of any allocation is refused.
    raw(unsafe { sys::cuMemGetAddressRange_v2(&raw mut base, &raw mut len, address) })?;
    Ok((base, len))
}

/// The driver's attributes of an address.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Residence {
    pub(super) on_device: bool,
    pub(super) managed: bool,
    pub(super) host_mapped: bool,
}

/// Where the memory behind a device address lies.
pub(super) fn residence(address: u64) -> Result<Residence, u32> {
    use sys::CUpointer_attribute_enum as Attribute;
    let (mut kind, mut managed) = (0_u32, 0_u32);
    let mut host: *mut c_void = ptr::null_mut();
    let mut attributes = [
        Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
        Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED,
        Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER,
    ];
    let mut answers: [*mut c_void; 3] =
        [(&raw mut kind).cast(), (&raw mut managed).cast(), (&raw mut host).cast()];
    // SAFETY: three attributes and three output places, each large enough for its value: a memory
    // type and a boolean of at most 32 bits, and a pointer. Any address may be queried.
    let result = unsafe {
        sys::cuPointerGetAttributes(3, attributes.as_mut_ptr(), answers.as_mut_ptr(), address)
    };
    raw(result)?;
    #[expect(clippy::as_conversions, reason = "a C enum of small numbers")]
    let device = sys::CUmemorytype_enum::CU_MEMORYTYPE_DEVICE as u32;
    Ok(Residence { on_device: kind == device, managed: managed != 0, host_mapped: !host.is_null() })
}

/// Whether `device` reaches the memory of `peer`. Needs no bound context.
pub(super) fn reaches(device: c_int, peer: c_int) -> Result<bool, u32> {
    let mut answer = 0;
    // SAFETY: `answer` is valid for writing; unknown devices are refused.
    raw(unsafe { sys::cuDeviceCanAccessPeer(&raw mut answer, device, peer) })?;
    Ok(answer != 0)
}

/// Lets the bound context access the memory of another; succeeds if it already can.
///
/// # Safety
///
/// `peer` is alive.
pub(super) unsafe fn enable_peer(peer: CUcontext) -> Result<(), u32> {
    const ALREADY_ENABLED: u32 = 704;
    // SAFETY: the context is alive, as the caller promises; flags have to be zero.
    match raw(unsafe { sys::cuCtxEnablePeerAccess(peer, 0) }) {
        Ok(()) | Err(ALREADY_ENABLED) => Ok(()),
        Err(code) => Err(code),
    }
}

/// The identity of a device. Needs no bound context.
pub(super) fn uuid(device: c_int) -> Result<[u8; 16], u32> {
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: `uuid` is valid for writing; unknown devices are refused.
    let newer = raw(unsafe { sys::cuDeviceGetUuid_v2(&raw mut uuid, device) });
    // The older call returns the UUID of the card where the newer returns that of its slice.
    // Drivers before 11.4 have only the older call.
    newer.or_else(|_| {
        // SAFETY: as above.
        raw(unsafe { sys::cuDeviceGetUuid(&raw mut uuid, device) })
    })?;
    Ok(uuid.bytes.map(byte_of))
}

/// The PCI bus id of a device, such as `0000:1b:00.0`. Needs no bound context.
pub(super) fn pci_bus_id(device: c_int) -> Result<String, u32> {
    const LEN: c_int = 32;
    let mut text: [c_char; 32] = [0; 32];
    // SAFETY: `text` is valid for writing 32 characters; unknown devices are refused.
    raw(unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr(), LEN, device) })?;
    let bytes = text.iter().take_while(|&&character| character != 0);
    Ok(bytes.map(|&character| char::from(byte_of(character)).to_ascii_lowercase()).collect())
}

/// A C character as a byte: `c_char` is signed on some targets and unsigned on others.
fn byte_of(character: c_char) -> u8 {
    let [byte] = character.to_ne_bytes();
    byte
}
