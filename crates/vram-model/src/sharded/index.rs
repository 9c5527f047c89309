//! Reads `model.safetensors.index.json`: which tensor is in which file.
//!
//! ```json
//! { "metadata": { "total_size": 16060522496 },
//!   "weight_map": { "lm_head.weight": "model-00004-of-00004.safetensors" } }
//! ```
//!
//! # Source
//!
//! <https://huggingface.co/docs/safetensors/metadata_parsing>, section "Sharded weights"

use core::cell::RefCell;
use core::fmt;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Component, Path};

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use vram_alloc::{ByteLen, PIECE_COUNT_MAX};

use super::IndexProblem;
use crate::name::{shown, shown_path};
use crate::{Limits, ModelError, ReadAt as _};

/// The maximum number of characters of the JSON reader's message in an error.
const MESSAGE_MAX: usize = 400;

/// An index: each tensor, and the number of the file that contains it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// The index itself, for errors.
    pub(super) file: String,
    /// Names of files, relative to the folder of the index, in ascending order.
    pub(super) files: Vec<String>,
    /// By tensor: a position in `files`.
    pub(super) tensors: HashMap<String, usize>,
    /// Bytes of all tensors, as it says; `None` if it says nothing, or no whole number.
    pub(super) total_size: Option<ByteLen>,
}

impl Index {
    /// Reads and checks an index.
    pub(super) fn read(path: &Path, limits: &Limits) -> Result<Self, ModelError> {
        let name = shown_path(path);
        let failed = |source| ModelError::Open { file: name.clone(), source };
        let refused = |problem| ModelError::Index { file: name.clone(), problem };
        // Checked before opening: opening a pipe waits for its writer, perhaps forever.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(ModelError::NotAFile { file: name });
        }
        let file = File::open(path).map_err(failed)?;
        let len = ByteLen::new(file.byte_len().map_err(failed)?);
        let max = limits.header_len_max;
        if len > max {
            return Err(refused(IndexProblem::TooLong { len, max }));
        }
        let no_memory = || ModelError::HostMemory { file: name.clone(), wanted: len };
        let count = len.to_usize().ok_or_else(no_memory)?;
        let mut text = Vec::new();
        text.try_reserve_exact(count).map_err(|_no_memory| no_memory())?;
        text.resize(count, 0);
        file.read_exact_at(0, &mut text).map_err(|source| ModelError::Read {
            file: name.clone(),
            offset: 0,
            wanted: len,
            source,
        })?;
        let map = parse(&text, limits).map_err(refused)?;
        Ok(Self { file: name.clone(), ..map })
    }
}

/// Reads the JSON text of an index.
fn parse(text: &[u8], limits: &Limits) -> Result<Index, IndexProblem> {
    let problem = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_slice(text);
    let parsed = Seed { limits, problem: &problem }
        .deserialize(&mut json)
        .and_then(|map| json.end().map(|()| map));
    let map = parsed.map_err(|error| {
        // An error of this crate keeps its own message; other errors are the JSON reader's.
        problem.into_inner().unwrap_or_else(|| {
            let mut message: String = error.to_string().chars().take(MESSAGE_MAX).collect();
            message.retain(|character| !character.is_control());
            IndexProblem::Json { message }
        })
    })?;
    let map = map.ok_or(IndexProblem::NoMap)?;
    if map.tensors.is_empty() {
        return Err(IndexProblem::Empty);
    }
    Ok(map.sorted())
}

/// The entries as they are read: files in the order in which they first occur.
#[derive(Debug, Default)]
struct Map {
    files: BTreeMap<String, usize>,
    tensors: HashMap<String, usize>,
    total_size: Option<u64>,
}

impl Map {
    /// With the files in the order of their names.
    fn sorted(self) -> Index {
        let mut positions = vec![0; self.files.len()];
        let mut files = Vec::with_capacity(self.files.len());
        for (position, (name, number)) in self.files.into_iter().enumerate() {
            if let Some(slot) = positions.get_mut(number) {
                *slot = position;
            }
            files.push(name);
        }
        let place = |number: usize| positions.get(number).copied().unwrap_or_default();
        let tensors = self.tensors.into_iter().map(|(name, number)| (name, place(number)));
        let total_size = self.total_size.map(ByteLen::new);
        Index { file: String::new(), files, tensors: tensors.collect(), total_size }
    }
}

/// Reads the object. If it breaks a rule of this crate, stores that in `problem`.
#[derive(Clone, Copy)]
struct Seed<'a> {
    limits: &'a Limits,
    problem: &'a RefCell<Option<IndexProblem>>,
}

impl Seed<'_> {
    /// Stops the reading with an error of this crate.
    fn refuse<E: serde::de::Error>(&self, problem: IndexProblem) -> E {
        let error = E::custom(&problem);
        *self.problem.borrow_mut() = Some(problem);
        error
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Map>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Option<Map>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `weight_map`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut total_size) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            if key == "metadata" {
                total_size = map.next_value_seed(Stated::Metadata)?;
                continue;
            }
            if key != "weight_map" {
                let _ = map.next_value::<IgnoredAny>()?;
                continue;
            }
            if found.is_some() {
                return Err(A::Error::custom("`weight_map` stands twice"));
            }
            found = Some(map.next_value_seed(Entries(self))?);
        }
        Ok(found.map(|map: Map| Map { total_size, ..map }))
    }
}

/// Reads `total_size` of the metadata, which may be of any form: what is no whole number says nothing.
#[derive(Clone, Copy)]
enum Stated {
    Metadata,
    Size,
}

