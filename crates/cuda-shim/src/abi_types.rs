//! The two structs that driver functions take by value.

use core::ffi::c_char;

/// `CUipcMemHandle`: 64 opaque bytes that name an allocation to another process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IpcMemHandle {
    /// Only the driver interprets these bytes.
    pub reserved: [c_char; 64],
}

/// `CUipcEventHandle`: 64 opaque bytes that name an event to another process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IpcEventHandle {
    /// Only the driver interprets these bytes.
    pub reserved: [c_char; 64],
}
