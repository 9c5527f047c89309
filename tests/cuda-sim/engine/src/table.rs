//! The simulated driver functions, each listed once.

/// Calls a macro with every simulated driver function: `module::name(parameter: type, …);`.
///
/// Types are those that `cuda-shim` gives them. The calling crate has `core::ffi::{c_char, c_int,
/// c_uchar, c_uint, c_ushort, c_void}` in scope.
#[macro_export]
macro_rules! for_each_driver_function {
    ($callback:ident) => {
        $callback! {
            device::cuInit(flags: c_uint);
            device::cuDriverGetVersion(driver_version: *mut c_int);
            device::cuGetErrorString(error: c_int, text: *mut *const c_char);
            device::cuGetErrorName(error: c_int, text: *mut *const c_char);
            device::cuDeviceGet(device: *mut c_int, ordinal: c_int);
            device::cuDeviceGetCount(count: *mut c_int);
            device::cuDeviceGetName(name: *mut c_char, len: c_int, dev: c_int);
            device::cuDeviceGetUuid(uuid: *mut c_void, dev: c_int);
            device::cuDeviceGetUuid_v2(uuid: *mut c_void, dev: c_int);
            device::cuDeviceTotalMem_v2(bytes: *mut usize, dev: c_int);
            device::cuDeviceGetAttribute(pi: *mut c_int, attrib: c_int, dev: c_int);
            device::cuDeviceGetPCIBusId(pci_bus_id: *mut c_char, len: c_int, dev: c_int);
            device::cuDeviceGetByPCIBusId(dev: *mut c_int, pci_bus_id: *const c_char);
            device::cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, dev: c_int);
            device::cuDeviceCanAccessPeer(can_access_peer: *mut c_int, dev: c_int, peer_dev: c_int);
            device::cuDeviceGetP2PAttribute(value: *mut c_int, attrib: c_int, src_device: c_int, dst_device: c_int);
            context::cuDevicePrimaryCtxRetain(pctx: *mut *mut c_void, dev: c_int);
            context::cuDevicePrimaryCtxRelease_v2(dev: c_int);
            context::cuDevicePrimaryCtxReset_v2(dev: c_int);
            context::cuDevicePrimaryCtxSetFlags_v2(dev: c_int, flags: c_uint);
            context::cuDevicePrimaryCtxGetState(dev: c_int, flags: *mut c_uint, active: *mut c_int);
            context::cuCtxCreate_v2(pctx: *mut *mut c_void, flags: c_uint, dev: c_int);
            context::cuCtxDestroy_v2(ctx: *mut c_void);
            context::cuCtxPushCurrent_v2(ctx: *mut c_void);
            context::cuCtxPopCurrent_v2(pctx: *mut *mut c_void);
            context::cuCtxSetCurrent(ctx: *mut c_void);
            context::cuCtxGetCurrent(pctx: *mut *mut c_void);
            context::cuCtxGetDevice(device: *mut c_int);
            context::cuCtxGetFlags(flags: *mut c_uint);
            context::cuCtxGetApiVersion(ctx: *mut c_void, version: *mut c_uint);
            context::cuCtxSynchronize();
            context::cuCtxSetLimit(limit: c_int, value: usize);
            context::cuCtxGetLimit(pvalue: *mut usize, limit: c_int);
            context::cuCtxSetCacheConfig(config: c_int);
            context::cuCtxGetCacheConfig(pconfig: *mut c_int);
            context::cuCtxSetSharedMemConfig(config: c_int);
            context::cuCtxGetSharedMemConfig(p_config: *mut c_int);
            context::cuCtxGetStreamPriorityRange(least_priority: *mut c_int, greatest_priority: *mut c_int);
            context::cuCtxEnablePeerAccess(peer_context: *mut c_void, flags: c_uint);
            context::cuCtxDisablePeerAccess(peer_context: *mut c_void);
            memory::cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
            memory::cuMemAlloc_v2(dptr: *mut u64, bytesize: usize);
            memory::cuMemFree_v2(dptr: u64);
            memory::cuMemGetAddressRange_v2(pbase: *mut u64, psize: *mut usize, dptr: u64);
            memory::cuMemAllocAsync(dptr: *mut u64, bytesize: usize, h_stream: *mut c_void);
            memory::cuMemFreeAsync(dptr: u64, h_stream: *mut c_void);
            ipc::cuIpcGetMemHandle(p_handle: *mut c_void, dptr: u64);
            ipc::cuIpcOpenMemHandle_v2(pdptr: *mut u64, handle: $crate::IpcMemHandle, flags: c_uint);
            ipc::cuIpcCloseMemHandle(dptr: u64);
            pinned::cuMemAllocHost_v2(pp: *mut *mut c_void, bytesize: usize);
            pinned::cuMemFreeHost(p: *mut c_void);
            pinned::cuMemHostAlloc(pp: *mut *mut c_void, bytesize: usize, flags: c_uint);
            pinned::cuMemHostGetDevicePointer_v2(pdptr: *mut u64, p: *mut c_void, flags: c_uint);
            pinned::cuMemHostGetFlags(p_flags: *mut c_uint, p: *mut c_void);
            pinned::cuMemHostRegister_v2(p: *mut c_void, bytesize: usize, flags: c_uint);
            pinned::cuMemHostUnregister(p: *mut c_void);
            pointer::cuPointerGetAttribute(data: *mut c_void, attribute: c_int, ptr: u64);
            pointer::cuPointerGetAttributes(num_attributes: c_uint, attributes: *mut c_int, data: *mut *mut c_void, ptr: u64);
            copy::cuMemcpy(dst: u64, src: u64, byte_count: usize);
            copy::cuMemcpyAsync(dst: u64, src: u64, byte_count: usize, h_stream: *mut c_void);
            copy::cuMemcpyHtoD_v2(dst_device: u64, src_host: *const c_void, byte_count: usize);
            copy::cuMemcpyHtoDAsync_v2(dst_device: u64, src_host: *const c_void, byte_count: usize, h_stream: *mut c_void);
            copy::cuMemcpyDtoH_v2(dst_host: *mut c_void, src_device: u64, byte_count: usize);
            copy::cuMemcpyDtoHAsync_v2(dst_host: *mut c_void, src_device: u64, byte_count: usize, h_stream: *mut c_void);
            copy::cuMemcpyDtoD_v2(dst_device: u64, src_device: u64, byte_count: usize);
            copy::cuMemcpyDtoDAsync_v2(dst_device: u64, src_device: u64, byte_count: usize, h_stream: *mut c_void);
            copy::cuMemcpyPeer(dst_device: u64, dst_context: *mut c_void, src_device: u64, src_context: *mut c_void, byte_count: usize);
            copy::cuMemcpyPeerAsync(dst_device: u64, dst_context: *mut c_void, src_device: u64, src_context: *mut c_void, byte_count: usize, h_stream: *mut c_void);
            copy::cuMemsetD8_v2(dst_device: u64, uc: c_uchar, n: usize);
            copy::cuMemsetD16_v2(dst_device: u64, us: c_ushort, n: usize);
            copy::cuMemsetD32_v2(dst_device: u64, ui: c_uint, n: usize);
            copy::cuMemsetD8Async(dst_device: u64, uc: c_uchar, n: usize, h_stream: *mut c_void);
            copy::cuMemsetD16Async(dst_device: u64, us: c_ushort, n: usize, h_stream: *mut c_void);
            copy::cuMemsetD32Async(dst_device: u64, ui: c_uint, n: usize, h_stream: *mut c_void);
            stream::cuStreamCreate(ph_stream: *mut *mut c_void, flags: c_uint);
            stream::cuStreamCreateWithPriority(ph_stream: *mut *mut c_void, flags: c_uint, priority: c_int);
            stream::cuStreamDestroy_v2(h_stream: *mut c_void);
            stream::cuStreamSynchronize(h_stream: *mut c_void);
            stream::cuStreamQuery(h_stream: *mut c_void);
            stream::cuStreamWaitEvent(h_stream: *mut c_void, h_event: *mut c_void, flags: c_uint);
            stream::cuStreamGetFlags(h_stream: *mut c_void, flags: *mut c_uint);
            stream::cuStreamGetPriority(h_stream: *mut c_void, priority: *mut c_int);
            stream::cuStreamGetCtx(h_stream: *mut c_void, pctx: *mut *mut c_void);
            stream::cuLaunchHostFunc(h_stream: *mut c_void, function: *mut c_void, user_data: *mut c_void);
            event::cuEventCreate(ph_event: *mut *mut c_void, flags: c_uint);
            event::cuEventRecord(h_event: *mut c_void, h_stream: *mut c_void);
            event::cuEventQuery(h_event: *mut c_void);
            event::cuEventSynchronize(h_event: *mut c_void);
            event::cuEventDestroy_v2(h_event: *mut c_void);
            event::cuEventElapsedTime(p_milliseconds: *mut f32, h_start: *mut c_void, h_end: *mut c_void);
            module::cuModuleLoadData(module: *mut *mut c_void, image: *const c_void);
            module::cuModuleLoadDataEx(module: *mut *mut c_void, image: *const c_void, num_options: c_uint, options: *mut c_int, option_values: *mut *mut c_void);
            module::cuModuleUnload(hmod: *mut c_void);
            module::cuModuleGetFunction(hfunc: *mut *mut c_void, hmod: *mut c_void, name: *const c_char);
            module::cuFuncGetAttribute(pi: *mut c_int, attrib: c_int, hfunc: *mut c_void);
            module::cuLaunchKernel(f: *mut c_void, grid_dim_x: c_uint, grid_dim_y: c_uint, grid_dim_z: c_uint, block_dim_x: c_uint, block_dim_y: c_uint, block_dim_z: c_uint, shared_mem_bytes: c_uint, h_stream: *mut c_void, kernel_params: *mut *mut c_void, extra: *mut *mut c_void);
        }
    };
}
