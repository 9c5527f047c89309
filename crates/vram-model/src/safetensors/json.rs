//! The JSON of a safetensors header, read in one pass with bounds, and the file that contains it.

use core::cell::RefCell;
use core::fmt;
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::error::HeaderProblem;
use crate::name::{shown, shown_path};
use crate::{Limits, ModelError, SafetensorsHeader};

/// The key of the free-form entries; every other key is a tensor's name.
const METADATA_KEY: &str = "__metadata__";
/// The maximum number of dimensions of a tensor. `PyTorch`'s own limit is 64.
const RANK_MAX: usize = 64;
/// The maximum number of characters of the JSON reader's message in an error.
const MESSAGE_MAX: usize = 400;

/// An open safetensors file and its checked header.
///
/// Tensors are read from the file whose header was checked, even if the path has been replaced by
/// another file meanwhile.
#[derive(Debug)]
pub struct SafetensorsFile {
    file: File,
    /// Before the first byte of the header was read.
    metadata: Metadata,
    header: SafetensorsHeader,
}

impl SafetensorsFile {
    /// Opens the regular file at `path` and checks its header.
    ///
    /// # Errors
    ///
    /// [`ModelError::Open`] if it cannot be opened, [`ModelError::NotAFile`] for a directory, a
    /// pipe or a device, [`ModelError::Changed`] if it was written meanwhile, otherwise as [`SafetensorsHeader::read`].
    pub fn open(path: impl AsRef<Path>, limits: &Limits) -> Result<Self, ModelError> {
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
        let header = SafetensorsHeader::read(&name, &file, limits);
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
    /// As [`SafetensorsFile::open`].
    pub fn read(path: impl AsRef<Path>, limits: &Limits) -> Result<SafetensorsHeader, ModelError> {
        Ok(Self::open(path, limits)?.header)
    }

    /// The checked header.
    #[must_use]
    pub fn header(&self) -> &SafetensorsHeader {
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
    pub fn into_parts(self) -> (File, SafetensorsHeader) {
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

/// A header as parsed from JSON: well formed and bounded, its figures not yet checked.
#[derive(Debug)]
pub(crate) struct RawHeader {
    /// The free-form entries, if there are any.
    pub(crate) metadata: Option<HashMap<String, String>>,
    /// The tensors in the order of the text, including duplicates.
    pub(crate) tensors: Vec<(String, TensorInfo)>,
}

impl RawHeader {
    /// Reads the JSON text of a header.
    pub(crate) fn parse(text: &[u8], limits: &Limits) -> Result<Self, HeaderProblem> {
        if text.first() != Some(&b'{') {
            return Err(HeaderProblem::NotAnObject);
        }
        let problem = RefCell::new(None);
        let mut json = serde_json::Deserializer::from_slice(text);
        let parsed = HeaderSeed { limits, problem: &problem }
            .deserialize(&mut json)
            .and_then(|header| json.end().map(|()| header));
        parsed.map_err(|error| {
            // An error of this crate keeps its own message; other errors are the JSON reader's.
            problem.into_inner().unwrap_or_else(|| {
                let mut message: String = error.to_string().chars().take(MESSAGE_MAX).collect();
                message.retain(|character| !character.is_control());
                HeaderProblem::Json { message }
            })
        })
    }
}

/// Reads the object. If it breaks a rule of this crate, stores that in `problem`.
struct HeaderSeed<'a> {
    limits: &'a Limits,
    problem: &'a RefCell<Option<HeaderProblem>>,
}

impl HeaderSeed<'_> {
    /// Stops the reading with an error of this crate.
    fn refuse<E: serde::de::Error>(&self, problem: HeaderProblem) -> E {
        let error = E::custom(&problem);
        *self.problem.borrow_mut() = Some(problem);
        error
    }
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = RawHeader;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawHeader, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader { metadata: None, tensors: Vec::new() };
        while let Some(key) = map.next_key::<String>()? {
            if key == METADATA_KEY {
                if header.metadata.is_some() {
                    return Err(self.refuse(HeaderProblem::DuplicateName { name: key }));
                }
                header.metadata = Some(map.next_value_seed(MetadataSeed(&self))?);
                continue;
            }
            if key.len() > self.limits.name_len_max {
                let max = self.limits.name_len_max;
                return Err(self.refuse(HeaderProblem::NameTooLong { tensor: shown(&key), max }));
            }
            if header.tensors.len() >= self.limits.tensor_count_max {
                let max = self.limits.tensor_count_max;
                return Err(self.refuse(HeaderProblem::TooManyTensors { max }));
            }
            let entry = map.next_value::<Entry>().map_err(|error| {
                A::Error::custom(format_args!("tensor `{}`: {error}", shown(&key)))
            })?;
            header.tensors.push((key, entry.into()));
        }
        Ok(header)
    }
}

/// Reads the free-form entries: text to text, each key once, up to the limit.
struct MetadataSeed<'a, 'b>(&'a HeaderSeed<'b>);

impl<'de> DeserializeSeed<'de> for MetadataSeed<'_, '_> {
    type Value = HashMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed<'_, '_> {
    type Value = HashMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts in `__metadata__`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = HashMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let max = self.0.limits.metadata_count_max;
            if entries.len() >= max {
                return Err(self.0.refuse(HeaderProblem::TooMuchMetadata { max }));
            }
            if entries.contains_key(&key) {
                return Err(self.0.refuse(HeaderProblem::DuplicateName { name: shown(&key) }));
            }
            let text = map.next_value::<String>()?;
            entries.insert(key, text);
        }
        Ok(entries)
    }
}

/// [`TensorInfo`] with a bound on its shape: otherwise a header of 100 MB could claim 400 MB in
/// dimensions alone.
#[derive(Deserialize)]
struct Entry {
    dtype: Dtype,
    #[serde(deserialize_with = "bounded_shape")]
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl From<Entry> for TensorInfo {
    fn from(entry: Entry) -> Self {
        Self { dtype: entry.dtype, shape: entry.shape, data_offsets: entry.data_offsets }
    }
}

fn bounded_shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    struct Shape;

    impl<'de> Visitor<'de> for Shape {
        type Value = Vec<usize>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {RANK_MAX} dimensions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<usize>, A::Error> {
            let mut shape = Vec::new();
            while let Some(dim) = seq.next_element()? {
                if shape.len() >= RANK_MAX {
                    return Err(A::Error::invalid_length(RANK_MAX.saturating_add(1), &self));
                }
                shape.push(dim);
            }
            Ok(shape)
        }
    }

    deserializer.deserialize_seq(Shape)
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
