//! The options of an export.

use std::path::PathBuf;

use vram_files::{CancelToken, Overwrite, Progress, WatchOptions};

/// The options of an export.
///
/// ```
/// use vram_residency::{ExportOptions, Overwrite};
///
/// let options = ExportOptions::new()
///     .overwrite(Overwrite::Replace)
///     .progress(|progress| eprintln!("{} of {}", progress.done, progress.total));
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct ExportOptions<'a> {
    pub(crate) plaintext: bool,
    pub(crate) overwrite: Overwrite,
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) watch: WatchOptions<'a>,
}

impl<'a> ExportOptions<'a> {
    /// Encrypted, without overwriting, no progress callback.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Exports an Authenticated shard as it is: **its plaintext is in the image**. Without
        /// this, the shard is encrypted for the export. Ignored for an Encrypted shard.
        [const] fn plaintext() => plaintext = true;
        /// Sets what happens if a file of the target's name exists.
        [const] fn overwrite(overwrite: Overwrite) => overwrite = overwrite;
    }

    /// Names a file that must not be replaced, such as a key file. An export whose target is that
    /// file is refused.
    pub fn input(mut self, path: impl Into<PathBuf>) -> Self {
        self.inputs.push(path.into());
        self
    }

    setters! {
        /// Sets a callback that receives the progress. If it panics, the call ends with that panic,
        /// and no file is left behind.
        fn progress(callback: impl FnMut(Progress) + Send + 'a) =>
            watch.progress = Some(Box::new(callback));
        /// Sets the token that cancels the call.
        fn cancel(token: CancelToken) => watch.cancel = Some(token);
    }
}
