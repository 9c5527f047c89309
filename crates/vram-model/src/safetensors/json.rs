//! The JSON of a safetensors header, read in one pass with bounds.

use core::cell::RefCell;
use core::fmt;
use std::collections::HashMap;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::Limits;
use crate::error::HeaderProblem;
use crate::limits::RANK_CAP;
use crate::name::shown;

/// The key of the free-form entries; every other key is a tensor's name.
const METADATA_KEY: &str = "__metadata__";
/// The maximum number of characters of the JSON reader's message in an error.
const MESSAGE_MAX: usize = 400;

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
            if entry.shape.len() > self.limits.rank_max {
                let (rank, max) = (entry.shape.len(), self.limits.rank_max);
                let tensor = shown(&key);
                return Err(self.refuse(HeaderProblem::RankTooHigh { tensor, rank, max }));
            }
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
            write!(f, "a list of at most {RANK_CAP} dimensions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<usize>, A::Error> {
            let mut shape = Vec::new();
            while let Some(dim) = seq.next_element()? {
                if shape.len() >= RANK_CAP {
                    return Err(A::Error::invalid_length(RANK_CAP.saturating_add(1), &self));
                }
                shape.push(dim);
            }
            Ok(shape)
        }
    }

    deserializer.deserialize_seq(Shape)
}
