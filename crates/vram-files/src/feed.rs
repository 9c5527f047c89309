//! Where plaintext comes from while a shard is sealed.

use vram_alloc::{ByteLen, ByteRange};

use crate::error::FileError;
use crate::sync::Mutex;

/// The bytes that become a shard, read by position from any thread.
#[expect(clippy::len_without_is_empty, reason = "an empty feed is read like any other")]
pub trait Feed: Sync {
    /// How many bytes there are.
    fn len(&self) -> ByteLen;

    /// Copies `range` to `target`, which has its length.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the bytes are not there; what `target` holds then does not matter.
    fn fill(&self, range: ByteRange, target: &mut [u8]) -> Result<(), FileError>;

    /// All bytes, if they are in memory and cannot change: then a pass over them can be repeated,
    /// and gives the same.
    fn slice(&self) -> Option<&[u8]> {
        None
    }

    /// For a source that can only be read in order: the next window. Choosing and reading it is
    /// one step under this lock, so no thread ever waits for a window that another one was given.
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
            // The range was cut from this very length.
            _ => Err(FileError::HostMemory { wanted: range.len() }),
        }
    }

    fn slice(&self) -> Option<&[u8]> {
        Some(self)
    }
}
