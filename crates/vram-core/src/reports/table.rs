//! Rows of a printed table.

use core::fmt;

use vram_alloc::ByteLen;

/// Writes cells padded to their columns, without blanks at the end of the line.
pub(crate) fn row(f: &mut fmt::Formatter<'_>, width: &[usize], cells: &[&str]) -> fmt::Result {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(width) {
        let pad = width.saturating_sub(cell.chars().count()).max(1);
        line.push_str(cell);
        line.extend(core::iter::repeat_n(' ', pad));
    }
    writeln!(f, "{}", line.trim_end())
}

/// A name that a program chose, as it is shown in one column: in one line, and no longer than this
/// many characters.
pub(crate) struct Clipped<'a>(pub(crate) &'a str, pub(crate) usize);

impl fmt::Display for Clipped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.escape_debug().take(self.1.saturating_add(1)).collect();
        if shown.chars().nth(self.1).is_none() {
            return f.write_str(&shown);
        }
        let kept: String = shown.chars().take(self.1.saturating_sub(1)).collect();
        write!(f, "{kept}…")
    }
}

/// A length for a narrow column: three digits or so of the largest unit.
pub(crate) struct Short(pub(crate) ByteLen);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.get();
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            let whole = bytes >> shift;
            if whole > 0 {
                let rest = bytes.saturating_sub(whole << shift);
                let tenth = rest.saturating_mul(10) >> shift;
                return write!(f, "{whole}.{tenth} {unit}");
            }
        }
        write!(f, "{bytes} B")
    }
}
