//! Sources, readers and writers that run other code in each call: alter bytes, fail, panic, count.

use core::fmt;
use std::io::{self, Read, Write};

use vram_residency::{Source, SourceError};

/// A source of these bytes that runs a function on each part before it returns the part.
pub struct ActingSource<B, F> {
    bytes: B,
    act: F,
}

impl<B: AsRef<[u8]>, F: Fn(u64, &mut [u8]) -> Result<(), SourceError>> ActingSource<B, F> {
    /// `act` is called with the offset and the target of each read; the target already contains the
    /// bytes.
    pub const fn new(bytes: B, act: F) -> Self {
        Self { bytes, act }
    }
}

impl<B, F> fmt::Debug for ActingSource<B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActingSource").finish_non_exhaustive()
    }
}

impl<B, F> Source for ActingSource<B, F>
where
    B: AsRef<[u8]> + Sync,
    F: Fn(u64, &mut [u8]) -> Result<(), SourceError> + Sync,
{
    fn len(&self) -> u64 {
        u64::try_from(self.bytes.as_ref().len()).unwrap()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let start = usize::try_from(offset).unwrap();
        target.copy_from_slice(&self.bytes.as_ref()[start..start + target.len()]);
        (self.act)(offset, target)
    }
}

/// A reader of these bytes that runs a function before each read.
pub struct ActingReader<'a, F> {
    bytes: &'a [u8],
    act: F,
}

impl<'a, F: FnMut()> ActingReader<'a, F> {
    /// `act` is called before each read.
    pub const fn new(bytes: &'a [u8], act: F) -> Self {
        Self { bytes, act }
    }
}

impl<F> fmt::Debug for ActingReader<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActingReader").finish_non_exhaustive()
    }
}

impl<F: FnMut()> Read for ActingReader<'_, F> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        (self.act)();
        self.bytes.read(target)
    }
}

/// A writer that passes the bytes to its function.
pub struct ActingWriter<F>(pub F);

impl<F> fmt::Debug for ActingWriter<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ActingWriter").finish_non_exhaustive()
    }
}

impl<F: FnMut(&[u8]) -> io::Result<usize>> Write for ActingWriter<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A source of `len` bytes that runs `act` when a given offset is read.
pub fn acts_at(len: u64, at: u64, act: impl Fn() -> Result<(), SourceError> + Sync) -> impl Source {
    let bytes = vec![3; usize::try_from(len).unwrap()];
    ActingSource::new(
        bytes,
        move |offset, _target: &mut [u8]| {
            if offset == at { act() } else { Ok(()) }
        },
    )
}
