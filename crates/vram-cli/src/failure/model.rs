//! What to do about a model file, a folder or an index that cannot be used.

use std::io;

use vram_model::{FolderProblem, GgufProblem, ModelError};

use super::{Details, Failure};

/// What to do about a file that exceeds a limit.
const RAISE: &str = "if the file can be trusted, raise that limit with --limit: see --help";

impl Failure {
    /// A model that a command without `--partial` cannot use.
    pub(crate) fn of_whole(error: ModelError) -> Self {
        let incomplete =
            matches!(error, ModelError::MissingFiles { .. } | ModelError::Split { .. });
        let failure = Self::from(error);
        if incomplete {
            failure
                .hint("give the model with all of its files, or one of its files by its own name")
        } else {
            failure
        }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let hint = match &error {
            ModelError::Header { problem, .. } if problem.is_limit() => Some(RAISE),
            ModelError::Gguf { problem, .. } if problem.is_limit() => Some(RAISE),
            ModelError::Index { problem, .. } if problem.is_limit() => Some(RAISE),
            ModelError::Folder { problem: FolderProblem::TooManyEntries { .. }, .. } => Some(RAISE),
            ModelError::Gguf { problem, .. }
                if matches!(
                    **problem,
                    GgufProblem::Version { .. } | GgufProblem::TensorType { .. }
                ) =>
            {
                Some("convert the model again")
            }
            ModelError::Header { .. } | ModelError::Gguf { .. } => {
                Some("fetch or export the file again")
            }
            ModelError::Index { .. } => Some(
                "fetch index and files again, or name the files themselves to load them as they are",
            ),
            ModelError::Folder { problem: FolderProblem::Several { .. }, .. } => {
                Some("name the files of one of them, or its index")
            }
            ModelError::Folder { .. } => Some("give a folder with model files, or the files"),
            ModelError::MissingFiles { named: true, .. } => {
                Some("give all of them, or --partial to load a part of a model")
            }
            ModelError::MissingFiles { .. } => {
                Some("fetch them, or give --partial to load a part of a model")
            }
            ModelError::Split { .. } => {
                Some("give all parts of one model, or --partial to load a part of it")
            }
            ModelError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("check the path")
            }
            ModelError::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("check its permissions")
            }
            ModelError::NotAFile { .. } => Some("give the path of a model file or its folder"),
            ModelError::Changed { .. } => {
                return Self::integrity(error.to_string());
            }
            ModelError::TensorInTwoFiles { .. } => Some("load the files one by one"),
            ModelError::OtherFormat { .. } => Some("give the .safetensors or .gguf file itself"),
            ModelError::HostMemory { .. } => Some("close something else on this machine"),
            ModelError::Plan(_) | ModelError::TooManyFiles { .. } => {
                Some("load fewer files at a time")
            }
            _ => Some("check the file and its disk"),
        };
        let mut failure = Self::input(error.to_string()).code("model-file");
        failure.details = Box::new(Details::of_model(&error));
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
