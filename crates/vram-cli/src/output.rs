//! Standard output carries results and nothing else, also if its reader closes it early. Standard
//! error carries notes for people.

use std::io::{self, Write};
use std::path::Path;

use vram_residency::ContentDigest;

use crate::failure::Failure;

/// The writer of results.
///
/// If a reader closes its end, as `head` does, that is no failure: the rest is not printed, and the
/// exit code is the command's own. A full disk is a failure.
#[derive(Debug, Default)]
pub(crate) struct Output {
    closed: bool,
}

impl Output {
    /// Prints one line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> Result<(), Failure> {
        self.write(&[line.as_ref(), "\n"].concat())
    }

    /// Prints the digest of a file.
    pub(crate) fn digest(&mut self, digest: &ContentDigest, path: &Path) -> Result<(), Failure> {
        self.line(digest_line(digest, path))
    }

    /// Prints `text` as it is.
    pub(crate) fn write(&mut self, text: &str) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(Failure::input(format!("cannot write the result: {error}"))
                .hint("check where standard output goes")),
        }
    }

    /// Prints a value as indented JSON.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::input(format!("cannot print the result as JSON: {error}")))?;
        self.line(text)
    }
}

/// The digest of a file as `b3sum` prints it: backslashes and line breaks in the name are escaped,
/// and the line then begins with a backslash.
pub(crate) fn digest_line(digest: &ContentDigest, path: &Path) -> String {
    let name = path.to_string_lossy();
    let escaped = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
    let mark = if escaped == name { "" } else { "\\" };
    format!("{mark}{digest}  {escaped}")
}

/// Prints a note that is neither a result nor an error. Failing to print it is no failure.
pub(crate) fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "vram: {}", text.as_ref());
}
