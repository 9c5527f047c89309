//! `docs/performance.json`: the ratios that were accepted last, and how those of a run differ.

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::table::Ratio;

/// Where they are committed.
pub(crate) const FILE: &str = "docs/performance.json";
/// A change beyond this share is marked.
const TOLERANCE: f64 = 0.15;

/// The ratios of one part, and where they were measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) machine: String,
    pub(crate) commit: String,
    pub(crate) ratios: BTreeMap<String, f64>,
}

/// The parts by name.
pub(crate) type Parts = BTreeMap<String, Part>;

impl Part {
    /// What was measured here. Three digits are kept.
    pub(crate) fn new(machine: String, commit: String, ratios: &[Ratio]) -> Self {
        let kept = |value: f64| (value * 1000.0).round() / 1000.0;
        let ratios = ratios.iter().map(|ratio| (ratio.name.clone(), kept(ratio.value))).collect();
        Self { machine, commit, ratios }
    }
}

/// Reads the file; none yet is an empty one.
pub(crate) fn read(file: &Path) -> Result<Parts, String> {
    if !file.exists() {
        return Ok(Parts::new());
    }
    let failed = |why: &str| format!("{}: {why}", file.display());
    let text = fs::read_to_string(file).map_err(|error| failed(&error.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| failed(&error.to_string()))?;
    let parts = value.as_object().ok_or_else(|| failed("no object of parts"))?;
    let part = |(name, part): (&String, &Value)| {
        let text = |field| part.get(field).and_then(Value::as_str).map(str::to_owned);
        let ratios = part.get("ratios").and_then(Value::as_object).and_then(|ratios| {
            ratios.iter().map(|(name, ratio)| Some((name.clone(), ratio.as_f64()?))).collect()
        });
        let (Some(machine), Some(commit), Some(ratios)) = (text("machine"), text("commit"), ratios)
        else {
            return Err(failed(&format!(
                "part `{name}` needs machine, commit, and ratios that are numbers"
            )));
        };
        Ok((name.clone(), Part { machine, commit, ratios }))
    };
    parts.iter().map(part).collect()
}

/// Replaces the parts that were measured, and keeps the others.
pub(crate) fn write(file: &Path, measured: &Parts) -> Result<(), String> {
    let mut all = read(file)?;
    all.extend(measured.iter().map(|(name, part)| (name.clone(), part.clone())));
    let part = |part: &Part| serde_json::json!({ "machine": part.machine, "commit": part.commit, "ratios": part.ratios });
    let all: BTreeMap<_, _> = all.iter().map(|(name, one)| (name, part(one))).collect();
    let text = serde_json::to_string_pretty(&all).map_err(|error| error.to_string())?;
    fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))
}

/// A part of the report: each ratio as it was accepted and as it is, those that changed much marked.
pub(crate) fn compared(accepted: &Parts, measured: &Parts) -> String {
    let mut text = String::new();
    let (mut marked, mut all) = (0_u32, 0_u32);
    for (name, part) in measured {
        let before = accepted.get(name);
        let origin = match before {
            None => "nothing accepted yet".to_owned(),
            Some(before) if before.machine == part.machine => {
                format!("accepted at {}", before.commit)
            }
            Some(before) => {
                format!("accepted at {} on **another machine**, {}", before.commit, before.machine)
            }
        };
        let _infallible = write!(
            text,
            "\n### {name}\n\n{origin}\n\n| ratio | accepted | now | change |\n|---|--:|--:|--:|\n"
        );
        for (ratio, &now) in &part.ratios {
            all = all.saturating_add(1);
            let old = before.and_then(|before| before.ratios.get(ratio)).copied();
            let changed = old.filter(|old| *old > 0.0).map(|old| now / old - 1.0);
            let much = changed.is_some_and(|change| change.abs() > TOLERANCE);
            marked = marked.saturating_add(u32::from(much));
            let old = old.map_or_else(|| "new".to_owned(), |old| format!("{old:.3}"));
            let change =
                changed.map_or_else(String::new, |change| format!("{:+.0} %", change * 100.0));
            let change = if much { format!("**{change}**") } else { change };
            let _infallible =
                writeln!(text, "| {} | {old} | {now:.3} | {change} |", ratio.replace('|', "\\|"));
        }
        let gone = before.into_iter().flat_map(|before| before.ratios.keys());
        for ratio in gone.filter(|ratio| !part.ratios.contains_key(*ratio)) {
            let _infallible = writeln!(text, "| {} | | gone | |", ratio.replace('|', "\\|"));
        }
    }
    format!("{marked} of {all} ratios changed by more than {:.0} %.\n{text}", TOLERANCE * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(name: &str, machine: &str, ratios: &[(&str, f64)]) -> Parts {
        let ratios: Vec<Ratio> = ratios
            .iter()
            .map(|(name, value)| Ratio { name: (*name).to_owned(), value: *value })
            .collect();
        let part = Part::new(machine.to_owned(), "abc".to_owned(), &ratios);
        Parts::from([(name.to_owned(), part)])
    }

    #[test]
    fn what_changed_by_more_than_the_tolerance_is_marked() {
        let before = parts("limits", "m", &[("a", 1.0), ("b", 1.0), ("d", 1.0)]);
        let now = parts("limits", "m", &[("a", 1.14), ("b", 0.84), ("c", 2.0)]);
        let text = compared(&before, &now);
        assert!(text.starts_with("1 of 3 ratios"), "{text}");
        assert!(text.contains("| a | 1.000 | 1.140 | +14 % |"), "{text}");
        assert!(text.contains("| b | 1.000 | 0.840 | **-16 %** |"), "{text}");
        assert!(
            text.contains("| c | new | 2.000 |  |") && text.contains("| d | | gone | |"),
            "{text}"
        );
        assert!(text.contains("accepted at abc\n"), "{text}");
        assert!(compared(&parts("limits", "n", &[]), &now).contains("another machine"));
        assert!(compared(&Parts::new(), &now).contains("nothing accepted yet"));
    }

    #[test]
    fn accepting_a_part_replaces_it_and_keeps_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.json");
        assert_eq!(read(&file), Ok(Parts::new()));
        write(&file, &parts("one", "m", &[("old", 1.0)])).unwrap();
        write(&file, &parts("two", "m", &[("x", 0.123_456)])).unwrap();
        write(&file, &parts("one", "n", &[("new", 2.0)])).unwrap();
        let all = read(&file).unwrap();
        assert_eq!(all["one"], parts("one", "n", &[("new", 2.0)])["one"]);
        assert_eq!(all["two"].ratios["x"].to_string(), "0.123");
    }

    #[test]
    fn a_file_that_is_something_else_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.json");
        for text in [
            "",
            "[]",
            "{\"a\": 1}",
            "{\"a\": {\"machine\": \"\", \"commit\": \"\", \"ratios\": {\"x\": \"1\"}}}",
        ] {
            fs::write(&file, text).unwrap();
            assert!(read(&file).unwrap_err().contains("p.json"), "{text}");
            // What cannot be read is not overwritten.
            assert!(write(&file, &Parts::new()).is_err());
        }
    }

    #[test]
    fn the_committed_file_is_read() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FILE);
        assert!(!read(&file).unwrap().is_empty());
    }
}
