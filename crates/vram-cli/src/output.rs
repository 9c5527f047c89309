//! Standard output carries results and nothing else, also if its reader closes it early. Standard
//! error carries notes for people.
//!
//! With `--json` the result is one object, and so is a failure. It goes to standard output; where
//! that carries the content of a file (`-o -`), it is the last line of standard error.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use vram_model::is_plain;
use vram_residency::{ContentDigest, DeviceInfo};

use crate::failure::{ErrorObject, Failure};

/// The writer of results.
///
/// If a reader closes its end, as `head` does, that is no failure: the rest is not printed, and the
/// exit code is the command's own. A full disk is a failure.
#[derive(Debug, Default)]
pub(crate) struct Output {
    closed: bool,
    json: Option<Json>,
    /// Whether the one object was printed.
    printed: bool,
    cards: Vec<DeviceInfo>,
}

/// How JSON is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Json {
    /// The command, which is part of the schema's name.
    pub(crate) command: &'static str,
    /// Whether standard output carries the content of a file.
    pub(crate) stdout_is_taken: bool,
}

/// A result, or a failure without one.
#[derive(Serialize)]
struct Document<'a, T> {
    schema: String,
    #[serde(flatten)]
    result: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject<'a>>,
}

/// The result of a command that has none.
#[derive(Serialize)]
struct Nothing {}

impl Output {
    /// A writer of text, or of JSON if the command line asks for it.
    pub(crate) fn new(json: Option<Json>) -> Self {
        Self { json, ..Self::default() }
    }

    /// Whether the result is JSON.
    pub(crate) const fn is_json(&self) -> bool {
        self.json.is_some()
    }

    /// Prints one line of a result for people.
    ///
    /// Control and format characters of a file's name, or of what a file says, are escaped: no name
    /// forges a line, none changes the terminal, and two that differ look different.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> Result<(), Failure> {
        self.write(&[&*printable(line.as_ref()), "\n"].concat())
    }

    /// Prints the digest of a file.
    pub(crate) fn digest(&mut self, digest: &ContentDigest, path: &Path) -> Result<(), Failure> {
        self.line(digest_line(digest, path))
    }

    /// Prints `text` as it is. With `--json` it prints nothing: the object holds the result.
    pub(crate) fn write(&mut self, text: &str) -> Result<(), Failure> {
        if self.json.is_some() { Ok(()) } else { self.print(text) }
    }

    /// Prints a result as JSON.
    pub(crate) fn json(&mut self, result: &impl Serialize) -> Result<(), Failure> {
        self.document(None, result, None)
    }

    /// Prints a result that is a failure, such as a list of altered segments. The caller then fails
    /// with the same failure.
    pub(crate) fn json_failed(
        &mut self,
        result: &impl Serialize,
        failure: &Failure,
    ) -> Result<(), Failure> {
        self.document(None, result, Some(failure.object()))
    }

    /// Names the kind of result, where a command has several; each has a schema of its own.
    pub(crate) const fn set_schema(&mut self, name: &'static str) {
        if let Some(json) = &mut self.json {
            json.command = name;
        }
    }

    /// Keeps what identifies the devices of this run: a failure names its card with it.
    pub(crate) fn set_cards(&mut self, cards: Vec<DeviceInfo>) {
        self.cards = cards;
    }

    /// Prints a failure: a line for people, and an object if the command printed none.
    pub(crate) fn fail(&mut self, failure: Failure) -> Failure {
        let failure = failure.on_card(&self.cards);
        let line = failure.to_string();
        if LOGGED.load(Ordering::Relaxed) {
            tracing::error!(target: LOG_TARGET, "{}", printable(&line));
        } else {
            let _ = writeln!(io::stderr().lock(), "error: {}", printable(&line));
        }
        self.fail_quietly(&failure);
        failure
    }

    /// Prints a failure that standard error has already.
    pub(crate) fn fail_quietly(&mut self, failure: &Failure) {
        if self.json.is_some() && !self.printed {
            // Nowhere else to report that this cannot be printed.
            let _ = self.document(Some("error"), &Nothing {}, Some(failure.object()));
        }
    }

    /// Prints one object.
    ///
    /// # Arguments
    ///
    /// * `name`: the middle of the schema's name, if it is not the command.
    fn document(
        &mut self,
        name: Option<&str>,
        result: &impl Serialize,
        error: Option<ErrorObject<'_>>,
    ) -> Result<(), Failure> {
        let Some(json) = self.json else { return Ok(()) };
        self.printed = true;
        let name = name.unwrap_or(json.command);
        let document = Document { schema: format!("vram.{name}/1"), result, error };
        let failed = |error| Failure::input(format!("cannot print the result as JSON: {error}"));
        if json.stdout_is_taken {
            let text = serde_json::to_string(&document).map_err(failed)?;
            let _ = writeln!(io::stderr().lock(), "{}", json_text(&text));
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&document).map_err(failed)?;
        self.print(&[&*json_text(&text), "\n"].concat())
    }

    fn print(&mut self, text: &str) -> Result<(), Failure> {
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
                .code("io")
                .hint("check where standard output goes")),
        }
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

/// A text whose control characters are escaped, and those that show nothing or change the reading
/// direction.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_plain(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_default());
        }
    }
    Cow::Owned(shown)
}

/// JSON for a terminal as well: what [`printable`] escapes is written as `\uXXXX`, which means the same. All of it
/// is in strings, but for line breaks, of which none is.
fn json_text(json: &str) -> Cow<'_, str> {
    let is_shown = |character| character == '\n' || is_plain(character);
    if json.chars().all(is_shown) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if is_shown(character) {
            shown.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` cannot fail.
                let _ = fmt::Write::write_fmt(&mut shown, format_args!("\\u{unit:04x}"));
            }
        }
    }
    Cow::Owned(shown)
}

/// The name of this program's own lines in the log, beside those of the library.
pub(crate) const LOG_TARGET: &str = "vram_cli";

/// Whether notes for people are left out.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether notes and errors are lines of the log, which has a form of its own.
static LOGGED: AtomicBool = AtomicBool::new(false);

/// Says where notes and errors go from now on.
pub(crate) fn set_notes(quiet: bool, logged: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
    LOGGED.store(logged, Ordering::Relaxed);
}

/// Returns true if standard error carries notes and progress for people.
pub(crate) fn notes_are_printed() -> bool {
    !QUIET.load(Ordering::Relaxed) && !LOGGED.load(Ordering::Relaxed)
}

/// Prints a note that is neither a result nor an error. Failing to print it is no failure.
pub(crate) fn note(text: impl AsRef<str>) {
    let text = printable(text.as_ref());
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    if LOGGED.load(Ordering::Relaxed) {
        tracing::info!(target: LOG_TARGET, "{text}");
    } else {
        let _ = writeln!(io::stderr().lock(), "vram: {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_character_that_a_terminal_acts_on_and_means_the_same() {
        for name in ["plain ä 模", "a\u{202e}b", "\u{7f}\u{9b}[2J\u{200b}", "\u{e0041}\n\u{1b}\"\\"]
        {
            let json = serde_json::to_string_pretty(&[name]).unwrap();
            let shown = json_text(&json);
            assert!(shown.chars().all(|one| one == '\n' || is_plain(one)), "{shown}");
            assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [name], "{shown}");
        }
        assert_eq!(json_text("\"\u{202e}\u{e0041}\""), "\"\\u202e\\udb40\\udc41\"");
        assert!(matches!(json_text("[\n  \"ä\"\n]"), Cow::Borrowed(_)));
    }
}
