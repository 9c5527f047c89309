//! The files of one model, found from what a user names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use vram_alloc::ByteLen;

use super::IndexProblem;
use super::check;
use super::folder::{self, Found};
use super::index::Index;
use super::names::{self, Missing, NAMED_MAX};
use crate::name::{shown_path, shown_whole};
use crate::{FileHeader, ModelError, ModelOptions};

/// The files of one model: those that were named, those in a folder, or those that an index names.
///
/// ```text
///  m.safetensors, m.gguf                   that file
///  model.safetensors.index.json            the files that it names, beside it
///  a folder with one index                 as the index
///  a folder with m-00001-of-00002.gguf …   that set, if it is whole
///  a folder with one model file            that file
/// ```
#[derive(Clone, Debug, Default)]
pub struct ModelSet {
    files: Vec<PathBuf>,
    indexes: Vec<Indexed>,
    /// What the user named first.
    root: PathBuf,
    partial: bool,
}

/// An index, and which of the set's files it names.
#[derive(Clone, Debug)]
pub(super) struct Indexed {
    pub(super) index: Index,
    /// By the index's own numbers: positions in the set; `None` for a file that is not there.
    pub(super) positions: Vec<Option<usize>>,
}

impl ModelSet {
    /// Finds the files of one model. Opens folders and indexes, and no model file.
    ///
    /// # Arguments
    ///
    /// * `paths`: model files, folders, and indexes whose name ends in `.json`; all of them together
    ///   are one model.
    ///
    /// # Errors
    ///
    /// [`ModelError::MissingFiles`] for a set that is not whole, unless
    /// [`ModelOptions::partial`] is set; [`ModelError::Index`]; [`ModelError::Folder`];
    /// [`ModelError::Open`] for a folder or an index that cannot be read. A model file that cannot
    /// be read is an error of whoever opens it.
    pub fn find<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        options: &ModelOptions,
    ) -> Result<Self, ModelError> {
        let mut set = Self { partial: options.partial, ..Self::default() };
        let mut named = Vec::new();
        for (number, path) in paths.into_iter().enumerate() {
            let path = path.as_ref();
            if number == 0 {
                path.clone_into(&mut set.root);
            }
            if path.is_dir() {
                match folder::find(path, &options.limits)? {
                    Found::Index(index) => set.add_index(&index, options)?,
                    Found::Files(files) => {
                        if !options.partial {
                            names::refuse_missing(&files, false)?;
                        }
                        set.files.extend(files);
                    }
                }
            } else if path.extension().is_some_and(|ending| ending == "json") {
                set.add_index(path, options)?;
            } else {
                named.push(path.to_owned());
                set.files.push(path.to_owned());
            }
        }
        if !options.partial {
            names::refuse_missing(&named, true)?;
        }
        Ok(set)
    }

    /// The files, in the order of the plan.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// A name for the model: that of the first file or index that was named, without its ending, or
    /// of the folder; `model` if there is none.
    #[must_use]
    pub fn name(&self) -> String {
        let named = if self.root.is_dir() {
            let whole = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
            whole.file_name().map(|name| name.to_string_lossy().into_owned())
        } else if self.indexes.is_empty() {
            self.root.file_stem().map(|stem| stem.to_string_lossy().into_owned())
        } else {
            self.root.file_name().map(|name| {
                let name = name.to_string_lossy();
                name.split('.').next().unwrap_or_default().to_owned()
            })
        };
        named.filter(|name| !name.is_empty()).unwrap_or_else(|| "model".to_owned())
    }

    /// Compares the headers with what names and indexes say: each tensor is in the file where an
    /// index has it, and files that state which part of a model they are make up all of it.
    ///
    /// # Arguments
    ///
    /// * `headers`: of the [`files`](Self::files), in their order.
    ///
    /// # Errors
    ///
    /// [`ModelError::Index`]; [`ModelError::Split`] unless [`ModelOptions::partial`] was set.
    pub fn check(&self, headers: &[FileHeader]) -> Result<(), ModelError> {
        for indexed in &self.indexes {
            check::index(indexed, headers)?;
        }
        if self.partial { Ok(()) } else { check::splits(headers) }
    }

    /// What an index says of the size of all its tensors, in words, where the files say another. That is
    /// no error: some tools count a tensor twice that stands under two names, or copy the figure of another
    /// precision.
    ///
    /// # Arguments
    ///
    /// * `total`: bytes of all tensors of the set's files.
    #[must_use]
    pub fn odd_size(&self, total: ByteLen) -> Option<String> {
        let [Indexed { index, positions }] = &*self.indexes else { return None };
        let whole = positions.iter().all(Option::is_some) && positions.len() == self.files.len();
        let stated = index.total_size.filter(|stated| whole && *stated != total)?;
        Some(format!(
            "{} says that its tensors have {} bytes together, and in its files they have {}",
            index.file,
            stated.get(),
            total.get()
        ))
    }

    fn add_index(&mut self, path: &Path, options: &ModelOptions) -> Result<(), ModelError> {
        let index = Index::read(path, &options.limits)?;
        if !options.partial {
            let named: Vec<PathBuf> = index.files.iter().map(PathBuf::from).collect();
            if let Some(Missing { count, first, left }) = names::missing(&named) {
                let problem =
                    IndexProblem::LeavesOut { count, missing: first, missing_count: left };
                return Err(ModelError::Index { file: index.file, problem });
            }
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let (mut positions, mut missing) = (Vec::new(), Vec::new());
        for name in &index.files {
            let file = folder.join(name);
            // Anything but its absence is an error of whoever opens it.
            let absent = fs::metadata(&file).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
            if absent {
                missing.push(name);
                positions.push(None);
            } else {
                positions.push(Some(self.files.len()));
                self.files.push(file);
            }
        }
        if !missing.is_empty() && (!options.partial || missing.len() == index.files.len()) {
            let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
            let shown = |folder: &Path| {
                if folder.as_os_str().is_empty() { ".".to_owned() } else { shown_path(folder) }
            };
            return Err(ModelError::MissingFiles {
                folder: shown(folder),
                count: count(index.files.len()),
                missing_count: count(missing.len()),
                missing: missing
                    .into_iter()
                    .take(NAMED_MAX)
                    .map(|name| shown_whole(name))
                    .collect(),
                named: false,
                index: Some(index.file),
            });
        }
        self.indexes.push(Indexed { index, positions });
        Ok(())
    }
}
