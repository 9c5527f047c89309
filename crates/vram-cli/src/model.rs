//! The model to load: open files, their checked headers, and the plan of pieces.

use std::path::{Path, PathBuf};

use vram_model::{Limits, SafetensorsFile, SafetensorsHeader, plan_of};
use vram_residency::{ByteLen, FileSource, ModelPlan, Source as _};

use crate::failure::{Failure, Kind};

/// Longest piece that is placed as one. Pieces of this size find room in a fragmented region, and a
/// piece that fails costs little.
pub(crate) const PIECE_LEN_MAX: ByteLen = ByteLen::new(64 << 20);
/// Most bytes of a model id; the seal's own limit.
const MODEL_ID_LEN_MAX: usize = 1024;

/// The files of one model.
#[derive(Debug)]
pub(crate) struct Model {
    /// The model id for sealing: the name of the first file without its extension.
    pub(crate) id: String,
    /// The files, in the order of the command line.
    pub(crate) files: Vec<ModelFile>,
    /// All tensors, in pieces of at most [`PIECE_LEN_MAX`], in the order of the files.
    pub(crate) plan: ModelPlan,
}

/// One open file whose header was checked.
#[derive(Debug)]
pub(crate) struct ModelFile {
    /// The path that the user gave.
    pub(crate) path: PathBuf,
    /// The header of the file.
    pub(crate) header: SafetensorsHeader,
    /// The bytes of the file, read by position.
    pub(crate) source: FileSource,
}

impl Model {
    /// Opens the files and reads their headers, but no tensor.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, Failure> {
        let limits = Limits::default();
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let (file, header) = SafetensorsFile::open(path, &limits)?.into_parts();
            let source = FileSource::from_file(file, path)
                .map_err(|error| Failure::input(error.to_string()))?;
            files.push(ModelFile { path: path.clone(), header, source });
        }
        let plan = plan_of(files.iter().map(|file| &file.header))?
            .split(PIECE_LEN_MAX)
            .map_err(|error| Failure::input(error.to_string()))?;
        let id = paths.first().map_or_else(String::new, |path| id_of(path));
        Ok(Self { id, files, plan })
    }
}

impl ModelFile {
    /// Fills `target` with the bytes that start at `offset`.
    pub(crate) fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), Failure> {
        self.source.read_at(offset, target).map_err(|error| {
            Failure::new(Kind::Input, error.to_string()).hint("leave the file alone while it loads")
        })
    }
}

/// The id of a model whose first file has this path.
fn id_of(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut id = stem.filter(|stem| !stem.is_empty()).unwrap_or_else(|| "model".to_owned());
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
        assert_eq!(id_of(Path::new("/a/llama.safetensors")), "llama");
        assert_eq!(id_of(Path::new("..")), "model");
        let long = format!("/a/{}", "ä".repeat(600));
        assert_eq!(id_of(Path::new(&long)).len(), 1024);
    }
}
