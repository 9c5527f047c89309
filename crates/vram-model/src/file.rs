//! The header of one model file, of whatever format, and the file that contains it.

use std::fs::{self, File, Metadata};
use std::path::Path;

use vram_alloc::ByteLen;

use crate::gguf::{self, GgufHeader};
use crate::name::shown_path;
use crate::{Limits, ModelError, ModelOptions, ReadAt, SafetensorsHeader, Tensor, TensorTable};

/// The header of one model file, after all figures in it were checked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FileHeader {
    /// Of a safetensors file.
    Safetensors(SafetensorsHeader),
    /// Of a GGUF file.
    Gguf(GgufHeader),
}

impl FileHeader {
    /// Reads and checks the header of `source`, whose first bytes tell its format; reads no tensor.
    ///
    /// # Arguments
    ///
    /// * `file`: the name of the source in errors; usually its path.
    ///
    /// # Errors
    ///
    /// As [`GgufHeader::read`] if it begins as a GGUF file does, otherwise as
    /// [`SafetensorsHeader::read`].
    pub fn read(
        file: &str,
        source: &(impl ReadAt + ?Sized),
        options: &ModelOptions,
    ) -> Result<Self, ModelError> {
        let mut beginning = [0; gguf::MAGIC.len()];
        // A source that cannot be read, or is shorter, is reported by the other reader.
        if source.read_exact_at(0, &mut beginning).is_ok() && beginning == gguf::MAGIC {
            return GgufHeader::read_with(file, source, options).map(Self::Gguf);
        }
        SafetensorsHeader::read_with(file, source, options).map(Self::Safetensors)
    }

    /// The format: `safetensors` or `gguf`.
    #[must_use]
    pub const fn format(&self) -> &'static str {
        match self {
            Self::Safetensors(_) => "safetensors",
            Self::Gguf(_) => "gguf",
        }
    }

    /// The file as the caller named it.
    #[must_use]
    pub fn file(&self) -> &str {
        match self {
            Self::Safetensors(header) => header.file(),
            Self::Gguf(header) => header.file(),
        }
    }

    /// Length of the file when its header was read.
    #[must_use]
    pub const fn file_len(&self) -> ByteLen {
        match self {
            Self::Safetensors(header) => header.file_len(),
            Self::Gguf(header) => header.file_len(),
        }
    }

    /// Where the data section begins, in bytes from the start of the file.
    #[must_use]
    pub const fn data_offset(&self) -> u64 {
        match self {
            Self::Safetensors(header) => header.data_offset(),
            Self::Gguf(header) => header.data_offset(),
        }
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn tensor_bytes(&self) -> ByteLen {
        let add = |sum: ByteLen, tensor: &Tensor| sum.saturating_add(tensor.len);
        self.tensors().iter().fold(ByteLen::ZERO, add)
    }

    /// Bytes of tensors that the file should have and ends before; zero unless it was read with
    /// [`ModelOptions::headers_only`].
    #[must_use]
    pub const fn missing(&self) -> ByteLen {
        match self {
            Self::Safetensors(header) => header.missing(),
            Self::Gguf(header) => header.missing(),
        }
    }

    /// The tensors, in the order of their bytes in the file.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        match self {
            Self::Safetensors(header) => header.tensors(),
            Self::Gguf(header) => header.tensors(),
        }
    }

    /// The metadata as texts, in the order of the keys: of a GGUF file, numbers as they are
    /// written, and of a list its first elements.
    #[must_use]
    pub fn texts(&self) -> Vec<(&str, String)> {
        match self {
            Self::Safetensors(header) => {
                header.metadata().iter().map(|(key, text)| (&**key, text.clone())).collect()
            }
            Self::Gguf(header) => {
                header.metadata().iter().map(|(key, value)| (&**key, value.to_string())).collect()
            }
        }
    }
}

impl TensorTable for FileHeader {
    fn file(&self) -> &str {
        Self::file(self)
    }

    fn tensors(&self) -> &[Tensor] {
        Self::tensors(self)
    }
}

/// An open model file and its checked header.
///
/// Tensors are read from the file whose header was checked, even if the path has been replaced by
/// another file meanwhile.
#[derive(Debug)]
pub struct ModelFile {
    file: File,
    /// Before the first byte of the header was read.
    metadata: Metadata,
    header: FileHeader,
}

