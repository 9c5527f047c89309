//! Files that count themselves: whether all of a set are there, by their names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::ModelError;
use crate::name::{shown_path, shown_whole};

/// Most missing files that are named; the others are counted.
pub(super) const NAMED_MAX: usize = 8;
/// The endings of files that may count themselves.
const ENDINGS: [&str; 2] = [".safetensors", ".gguf"];

/// A file name such as `model-00001-of-00002.safetensors`, in its parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    /// The path up to the number.
    before: PathBuf,
    /// The number of files, and the digits it is written with.
    count: u64,
    width: usize,
    /// From the last digit on.
    after: String,
}

impl Series {
    /// The series that a file belongs to, and its number in it.
    pub(super) fn of(path: &Path) -> Option<(Self, u64)> {
        let name = path.file_name()?.to_str()?;
        let ending = ENDINGS.into_iter().find(|ending| name.ends_with(ending))?;
        let stem = name.strip_suffix(ending)?;
        let (rest, count_digits) = stem.rsplit_once("-of-")?;
        let (before, number_digits) = rest.rsplit_once('-')?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if plain { digits.parse::<u64>().ok() } else { None }
        };
        let series = Self {
            before: path.with_file_name(before),
            count: number(count_digits)?,
            width: number_digits.len(),
            after: format!("-of-{count_digits}{ending}"),
        };
        Some((series, number(number_digits)?))
    }

    /// The name of the file with this number.
    fn name(&self, number: u64) -> String {
        let before = self.before.file_name().unwrap_or_default().to_string_lossy();
        format!("{before}-{number:0width$}{}", self.after, width = self.width)
    }
}

/// What of a series is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// The number of files in the series, by their names.
    pub(super) count: u64,
    /// The first that are missing.
    pub(super) first: Vec<String>,
    /// How many are.
    pub(super) left: u64,
}

/// Refuses a part of a series: its tensors would load, and the model would not work.
///
/// # Arguments
///
/// * `named`: the files were named one by one, not found in a folder.
pub(super) fn refuse_missing(paths: &[PathBuf], named: bool) -> Result<(), ModelError> {
    let Some((series, Missing { count, first, left })) = first_part(paths) else {
        return Ok(());
    };
    let folder = series.before.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map_or_else(|| ".".to_owned(), shown_path);
    let (missing, missing_count) = (first, left);
    Err(ModelError::MissingFiles { folder, count, missing, missing_count, named, index: None })
}

/// What is missing of the first series that is not whole.
pub(super) fn missing(paths: &[PathBuf]) -> Option<Missing> {
    first_part(paths).map(|(_, missing)| missing)
}

fn first_part(paths: &[PathBuf]) -> Option<(Series, Missing)> {
    let mut all: BTreeMap<Series, Vec<u64>> = BTreeMap::new();
    for (series, number) in paths.iter().filter_map(|path| Series::of(path)) {
        all.entry(series).or_default().push(number);
    }
    all.into_iter().find_map(|(series, there)| {
        let missing = missing_of(&series, there)?;
        Some((series, missing))
    })
}

fn missing_of(series: &Series, mut there: Vec<u64>) -> Option<Missing> {
    there.sort_unstable();
    there.dedup();
    // Most programs count from 1, some from 0.
    let first = u64::from(there.first() != Some(&0));
    let all = first..first.saturating_add(series.count);
    there.retain(|number| all.contains(number));
    let present = u64::try_from(there.len()).unwrap_or(u64::MAX);
    let missing_count = series.count.saturating_sub(present);
    if missing_count == 0 {
        return None;
    }
    // The count is a claim of a name: no more numbers are looked at than are needed.
    let missing: Vec<String> = all
        .filter(|number| there.binary_search(number).is_err())
        .take(NAMED_MAX)
        .map(|number| shown_whole(&series.name(number)))
        .collect();
    Some(Missing { count: series.count, first: missing, left: missing_count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(names: &[&str]) -> Option<String> {
        let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
        refuse_missing(&paths, true).err().map(|error| error.to_string())
    }

    #[test]
    fn a_set_is_whole_or_its_missing_files_are_named() {
        let whole = ["a/m-00001-of-00002.safetensors", "a/m-00002-of-00002.safetensors"];
        assert_eq!(refused(&whole), None);
        assert_eq!(refused(&["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]), None);
        assert!(refused(&["m-00001-of-00002.gguf", "m-00002-of-00002.safetensors"]).is_some());
        assert_eq!(
            refused(&["m-00000-of-00002.safetensors", "m-00001-of-00002.safetensors"]),
            None
        );
        for other in [
            "m.safetensors",
            "m-1-of-x.safetensors",
            "m-of-2.safetensors",
            "m-+1-of-2.safetensors",
            "m--of-.safetensors",
            "m-00001-of-00002.bin",
            "m-1-of-99999999999999999999999.safetensors",
        ] {
            assert_eq!(refused(&[other]), None, "{other}");
        }
        let half = refused(&whole[1..]).unwrap();
        assert!(half.contains("m-00001-of-00002.safetensors in a"), "{half}");
        assert!(!half.contains("m-00002-of"), "{half}");
        // The same name in another folder is a file of another model.
        let two = refused(&["a/m-00001-of-00002.safetensors", "b/m-00002-of-00002.safetensors"]);
        assert!(two.unwrap().contains("in a"));
    }

    #[test]
    fn a_name_that_claims_the_world_costs_nothing() {
        let name = format!("m-00003-of-{}.safetensors", u64::MAX);
        let shown = refused(&[&name, &name]).unwrap();
        assert!(shown.contains("m-00001-of-") && shown.len() < 1000, "{shown}");
        assert!(shown.contains(&format!("and {} more", u64::MAX - 9)), "{shown}");
    }
}
