//! Finds the model in a folder, by the names of its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::FolderProblem;
use super::names::{NAMED_MAX, Series};
use crate::name::{shown_path, shown_whole};
use crate::{Limits, ModelError};

/// The ending of an index.
const INDEX_ENDING: &str = ".safetensors.index.json";
/// Endings of models of other formats, for the error.
const OTHERS: [&str; 6] = [".bin", ".pt", ".pth", ".onnx", ".h5", ".npz"];

/// The model in a folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An index, which names the files.
    Index(PathBuf),
    /// The files: one, or some of a series.
    Files(Vec<PathBuf>),
}

/// Finds the one model in a folder.
pub(super) fn find(folder: &Path, limits: &Limits) -> Result<Found, ModelError> {
    let failed = |source| ModelError::Open { file: shown_path(folder), source };
    let refused = |problem| ModelError::Folder { folder: shown_path(folder), problem };
    let mut names: Vec<String> = Vec::new();
    let max = limits.file_count_max;
    for (number, entry) in fs::read_dir(folder).map_err(failed)?.enumerate() {
        if number >= max {
            return Err(refused(FolderProblem::TooManyEntries { max }));
        }
        // A name that is not UTF-8 has none of the endings in a form that the rest could use.
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string()
            // macOS leaves such files beside the real ones.
            && !name.starts_with("._")
        {
            names.push(name);
        }
    }
    names.sort();
    choose(folder, &names).map_err(refused)
}

fn choose(folder: &Path, names: &[String]) -> Result<Found, FolderProblem> {
    let ends = |ending: &'static str| names.iter().filter(move |name| name.ends_with(ending));
    let mut indexes = ends(INDEX_ENDING);
    if let Some(index) = indexes.next() {
        if indexes.next().is_some() {
            return Err(several(ends(INDEX_ENDING)));
        }
        return Ok(Found::Index(folder.join(index)));
    }
    // One model each: the files of a series together, every other file alone.
    let mut models: BTreeMap<Option<Series>, Vec<&String>> = BTreeMap::new();
    let mut alone = Vec::new();
    for name in ends(".safetensors").chain(ends(".gguf")) {
        match Series::of(Path::new(name)) {
            Some((series, _)) => models.entry(Some(series)).or_default().push(name),
            None => alone.push(vec![name]),
        }
    }
    let mut models: Vec<Vec<&String>> = models.into_values().chain(alone).collect();
    match models.len() {
        0 => {
            let other = OTHERS.iter().find_map(|ending| ends(ending).next());
            Err(FolderProblem::Empty { other: other.map(|name| shown_whole(name)) })
        }
        1 => {
            let files = models.pop().unwrap_or_default();
            Ok(Found::Files(files.into_iter().map(|name| folder.join(name)).collect()))
        }
        _ => Err(several(models.iter().filter_map(|files| files.first().copied()))),
    }
}

fn several<'a>(models: impl Iterator<Item = &'a String> + Clone) -> FolderProblem {
    let count = models.clone().count();
    let named = models.take(NAMED_MAX).map(|name| shown_whole(name)).collect();
    FolderProblem::Several { count, named }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let name = |path: &PathBuf| path.to_str().unwrap().to_owned();
        match choose(Path::new(""), &names) {
            Ok(Found::Index(path)) => Ok(vec![name(&path)]),
            Ok(Found::Files(paths)) => Ok(paths.iter().map(name).collect()),
            Err(problem) => Err(problem.to_string()),
        }
    }

    #[test]
    fn a_folder_leads_to_its_index_its_set_or_its_only_file() {
        let index = "model.safetensors.index.json";
        let (one, two) = ("m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors");
        assert_eq!(chosen(&[one, two, "consolidated.safetensors", index]).unwrap(), [index]);
        assert_eq!(chosen(&["README.md", one, two]).unwrap(), [one, two]);
        assert_eq!(chosen(&[two]).unwrap(), [two]);
        assert_eq!(chosen(&["config.json", "m.gguf"]).unwrap(), ["m.gguf"]);
        for (names, words) in [
            (&[][..], "no .safetensors and no .gguf"),
            (&["pytorch_model.bin"], "pytorch_model.bin is of another format"),
            (&["a.safetensors", "b.safetensors"], "2 models: a.safetensors, b.safetensors"),
            (&["a-Q4_K.gguf", "a-Q8_0.gguf", "a-F16.gguf"], "3 models"),
            (&["m.gguf", "m.safetensors"], "2 models"),
            (&[one, two, "other.safetensors"], "2 models: m-00001-of-00002"),
            (&["a.safetensors.index.json", "b.safetensors.index.json"], "2 models"),
        ] {
            let refused = chosen(names).unwrap_err();
            assert!(refused.contains(words), "{names:?}: {refused}");
        }
        let many: Vec<String> = (0..100).map(|number| format!("{number}.gguf")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(chosen(&many).unwrap_err().ends_with("7.gguf and 92 more"));
    }
}