impl<'de> DeserializeSeed<'de> for Stated {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Stated {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut stated = None;
        while let Some(key) = map.next_key::<String>()? {
            if matches!(self, Self::Metadata) && key == "total_size" {
                stated = map.next_value_seed(Self::Size)?;
            } else {
                let _ = map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(stated)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(matches!(self, Self::Size).then_some(number))
    }

    fn visit_i64<E>(self, _negative: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _fraction: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _text: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _is_so: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Reads the entries of `weight_map`.
struct Entries<'a>(Seed<'a>);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = Map;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Map, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Map;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names of files by tensor in `weight_map`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map, A::Error> {
        let Self(seed) = self;
        let (name_max, file_max) = (seed.limits.name_len_max, seed.limits.file_count_max);
        let mut found = Map::default();
        while let Some((tensor, file)) = map.next_entry::<String, String>()? {
            if tensor.len() > name_max {
                let (tensor, max) = (shown(&tensor), name_max);
                return Err(seed.refuse(IndexProblem::NameTooLong { tensor, max }));
            }
            if found.tensors.len() >= PIECE_COUNT_MAX {
                let max = PIECE_COUNT_MAX;
                return Err(seed.refuse(IndexProblem::TooManyTensors { max }));
            }
            let number = if let Some(number) = found.files.get(&file) {
                *number
            } else {
                if !lies_in_its_folder(&file) {
                    let (tensor, name) = (shown(&tensor), shown(&file));
                    return Err(seed.refuse(IndexProblem::Outside { tensor, name }));
                }
                let number = found.files.len();
                if number >= file_max {
                    return Err(seed.refuse(IndexProblem::TooManyFiles { max: file_max }));
                }
                found.files.insert(file, number);
                number
            };
            if found.tensors.contains_key(&tensor) {
                let tensor = shown(&tensor);
                return Err(seed.refuse(IndexProblem::DuplicateName { tensor }));
            }
            found.tensors.insert(tensor, number);
        }
        Ok(found)
    }
}

/// Returns true if a name leads to nothing above the folder that it is relative to. Links are
/// followed, as in every path that a user names: caches of hubs consist of links.
fn lies_in_its_folder(name: &str) -> bool {
    let mut parts = Path::new(name).components().peekable();
    let plain = parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)));
    // `a/` and `a/.` are the names of folders, and a backslash separates names on other systems.
    plain && !name.contains(['\0', '\\', ':']) && !name.ends_with(['/', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_the_folder_are_told_from_those_that_do_not() {
        for fine in ["m.safetensors", "sub/m.safetensors", "..m.safetensors", "a..b"] {
            assert!(lies_in_its_folder(fine), "{fine}");
        }
        for other in
            ["", ".", "..", "../m", "/m", "a/../../m", "a/..", "a/", "a/.", "c:\\m", "a\\m", "a\0b"]
        {
            assert!(!lies_in_its_folder(other), "{other:?}");
        }
    }

    #[test]
    fn an_index_is_read_strictly_and_everything_beside_the_map_is_passed_over() {
        let limits = Limits::default();
        let index = parse(
            br#"{"metadata":{"total_size":1e9,"x":[[{}]]},"weight_map":{"b":"2","a":"1","c":"2"}}"#,
            &limits,
        );
        let index = index.unwrap();
        assert_eq!((&*index.files, index.total_size), (&["1".into(), "2".into()][..], None));
        assert_eq!((index.tensors["a"], index.tensors["b"], index.tensors["c"]), (0, 1, 1));
        for (text, words) in [
            ("", "not valid"),
            ("[]", "`weight_map`"),
            ("{}", "no `weight_map`"),
            (r#"{"weight_map":{}}"#, "names no tensor"),
            (r#"{"weight_map":[]}"#, "names of files by tensor"),
            (r#"{"weight_map":{"a":1}}"#, "not valid"),
            (r#"{"weight_map":{"a":"1","a":"1"}}"#, "`a` twice"),
            (r#"{"weight_map":{"a":"1"},"weight_map":{"a":"1"}}"#, "stands twice"),
            (r#"{"weight_map":{"a":"../1"}}"#, "`../1`"),
            (r#"{"weight_map":{"a":"1"}} x"#, "not valid"),
        ] {
            let refused = parse(text.as_bytes(), &limits).unwrap_err().to_string();
            assert!(refused.contains(words), "{text}: {refused}");
        }
        for (metadata, size) in [
            (r#"{"total_size":12}"#, Some(ByteLen::new(12))),
            (
                r#"{"x":{"total_size":1},"total_size":18446744073709551615}"#,
                Some(ByteLen::new(u64::MAX)),
            ),
            (r#"{"total_size":-1}"#, None),
            (r#"{"total_size":"12"}"#, None),
            (r#"{"total_size":{"total_size":12}}"#, None),
            (r#"{"total_size":[12]}"#, None),
            ("{}", None),
            ("12", None),
            ("null", None),
            ("[{}]", None),
        ] {
            let text = format!(r#"{{"weight_map":{{"a":"1"}},"metadata":{metadata}}}"#);
            assert_eq!(parse(text.as_bytes(), &limits).unwrap().total_size, size, "{metadata}");
        }
        let deep = format!(r#"{{"x":{},"weight_map":{{"a":"1"}}}}"#, "[".repeat(100_000));
        assert!(parse(deep.as_bytes(), &limits).is_err());
        let one = limits.with_file_count_max(1);
        assert!(parse(br#"{"weight_map":{"a":"1","b":"2"}}"#, &one).is_err());
        let short = limits.with_name_len_max(1);
        assert!(parse(br#"{"weight_map":{"ab":"1"}}"#, &short).is_err());
    }
}
