//! An image file open for reading, and which of its parts are authenticated so far.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteRange};
use vram_seal::{
    Expected, ImageLayout, KeyRing, OpenLimits, OpenedRecord, Opener, RecordFields, SealError,
    SealRecord, SegmentTags, open_record_in,
};

use crate::error::FileError;
use crate::regular_file;
use crate::source::FileState;

/// A file with a record at its start, not authenticated.
pub(super) struct ImageFile {
    file: File,
    path: PathBuf,
    len: ByteLen,
    /// The state of the file before its first byte was read.
    state: FileState,
    record: SealRecord,
}

impl ImageFile {
    /// Opens a file and reads its first 256 bytes.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let failed = |error| io_failed("open the sealed image", path, error);
        let file = regular_file::open_regular(path).map_err(failed)?;
        let state = FileState::of(&file).map_err(failed)?;
        let mut head = [0_u8; SealRecord::LEN];
        let present = usize::try_from(state.len()).unwrap_or(usize::MAX).min(head.len());
        if let Some(head) = head.get_mut(..present) {
            file.read_exact_at(head, 0).map_err(|error| io_failed("read", path, error))?;
        }
        let record = SealRecord::from_bytes(head);
        let (path, len) = (path.to_path_buf(), ByteLen::new(state.len()));
        let image = Self { file, path, len, state, record };
        // The first check of the format, before the magic.
        if present < SealRecord::LEN {
            return Err(image.refused(SealError::WrongLength {
                what: "the record of a sealed image",
                expected: ImageLayout::TABLE_OFFSET,
                found: image.len.get(),
            }));
        }
        Ok(image)
    }

    pub(super) const fn record(&self) -> &SealRecord {
        &self.record
    }

    pub(super) const fn as_file(&self) -> &File {
        &self.file
    }

    pub(super) const fn len(&self) -> ByteLen {
        self.len
    }

    /// The file's name in errors.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Refuses a file that was written since it was opened: what was read may be parts of two images.
    pub(super) fn unchanged(&self) -> Result<(), FileError> {
        Ok(self.state.check(&self.file, &self.name())?)
    }

    /// Adds the file's path to an error of the seal.
    pub(super) fn refused(&self, error: SealError) -> FileError {
        match FileError::from(error) {
            FileError::Seal(source) => {
                FileError::Image { path: self.path.clone(), source: Box::new(source) }
            }
            other => other,
        }
    }

    /// Authenticates the record, then checks the file's length and padding, and only then reads the
    /// table.
    pub(super) fn authenticate(
        self,
        keys: &KeyRing,
        expected: &Expected<'_>,
        limits: OpenLimits,
    ) -> Result<OpenImage, FileError> {
        let refused = |error| self.refused(error);
        let proven = open_record_in(keys, &self.record, expected, limits).map_err(refused)?;
        self.with_record(proven)
    }

    /// Checks the length and padding and reads the table, for an authenticated record.
    pub(super) fn with_record(self, proven: OpenedRecord) -> Result<OpenImage, FileError> {
        let refused = |error| self.refused(error);
        let layout = ImageLayout::for_fields(proven.fields());
        layout.check_len(self.len.get()).map_err(refused)?;
        let padding = self.part(layout.padding_offset(), layout.padding_len())?;
        layout.check_padding(&padding).map_err(refused)?;
        let table = self.part(ImageLayout::TABLE_OFFSET, layout.table_len())?;
        let tags = SegmentTags::from_bytes(proven.fields(), table).map_err(refused)?;
        let opener = proven.with_table(tags).map_err(refused)?;
        Ok(OpenImage { image: self, opener, data_offset: layout.data_offset() })
    }

    /// Reads a part of the file into a buffer of its own.
    fn part(&self, offset: u64, len: u64) -> Result<Vec<u8>, FileError> {
        let refused = || FileError::HostMemory { wanted: ByteLen::new(len) };
        let count = usize::try_from(len).map_err(|_too_long| refused())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(count).map_err(|_no_room| refused())?;
        bytes.resize(count, 0);
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), FileError> {
        self.file
            .read_exact_at(target, offset)
            .map_err(|error| io_failed("read the sealed image", &self.path, error))
    }
}

/// An image whose record and table are genuine.
pub(super) struct OpenImage {
    image: ImageFile,
    opener: Opener,
    data_offset: u64,
}

impl OpenImage {
    pub(super) const fn opener(&self) -> &Opener {
        &self.opener
    }

    pub(super) const fn file(&self) -> &ImageFile {
        &self.image
    }

    pub(super) fn fields(&self) -> &RecordFields {
        self.opener.fields()
    }

    /// Reads the sealed bytes of a segment into the start of `buffer`, and returns that part of it.
    pub(super) fn sealed<'b>(
        &self,
        range: ByteRange,
        buffer: &'b mut [u8],
    ) -> Result<&'b mut [u8], FileError> {
        let len = range.len();
        let offset = self.data_offset.checked_add(range.start().get());
        let target = len.to_usize().and_then(|len| buffer.get_mut(..len));
        let (Some(offset), Some(target)) = (offset, target) else {
            return Err(FileError::HostMemory { wanted: len });
        };
        self.image.read_at(offset, target)?;
        Ok(target)
    }
}

/// An error of the operating system, with the action and the file.
pub(super) fn io_failed(action: &'static str, path: &Path, error: io::Error) -> FileError {
    FileError::Io { action, path: Some(path.to_path_buf()), source: Arc::new(error) }
}

/// The error for a sink that failed to take the bytes.
pub(super) fn sink_failed(error: io::Error) -> FileError {
    FileError::Io { action: "write to the sink", path: None, source: Arc::new(error) }
}
