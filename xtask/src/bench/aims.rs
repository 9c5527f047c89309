//! What is aimed at, beside what was measured: the first table of the report.

use super::report::Outcome;
use super::table::{Measured, Ratio, Table};

/// One aim, and where its figures are.
struct Aim {
    part: &'static str,
    what: &'static str,
    bound: Bound,
    /// What names of ratios begin with: a line of the table each.
    kinds: &'static [&'static str],
    /// What names of ratios contain: each of these together with each of `rows` must be there.
    sections: &'static [&'static str],
    rows: &'static [&'static str],
    /// What a figure is multiplied by, and the unit behind it.
    scale: f64,
    unit: &'static str,
    /// Figures of the same part that are shown too, and that nothing bounds.
    beside: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}
use Bound::{AtLeast, AtMost};

const SUITES: &[&str] = &["Aes256Gcm", "ChaCha20Poly1305"];
/// From 256 KiB to 2 GiB.
const LENGTHS: &[&str] = &[", 256 KiB, ", ", 4096 KiB, ", ", 262144 KiB, ", ", 2097152 KiB, "];
/// Of these two, the cold limit is a hot one: they are in a cache after the first round.
const CACHED: &[&str] = &[", 256 KiB, ", ", 4096 KiB, "];
const UNCACHED: &[&str] = &[", 262144 KiB, ", ", 2097152 KiB, "];
const COLD: &[&str] = &[": seal in place, of cold"];
const ANY: &[&str] = &[""];
const GCM_SIV: &[&str] = &["one thread, beside AES-256-GCM-SIV"];
const FACADE: &[&str] = &["256 MiB, all threads: seal_model, "];

const AIMS: [Aim; 18] = [
    limit("seal in place, of the hot limit", AtLeast(0.9), LENGTHS, &[": seal in place, of hot"]),
    limit("seal in place up to 4 MiB, of the cold limit", AtLeast(1.15), CACHED, COLD),
    limit("seal in place from 256 MiB, of the cold limit", AtLeast(1.15), UNCACHED, COLD),
    limit(
        "unseal in place, of both limits",
        AtLeast(0.95),
        LENGTHS,
        &[": unseal in place, of hot", ": unseal in place, of cold"],
    ),
    limit(
        "verify, of both limits",
        AtLeast(0.95),
        LENGTHS,
        &[
            ": verify encrypted, of hot",
            ": verify encrypted, of cold",
            ": verify authenticated, of hot",
            ": verify authenticated, of cold",
        ],
    ),
    limit("seal to another buffer, of in place", AtLeast(0.85), LENGTHS, &[": seal, of in place"]),
    peer("seal from buffer to buffer, of GCM-SIV", AtLeast(1.15), &["memory: seal"]),
    peer("seal in place, of GCM-SIV", AtLeast(1.15), &["in place: seal"]),
    peer("open from buffer to buffer, of GCM-SIV", AtLeast(2.0), &["memory: open"]),
    peer("open in place, of GCM-SIV", AtLeast(2.0), &["in place: open"]),
    aim(
        "ratios",
        "`seal_model`, of the bare sealer",
        AtLeast(0.92),
        FACADE,
        &["no read-back", "default read-back"],
    ),
    aim(
        "ratios",
        "`seal_model` with full read-back, of the bare sealer",
        AtLeast(0.68),
        FACADE,
        &["full read-back"],
    ),
    Aim {
        // The row is the time on one beside that on both.
        scale: 2.0,
        ..aim(
            "ratios",
            "two GPUs, of the bytes of one",
            AtLeast(1.8),
            ANY,
            &[": seal on two GPUs at once"],
        )
    },
    aim(
        "mixes",
        "a model of 10,000 x 16 KiB, of the bulk rate",
        AtLeast(0.7),
        ANY,
        &["admit, 10000 x 16 KiB"],
    ),
    Aim {
        unit: " µs",
        ..aim("mixes", "fixed cost of a small seal", AtMost(5.0), ANY, &["fixed cost of seal"])
    },
    Aim {
        unit: " µs",
        ..aim("mixes", "fixed cost of a small verify", AtMost(2.0), ANY, &["fixed cost of verify"])
    },
    aim(
        "load",
        "`vram load`, of the slower of sealing and reading",
        AtLeast(0.8),
        ANY,
        &["1024 MiB from the page cache, all threads: vram load, until resident"],
    ),
    Aim {
        beside: &["read_into, p50, µs", "read_into, p99, µs"],
        ..aim(
            "ranges",
            "segments read for 4 KiB of 1 GiB",
            AtMost(2.0),
            ANY,
            &["4 KiB of 1024 MiB: segments read at most"],
        )
    },
];

/// An aim of both suites.
const fn limit(
    what: &'static str,
    bound: Bound,
    lengths: &'static [&'static str],
    rows: &'static [&'static str],
) -> Aim {
    Aim { kinds: SUITES, ..aim("limits", what, bound, lengths, rows) }
}

