//! Compares headers with what an index, or the files themselves, say of the whole model.

use std::collections::BTreeMap;

use super::IndexProblem;
use super::names::NAMED_MAX;
use super::problem::more;
use super::set::Indexed;
use crate::name::{shown, shown_whole};
use crate::{FileHeader, ModelError};

/// Each tensor is in the file where the index has it, and nowhere else.
pub(super) fn index(indexed: &Indexed, headers: &[FileHeader]) -> Result<(), ModelError> {
    let Indexed { index, positions } = indexed;
    let refused = |problem| ModelError::Index { file: index.file.clone(), problem };
    // How many tensors the index has in each file.
    let mut left = vec![0_usize; index.files.len()];
    for number in index.tensors.values() {
        if let Some(left) = left.get_mut(*number) {
            *left = left.saturating_add(1);
        }
    }
    for (number, position) in positions.iter().enumerate() {
        let Some(header) = position.and_then(|position| headers.get(position)) else { continue };
        for tensor in header.tensors() {
            let place = index.tensors.get(&tensor.name);
            if place != Some(&number) {
                let other = place.and_then(|place| index.files.get(*place));
                return Err(refused(IndexProblem::NotListed {
                    tensor: shown(&tensor.name),
                    file: header.file().to_owned(),
                    place: other.map_or_else(
                        || "in none".to_owned(),
                        |name| format!("in {}", shown_whole(name)),
                    ),
                }));
            }
        }
        // Names occur once in a header, so equal counts mean equal sets.
        if left.get(number) != Some(&header.tensors().len()) {
            return Err(refused(not_there(indexed, number, header)));
        }
    }
    Ok(())
}

/// The first tensor, by name, that a file should contain and does not.
fn not_there(indexed: &Indexed, number: usize, header: &FileHeader) -> IndexProblem {
    let there: std::collections::HashSet<&str> =
        header.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    let wanted = indexed.index.tensors.iter().filter(|(_, place)| **place == number);
    let first = wanted.map(|(name, _)| name).filter(|name| !there.contains(name.as_str())).min();
    IndexProblem::NotThere {
        tensor: first.map_or_else(String::new, |name| shown(name)),
        file: header.file().to_owned(),
    }
}

/// GGUF files that state which part of a model they are make up all of it.
pub(super) fn splits(headers: &[FileHeader]) -> Result<(), ModelError> {
    let mut first: Option<(&FileHeader, u64, Option<u64>)> = None;
    let mut parts: BTreeMap<u64, &FileHeader> = BTreeMap::new();
    let mut tensors = 0_u64;
    for header in headers {
        let FileHeader::Gguf(gguf) = header else { continue };
        let Some(split) = gguf.split() else { continue };
        let refused = |what| Err(ModelError::Split { file: header.file().to_owned(), what });
        let (one, count, _) = *first.get_or_insert((header, split.count, split.tensor_count));
        if split.count != count {
            return refused(format!(
                "it is one of {} parts, and {} is one of {count}",
                split.count,
                one.file()
            ));
        }
        if split.number >= count {
            return refused(format!(
                "it says that it is part {}, counted from 0, and that there are {count} parts",
                split.number
            ));
        }
        if let Some(twin) = parts.insert(split.number, header) {
            return refused(format!("it is part {} as {} is", split.number, twin.file()));
        }
        tensors = tensors.saturating_add(u64::try_from(gguf.tensors().len()).unwrap_or(u64::MAX));
    }
    let Some((one, count, tensor_count)) = first else { return Ok(()) };
    let refused = |what| Err(ModelError::Split { file: one.file().to_owned(), what });
    let there = u64::try_from(parts.len()).unwrap_or(u64::MAX);
    if there < count {
        let missing = (0..count).filter(|number| !parts.contains_key(number)).take(NAMED_MAX);
        let missing: Vec<String> = missing.map(|number| number.to_string()).collect();
        let rest = usize::try_from(count.saturating_sub(there)).unwrap_or(usize::MAX);
        return refused(format!(
            "it is one of {count} parts, and these are missing, counted from 0: {}{}",
            missing.join(", "),
            more(rest, missing.len())
        ));
    }
    match tensor_count {
        Some(stated) if stated != tensors => {
            refused(format!("its parts have {tensors} tensors together, and it says {stated}"))
        }
        _ => Ok(()),
    }
}
