//! Key files: reading one, creating one.

use std::io::ErrorKind;
use std::path::Path;

use vram_residency::{KeySource, KeySourceError, SealKey, create_key_file};

use crate::args::KeygenArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::streams;

/// Reads the key in the file at `path`.
pub(crate) fn load(path: &Path) -> Result<SealKey, Failure> {
    KeySource::File(path.to_owned()).load().map_err(|error| {
        let failure = Failure::input(error.to_string());
        match error {
            KeySourceError::Io { error, .. } => failure.hint(match error.kind() {
                ErrorKind::NotFound => "check the path, or make one: vram keygen -o FILE",
                // The key may be there: a new one would open nothing.
                ErrorKind::PermissionDenied => "check the permissions of the file and its folder",
                _ => "check the path",
            }),
            KeySourceError::Content { .. } | KeySourceError::NotAFile { .. } => {
                failure.hint("give a file that `vram keygen` wrote")
            }
            // The other errors say by themselves what to do.
            _ => failure,
        }
    })
}

/// A fresh key that no file holds.
pub(crate) fn random() -> Result<SealKey, Failure> {
    KeySource::Random.load().map_err(|error| Failure::input(error.to_string()))
}

/// `vram keygen`: writes a new key, and prints its id, which is public.
pub(crate) fn generate(args: &KeygenArgs, output: &mut Output) -> Result<(), Failure> {
    if streams::is_dash(&args.output) {
        return Err(Failure::input("a key is not written to standard output")
            .hint("give the path of a new file, which only you can read then"));
    }
    let key = random()?;
    create_key_file(&args.output, &key).map_err(|error| match &error {
        KeySourceError::Io { error: io, .. } if io.kind() == ErrorKind::AlreadyExists => {
            Failure::input(format!("{} exists already", args.output.display()))
                .hint("a key is never overwritten: choose another name, or move it away")
        }
        _ => Failure::input(error.to_string()).hint("choose a folder that can be written"),
    })?;
    output.line(format!("{}  {}", key.id(), args.output.display()))
}
