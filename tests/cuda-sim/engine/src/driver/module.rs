//! Modules, kernels, launches.

#![expect(non_snake_case, reason = "named as the driver's functions are")]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::ptr;
use std::sync::Arc;

use crate::call::Call;
use crate::code;
use crate::driver::stream::stream_of;
use crate::driver::wide;
use crate::fault::{CallKind, Fault};
use crate::handle::{Kind, decode, encode};
use crate::kernel::{KernelBody, Launch};
use crate::ptx::{Image, read_image};
use crate::queue::{Op, Work};
use crate::report::MisuseKind;
use crate::shape::LaunchShape;
use crate::world::{Function, Module};

/// The maximum number of threads in a block.
const MOST_THREADS: u64 = 1024;
/// The maximum number of bytes of shared memory in a block.
const MOST_SHARED: u64 = 48 << 10;

pub(crate) unsafe fn cuModuleLoadData(
    call: &mut Call<'_>,
    module: *mut *mut c_void,
    image: *const c_void,
) -> Result<(), u32> {
    let context = call.plain(CallKind::Module)?;
    if module.is_null() || image.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: an image of any kind begins with four bytes. Shorter text ends in a NUL, and
    // comparing stops at the first difference.
    let is_binary = [[0x7F, b'E', b'L', b'F'], [0x50, 0xED, 0x55, 0xBA]].iter().any(|magic| {
        (0..).zip(magic).all(|(at, byte)| {
            let at = image.cast::<u8>().wrapping_add(at);
            // SAFETY: all bytes before this one were not NUL, so the image has not ended.
            unsafe { at.read() == *byte }
        })
    });
    if is_binary {
        return Err(code::NO_BINARY_FOR_GPU);
    }
    // SAFETY: an image that is not a binary is NUL-terminated text, as the caller promises.
    let text = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy().into_owned();
    let ordinal = call.world.device_of(context).ok_or(code::INVALID_CONTEXT)?;
    let capability = call.world.device(ordinal).map_or(0, |device| {
        let (major, minor) = device.spec.compute_capability;
        u32::from(major).saturating_mul(10).saturating_add(u32::from(minor))
    });
    let image = image_of(call, ordinal, text)?;
    if image.target > capability {
        return Err(code::NO_BINARY_FOR_GPU);
    }
    // A kernel that has a registered body needs no PTX that can be run.
    let unknown = image.entries.iter().find_map(|entry| {
        let why = entry.kernel.as_ref().err()?;
        (!call.world.kernels.contains_key(&entry.name))
            .then(|| format!("kernel {}: {why}", entry.name))
    });
    if let Some(detail) = unknown {
        call.note(MisuseKind::UnknownPtx, Some(ordinal), detail);
        return Err(code::INVALID_PTX);
    }
    call.need_code(context, "modules")?;
    let id = call.world.fresh_id();
    call.world.modules.insert(id, Module { context, image });
    put!(module, encode(Kind::Module, id))
}

/// How many images are kept decoded.
const KEPT: usize = 8;

/// The decoded image of a text.
fn image_of(call: &mut Call<'_>, ordinal: u32, text: String) -> Result<Arc<Image>, u32> {
    if let Some((_, image)) = call.world.images.iter().find(|(known, _)| *known == text) {
        return Ok(Arc::clone(image));
    }
    let image = match read_image(&text) {
        Ok(image) => Arc::new(image),
        Err(why) => {
            call.note(MisuseKind::UnknownPtx, Some(ordinal), why);
            return Err(code::INVALID_PTX);
        }
    };
    call.world.images.push_front((text, Arc::clone(&image)));
    call.world.images.truncate(KEPT);
    Ok(image)
}

pub(crate) unsafe fn cuModuleLoadDataEx(
    call: &mut Call<'_>,
    module: *mut *mut c_void,
    image: *const c_void,
    _num_options: c_uint,
    _options: *mut c_int,
    _option_values: *mut *mut c_void,
) -> Result<(), u32> {
    // SAFETY: the same promise; the options are for a compiler, which this driver does not have.
    unsafe { cuModuleLoadData(call, module, image) }
}

pub(crate) unsafe fn cuModuleUnload(call: &mut Call<'_>, hmod: *mut c_void) -> Result<(), u32> {
    call.context()?;
    let id = decode(Kind::Module, hmod).ok_or(code::INVALID_HANDLE)?;
    call.world.unload(id).map(drop).ok_or(code::INVALID_HANDLE)
}

