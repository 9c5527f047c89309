//! What criterion leaves in its folder: medians, as ratios against the reference of each group.
//!
//! A group's reference is its benchmark whose name begins with the first of a list of names that the
//! group has, with the same parameter if there is one.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::table::{Measured, Plot, Table};

/// What the name of a reference begins with.
const REFERENCES: [&str; 7] = [
    "bare seal",
    "memcpy",
    "memset",
    "compare_and_swap_reference",
    "reading the file",
    "direct",
    "fresh_vector",
];

/// One benchmark's result.
#[derive(Debug, Clone, PartialEq)]
struct Figure {
    group: String,
    function: String,
    parameter: String,
    median_ns: f64,
    bytes: Option<f64>,
}

/// Reads all results below criterion's folder.
pub(crate) fn read(home: &Path) -> Result<Measured, String> {
    let mut figures = Vec::new();
    collect(home, &mut figures)?;
    if figures.is_empty() {
        Err(format!("no result in {}", home.display()))
    } else {
        Ok(measured(&figures))
    }
}

/// Reads every `new/benchmark.json` below `folder`.
fn collect(folder: &Path, figures: &mut Vec<Figure>) -> Result<(), String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        if !path.is_dir() {
            continue;
        }
        if path.file_name().is_some_and(|name| name == "new") {
            let about = json(&path.join("benchmark.json"))?;
            let estimates = json(&path.join("estimates.json"))?;
            let text = |field: &str| about.get(field).and_then(Value::as_str).unwrap_or_default();
            figures.push(Figure {
                group: text("group_id").to_owned(),
                function: text("function_id").to_owned(),
                parameter: text("value_str").to_owned(),
                median_ns: estimates
                    .pointer("/median/point_estimate")
                    .and_then(Value::as_f64)
                    .unwrap_or(f64::NAN),
                bytes: about.pointer("/throughput/Bytes").and_then(Value::as_f64),
            });
        } else {
            collect(&path, figures)?;
        }
    }
    Ok(())
}

fn json(path: &Path) -> Result<Value, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A table for each group: median, rate, and the speed as a share of the reference's.
fn measured(figures: &[Figure]) -> Measured {
    let mut groups: BTreeMap<&str, Vec<&Figure>> = BTreeMap::new();
    for figure in figures {
        groups.entry(&figure.group).or_default().push(figure);
    }
    let mut measured = Measured::default();
    for (group, mut figures) in groups {
        figures.sort_by(|a, b| (&a.parameter, &a.function).cmp(&(&b.parameter, &b.function)));
        let mut table = Table::new(group, &["what", "median", "GB/s", "of the reference"]);
        let mut bars = Vec::new();
        for figure in &figures {
            let name = format!("{} {}", figure.function, figure.parameter).trim().to_owned();
            let reference = reference(&figures, &figure.parameter);
            let share = reference.map(|reference| reference.median_ns / figure.median_ns);
            if let Some(share) = share.filter(|_| reference != Some(*figure)) {
                measured.ratio(format!("{group}: {name}"), share);
                bars.push((name.clone(), share));
            }
            table.rows.push(vec![
                name,
                time(figure.median_ns),
                figure
                    .bytes
                    .map_or_else(String::new, |bytes| format!("{:.2}", bytes / figure.median_ns)),
                share.map_or_else(String::new, |share| format!("{share:.3}")),
            ]);
        }
        if !bars.is_empty() {
            let unit = "speed, as a share of the reference's".to_owned();
            table.plot = Some(Plot::Bars { unit, bars });
        }
        measured.tables.push(table);
    }
    measured
}

fn reference<'a>(figures: &[&'a Figure], parameter: &str) -> Option<&'a Figure> {
    let of = |name: &&str| {
        let mut same = figures.iter().filter(|figure| figure.parameter == parameter);
        same.find(|figure| figure.function.starts_with(*name)).copied()
    };
    REFERENCES.iter().find_map(of)
}

/// A time in a unit that fits.
fn time(nanos: f64) -> String {
    match nanos {
        _ if nanos < 1e3 => format!("{nanos:.1} ns"),
        _ if nanos < 1e6 => format!("{:.2} µs", nanos / 1e3),
        _ => format!("{:.2} ms", nanos / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(function: &str, parameter: &str, median_ns: f64) -> Figure {
        Figure {
            group: "seal".to_owned(),
            function: function.to_owned(),
            parameter: parameter.to_owned(),
            median_ns,
            bytes: Some(1000.0),
        }
    }

    #[test]
    fn the_table_compares_with_the_reference_of_the_same_parameter() {
        let measured = measured(&[
            figure("memcpy", "1MiB", 100.0),
            figure("seal", "1MiB", 400.0),
            figure("memcpy", "2MiB", 300.0),
        ]);
        let text = measured.tables[0].markdown();
        assert!(text.contains("| seal 1MiB | 400.0 ns | 2.50 | 0.250 |"), "{text}");
        assert_eq!(measured.ratios.len(), 1);
        assert_eq!(measured.ratios[0].name, "seal: seal 1MiB");
    }

    #[test]
    fn results_are_read_from_the_folder_of_criterion_and_none_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        assert!(read(home.path()).unwrap_err().contains("no result"));
        let new = home.path().join("group/one/new");
        std::fs::create_dir_all(&new).unwrap();
        let about =
            r#"{"group_id":"g","function_id":"f","value_str":null,"throughput":{"Bytes":10}}"#;
        std::fs::write(new.join("benchmark.json"), about).unwrap();
        std::fs::write(new.join("estimates.json"), r#"{"median":{"point_estimate":5.0}}"#).unwrap();
        let measured = read(home.path()).unwrap();
        assert_eq!(measured.tables[0].rows, [["f", "5.0 ns", "2.00", ""]]);
    }

    #[test]
    fn a_time_has_a_unit_that_fits() {
        assert_eq!([time(2.0), time(2500.0), time(4.5e7)], ["2.0 ns", "2.50 µs", "45.00 ms"]);
    }
}
