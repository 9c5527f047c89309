//! `-` as a path: standard input for a file that is read, standard output for one that is written.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal as _, Seek as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use vram_residency::{FileSource, Source as _, SourceError, VramError, regular_file};

use crate::failure::Failure;

/// The name of standard input in messages.
const STDIN: &str = "standard input";

/// The path of the file behind standard input, if it is a file.
const BEHIND_STDIN: &str = "/dev/stdin";

/// Returns true if a path stands for standard input or output.
pub(crate) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The name of an input file in messages.
pub(crate) fn input_name(path: &Path) -> String {
    if is_dash(path) { STDIN.to_owned() } else { path.display().to_string() }
}

/// The file that an input path stands for: for standard input the file behind it, since the command
/// may read a copy.
pub(crate) fn input_file(path: &Path) -> &Path {
    if is_dash(path) { Path::new(BEHIND_STDIN) } else { path }
}

/// The name of an output file in messages.
pub(crate) fn output_name(path: &Path) -> String {
    if is_dash(path) { "standard output".to_owned() } else { path.display().to_string() }
}

/// Opens a file to be sealed.
pub(crate) fn source(path: &Path) -> Result<FileSource, Failure> {
    let next = if path.is_dir() {
        "give one file; `vram push` seals the files of a folder"
    } else {
        "give a file that can be read"
    };
    let failed = |error: SourceError| {
        Failure::input(format!("cannot read the file to seal: {error}"))
            .code("source")
            .hint(next)
            .detail(|details| details.file = Some(input_name(path)))
    };
    if !is_dash(path) {
        return FileSource::open(path).map_err(failed);
    }
    let (file, start) = stdin()?;
    let source = FileSource::from_file(file, STDIN).map_err(failed)?;
    match source.len().saturating_sub(start) {
        // The whole file as the source, so that sealing notices if the file grows.
        _ if start == 0 => Ok(source),
        rest => source.range(start.min(source.len()), rest).map_err(failed),
    }
}

/// A sealed image to open by its path.
#[derive(Debug)]
pub(crate) struct Image {
    path: PathBuf,
    /// Keeps the file open: the path leads to it through its descriptor.
    file: Option<File>,
}

impl Image {
    /// The image at `path`, or all of standard input.
    pub(crate) fn at(path: &Path) -> Result<Self, Failure> {
        if !is_dash(path) {
            return Ok(Self { path: path.to_owned(), file: None });
        }
        let (file, start) = stdin()?;
        let file = if start == 0 { file } else { copy(file)? };
        let path = PathBuf::from(format!("/dev/fd/{}", file.as_raw_fd()));
        Ok(Self { path, file: Some(file) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The error with the name that the user gave the image: a path to a descriptor says nothing.
    pub(crate) fn named(&self, mut error: VramError) -> VramError {
        if self.file.is_none() {
            return error;
        }
        match &mut error {
            VramError::Image { path, .. } | VramError::Io { path: Some(path), .. }
                if *path == self.path =>
            {
                *path = PathBuf::from(STDIN);
            }
            VramError::Source(SourceError::Changed { name, .. })
                if Path::new(name) == self.path =>
            {
                STDIN.clone_into(name);
            }
            _ => {}
        }
        error
    }
}

/// Standard input as a file that can be read by position, and the offset at which it begins. If
/// standard input is not a regular file, this copies it to a file without a name that only this
/// process can reach.
fn stdin() -> Result<(File, u64), Failure> {
    let handle = io::stdin();
    if handle.is_terminal() {
        return Err(Failure::input("standard input is a terminal").hint("give a file, or a pipe"));
    }
    let mut file =
        File::from(handle.as_fd().try_clone_to_owned().map_err(|error| unreadable(&error))?);
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    // What a service has as standard input, and what a closed one is replaced by: a mistake, for
    // it would be sealed as an empty file.
    if fs::metadata("/dev/null")
        .is_ok_and(|null| null.rdev() == metadata.rdev() && !metadata.is_file())
    {
        return Err(Failure::input("standard input is closed, or is /dev/null")
            .hint("give a file, or a pipe"));
    }
    if metadata.is_file() {
        let start = file.stream_position().map_err(|error| unreadable(&error))?;
        return Ok((file, start));
    }
    Ok((copy(file)?, 0))
}

/// Copies the unread rest of standard input.
fn copy(mut from: File) -> Result<File, Failure> {
    let mut to = tempfile::tempfile().map_err(|error| unreadable(&error))?;
    io::copy(&mut from, &mut to).map_err(|error| unreadable(&error))?;
    Ok(to)
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::input(format!("cannot read {STDIN}: {error}"))
        .code("io")
        .hint("a pipe is first copied to TMPDIR: make room there, or give a file")
}

/// Standard output, to be written as a file.
pub(crate) fn output() -> Result<File, Failure> {
    if io::stdout().is_terminal() {
        return Err(Failure::input("standard output is a terminal")
            .hint("give a path, or send it to a file or a pipe"));
    }
    stdout()
}

fn stdout() -> Result<File, Failure> {
    let handle = io::stdout().as_fd().try_clone_to_owned();
    handle.map(File::from).map_err(|error| unwritable(&error))
}

fn unwritable(error: &io::Error) -> Failure {
    Failure::input(format!("cannot write to standard output: {error}"))
        .code("io")
        .hint("check where standard output goes")
}

/// Descriptors that are compared with standard output: those that a shell gives.
const OPEN_MAX: u32 = 256;

/// Whether standard output goes to a file that is named on the command line. JSON, which may be
/// printed before the command compares its files, then goes elsewhere.
pub(crate) fn stdout_is_named(args: &[OsString]) -> bool {
    let Some(to) = stdout().ok().and_then(|file| file.metadata().ok()) else { return false };
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let named = args.iter().skip(1).any(|arg| {
        let after = arg.as_bytes().splitn(2, |byte| *byte == b'=').nth(1).unwrap_or_default();
        [Path::new(arg), Path::new(OsStr::from_bytes(after))].iter().any(|path| {
            let credential = credentials.as_ref().map(|folder| Path::new(folder).join(path));
            is_file(path, &to) || credential.is_some_and(|path| is_file(&path, &to))
        })
    });
    // Also a file that is not named: standard input, and any descriptor that a key may come by.
    named
        || (0..OPEN_MAX)
            .filter(|number| ![1, 2].contains(number))
            .any(|number| is_file(Path::new(&format!("/dev/fd/{number}")), &to))
}

/// Whether the path leads to this file.
fn is_file(path: &Path, to: &Metadata) -> bool {
    regular_file::metadata(path)
        .is_ok_and(|from| from.is_file() && (from.dev(), from.ino()) == (to.dev(), to.ino()))
}

/// Refuses a command whose standard output goes to a file that it reads: its result, or what it
/// reports, would be written over that file.
pub(crate) fn output_is_none_of(inputs: &[&Path]) -> Result<(), Failure> {
    let to = stdout()?.metadata().map_err(|error| unwritable(&error))?;
    for path in inputs {
        if is_file(path, &to) {
            let name =
                if *path == Path::new(BEHIND_STDIN) { STDIN.into() } else { input_name(path) };
            return Err(Failure::input(format!("{name} would be written over itself"))
                .code("output-is-input")
                .hint("send standard output elsewhere"));
        }
    }
    Ok(())
}