pub(crate) unsafe fn cuModuleGetFunction(
    call: &mut Call<'_>,
    hfunc: *mut *mut c_void,
    hmod: *mut c_void,
    name: *const c_char,
) -> Result<(), u32> {
    call.plain(CallKind::Module)?;
    if hfunc.is_null() || name.is_null() {
        return Err(code::INVALID_VALUE);
    }
    // SAFETY: not null, and NUL-terminated, as the caller promises.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    let module = decode(Kind::Module, hmod).ok_or(code::INVALID_HANDLE)?;
    let state = call.world.modules.get(&module).ok_or(code::INVALID_HANDLE)?;
    let entry = state.image.entries.iter().find(|entry| entry.name == name);
    let entry = entry.ok_or(code::NOT_FOUND)?;
    let kernel = entry.kernel.as_ref().ok().map(Arc::clone);
    let body: Arc<KernelBody> = match (call.world.kernels.get(&name), &kernel) {
        (Some(body), _) => Arc::clone(body),
        (None, Some(kernel)) => {
            let kernel = Arc::clone(kernel);
            Arc::new(move |launch: &mut Launch<'_>| launch.interpret(&kernel))
        }
        // The image was not loaded then.
        (None, None) => return Err(code::NOT_FOUND),
    };
    let parameters = entry.parameters.clone();
    let id = call.world.fresh_id();
    call.world.functions.insert(id, Function { module, name, parameters, kernel, body });
    put!(hfunc, encode(Kind::Function, id))
}

pub(crate) unsafe fn cuFuncGetAttribute(
    call: &mut Call<'_>,
    pi: *mut c_int,
    attrib: c_int,
    hfunc: *mut c_void,
) -> Result<(), u32> {
    call.context()?;
    let id = function_of(call, hfunc)?;
    let function = call.world.functions.get(&id).ok_or(code::INVALID_HANDLE)?;
    let kernel = function.kernel.as_ref();
    let module = call.world.modules.get(&function.module).ok_or(code::INVALID_HANDLE)?;
    let shared = kernel.map_or(0, |kernel| kernel.shared_len);
    let value = match attrib {
        0 => kernel.and_then(|kernel| kernel.max_threads).unwrap_or(MOST_THREADS),
        1 => wide(shared),
        3 => kernel.map_or(0, |kernel| wide(kernel.local_len)),
        5 => module.image.version.into(),
        6 => module.image.target.into(),
        8 => MOST_SHARED.saturating_sub(wide(shared)),
        // Constants, registers and caches: what an assembler would decide.
        2 | 4 | 7 | 9 => 0,
        _ => return Err(code::INVALID_VALUE),
    };
    put!(pi, c_int::try_from(value).unwrap_or(c_int::MAX))
}

#[expect(clippy::too_many_arguments, reason = "the driver's own signature")]
pub(crate) unsafe fn cuLaunchKernel(
    call: &mut Call<'_>,
    f: *mut c_void,
    grid_dim_x: c_uint,
    grid_dim_y: c_uint,
    grid_dim_z: c_uint,
    block_dim_x: c_uint,
    block_dim_y: c_uint,
    block_dim_z: c_uint,
    shared_mem_bytes: c_uint,
    h_stream: *mut c_void,
    kernel_params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Result<(), u32> {
    let context = call.context()?;
    let fault = call.meet(context, CallKind::Launch);
    if let Some(Fault::Fail(code)) = fault {
        return Err(call.world.fail(context, code));
    }
    let stream = stream_of(call, context, h_stream)?;
    let id = function_of(call, f)?;
    let function = call.world.functions.get(&id).ok_or(code::INVALID_HANDLE)?;
    let module = call.world.modules.get(&function.module).map(|module| module.context);
    let of_stream = call.world.streams.get(&stream).map(|stream| stream.context);
    if module != Some(context) || of_stream != Some(context) {
        return Err(code::INVALID_HANDLE);
    }
    let grid = [grid_dim_x, grid_dim_y, grid_dim_z];
    let block = [block_dim_x, block_dim_y, block_dim_z];
    let threads = LaunchShape::new([1; 3], block, 0).thread_count();
    if grid.contains(&0) || threads == 0 || grid_dim_y.max(grid_dim_z) > 65_535 {
        return Err(code::INVALID_VALUE);
    }
    if threads > MOST_THREADS || u64::from(shared_mem_bytes) > MOST_SHARED {
        return Err(code::INVALID_VALUE);
    }
    if function.kernel.as_ref().and_then(|k| k.max_threads).is_some_and(|most| threads > most) {
        return Err(code::LAUNCH_OUT_OF_RESOURCES);
    }
    if !extra.is_null() {
        return Err(code::NOT_SUPPORTED);
    }
    if kernel_params.is_null() && !function.parameters.is_empty() {
        return Err(code::INVALID_VALUE);
    }
    let mut parameters = Vec::new();
    for (index, len) in (0..).zip(&function.parameters) {
        let slot = kernel_params.wrapping_add(index);
        // SAFETY: the caller passes one pointer for each parameter of the kernel.
        let source = unsafe { slot.read() };
        let mut bytes = vec![0_u8; *len];
        // SAFETY: each of those pointers is valid for reading the parameter; `bytes` is fresh.
        unsafe { ptr::copy_nonoverlapping(source.cast(), bytes.as_mut_ptr(), *len) };
        parameters.push(bytes);
    }
    let shape = LaunchShape::new(grid, block, shared_mem_bytes);
    let work = if fault == Some(Fault::Drop) {
        Work::Nothing
    } else {
        let body = Arc::clone(&function.body);
        Work::Launch { name: function.name.clone(), body, shape, parameters }
    };
    call.world.enqueue(stream, Op { work, fault, call: call.name });
    Ok(())
}

fn function_of(call: &mut Call<'_>, handle: *mut c_void) -> Result<u64, u32> {
    let id = decode(Kind::Function, handle).filter(|id| call.world.functions.contains_key(id));
    if id.is_none() {
        let device = call.bound_context().ok().and_then(|context| call.world.device_of(context));
        call.note(MisuseKind::UnknownHandle, device, format!("{handle:?} is no function"));
    }
    id.ok_or(code::INVALID_HANDLE)
}
