//! The plaintext that a sealing call reads.

use vram_alloc::{ByteLen, ByteRange};

use crate::error::FileError;
use crate::sync::Mutex;

/// The bytes that become a shard, read by position from any thread.
#[expect(clippy::len_without_is_empty, reason = "an empty feed is read like any other")]
pub trait Feed: Sync {
    /// The number of bytes.
    fn len(&self) -> ByteLen;

    /// Copies `range` to `target`, whose length is that of `range`.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the bytes cannot be read; the content of `target` is then unspecified.
    fn fill(&self, range: ByteRange, target: &mut [u8]) -> Result<(), FileError>;

    /// All bytes, if they are in memory: a pass that only hashes need not copy them. They are not
    /// trusted to stay the same.
    fn slice(&self) -> Option<&[u8]> {
        None
    }

    /// For a source that can only be read in order: the lock over the number of its next window. A
    /// thread chooses and reads a window in one step under this lock, so no thread waits for a
    /// window that another thread has chosen.
    fn turn(&self) -> Option<&Mutex<u64>> {
        None
    }
}

/// A slice, which cannot change while it is borrowed.
impl Feed for &[u8] {
    fn len(&self) -> ByteLen {
        ByteLen::from_usize(<[u8]>::len(self))
    }

    fn fill(&self, range: ByteRange, target: &mut [u8]) -> Result<(), FileError> {
        let part = range.to_usize_range().and_then(|range| self.get(range));
        match part {
            Some(part) if part.len() == target.len() => {
                target.copy_from_slice(part);
                Ok(())
            }
            // The range was cut from this same length.
            _ => Err(FileError::HostMemory { wanted: range.len() }),
        }
    }

    fn slice(&self) -> Option<&[u8]> {
        Some(self)
    }
}
