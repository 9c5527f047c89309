//! A sealed image as a source of plaintext, read segment by segment.

use core::fmt;
use std::path::Path;

use vram_alloc::{ByteLen, ByteRange};
use vram_seal::{OpenedRecord, SealError, SealRecord};

use super::read::{ImageFile, OpenImage};
use crate::error::FileError;
use crate::feed::Feed;

/// The plaintext of an image whose record and table are genuine. All bytes that it returns are
/// authenticated.
pub struct PlainImage {
    image: OpenImage,
}

impl PlainImage {
    /// Opens an image. `prove` opens its record, with the key that the record names; it may hold a
    /// lock of the keys, since nothing is read from the file meanwhile.
    ///
    /// # Errors
    ///
    /// [`FileError::Io`], [`FileError::Image`].
    pub fn open(
        path: &Path,
        prove: impl FnOnce(&SealRecord) -> Result<OpenedRecord, SealError>,
    ) -> Result<Self, FileError> {
        let file = ImageFile::open(path)?;
        let proven = prove(file.record()).map_err(|error| file.refused(error))?;
        Ok(Self { image: file.with_record(proven)? })
    }

    /// Bytes of its segments.
    #[must_use]
    pub fn segment_len(&self) -> ByteLen {
        self.image.opener().layout().segment_size().bytes()
    }
}

impl fmt::Debug for PlainImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainImage").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Feed for PlainImage {
    fn len(&self) -> ByteLen {
        self.image.opener().layout().plaintext_len()
    }

    /// Reads whole segments only: `range` begins and ends at segment boundaries.
    fn fill(&self, range: ByteRange, target: &mut [u8]) -> Result<(), FileError> {
        let opener = self.image.opener();
        let refused = |error| self.image.file().refused(error);
        let segments = match opener.layout().covering(range).map_err(refused)? {
            // The empty image has one empty segment, whose tag is checked.
            none if none.is_empty() => 0..1,
            some => some,
        };
        let sealed = self.image.sealed(range, target)?;
        let mut rest = sealed;
        for segment in segments {
            let len = opener.layout().range(segment).map_or(ByteLen::ZERO, ByteRange::len);
            let len = len.to_usize().unwrap_or(usize::MAX);
            let wanted = range.len();
            let (bytes, behind) =
                rest.split_at_mut_checked(len).ok_or(FileError::HostMemory { wanted })?;
            opener.open_segment(segment, bytes).map_err(refused)?;
            rest = behind;
        }
        Ok(())
    }
}
