//! Sharded models: whether all files of a set were given, by their names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Most missing files that are named; the others are counted.
const NAMED_MAX: usize = 8;

/// A file name such as `model-00001-of-00002.safetensors`, in its parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Set {
    /// The path up to the number.
    before: PathBuf,
    /// The number of files, and the digits it is written with.
    count: u64,
    width: usize,
    /// From the last digit on.
    after: String,
}

impl Set {
    /// The set that a file belongs to, and its number in it.
    fn of(path: &Path) -> Option<(Self, u64)> {
        let name = path.file_name()?.to_str()?;
        let stem = name.strip_suffix(".safetensors")?;
        let (rest, count_digits) = stem.rsplit_once("-of-")?;
        let (before, number_digits) = rest.rsplit_once('-')?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if plain { digits.parse::<u64>().ok() } else { None }
        };
        let set = Self {
            before: path.with_file_name(before),
            count: number(count_digits)?,
            width: number_digits.len(),
            after: format!("-of-{count_digits}.safetensors"),
        };
        Some((set, number(number_digits)?))
    }

    /// The name of the file with this number.
    fn name(&self, number: u64) -> String {
        let before = self.before.file_name().unwrap_or_default().to_string_lossy();
        format!("{before}-{number:0width$}{}", self.after, width = self.width)
    }
}

/// Refuses a part of a sharded model: its tensors would load, and the model would not work.
pub(crate) fn refuse_missing(paths: &[PathBuf]) -> Result<(), Failure> {
    let mut sets: BTreeMap<Set, Vec<u64>> = BTreeMap::new();
    for (set, number) in paths.iter().filter_map(|path| Set::of(path)) {
        sets.entry(set).or_default().push(number);
    }
    for (set, mut given) in sets {
        given.sort_unstable();
        given.dedup();
        // Most programs count from 1, some from 0.
        let first = u64::from(given.first() != Some(&0));
        let all = first..first.saturating_add(set.count);
        given.retain(|number| all.contains(number));
        let present = u64::try_from(given.len()).unwrap_or(u64::MAX);
        let missing = set.count.saturating_sub(present);
        if missing == 0 {
            continue;
        }
        // The count is a claim of a name: no more numbers are looked at than are needed.
        let named: Vec<String> = all
            .filter(|number| given.binary_search(number).is_err())
            .take(NAMED_MAX)
            .map(|number| set.name(number))
            .collect();
        let rest = missing.saturating_sub(u64::try_from(named.len()).unwrap_or(u64::MAX));
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let folder = set.before.parent().filter(|folder| !folder.as_os_str().is_empty());
        let place = folder.map_or_else(String::new, |folder| format!(" in {}", folder.display()));
        return Err(Failure::input(format!(
            "the model has {} files, and these were not given: {}{more}{place}",
            set.count,
            named.join(", "),
        ))
        .hint("give all of them, or --partial to load a part of a model"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(names: &[&str]) -> Option<String> {
        let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
        refuse_missing(&paths).err().map(|failure| failure.to_string())
    }

    #[test]
    fn a_set_is_whole_or_its_missing_files_are_named() {
        let whole = ["a/m-00001-of-00002.safetensors", "a/m-00002-of-00002.safetensors"];
        assert_eq!(missing(&whole), None);
        assert_eq!(
            missing(&["m-00000-of-00002.safetensors", "m-00001-of-00002.safetensors"]),
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
            assert_eq!(missing(&[other]), None, "{other}");
        }
        let half = missing(&whole[1..]).unwrap();
        assert!(half.contains("m-00001-of-00002.safetensors in a;"), "{half}");
        assert!(!half.contains("m-00002-of"), "{half}");
        // The same name in another folder is a file of another model.
        let two = missing(&["a/m-00001-of-00002.safetensors", "b/m-00002-of-00002.safetensors"]);
        assert!(two.unwrap().contains("in a"));
    }

    #[test]
    fn a_name_that_claims_the_world_costs_nothing() {
        let name = format!("m-00003-of-{}.safetensors", u64::MAX);
        let shown = missing(&[&name, &name]).unwrap();
        assert!(shown.contains("m-00001-of-") && shown.len() < 1000, "{shown}");
        assert!(shown.contains(&format!("and {} more", u64::MAX - 9)), "{shown}");
    }
}
