//! Formatting of tables and figures.

use core::fmt::Write as _;
use core::time::Duration;

use vram_residency::ByteLen;

use crate::output::printable;

/// A table: a head, rows, and columns as wide as their content.
#[derive(Debug)]
pub(crate) struct Table {
    words: usize,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table. The first `words` columns are aligned left; the others hold figures and are
    /// aligned right.
    pub(crate) fn new(words: usize, head: &[&'static str]) -> Self {
        Self { words, head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| printable(&cell).into_owned();
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// The table as text, each line indented by two spaces and ended by a line break.
    pub(crate) fn render(&self) -> String {
        let head: Vec<String> = self.head.iter().map(|&cell| cell.to_owned()).collect();
        let lines: Vec<&Vec<String>> = core::iter::once(&head).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = lines.iter().filter_map(|line| line.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
            })
            .collect();

        let mut text = String::new();
        for line in lines {
            let mut shown = String::new();
            // Writing to a `String` cannot fail.
            for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
                if column < self.words {
                    let _ = write!(shown, "  {cell:<width$}");
                } else {
                    let _ = write!(shown, "  {cell:>width$}");
                }
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A length in the largest unit that fits it: `252.4 MiB`.
pub(crate) fn size(len: ByteLen) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let bytes = len.get();
    for (unit, shift) in UNITS {
        if bytes >> shift > 0 {
            // Tenths, rounded down: the figure is never larger than the length.
            let whole = bytes >> shift;
            let rest = u128::from(bytes).saturating_sub(u128::from(whole) << shift);
            let tenths = rest.saturating_mul(10) >> shift;
            return format!("{whole}.{tenths} {unit}");
        }
    }
    format!("{bytes} B")
}

/// A number of things: `1 segment`, `2 segments`.
pub(crate) fn count(number: impl Into<u128>, one: &str) -> String {
    let number = number.into();
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// Decimal gigabytes a second, as links and memories are rated. 0 if no time has passed.
pub(crate) fn gb_per_s(len: ByteLen, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return 0.0;
    }
    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "a rate for people: 53 bits are plenty"
    )]
    let bytes = len.get() as f64;
    bytes / seconds / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_their_unit_and_never_rounded_up() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (264_700_000, "252.4 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(ByteLen::new(bytes)), shown);
        }
    }

    #[test]
    fn one_thing_is_not_called_several() {
        let counts = [0_u64, 1, 2].map(|number| count(number, "shard"));
        assert_eq!(counts, ["0 shards", "1 shard", "2 shards"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(1, &["name", "n"]);
        table.row(["a".into(), "1000".into()]);
        table.row(["longer".into(), "1".into()]);
        assert_eq!(table.render(), "  name       n\n  a       1000\n  longer     1\n");
    }

    #[test]
    fn a_rate_over_no_time_is_nothing() {
        let giga = ByteLen::new(1_000_000_000);
        assert!((gb_per_s(giga, Duration::from_secs(2)) - 0.5).abs() < 1e-9);
        assert!(gb_per_s(giga, Duration::ZERO).abs() < 1e-9);
    }
}
