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