const fn peer(what: &'static str, bound: Bound, rows: &'static [&'static str]) -> Aim {
    aim("peers", what, bound, GCM_SIV, rows)
}

const fn aim(
    part: &'static str,
    what: &'static str,
    bound: Bound,
    sections: &'static [&'static str],
    rows: &'static [&'static str],
) -> Aim {
    Aim { part, what, bound, kinds: ANY, sections, rows, scale: 1.0, unit: "", beside: &[] }
}

/// Each aim with the worst figure that counts. A quick run meets none, and misses none.
pub(crate) fn table(outcomes: &[Outcome], quick: bool) -> Table {
    let columns = ["aim", "part", "required", "measured", "", "worst of its rows"];
    let mut table = Table::new("Aims", &columns);
    for aim in &AIMS {
        let measured = match outcomes.iter().find(|outcome| outcome.name == aim.part) {
            None => Err("not run"),
            Some(outcome) => outcome.measured.as_ref().map_err(|_| "failed"),
        };
        table.rows.extend(aim.kinds.iter().map(|kind| aim.line(kind, measured, quick)));
    }
    table
}

impl Aim {
    fn line(&self, kind: &str, measured: Result<&Measured, &str>, quick: bool) -> Vec<String> {
        let worst = measured.ok().and_then(|measured| self.worst(kind, measured));
        let verdict = match (measured, worst) {
            (Err(why), _) => format!("not measured: part {why}"),
            (Ok(_), _) if quick => "quick".to_owned(),
            (Ok(_), Some(worst)) if !self.is_met_by(worst) => "**not met**".to_owned(),
            (Ok(measured), _) => match self.missing(kind, measured) {
                Some(row) => format!("not measured: no `{row}`"),
                None => "met".to_owned(),
            },
        };
        let (sign, bound) = match self.bound {
            AtLeast(bound) => ("≥", bound),
            AtMost(bound) => ("≤", bound),
        };
        let shown = |worst: &Ratio| format!("{:.2}{}", worst.value * self.scale, self.unit);
        let beside = measured.map_or_else(|_| String::new(), |measured| self.beside(measured));
        vec![
            if kind.is_empty() { self.what.to_owned() } else { format!("{}, {kind}", self.what) },
            self.part.to_owned(),
            format!("{sign} {bound}{}", self.unit),
            worst.map_or_else(String::new, shown),
            verdict,
            worst.map_or_else(String::new, |worst| format!("{}{beside}", worst.name)),
        ]
    }

    fn is_met_by(&self, figure: &Ratio) -> bool {
        let value = figure.value * self.scale;
        match self.bound {
            AtLeast(bound) => value >= bound,
            AtMost(bound) => value <= bound,
        }
    }

    /// The figures that count.
    fn counted<'a>(&self, kind: &str, measured: &'a Measured) -> Vec<&'a Ratio> {
        let all = measured.ratios.iter().chain(&measured.figures);
        let counts = |one: &&Ratio| self.pairs().any(|pair| is_of(&one.name, kind, pair));
        all.filter(counts).collect()
    }

    fn worst<'a>(&self, kind: &str, measured: &'a Measured) -> Option<&'a Ratio> {
        let counted = self.counted(kind, measured).into_iter();
        let by = |a: &&Ratio, b: &&Ratio| a.value.total_cmp(&b.value);
        match self.bound {
            AtLeast(_) => counted.min_by(by),
            AtMost(_) => counted.max_by(by),
        }
    }

    /// What was to be measured, and has no figure.
    fn missing(&self, kind: &str, measured: &Measured) -> Option<String> {
        let counted = self.counted(kind, measured);
        let is_there = |pair| counted.iter().any(|one| is_of(&one.name, kind, pair));
        let (section, row) = self.pairs().find(|pair| !is_there(*pair))?;
        let parts = [kind, section, row].map(|part| part.trim_matches([' ', ',', ':']));
        Some(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" … "))
    }

    /// The figures that nothing bounds, with their names.
    fn beside(&self, measured: &Measured) -> String {
        let of = |name: &&str| measured.figures.iter().find(|figure| figure.name.contains(*name));
        let shown = |figure: &Ratio| format!("; {}: {}", figure.name, figure.value);
        self.beside.iter().filter_map(of).map(shown).collect()
    }

    fn pairs(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.sections.iter().flat_map(|&section| self.rows.iter().map(move |&row| (section, row)))
    }
}

