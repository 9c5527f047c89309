//! Key files: reading one, creating one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vram_residency::{KeySource, KeySourceError, SealKey, create_key_file};

use crate::args::{KeyArgs, KeyMode, KeygenArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::streams;

/// What `vram keygen` made.
#[derive(Debug, Serialize)]
struct Made<'a> {
    file: &'a str,
    key_id: String,
}

/// A key that the user named, and the file that it lies in, if it is a file that commands must not
/// write over.
pub(crate) struct Given {
    pub(crate) key: SealKey,
    pub(crate) file: Option<PathBuf>,
}

/// Reads the key that the user named.
///
/// # Arguments
///
/// * `stdin_is_read`: whether the command reads something else from standard input.
pub(crate) fn load(args: &KeyArgs, stdin_is_read: bool) -> Result<Given, Failure> {
    /// Standard output and standard error.
    const OUTPUTS: [u32; 2] = [1, 2];

    let (source, file) = if let Some(path) = &args.file {
        let source = match args.mode {
            KeyMode::Private => KeySource::File(path.clone()),
            KeyMode::GroupReadable => KeySource::GroupReadableFile(path.clone()),
        };
        (source, Some(path.clone()))
    } else if let Some(name) = &args.env {
        (KeySource::Env(name.clone()), None)
    } else if let Some(number) = args.fd {
        if OUTPUTS.contains(&number) {
            return Err(Failure::usage(format!("--key-fd {number} is an output of this program"))
                .hint("give another number, as in: --key-fd 3 3<FILE"));
        }
        if number == 0 && stdin_is_read {
            return Err(Failure::usage("--key-fd 0 and `-` would both read standard input")
                .hint("give the key by another descriptor, as in: --key-fd 3 3<FILE"));
        }
        (KeySource::Inherited(number), Some(PathBuf::from(format!("/dev/fd/{number}"))))
    } else if let Some(name) = &args.credential {
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
        let file = folder.map(|folder| Path::new(&folder).join(name));
        (KeySource::SystemdCredential(name.clone()), file)
    } else {
        return Err(Failure::usage("no key was given")
            .hint("give one of --key-file, --key-env, --key-fd and --key-credential"));
    };
    Ok(Given { key: source.load()?, file })
}

/// Reads the key that the user named; `None` if none was named.
pub(crate) fn load_if_named(args: &KeyArgs) -> Result<Option<Given>, Failure> {
    let KeyArgs { file, env, fd, credential, .. } = args;
    let named = file.is_some() || env.is_some() || fd.is_some() || credential.is_some();
    if named { load(args, false).map(Some) } else { Ok(None) }
}

/// A fresh key that no file holds.
pub(crate) fn random() -> Result<SealKey, Failure> {
    Ok(KeySource::Random.load()?)
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
                .code("key-source")
                .detail(|details| details.file = Some(args.output.display().to_string()))
                .hint("a key is never overwritten: choose another name, or move it away")
        }
        _ => Failure::from(error).hint("choose a folder that can be written"),
    })?;
    let file = args.output.display().to_string();
    output.json(&Made { file: &file, key_id: key.id().to_string() })?;
    output.line(format!("{}  {}", key.id(), args.output.display()))
}
