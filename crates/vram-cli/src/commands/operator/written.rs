//! Files that appear whole or not at all.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use vram_files::{Inputs, Overwrite, WholeFile};

use crate::failure::Failure;

/// Permissions of a new file, less the umask.
const MODE: u32 = 0o666;

/// Writes a file, or replaces one, in one step: never one of `inputs`, and none that looks like a key.
pub(crate) fn write(path: &Path, bytes: &[u8], inputs: &[&Path]) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let failure = Failure::file("write", path, &error);
        match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::AlreadyExists => {
                failure.hint("give another path")
            }
            _ => failure,
        }
    };
    let inputs: Vec<PathBuf> = inputs.iter().map(|path| path.to_path_buf()).collect();
    let inputs = Inputs::default().with_paths(&inputs).map_err(failed)?;
    let mut file =
        WholeFile::create(path, MODE, Overwrite::ReplaceButKeys, inputs).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.publish().map_err(failed)
}
