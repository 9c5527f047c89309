//! Standard output: results and nothing else, also when nobody reads them to the end.

use std::io::{self, Write};

use crate::failure::Failure;

/// Where results go.
///
/// A reader that closes its end, as `head` does, is no failure: the rest is not printed and the
/// exit code is the command's own. A disk that is full is one.
#[derive(Debug, Default)]
pub(crate) struct Output {
    closed: bool,
}

impl Output {
    /// Prints one line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> Result<(), Failure> {
        self.write(&[line.as_ref(), "\n"].concat())
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
