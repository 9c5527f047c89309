//! Lines of a log for people: characters that hide or turn text are escaped, as in all that the program prints.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;
use vram_model::is_plain;

/// Makes writers that escape, each for one line.
pub(super) struct Plain<M>(pub(super) M);

/// Escapes a whole line, with its end and its colours.
pub(super) struct Escaping<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Plain<M> {
    type Writer = Escaping<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaping(self.0.make_writer())
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        Escaping(self.0.make_writer_for(meta))
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Line ends and colours are of the log's own: in what is told, its escape characters are shown.
        let own = |letter: char| matches!(letter, '\n' | '\u{1b}');
        let text = String::from_utf8_lossy(line);
        if text.chars().all(|letter| is_plain(letter) || own(letter)) {
            self.0.write_all(line)?;
            return Ok(line.len());
        }
        let mut shown = String::with_capacity(text.len());
        for letter in text.chars() {
            if is_plain(letter) || own(letter) {
                shown.push(letter);
            } else {
                shown.extend(letter.escape_default());
            }
        }
        self.0.write_all(shown.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_turns_text_is_escaped_and_the_end_of_the_line_is_not() {
        let mut written = Escaping(Vec::new());
        written.write_all("INFO model=a\u{202e}b\tc \u{1b}[2mx\n".as_bytes()).unwrap();
        assert_eq!(written.0, b"INFO model=a\\u{202e}b\\tc \x1b[2mx\n");
    }
}
