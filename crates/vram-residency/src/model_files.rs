//! From the files of a model to its plan and its bytes.

use std::path::{Path, PathBuf};

use vram_alloc::{ByteLen, ModelPlan, PlanError};
use vram_core::models::ModelSource;
use vram_files::{FilePool, FileSource, Source, SourceError};
use vram_model::{FileHeader, Limits, ModelError, ModelFile, ModelOptions, ModelSet, plan_of};

/// The files of one model, safetensors or GGUF: headers that were checked, the plan of all their
/// tensors, and their bytes, read by position when they are needed. More files than a process may
/// have open are opened when they are read.
///
/// A file that is written while the model is admitted is refused at the end of the admission.
///
/// ```
/// use vram_residency::{AdmitRequest, GpuChoice, ModelFiles, Protection, VramManager};
/// # use vram_residency::model::synth::{LlamaShape, SynthModel};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("tiny.safetensors");
/// # let shape = LlamaShape::about(vram_residency::ByteLen::new(100_000));
/// # SynthModel::llama(&shape, 1)?.write_file(&path)?;
///
/// let manager = VramManager::new_mock(1 << 24)?;
/// let files = ModelFiles::open([path])?;
/// let request =
///     AdmitRequest::new("tiny", GpuChoice::MostRoomFirst).protection(Protection::Authenticated);
/// let (model, leases) = manager.admit_leased(request, files.plan(), &files)?;
/// for (piece, lease) in model.pieces.iter().zip(&leases) {
///     println!("{} at {:?}, {}", piece.piece.name, lease.device_pointer(), lease.len());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ModelFiles {
    name: String,
    paths: Vec<PathBuf>,
    headers: Vec<FileHeader>,
    sources: Vec<FileSource>,
    plan: ModelPlan,
}

/// Why the files are no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelFilesError {
    /// A header is not sound, or the headers do not agree.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file cannot be read, or changed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The tensors cannot be cut as asked.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl ModelFiles {
    /// Opens the files of one model, in the order of its plan, with the default limits of headers.
    /// Reads no tensor.
    ///
    /// # Arguments
    ///
    /// * `paths`: model files, folders, and indexes (`model.safetensors.index.json`): see
    ///   [`ModelSet`].
    ///
    /// # Errors
    ///
    /// [`ModelFilesError::Model`] for a file that is no sound model file, for a set of files that
    /// is not whole or not as its index says, and if two files contain a tensor of the same name;
    /// [`ModelFilesError::Source`].
    pub fn open<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
    ) -> Result<Self, ModelFilesError> {
        Self::open_with(paths, &ModelOptions::default())
    }

    /// As [`open`](Self::open), with other limits of headers.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_within<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        limits: &Limits,
    ) -> Result<Self, ModelFilesError> {
        Self::open_with(paths, &ModelOptions::from(*limits))
    }

    /// As [`open`](Self::open), with all options.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        options: &ModelOptions,
    ) -> Result<Self, ModelFilesError> {
        Self::open_set(&ModelSet::find(paths, options)?, options)
    }

    /// Opens files that were found before.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_set(set: &ModelSet, options: &ModelOptions) -> Result<Self, ModelFilesError> {
        let pool = FilePool::within_limit();
        let (mut headers, mut sources) = (Vec::new(), Vec::new());
        for path in set.files() {
            let opened = ModelFile::open_with(path, options)?;
            let before = opened.metadata().clone();
            let (file, header) = opened.into_parts();
            let source = FileSource::from_file_since(file, path, &before)?;
            sources.push(source.in_pool(&pool));
            headers.push(header);
        }
        set.check(&headers)?;
        let plan = plan_of(&headers)?;
        Ok(Self { name: set.name(), paths: set.files().to_vec(), headers, sources, plan })
    }

    /// Cuts the tensors into pieces of at most `max` bytes: see [`ModelPlan::split`].
    ///
    /// # Errors
    ///
    /// [`ModelFilesError::Plan`].
    pub fn split(mut self, max: ByteLen) -> Result<Self, ModelFilesError> {
        self.plan = self.plan.split(max)?;
        Ok(self)
    }

    /// Reads the files past the page cache of the kernel: see [`FileSource::direct`].
    ///
    /// # Errors
    ///
    /// [`ModelFilesError::Source`].
    pub fn direct(mut self) -> Result<Self, ModelFilesError> {
        let direct = self.sources.into_iter().map(FileSource::direct);
        self.sources = direct.collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// The plan of all tensors, in the order of the files and of their bytes.
    #[must_use]
    pub const fn plan(&self) -> &ModelPlan {
        &self.plan
    }

    /// A name for the model: see [`ModelSet::name`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The paths of the files, in their order.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The plan, and of each file its header and its bytes.
    #[must_use]
    pub fn into_parts(self) -> (ModelPlan, Vec<(FileHeader, FileSource)>) {
        (self.plan, self.headers.into_iter().zip(self.sources).collect())
    }

    /// The headers of the files, in their order.
    #[must_use]
    pub fn headers(&self) -> &[FileHeader] {
        &self.headers
    }

    /// The files as sources, in their order.
    #[must_use]
    pub fn sources(&self) -> &[FileSource] {
        &self.sources
    }
}

impl ModelSource for ModelFiles {
    fn read_at(&self, file: u32, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        ModelSource::read_at(self.sources.as_slice(), file, offset, target)
    }

    /// Refuses files that were written since their headers were read.
    fn finish(&self) -> Result<(), SourceError> {
        self.sources.iter().try_for_each(Source::finish)
    }
}