fn is_of(name: &str, kind: &str, (section, row): (&str, &str)) -> bool {
    name.starts_with(kind) && name.contains(section) && name.contains(row)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::super::text::{self, Reader};
    use super::*;

    /// What the parts have printed in a whole run.
    const SAMPLES: [(&str, Reader, &str); 6] = [
        ("limits", text::limits, include_str!("samples/limits.txt")),
        ("peers", text::peers, include_str!("samples/peers.txt")),
        ("ratios", text::ratios, include_str!("samples/ratios.txt")),
        ("mixes", text::mixes, include_str!("samples/mixes.txt")),
        ("load", text::ratios, include_str!("samples/load.txt")),
        ("ranges", text::ranges, include_str!("samples/ranges.txt")),
    ];

    fn outcome(name: &'static str, measured: Result<Measured, String>) -> Outcome {
        let (built, ran) = (Duration::ZERO, Duration::ZERO);
        Outcome { name, what: "w", command: String::new(), built, ran, measured }
    }

    fn sample(name: &str) -> Measured {
        let (_, reader, text) = SAMPLES.iter().find(|(part, ..)| *part == name).unwrap();
        reader(text)
    }

    /// The verdict on each aim of one part.
    fn verdicts(
        name: &'static str,
        measured: Result<Measured, String>,
        quick: bool,
    ) -> Vec<String> {
        let table = table(&[outcome(name, measured)], quick);
        let of_part = table.rows.into_iter().filter(|row| row[1] == name);
        of_part.map(|row| row[4].clone()).collect()
    }

    #[test]
    fn each_aim_finds_all_its_rows_in_what_its_part_prints() {
        for aim in &AIMS {
            let measured = sample(aim.part);
            for kind in aim.kinds {
                assert_eq!(aim.missing(kind, &measured), None, "{}", aim.what);
            }
            assert_eq!(aim.beside(&measured).matches("; ").count(), aim.beside.len());
        }
    }

    #[test]
    fn rows_of_other_calls_do_not_count() {
        let count = |aim: &Aim| aim.counted(aim.kinds[0], &sample(aim.part)).len();
        // Four lengths, one thread and all.
        let limits = [8, 4, 4, 16, 32, 8];
        assert_eq!(AIMS.iter().take(6).map(count).collect::<Vec<_>>(), limits);
        // The two ways to read back by default.
        let others = [1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1];
        assert_eq!(AIMS.iter().skip(6).map(count).collect::<Vec<_>>(), others);
    }

    #[test]
    fn an_aim_is_met_by_its_worst_row_and_a_row_that_is_gone_is_not_measured() {
        let two = |one: f64, all: f64| {
            let mut measured = Measured::default();
            measured.ratio("256 MiB, all threads: seal_model, no read-back", one);
            measured.ratio("256 MiB, all threads: seal_model, default read-back", all);
            measured.ratio("256 MiB, all threads: seal_model, full read-back", 0.68);
            measured.ratio("128 MiB a GPU: seal on two GPUs at once", 0.89);
            measured
        };
        assert_eq!(verdicts("ratios", Ok(two(0.92, 1.0)), false), ["met", "met", "**not met**"]);
        assert_eq!(verdicts("ratios", Ok(two(1.0, 0.91)), false)[0], "**not met**");
        let shown = table(&[outcome("ratios", Ok(two(1.0, 0.91)))], false).markdown();
        assert!(
            shown.contains(
                "| ≥ 0.92 | 0.91 | **not met** | 256 MiB, all threads: seal_model, default"
            )
        );
        // Both GPUs together, not the share.
        assert!(shown.contains("| ≥ 1.8 | 1.78 |"), "{shown}");
        let gone = verdicts("ratios", Ok(two(0.92, f64::NAN)), false);
        let row = "256 MiB, all threads: seal_model … default read-back";
        assert_eq!(gone[0], format!("not measured: no `{row}`"));
        assert_eq!(verdicts("ratios", Ok(two(0.5, f64::NAN)), false)[0], "**not met**");
    }

    #[test]
    fn a_length_that_was_left_out_is_not_measured() {
        let all = include_str!("samples/limits.txt");
        let fewer = all.replace(", 2097152 KiB", ", 1 KiB");
        let mut measured = text::limits(&fewer);
        measured.ratios.iter_mut().for_each(|ratio| ratio.value = 2.0);
        let verdicts = verdicts("limits", Ok(measured), false);
        let (met, not): (Vec<_>, Vec<_>) = verdicts.iter().partition(|verdict| *verdict == "met");
        // Up to 4 MiB nothing is missing.
        assert_eq!(met.len(), 2, "{verdicts:?}");
        assert!(not[0].contains("no `Aes256Gcm … 2097152 KiB … seal"), "{not:?}");
        assert!(not.iter().all(|verdict| verdict.contains("not measured: no `")), "{not:?}");
    }

    #[test]
    fn a_time_is_bound_from_above() {
        let fixed = |seal: f64| {
            let mut measured = sample("mixes");
            measured.figures.clear();
            measured.figure("fixed cost of seal, µs", seal);
            verdicts("mixes", Ok(measured), false)[1].clone()
        };
        assert_eq!([fixed(4.9), fixed(5.1)], ["met", "**not met**"]);
    }

    #[test]
    fn nothing_is_met_by_a_quick_run_or_by_a_part_that_failed_or_did_not_run() {
        for (name, ..) in SAMPLES {
            let quick = verdicts(name, Ok(sample(name)), true);
            assert!(quick.iter().all(|verdict| verdict == "quick"), "{quick:?}");
            let failed = verdicts(name, Err("no".to_owned()), false);
            assert!(failed.iter().all(|verdict| verdict == "not measured: part failed"));
        }
        let none = table(&[], false);
        assert!(none.rows.iter().all(|row| row[4] == "not measured: part not run"));
    }
}
