//! Host pages of this process that a driver may lock: aligned, not shared, wiped when dropped.

use core::fmt;

use vram_alloc::ByteLen;
use zeroize::Zeroize;

use crate::GpuError;

/// The driver locks whole pages. A page with two buffers in it would be locked twice.
const PAGE: usize = 4096;

/// A host buffer that shares its pages with no other value.
///
/// It is registered with the driver instead of allocated by it: memory that the driver allocated is
/// freed with its context, and a reset would invalidate a slice that is still borrowed.
#[derive(Default)]
pub(super) struct Pages {
    // One page longer than needed; the buffer starts at the first boundary.
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Pages {
    /// Zero bytes, `len` of them.
    pub(super) fn new(len: ByteLen) -> Result<Self, GpuError> {
        let refused = GpuError::HostMemory { wanted: len };
        let len = len.to_usize().ok_or(refused)?;
        let spanned = len.checked_next_multiple_of(PAGE).ok_or(refused)?;
        let count = spanned.checked_add(PAGE).ok_or(refused)?;
        let mut bytes: Vec<u8> = Vec::new();
        bytes.try_reserve_exact(count).map_err(|_no_room| refused)?;
        bytes.resize(count, 0);
        let start = bytes.as_ptr().align_offset(PAGE);
        if start >= PAGE {
            return Err(refused);
        }
        Ok(Self { bytes, start, len })
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        let (start, len) = (self.start, self.len);
        self.bytes.get(start..).and_then(|bytes| bytes.get(..len)).unwrap_or_default()
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        let (start, len) = (self.start, self.len);
        self.bytes.get_mut(start..).and_then(|bytes| bytes.get_mut(..len)).unwrap_or_default()
    }

    /// Start and length of the whole pages that the buffer lies in.
    pub(super) fn span(&mut self) -> (*mut u8, usize) {
        let (start, len) = (self.start, self.len.next_multiple_of(PAGE));
        let pages = self.bytes.get_mut(start..).and_then(|bytes| bytes.get_mut(..len));
        let pages = pages.unwrap_or_default();
        (pages.as_mut_ptr(), pages.len())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for Pages {
    /// Content is never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_at_a_page_and_has_its_pages_to_itself() {
        for len in [0, 1, PAGE - 1, PAGE, PAGE + 1, 100_000] {
            let mut pages = Pages::new(ByteLen::from_usize(len)).unwrap();
            let whole = pages.bytes.as_ptr_range();
            assert_eq!(pages.as_slice().len(), len);
            let (start, spanned) = pages.span();
            assert_eq!(start.addr() % PAGE, 0);
            assert_eq!(spanned % PAGE, 0);
            assert!(spanned >= len && spanned < len + PAGE);
            assert!(whole.start.addr() <= start.addr());
            assert!(start.addr() + spanned <= whole.end.addr());
        }
        assert!(Pages::new(ByteLen::new(u64::MAX)).is_err());
        assert!(Pages::new(ByteLen::new(u64::MAX - 5000)).is_err());
    }
}
