//! Wiping of buffers of a segment or more, and of part of the stack.

use zeroize::Zeroize;

/// Overwrites the part of the stack that earlier calls used, where hashers and key schedules of
/// other crates may have left words of a key. Best effort: the compiler decides where frames lie.
pub(crate) fn scrub_stack() {
    zeroize::zeroize_stack::<8192>();
}

/// A host buffer that is overwritten when dropped, also during unwinding.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// Memory for `len` bytes, or `None` if the host does not have that much.
    pub(crate) fn new(len: usize) -> Option<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        Some(Self(bytes))
    }

    /// Copies `from`, which is not longer than the memory, and returns the copy. What was copied
    /// before and is longer stays behind it until the buffer is dropped.
    pub(crate) fn fill(&mut self, from: &[u8]) -> &mut [u8] {
        let (over, new) = from.split_at(self.0.len().min(from.len()));
        if let Some(old) = self.0.get_mut(..over.len()) {
            old.copy_from_slice(over);
        }
        self.0.extend_from_slice(new);
        self.0.get_mut(..from.len()).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // As a slice, which is one `memset`. A vector is wiped byte by byte, which would cost as
        // much as decrypting the segment.
        self.0.as_mut_slice().zeroize();
    }
}

/// Wipes a caller's buffer on drop, on errors and during unwinding, unless [`keep`](Self::keep) was
/// called.
pub(crate) struct WipeUnlessKept<'a> {
    bytes: Option<&'a mut [u8]>,
}

impl<'a> WipeUnlessKept<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes: Some(bytes) }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.bytes.as_deref_mut().unwrap_or_default()
    }

    /// Leaves the content in the buffer: it is verified.
    pub(crate) fn keep(mut self) {
        self.bytes = None;
    }
}

impl Drop for WipeUnlessKept<'_> {
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.as_deref_mut() {
            bytes.zeroize();
        }
    }
}
