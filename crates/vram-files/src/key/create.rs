//! Writing a new key file.

use std::io::Write;
use std::path::Path;

use vram_seal::SealKey;

use super::KeySourceError;
use super::file::io_error;
use crate::whole_file::{Inputs, Overwrite, WholeFile};

/// Writes a key as 64 hexadecimal digits and a newline into a new file of mode 0600.
///
/// The file appears whole or not at all, and the call never overwrites an existing file: if a key
/// is lost, everything sealed under it is lost too.
///
/// # Errors
///
/// [`KeySourceError::Io`], of kind [`std::io::ErrorKind::AlreadyExists`] if the file exists
/// already.
///
/// # Examples
///
/// ```
/// use vram_files::{KeySource, create_key_file};
/// use vram_seal::SealKey;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("seal.key");
/// let key = SealKey::random()?;
/// create_key_file(&path, &key)?;
/// assert_eq!(KeySource::File(path).load()?.id(), key.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn create_key_file(path: &Path, key: &SealKey) -> Result<(), KeySourceError> {
    let failed = |error| io_error(&path.display().to_string(), error);
    let file = WholeFile::create(path, 0o600, Overwrite::Refuse, Inputs::default());
    let file = file.map_err(failed)?;
    let digits = key.expose_hex();
    let mut target = file.file();
    target.write_all(digits.as_bytes()).map_err(failed)?;
    target.write_all(b"\n").map_err(failed)?;
    file.publish().map_err(failed)
}
