//! The rows that `cargo xtask gpu` turns into a report: `| table | cell | … |`, one to a line.

use core::fmt::Display;

/// Prints one row. A bar or a line break in a cell is replaced, so that the row stays intact.
pub(crate) fn row(table: &str, cells: &[&dyn Display]) {
    let mut line = format!("| {table} |");
    for cell in cells {
        let text = cell.to_string().replace('|', "\\|").replace(['\n', '\r'], " ");
        line.push(' ');
        line.push_str(&text);
        line.push_str(" |");
    }
    println!("{line}");
}
