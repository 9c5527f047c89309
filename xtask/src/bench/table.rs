//! What a part of the benches leaves: tables, plots of them, and ratios that can be compared.

/// One table of the report.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) plot: Option<Plot>,
}

/// A picture of a table.
#[derive(Debug, PartialEq)]
pub(crate) enum Plot {
    /// A bar for each label, from zero.
    Bars { unit: String, bars: Vec<(String, f64)> },
    /// A line for each name, both axes logarithmic.
    Lines { x: String, y: String, lines: Vec<Line> },
}

/// A line's name, and its points.
pub(crate) type Line = (String, Vec<(f64, f64)>);

/// A figure that says more about this code than about the machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// Everything that one part has measured.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Measured {
    pub(crate) tables: Vec<Table>,
    pub(crate) ratios: Vec<Ratio>,
    /// Absolute figures that an aim names: they are compared with no other run.
    pub(crate) figures: Vec<Ratio>,
    /// What the part itself says that it has left out.
    pub(crate) notes: Vec<String>,
}

impl Measured {
    /// Notes a ratio, if it is a positive number.
    pub(crate) fn ratio(&mut self, name: impl Into<String>, value: f64) {
        self.ratios.extend(Ratio::new(name, value));
    }

    /// Notes an absolute figure, if it is a positive number.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64) {
        self.figures.extend(Ratio::new(name, value));
    }
}

impl Ratio {
    fn new(name: impl Into<String>, value: f64) -> Option<Self> {
        (value.is_finite() && value > 0.0).then(|| Self { name: name.into(), value })
    }
}

impl Table {
    /// An empty table.
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.into(), columns, ..Self::default() }
    }

    /// The table in Markdown, with the first column to the left and the others to the right.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let aligned = self.columns.iter().skip(1).map(|_| "--:|").collect::<String>();
        let mut text = format!("{}|---|{aligned}\n", line(&self.columns));
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_and_its_cells_cannot_break_it() {
        let mut table = Table::new("t", &["what", "GB/s"]);
        table.rows.push(vec!["a|b".to_owned(), "1.0".to_owned()]);
        assert_eq!(table.markdown(), "| what | GB/s |\n|---|--:|\n| a\\|b | 1.0 |\n");
    }

    #[test]
    fn what_is_no_number_is_no_ratio() {
        let mut measured = Measured::default();
        for value in [f64::NAN, f64::INFINITY, 0.0, -1.0, 0.5] {
            measured.ratio("r", value);
        }
        assert_eq!(measured.ratios, [Ratio { name: "r".to_owned(), value: 0.5 }]);
    }
}
