//! Reading by position, so that many readers share one open file and nothing is mapped.

use std::fs::File;
use std::io;

/// A source of bytes that is read by position and knows its length.
///
/// There is no cursor: two threads may read the same source at once. Memory maps are not used,
/// since truncating a mapped file kills the process that reads it.
pub trait ReadAt {
    /// Bytes in the source.
    ///
    /// # Errors
    ///
    /// The source's own error.
    fn byte_len(&self) -> io::Result<u64>;

    /// Fills `target` with the bytes that begin at `offset`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if the source ends before `target` is full; the content of
    /// `target` is then unspecified. Otherwise the source's own error.
    fn read_exact_at(&self, offset: u64, target: &mut [u8]) -> io::Result<()>;
}

#[cfg(unix)]
impl ReadAt for File {
    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, target, offset)
    }
}

#[cfg(windows)]
impl ReadAt for File {
    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, mut offset: u64, mut target: &mut [u8]) -> io::Result<()> {
        while !target.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(self, target, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    target = target.get_mut(count..).unwrap_or_default();
                    offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl ReadAt for [u8] {
    fn byte_len(&self) -> io::Result<u64> {
        u64::try_from(self.len()).map_err(io::Error::other)
    }

    fn read_exact_at(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..))
            .and_then(|rest| rest.get(..target.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        target.copy_from_slice(bytes);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn byte_len(&self) -> io::Result<u64> {
        self.as_slice().byte_len()
    }

    fn read_exact_at(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_exact_at(offset, target)
    }
}

impl<R: ReadAt + ?Sized> ReadAt for &R {
    fn byte_len(&self) -> io::Result<u64> {
        (**self).byte_len()
    }

    fn read_exact_at(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        (**self).read_exact_at(offset, target)
    }
}
