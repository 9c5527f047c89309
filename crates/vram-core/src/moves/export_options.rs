//! How an image is exported.

use core::fmt;
use std::path::PathBuf;

use vram_files::{CancelToken, Overwrite, Progress, ProgressFn};

/// How a shard is exported.
///
/// ```
/// use vram_residency::{ExportOptions, Overwrite};
///
/// let options = ExportOptions::new()
///     .overwrite(Overwrite::Replace)
///     .progress(|progress| eprintln!("{} of {}", progress.done, progress.total));
/// ```
#[derive(Default)]
pub struct ExportOptions<'a> {
    pub(crate) plaintext: bool,
    pub(crate) overwrite: Overwrite,
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) progress: Option<Box<ProgressFn<'a>>>,
    pub(crate) cancel: Option<CancelToken>,
}

impl<'a> ExportOptions<'a> {
    /// Encrypted, without overwriting, nobody told.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Exports an Authenticated shard as it is: **its plaintext is in the image**. Otherwise it is
    /// encrypted for the export. Without meaning for an Encrypted shard.
    #[must_use]
    pub const fn plaintext(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// Sets what happens if the name of the file to be written is taken.
    #[must_use]
    pub const fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Names a file that must not be replaced, such as a key file: a target that turns out to be
    /// that file is refused.
    #[must_use]
    pub fn input(mut self, path: impl Into<PathBuf>) -> Self {
        self.inputs.push(path.into());
        self
    }

    /// Sets who is told how far the call has come. If it panics, the call ends with that panic, and
    /// no file is left behind.
    #[must_use]
    pub fn progress(mut self, callback: impl FnMut(Progress) + Send + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Sets the token that ends the call early.
    #[must_use]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel = Some(token);
        self
    }
}

impl fmt::Debug for ExportOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportOptions")
            .field("plaintext", &self.plaintext)
            .field("overwrite", &self.overwrite)
            .field("inputs", &self.inputs)
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel)
            .finish()
    }
}