impl ModelFile {
    /// Opens the regular file at `path` and checks its header.
    ///
    /// # Errors
    ///
    /// [`ModelError::Open`] if it cannot be opened, [`ModelError::NotAFile`] for a directory, a
    /// pipe or a device, [`ModelError::Changed`] if it was written meanwhile, otherwise as
    /// [`FileHeader::read`].
    pub fn open(path: impl AsRef<Path>, limits: &Limits) -> Result<Self, ModelError> {
        Self::open_with(path, &ModelOptions::from(*limits))
    }

    /// As [`open`](Self::open), with all options.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let name = shown_path(path);
        let failed = |source| ModelError::Open { file: name.clone(), source };
        let not_a_file = || ModelError::NotAFile { file: name.clone() };

        // Checked before opening: opening a pipe waits for its writer, perhaps forever.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(not_a_file());
        }
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(not_a_file());
        }
        let header = FileHeader::read(&name, &file, options);
        // Also where the header was refused: it may be half of an old one and half of a new one.
        let now = file.metadata().map_err(failed)?;
        if let Some(what) = changed(&metadata, &now) {
            return Err(ModelError::Changed { file: name, what });
        }
        Ok(Self { file, metadata, header: header? })
    }

    /// Opens the file at `path`, checks its header, and closes it again.
    ///
    /// # Errors
    ///
    /// As [`ModelFile::open`].
    pub fn read(path: impl AsRef<Path>, limits: &Limits) -> Result<FileHeader, ModelError> {
        Ok(Self::open(path, limits)?.header)
    }

    /// As [`read`](Self::read), with all options.
    ///
    /// # Errors
    ///
    /// As [`ModelFile::open`].
    pub fn read_with(
        path: impl AsRef<Path>,
        options: &ModelOptions,
    ) -> Result<FileHeader, ModelError> {
        Ok(Self::open_with(path, options)?.header)
    }

    /// The checked header.
    #[must_use]
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// The open file, to read tensors from by position.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The metadata of the file before the first byte of it was read: who reads the tensors later
    /// compares these, to see whether the file was written since then.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Splits into the open file and its header.
    #[must_use]
    pub fn into_parts(self) -> (File, FileHeader) {
        (self.file, self.header)
    }
}

/// What differs between two states of an open file, if a write was seen. The change time of a file that
/// was linked or unlinked in between says nothing of its bytes.
fn changed(before: &Metadata, now: &Metadata) -> Option<&'static str> {
    if before.len() != now.len() {
        return Some("its length is another");
    }
    if before.modified().ok() != now.modified().ok() {
        return Some("its modification time is another");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;

        let time = |of: &Metadata| (of.ctime(), of.ctime_nsec());
        if time(before) != time(now) && before.nlink() == now.nlink() {
            return Some("its change time is another");
        }
    }
    None
}

#[cfg(all(test, unix))]
mod tests {
    use core::time::Duration;
    use std::os::unix::fs::FileExt as _;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_file_that_was_written_while_its_header_was_read_is_told_from_one_that_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        let before = || {
            fs::write(&path, b"header").unwrap();
            // Longer than a tick of the clock of a kernel.
            std::thread::sleep(Duration::from_millis(25));
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let before = file.metadata().unwrap();
            (file, before)
        };
        let found = |file: &File, before| changed(before, &file.metadata().unwrap());

        let (file, state) = before();
        assert_eq!(found(&file, &state), None);
        file.set_modified(SystemTime::now()).unwrap();
        assert!(found(&file, &state).unwrap().contains("modification time"));

        let (file, state) = before();
        file.write_all_at(b"longer than before", 0).unwrap();
        assert!(found(&file, &state).unwrap().contains("length"));

        let (file, state) = before();
        file.write_all_at(b"HEADER", 0).unwrap();
        file.set_modified(state.modified().unwrap()).unwrap();
        assert!(found(&file, &state).unwrap().contains("change time"));

        let (file, state) = before();
        fs::write(folder.path().join("new"), b"other").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(found(&file, &state), None);
    }
}
