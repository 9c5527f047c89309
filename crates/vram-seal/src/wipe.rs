//! Wiping of buffers of a segment or more, and of part of the stack.

pub(crate) mod copying;

use core::fmt;
use core::hint::black_box;
use core::ops::{Deref, DerefMut};

use vram_alloc::host;
use zeroize::Zeroize;

/// Overwrites the part of the stack that earlier calls used, where hashers and key schedules of
/// other crates may have left words of a key. Best effort: the compiler decides where frames lie.
pub(crate) fn scrub_stack() {
    zeroize::zeroize_stack::<8192>();
}

/// As [`scrub_stack`], after short keyed hashes or a code of HMAC, which use less of it.
pub(crate) fn scrub_stack_of_hash() {
    zeroize::zeroize_stack::<4096>();
}

/// Overwrites a short message. `zeroize` writes byte by byte, which takes half as long as to hash it.
pub(crate) fn wipe_short(message: &mut [u8]) {
    message.fill(0);
    // The compiler must take the zeros for read.
    black_box(message);
}

/// Host memory for bytes that are worked on. It is overwritten when dropped, also during unwinding, and
/// begins where copies are fast ([`host`]).
///
/// ```
/// let mut scratch = vram_seal::Scratch::zeroed(1 << 20).ok_or("no memory")?;
/// scratch[7] = 1;
/// assert_eq!(scratch.len(), 1 << 20);
/// # Ok::<(), &str>(())
/// ```
pub struct Scratch {
    room: Vec<u8>,
    /// Bytes of `room` that are left out at its start.
    lead: usize,
}

impl Scratch {
    /// Memory for `len` bytes that have no value yet, or `None` if the host does not have that much.
    pub(crate) fn new(len: usize) -> Option<Self> {
        let whole = host::room_for(len)?;
        let mut room: Vec<u8> = Vec::new();
        room.try_reserve_exact(whole).ok()?;
        let lead = host::lead(room.as_ptr().addr(), whole.saturating_sub(len));
        room.resize(lead, 0);
        Some(Self { room, lead })
    }

    /// `len` zero bytes, or `None` if the host does not have that much memory.
    #[must_use]
    pub fn zeroed(len: usize) -> Option<Self> {
        let mut scratch = Self::new(len)?;
        scratch.room.resize(scratch.lead.checked_add(len)?, 0);
        Some(scratch)
    }

    /// Copies `from`, which is not longer than the memory, and returns the copy. What was copied
    /// before and is longer stays behind it until the buffer is dropped.
    pub(crate) fn fill(&mut self, from: &[u8]) -> &mut [u8] {
        let done = copying::copy(from, self);
        self.room.extend_from_slice(from.get(done..).unwrap_or_default());
        self.get_mut(..from.len()).unwrap_or_default()
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.room.get(self.lead..).unwrap_or_default()
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.room.get_mut(self.lead..).unwrap_or_default()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // As a slice, which is one `memset`. A vector is wiped byte by byte, which would cost as
        // much as decrypting the segment.
        self.room.as_mut_slice().zeroize();
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
