//! The model to load: its files, their checked headers, and the plan of pieces.

pub(crate) mod digests;
pub(crate) mod list;

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use vram_model::{FileHeader, ModelError, ModelOptions, ModelSet, shown_whole};
use vram_residency::{
    ByteLen, FileSource, ModelFiles, ModelFilesError, ModelPlan, ModelSource, PlanError, Source,
    SourceError, regular_file,
};

use crate::failure::{Failure, Kind};
use crate::output::note;

/// Longest piece that is placed as one. Pieces of this size find room in a fragmented region, and a
/// piece that fails costs little.
pub(crate) const PIECE_LEN_MAX: ByteLen = ByteLen::new(64 << 20);
/// How a sealed image begins.
const SEALED: [u8; 8] = *b"VRSEAL1\0";
/// Most bytes of a model id; the seal's own limit.
const MODEL_ID_LEN_MAX: usize = 1024;

/// The files of one model.
#[derive(Debug)]
pub(crate) struct Model {
    /// The model id for sealing: the name of the first file, or of the folder.
    pub(crate) id: String,
    /// The files, in the order of the command line.
    pub(crate) files: Vec<ModelFile>,
    /// All tensors, in pieces of at most [`PIECE_LEN_MAX`], in the order of the files.
    pub(crate) plan: ModelPlan,
}

/// One file whose header was checked.
#[derive(Debug)]
pub(crate) struct ModelFile {
    /// The path that the user gave.
    pub(crate) path: PathBuf,
    /// The header of the file.
    pub(crate) header: FileHeader,
    /// The bytes of the file, read by position.
    pub(crate) source: FileSource,
}

impl Model {
    /// Opens the files and reads their headers, but no tensor.
    pub(crate) fn open(set: &ModelSet, options: &ModelOptions) -> Result<Self, Failure> {
        Self::open_or(set, options, Failure::from)
    }

    /// As [`open`](Self::open), with other words where the files are no whole model.
    pub(crate) fn open_or(
        set: &ModelSet,
        options: &ModelOptions,
        refused: fn(ModelError) -> Failure,
    ) -> Result<Self, Failure> {
        Self::of(set, opened(set, options, refused)?)
    }

    /// As [`open`](Self::open), and reads the files past the page cache.
    pub(crate) fn open_direct(set: &ModelSet, options: &ModelOptions) -> Result<Self, Failure> {
        let direct = opened(set, options, Failure::from)?.direct();
        Self::of(set, direct.map_err(|error| Failure::input(error.to_string()))?)
    }

    fn of(set: &ModelSet, opened: ModelFiles) -> Result<Self, Failure> {
        if let Some(odd) = set.odd_size(opened.plan().total()) {
            note(odd);
        }
        let whole = opened.plan().clone();
        let opened = opened.split(PIECE_LEN_MAX).map_err(|error| match error {
            ModelFilesError::Plan(error) => no_plan(set, Some(&whole), &error),
            other => Failure::input(other.to_string()),
        })?;
        let id = id_of(opened.name());
        let (plan, files) = opened.into_parts();
        let files = set.files().iter().zip(files).map(|(path, (header, source))| ModelFile {
            path: path.clone(),
            header,
            source,
        });
        Ok(Self { id, files: files.collect(), plan })
    }

    /// Says on standard error that there is nothing in the files, if that is so.
    pub(crate) fn tell_if_empty(&self) {
        if self.plan.is_empty() {
            let first = self.files.first().map(|file| file.path.display().to_string());
            note(format!(
                "{} is a model file without tensors: it takes no byte of any device",
                first.unwrap_or_default()
            ));
        }
    }

    /// The bytes of the files, by the numbers of the plan.
    ///
    /// # Arguments
    ///
    /// * `proven`: the digests of the files are compared later, so that a file that was written
    ///   meanwhile and still has the content of its digest is accepted.
    pub(crate) fn source(&self, proven: bool) -> Files<'_> {
        Files { files: &self.files, proven }
    }
}

