//! Pinned host memory.

use core::alloc::Layout;
use core::ptr;
use std::alloc::{alloc, dealloc};

/// Host memory that is known to the driver.
pub(crate) struct HostBlock {
    pub(crate) len: usize,
    pub(crate) context: u64,
    pub(crate) flags: u32,
    /// Its layout if the driver allocated it; `None` if it belongs to the program and was
    /// registered.
    pub(crate) layout: Option<Layout>,
}

/// The content of fresh pinned memory.
const GARBAGE: u8 = 0xA5;

impl HostBlock {
    /// Allocates page-aligned memory full of garbage; `None` if the host has no memory left.
    pub(crate) fn allocate(len: usize, context: u64, flags: u32) -> Option<(usize, Self)> {
        let layout = Layout::from_size_align(len.max(1), 4096).ok()?;
        // SAFETY: the layout's size is not zero.
        let address = unsafe { alloc(layout) };
        if address.is_null() {
            return None;
        }
        // SAFETY: just allocated with this many bytes, and no other code has its address.
        unsafe { ptr::write_bytes(address, GARBAGE, layout.size()) };
        let block = Self { len, context, flags, layout: Some(layout) };
        Some((address.expose_provenance(), block))
    }

    /// Frees the memory, if the driver allocated it.
    pub(crate) fn release(self, address: usize) {
        if let Some(layout) = self.layout {
            // SAFETY: `allocate` got this address with this layout and exposed it; the block is
            // consumed, so it is freed once.
            unsafe { dealloc(ptr::with_exposed_provenance_mut(address), layout) };
        }
    }
}
