//! Reads the keys of a GGUF file and their values.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::reader::Reader;
use super::value::KEPT_MAX;
use super::{GgufArray, GgufProblem, GgufType, GgufValue};
use crate::name::shown;
use crate::{Limits, ModelError, ReadAt};

/// The fewest bytes of a key with its value: the length of the key, the type, one byte.
const KEY_BYTES_MIN: u64 = 8 + 4 + 1;
/// How deep lists may lie in lists. llama.cpp reads none in another.
const DEPTH_MAX: usize = 8;
/// Truth values that are looked at together.
const TRUTH_WINDOW: usize = 4096;

/// Reads `count` keys.
pub(super) fn read<R: ReadAt + ?Sized>(
    reader: &mut Reader<'_, R>,
    count: u64,
    limits: &Limits,
) -> Result<BTreeMap<String, GgufValue>, ModelError> {
    let max = limits.metadata_count_max;
    if usize::try_from(count).map_or(true, |count| count > max) {
        return Err(reader.refuse(GgufProblem::TooMuchMetadata { count, max }));
    }
    reader.prove_count("keys of metadata", count, KEY_BYTES_MIN)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..count {
        let key = reader.name("key", limits.name_len_max)?;
        let number = reader.u32()?;
        let value = Value { reader, key: &key, depth: 0 }.read(number)?;
        match metadata.entry(key) {
            Entry::Vacant(entry) => entry.insert(value),
            Entry::Occupied(entry) => {
                let key = shown(entry.key());
                return Err(reader.refuse(GgufProblem::DuplicateKey { key }));
            }
        };
    }
    Ok(metadata)
}

/// The value of one key.
struct Value<'r, 'a, R: ?Sized> {
    reader: &'r mut Reader<'a, R>,
    key: &'r str,
    /// The lists around it.
    depth: usize,
}

impl<R: ReadAt + ?Sized> Value<'_, '_, R> {
    fn read(&mut self, number: u32) -> Result<GgufValue, ModelError> {
        let of = self.type_of(number)?;
        self.of_type(of)
    }

    fn type_of(&self, number: u32) -> Result<GgufType, ModelError> {
        let key = || shown(self.key);
        let unknown = || self.reader.refuse(GgufProblem::ValueType { key: key(), number });
        GgufType::from_number(number).ok_or_else(unknown)
    }

    fn of_type(&mut self, of: GgufType) -> Result<GgufValue, ModelError> {
        let reader = &mut *self.reader;
        Ok(match of {
            GgufType::U8 => GgufValue::Unsigned(u8::from_le_bytes(reader.array()?).into()),
            GgufType::I8 => GgufValue::Signed(i8::from_le_bytes(reader.array()?).into()),
            GgufType::U16 => GgufValue::Unsigned(u16::from_le_bytes(reader.array()?).into()),
            GgufType::I16 => GgufValue::Signed(i16::from_le_bytes(reader.array()?).into()),
            GgufType::U32 => GgufValue::Unsigned(reader.u32()?.into()),
            GgufType::I32 => GgufValue::Signed(i32::from_le_bytes(reader.array()?).into()),
            GgufType::F32 => GgufValue::F32(f32::from_le_bytes(reader.array()?)),
            GgufType::U64 => GgufValue::Unsigned(reader.u64()?),
            GgufType::I64 => GgufValue::Signed(i64::from_le_bytes(reader.array()?)),
            GgufType::F64 => GgufValue::F64(f64::from_le_bytes(reader.array()?)),
            GgufType::Bool => {
                let [byte] = reader.array()?;
                self.truth(byte).map(GgufValue::Bool)?
            }
            GgufType::Text => {
                GgufValue::Text(String::from_utf8_lossy(&reader.text()?).into_owned())
            }
            GgufType::Array => GgufValue::Array(self.list()?),
        })
    }

    fn truth(&self, byte: u8) -> Result<bool, ModelError> {
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            byte => {
                let key = shown(self.key);
                Err(self.reader.refuse(GgufProblem::TruthValue { key, byte }))
            }
        }
    }

    /// A list: the first elements are kept, the others are passed over, each one checked.
    fn list(&mut self) -> Result<GgufArray, ModelError> {
        if self.depth >= DEPTH_MAX {
            let (key, max) = (shown(self.key), DEPTH_MAX);
            return Err(self.reader.refuse(GgufProblem::Nested { key, max }));
        }
        let number = self.reader.u32()?;
        let of = self.type_of(number)?;
        let len = self.reader.u64()?;
        self.reader.prove_count("elements of a list", len, of.least_bytes())?;
        let file_offset = self.reader.at();
        // Lists inside lists keep nothing: otherwise a few bytes of a file could claim many of the
        // host at each depth.
        let kept = if self.depth == 0 { len.min(KEPT_MAX) } else { 0 };
        self.depth = self.depth.saturating_add(1);
        let mut first = Vec::new();
        for _ in 0..kept {
            first.push(self.of_type(of)?);
        }
        self.pass_over(of, len.saturating_sub(kept))?;
        self.depth = self.depth.saturating_sub(1);
        Ok(GgufArray { of, len, first, file_offset })
    }

    fn pass_over(&mut self, of: GgufType, count: u64) -> Result<(), ModelError> {
        match of {
            GgufType::Text => {
                for _ in 0..count {
                    self.reader.skip_text()?;
                }
                Ok(())
            }
            GgufType::Array => {
                for _ in 0..count {
                    let _list = self.list()?;
                }
                Ok(())
            }
            GgufType::Bool => self.truths(count),
            number => {
                // Proved to lie in the file, so nothing saturates.
                self.reader.skip(count.saturating_mul(number.least_bytes()))
            }
        }
    }

    fn truths(&mut self, mut count: u64) -> Result<(), ModelError> {
        let mut window = [0; TRUTH_WINDOW];
        while count > 0 {
            let now = usize::try_from(count).unwrap_or(TRUTH_WINDOW).min(TRUTH_WINDOW);
            let bytes = window.get_mut(..now).unwrap_or_default();
            self.reader.fill(bytes)?;
            if let Some(byte) = bytes.iter().find(|byte| **byte > 1) {
                return self.truth(*byte).map(drop);
            }
            count = count.saturating_sub(u64::try_from(now).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}