/// The files of a set, opened.
fn opened(
    set: &ModelSet,
    options: &ModelOptions,
    refused: fn(ModelError) -> Failure,
) -> Result<ModelFiles, Failure> {
    ModelFiles::open_set(set, options).map_err(|error| match error {
        ModelFilesError::Model(ModelError::Plan(error)) => no_plan(set, None, &error),
        ModelFilesError::Model(error) => refused(error),
        other => Failure::input(other.to_string()),
    })
}

/// The failure for tensors that make up no plan: they are too large, or are there twice.
///
/// # Arguments
///
/// * `whole`: the tensors before they were cut, if so much was possible.
fn no_plan(set: &ModelSet, whole: Option<&ModelPlan>, error: &PlanError) -> Failure {
    let largest = whole.and_then(|whole| whole.pieces().iter().max_by_key(|piece| piece.len));
    let file = largest.map_or(0, |piece| usize::try_from(piece.file).unwrap_or(usize::MAX));
    let file = set.files().get(file).map(|path| path.display().to_string()).unwrap_or_default();
    let more = set.files().len().saturating_sub(1);
    let of =
        if whole.is_none() && more > 0 { format!("{file} and {more} more") } else { file.clone() };
    let tensor = match (error, largest) {
        (
            PlanError::TooLarge { name }
            | PlanError::Duplicate { name, .. }
            | PlanError::Size { name, .. },
            _,
        ) => Some(name.clone()),
        (_, largest) => largest.map(|piece| piece.name.clone()),
    };
    let figures = whole.zip(largest).map_or_else(String::new, |(whole, piece)| {
        format!(
            ": its tensors take {} and are cut into pieces of {PIECE_LEN_MAX}; the largest, tensor {}, takes {}",
            whole.total(),
            shown_whole(&piece.name),
            piece.len
        )
    });
    Failure::input(format!("{of} cannot be planned{figures}: {error}"))
        .code("model-file")
        .hint("check the shapes in its header, or fetch the file again: no device holds so much")
        .detail(|details| {
            details.file = Some(file);
            details.tensor = tensor;
            details.needed = whole.map(|whole| whole.total().get());
        })
}

/// The files of a model as a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files<'a> {
    files: &'a [ModelFile],
    proven: bool,
}

impl ModelSource for Files<'_> {
    fn read_at(&self, file: u32, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let index = usize::try_from(file).ok();
        match index.and_then(|index| self.files.get(index)) {
            Some(file) => Source::read_at(&file.source, offset, target),
            None => Err(SourceError::io("the model", std::io::ErrorKind::NotFound.into())),
        }
    }

    /// Refuses files that were written since their headers were read.
    fn finish(&self) -> Result<(), SourceError> {
        self.files.iter().try_for_each(|file| match Source::finish(&file.source) {
            Err(error) if self.proven && error.is_change() => Ok(()),
            answer => answer,
        })
    }
}

impl ModelFile {
    /// Fills `target` with the bytes that start at `offset`.
    pub(crate) fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), Failure> {
        Source::read_at(&self.source, offset, target).map_err(|error| not_the_file(&error))
    }
}

/// A file that could not be read, or is another one now.
pub(crate) fn not_the_file(error: &SourceError) -> Failure {
    let kind = if error.is_change() { Kind::Integrity } else { Kind::Input };
    Failure::new(kind, error.to_string()).hint("leave the file alone while it loads")
}

/// Returns true if a path leads to a file that begins as a sealed image does. Whatever else is wrong
/// with it is for its reader to say.
pub(crate) fn is_sealed_image(path: &Path) -> bool {
    let mut beginning = [0; SEALED.len()];
    let opened = regular_file::open_regular(path);
    opened.is_ok_and(|file| file.read_exact_at(&mut beginning, 0).is_ok()) && beginning == SEALED
}

/// The id of a model of this name.
fn id_of(name: &str) -> String {
    let mut id = name.to_owned();
    while id.len() > MODEL_ID_LEN_MAX {
        id.pop();
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_as_its_first_file() {
        assert_eq!(id_of("llama"), "llama");
        assert_eq!(id_of(&"ä".repeat(600)).len(), 1024);
    }
}
