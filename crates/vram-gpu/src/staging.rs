//! Host buffers through which bytes pass to and from a device; wiped when dropped.

use core::fmt;
use core::ops::Range;

use vram_alloc::{ByteLen, host};
use zeroize::Zeroize;

use crate::GpuError;

/// Host memory that a plain vector cannot provide, such as page-locked memory of a driver.
pub trait StagingBuffer: Send + fmt::Debug {
    /// The bytes.
    fn as_slice(&self) -> &[u8];

    /// The bytes, mutable.
    fn as_mut_slice(&mut self) -> &mut [u8];

    /// Whether a driver has locked the pages, so that its device copies at full speed. The default
    /// says no.
    fn is_page_locked(&self) -> bool {
        false
    }

    /// Keeps the memory allocated while a device may still use it: called instead of a drop after a
    /// copy that could not be waited for. The default leaks it.
    fn abandon(self: Box<Self>) {
        core::mem::forget(self);
    }
}

/// A host buffer of fixed length.
///
/// It starts as zeros. It can contain plaintext, so it is overwritten with zeros when it is
/// dropped, and its `Debug` output does not show the content.
pub struct Staging {
    bytes: Bytes,
}

enum Bytes {
    /// The buffer lies at `place` of this memory, where copies are fast.
    Plain {
        room: Vec<u8>,
        place: Range<usize>,
    },
    Special(Box<dyn StagingBuffer>),
}

impl Bytes {
    const EMPTY: Self = Self::Plain { room: Vec::new(), place: 0..0 };
}

impl Staging {
    /// Creates a buffer in ordinary host memory.
    ///
    /// # Errors
    ///
    /// [`GpuError::HostMemory`] if the host has no room; the process does not abort.
    pub fn unpinned(len: ByteLen) -> Result<Self, GpuError> {
        let refused = GpuError::HostMemory { wanted: len };
        let count = len.to_usize().ok_or(refused)?;
        let len = host::room_for(count).ok_or(refused)?;
        let mut room: Vec<u8> = Vec::new();
        room.try_reserve_exact(len).map_err(|_no_room| refused)?;
        room.resize(len, 0);
        let lead = host::lead(room.as_ptr().addr(), len.saturating_sub(count));
        let place = lead..lead.saturating_add(count);
        Ok(Self { bytes: Bytes::Plain { room, place } })
    }

    /// A buffer without bytes, which needs no memory.
    #[must_use]
    pub const fn empty() -> Self {
        Self { bytes: Bytes::EMPTY }
    }

    /// Wraps memory of another kind and overwrites its content with zeros.
    #[must_use]
    pub fn special(mut buffer: Box<dyn StagingBuffer>) -> Self {
        buffer.as_mut_slice().fill(0);
        Self { bytes: Bytes::Special(buffer) }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Plain { room, place } => room.get(place.clone()).unwrap_or_default(),
            Bytes::Special(buffer) => buffer.as_slice(),
        }
    }

    /// The bytes, mutable.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.bytes {
            Bytes::Plain { room, place } => room.get_mut(place.clone()).unwrap_or_default(),
            Bytes::Special(buffer) => buffer.as_mut_slice(),
        }
    }

    /// Bytes in the buffer.
    #[must_use]
    pub fn len(&self) -> ByteLen {
        ByteLen::from_usize(self.as_slice().len())
    }

    /// Whether the buffer has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Whether the memory is of another kind than ordinary host memory, such as page-locked.
    #[must_use]
    pub const fn is_special(&self) -> bool {
        matches!(self.bytes, Bytes::Special(_))
    }

    /// Whether the driver has locked the pages of the buffer. Copies from and to other memory are
    /// as exact, but a driver takes several times as long for them.
    #[must_use]
    pub fn is_page_locked(&self) -> bool {
        match &self.bytes {
            Bytes::Plain { .. } => false,
            Bytes::Special(buffer) => buffer.is_page_locked(),
        }
    }

    /// Gives up ownership without an access to the bytes: a device may still use them.
    #[cfg(feature = "cuda")]
    pub(crate) fn abandon(mut self) {
        match core::mem::replace(&mut self.bytes, Bytes::EMPTY) {
            Bytes::Plain { room, .. } => core::mem::forget(room),
            Bytes::Special(buffer) => buffer.abandon(),
        }
    }

    /// Overwrites every byte with zero, in a way that the compiler must not remove.
    pub fn wipe(&mut self) {
        self.as_mut_slice().zeroize();
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging")
            .field("len", &self.len())
            .field("special", &self.is_special())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Shows its bytes to the test at the moment when it is dropped.
    #[derive(Debug)]
    struct Watched {
        bytes: Vec<u8>,
        last_seen: Arc<Mutex<Vec<u8>>>,
    }

    impl StagingBuffer for Watched {
        fn as_slice(&self) -> &[u8] {
            &self.bytes
        }

        fn as_mut_slice(&mut self) -> &mut [u8] {
            &mut self.bytes
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.last_seen.lock().unwrap().clone_from(&self.bytes);
        }
    }

    #[test]
    fn a_dropped_buffer_was_wiped_first() {
        let last_seen = Arc::new(Mutex::new(Vec::new()));
        let bytes = vec![7; 100];
        let mut staging =
            Staging::special(Box::new(Watched { bytes, last_seen: Arc::clone(&last_seen) }));
        assert_eq!(staging.as_slice(), [0; 100], "a new buffer shows nothing of before");

        staging.as_mut_slice().fill(0xAB);
        drop(staging);
        assert_eq!(*last_seen.lock().unwrap(), [0; 100]);
    }

    #[test]
    fn an_impossible_length_is_an_error_and_not_an_abort() {
        let wanted = ByteLen::new(u64::MAX);
        let refused = Staging::unpinned(wanted).map(|_| ());
        assert_eq!(refused, Err(GpuError::HostMemory { wanted }));
    }

    #[test]
    fn debug_never_shows_content() {
        let mut staging = Staging::unpinned(ByteLen::new(3)).unwrap();
        staging.as_mut_slice().copy_from_slice(&[201, 202, 203]);
        let text = format!("{staging:?}");
        assert!(!text.contains("201") && text.contains('3'), "{text}");
    }
}
