//! `target/bench/report.md`, and its pictures beside it.

use core::fmt::Write as _;
use core::time::Duration;
use std::fs;
use std::path::Path;

use super::aims;
use super::machine::{self, Machine};
use super::svg;
use super::table::Measured;

/// What became of one part.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The line that repeats it.
    pub(crate) command: String,
    pub(crate) built: Duration,
    pub(crate) ran: Duration,
    pub(crate) measured: Result<Measured, String>,
}

/// A run as it stands.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) machine: &'a Machine,
    /// The load at the beginning, and now.
    pub(crate) loads: [Option<f64>; 2],
    /// What a reader must know of a run that is not a whole one.
    pub(crate) note: Option<&'static str>,
    pub(crate) outcomes: &'a [Outcome],
    /// True if its figures are rough, so that none of them meets an aim.
    pub(crate) quick: bool,
    /// The comparison with what was accepted, unless nothing is compared.
    pub(crate) compared: Option<String>,
}

impl Report<'_> {
    /// Writes the report and its pictures into this folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), String> {
        let (text, pictures) = self.text();
        for (name, content) in pictures.iter().chain([&("report.md".to_owned(), text)]) {
            let file = folder.join(name);
            fs::write(&file, content).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(())
    }

    /// The report, and each picture with the name of its file.
    fn text(&self) -> (String, Vec<(String, String)>) {
        let mut pictures = Vec::new();
        let mut text = "# Benches\n".to_owned();
        let [begin, end] = self.loads;
        let warning = machine::busy(begin, end, self.machine.cores);
        for note in warning.as_deref().into_iter().chain(self.note) {
            let _infallible = writeln!(text, "\n{note}");
        }
        let shown = |load: Option<f64>| {
            load.map_or_else(|| "unknown".to_owned(), |load| format!("{load:.1}"))
        };
        let _infallible = writeln!(
            text,
            "\n## Aims\n\n{}\n## Machine\n\n{}\nLoad average: {} at the beginning, {} at the end.",
            aims::table(self.outcomes, self.quick).markdown(),
            self.machine.markdown(),
            shown(begin),
            shown(end)
        );
        text.push_str(
            "\n## Parts\n\n| part | what | built in | ran for | |\n|---|---|--:|--:|---|\n",
        );
        for Outcome { name, what, built, ran, measured, .. } in self.outcomes {
            let verdict = if measured.is_ok() { "ok" } else { "**failed**" };
            let (built, ran) = (built.as_secs_f64(), ran.as_secs_f64());
            let _infallible =
                writeln!(text, "| {name} | {what} | {built:.0} s | {ran:.0} s | {verdict} |");
        }
        let sum = |time: fn(&Outcome) -> Duration| {
            let all = self.outcomes.iter().map(time).fold(Duration::ZERO, Duration::saturating_add);
            all.as_secs_f64() / 60.0
        };
        let (built, ran) = (sum(|outcome| outcome.built), sum(|outcome| outcome.ran));
        let _infallible = writeln!(text, "\nBuilding took {built:.1} minutes, measuring {ran:.1}.");
        for outcome in self.outcomes {
            if let Err(why) = &outcome.measured {
                let why = why.replace('\n', " ");
                let _infallible = writeln!(text, "\n**{} failed**: {why}", outcome.name);
            }
        }
        if let Some(compared) = &self.compared {
            let _infallible = write!(text, "\n## Ratios, beside those accepted last\n\n{compared}");
        }
        for outcome in self.outcomes {
            let _infallible =
                write!(text, "\n## {}\n\n```sh\n{}\n```\n", outcome.name, outcome.command);
            let Ok(measured) = &outcome.measured else {
                text.push_str("\nFailed: see above.\n");
                continue;
            };
            for note in &measured.notes {
                let _infallible = writeln!(text, "\n{note}");
            }
            for table in &measured.tables {
                let _infallible = write!(text, "\n### {}\n\n{}", table.title, table.markdown());
                if let Some(plot) = &table.plot {
                    let name = format!("{}-{}.svg", outcome.name, pictures.len());
                    let title = table.title.replace(['[', ']'], "");
                    let _infallible = write!(text, "\n![{title}]({name})\n");
                    pictures.push((name, svg::draw(&table.title, plot)));
                }
            }
        }
        (text, pictures)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{Plot, Table};
    use super::*;

    fn machine() -> Machine {
        Machine {
            processor: "P".to_owned(),
            cores: 2,
            flags: vec!["aes".to_owned(), "avx2".to_owned()],
            caches: vec!["L2 unified 512K".to_owned()],
            memory: "1 kB".to_owned(),
            kernel: "6".to_owned(),
            compiler: "rustc 1".to_owned(),
            commit: "abc".to_owned(),
            priority: "as any other program".to_owned(),
        }
    }

    fn outcome(name: &'static str, measured: Result<Measured, String>) -> Outcome {
        let second = Duration::from_secs(1);
        let command = format!("cargo bench --bench {name}");
        Outcome { name, what: "w", command, built: second, ran: second, measured }
    }

    #[test]
    fn a_report_has_each_part_with_its_command_table_and_picture() {
        let mut table = Table::new("T", &["what", "GB/s"]);
        table.rows.push(vec!["seal".to_owned(), "2".to_owned()]);
        table.plot =
            Some(Plot::Bars { unit: "GB/s".to_owned(), bars: vec![("seal".to_owned(), 2.0)] });
        let measured = Measured { tables: vec![table], ..Measured::default() };
        let outcomes =
            [outcome("one", Ok(measured)), outcome("two", Err("exit 1\nrepeat".to_owned()))];
        let machine = machine();
        let report = Report {
            machine: &machine,
            loads: [Some(0.1), Some(9.0)],
            note: Some("A note."),
            quick: true,
            outcomes: &outcomes,
            compared: Some("0 of 0".to_owned()),
        };
        let folder = tempfile::tempdir().unwrap();
        report.write(folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join("report.md")).unwrap();
        for part in [
            "## Aims\n\n| aim |",
            "| processor | P |",
            "Load average: 0.1 at the beginning, 9.0 at the end.",
            "**The machine was busy**",
            "A note.",
            "| one | w | 1 s | 1 s | ok |",
            "| two | w | 1 s | 1 s | **failed** |",
            "**two failed**: exit 1 repeat",
            "```sh\ncargo bench --bench one\n```",
            "| seal | 2 |",
            "![T](one-0.svg)",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let picture = fs::read_to_string(folder.path().join("one-0.svg")).unwrap();
        assert!(picture.starts_with("<svg"), "{picture}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let machine = machine();
        let report = Report {
            machine: &machine,
            loads: [None, None],
            note: None,
            quick: false,
            outcomes: &[],
            compared: None,
        };
        assert!(
            report.write(Path::new("/nowhere/at/all")).unwrap_err().contains("/nowhere/at/all")
        );
    }
}
