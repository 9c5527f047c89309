//! What is measured: every bench of the workspace, the examples that measure, and the peers.

use std::path::Path;

use super::text::{self, Reader};
use crate::shell::{self, Child};

/// Where the peers live, a workspace of its own.
pub(crate) const PEERS: &str = "tests/peers";

/// One program that measures.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    pub(crate) what: &'static str,
    target: Target,
    /// Arguments of a whole run, and of a quick one.
    whole: &'static [&'static str],
    quick: &'static [&'static str],
    pub(crate) figures: Figures,
}

/// How a part is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Under the name of the part.
    Bench,
    Example(&'static str),
    Peers,
}

/// Where its figures are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Figures {
    /// In criterion's folder.
    Criterion,
    /// In what it prints.
    Printed(Reader),
}

/// How much is measured, and how it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    Whole,
    /// Shows that all of it works.
    Quick,
    /// The same, built as the tests are.
    QuickDebug,
}

const CRITERION: &[&str] = &["--warm-up-time", "0.5", "--measurement-time", "2"];
const QUICK: &[&str] = &["--quick"];

/// All packages that have benches: their features together, so that each library is built once for all parts.
const WITH_BENCHES: [&str; 12] = [
    "-p",
    "cuda-shim",
    "-p",
    "vram-alloc",
    "-p",
    "vram-gpu",
    "-p",
    "vram-residency",
    "-p",
    "vram-seal",
    // The bench `load` reads model files.
    "--features",
    "vram-residency/models",
];

/// All parts, in the order in which they run.
pub(crate) const PARTS: [Part; 17] = [
    Part::criterion("alloc", "vram-alloc", "ledger, arena, bounds check"),
    Part::criterion("copy", "vram-gpu", "copies to and from a host device beside plain ones"),
    Part::criterion("fingerprint", "vram-gpu", "fingerprints beside BLAKE3 and a copy"),
    Part::criterion("call", "cuda-shim", "a call of the driver through its trampoline"),
    Part::criterion("seal", "vram-seal", "the sealer beside a copy of the same bytes"),
    Part {
        quick: QUICK,
        ..Part::printed(
            "limits",
            "vram-seal",
            "the sealer beside its hash and its cipher alone",
            text::limits,
        )
    },
    Part::criterion("facade", "vram-residency", "the facade beside the bare sealer"),
    Part {
        quick: QUICK,
        ..Part::printed(
            "ratios",
            "vram-residency",
            "the same and two GPUs, in alternating rounds",
            text::ratios,
        )
    },
    Part {
        quick: &["--rounds", "1"],
        ..Part::printed(
            "mixes",
            "vram-residency",
            "models of many small and of few large shards",
            text::mixes,
        )
    },
    Part {
        quick: QUICK,
        ..Part::printed(
            "load",
            "vram-residency",
            "`vram load` beside sealing and reading the same bytes",
            text::ratios,
        )
    },
    Part {
        quick: QUICK,
        ..Part::printed(
            "ranges",
            "vram-residency",
            "short ranges of one long shard beside a copy",
            text::ranges,
        )
    },
    Part::criterion("streams", "vram-residency", "files and images beside reading the file"),
    Part {
        quick: QUICK,
        ..Part::printed(
            "tiny_pieces",
            "vram-residency",
            "whole models by the number of pieces",
            text::tiny_pieces,
        )
    },
    Part {
        whole: &["5"],
        quick: &["3"],
        ..Part::printed("rooms", "vram-residency", "calls by the number of shards", text::rooms)
    },
    Part {
        target: Target::Example("fragmentation"),
        whole: &["peers"],
        ..Part::printed(
            "placement",
            "vram-alloc",
            "refusals and time beside other allocators",
            text::placement,
        )
    },
    Part {
        target: Target::Example("fragmentation"),
        whole: &["growth"],
        quick: &["growth", "--quick"],
        ..Part::printed("growth", "vram-alloc", "the arena by the number of pieces", text::growth)
    },
    Part {
        target: Target::Peers,
        quick: QUICK,
        ..Part::printed(
            "peers",
            "vram-peers",
            "other programs and libraries that encrypt",
            text::peers,
        )
    },
];

impl Part {
    const fn criterion(name: &'static str, package: &'static str, what: &'static str) -> Self {
        let (whole, quick) = (CRITERION, QUICK);
        Self {
            name,
            package,
            what,
            target: Target::Bench,
            whole,
            quick,
            figures: Figures::Criterion,
        }
    }

    const fn printed(
        name: &'static str,
        package: &'static str,
        what: &'static str,
        reader: Reader,
    ) -> Self {
        let figures = Figures::Printed(reader);
        Self { name, package, what, target: Target::Bench, whole: &[], quick: &[], figures }
    }

    /// Whether this part measures that bench of that package.
    pub(crate) fn is_bench(&self, package: &str, bench: &str) -> bool {
        self.target == Target::Bench && self.package == package && self.name == bench
    }

    /// Whether it needs libraries that nothing else here needs.
    pub(crate) fn is_peers(&self) -> bool {
        self.target == Target::Peers
    }

    /// What builds it, and what measures.
    pub(crate) fn commands(&self, effort: Effort, target_folder: &Path) -> (Child, Child) {
        let arguments = if effort == Effort::Whole { self.whole } else { self.quick };
        let debug = effort == Effort::QuickDebug;
        let (build, run) = match self.target {
            Target::Bench => {
                let of = if debug {
                    // With the features of all members, as `cargo test --workspace` has built them.
                    shell::cargo(&["bench", "--workspace", "--profile", "dev"])
                } else {
                    shell::cargo(&["bench"]).args(&WITH_BENCHES)
                };
                let of = || of.clone().args(&["--bench", self.name]);
                (of().arg("--no-run"), of())
            }
            Target::Example(example) => {
                // Without a package: with the features of all members, again.
                let of: &[&str] = if debug { &[] } else { &["--release", "-p", self.package] };
                let with = |verb| shell::cargo(&[verb]).args(of).args(&["--example", example]);
                (with("build"), with("run"))
            }
            Target::Peers => {
                let manifest = format!("{PEERS}/Cargo.toml");
                let folder = target_folder.join("peers").display().to_string();
                let of = [
                    "--release",
                    "--locked",
                    "--manifest-path",
                    &manifest,
                    "--target-dir",
                    &folder,
                ];
                let c = shell::is_there("cc");
                let features: &[&str] = if c { &["--features", "aws-lc"] } else { &[] };
                let with = |verb| shell::cargo(&[verb]).args(&of).args(features);
                (with("build"), with("run"))
            }
        };
        let run = if arguments.is_empty() { run } else { run.arg("--").args(arguments) };
        (build, run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(name: &str, effort: Effort) -> (String, String) {
        let part = PARTS.iter().find(|part| part.name == name).unwrap();
        let (build, run) = part.commands(effort, Path::new("/t"));
        (build.line(), run.line())
    }

    #[test]
    fn each_command_alone_repeats_its_part() {
        let (build, run) = lines("limits", Effort::Whole);
        let all = "cargo bench -p cuda-shim -p vram-alloc -p vram-gpu -p vram-residency -p vram-seal \
                   --features vram-residency/models";
        assert_eq!(build, format!("{all} --bench limits --no-run"));
        assert_eq!(run, format!("{all} --bench limits"));
        assert_eq!(lines("rooms", Effort::Quick).1, format!("{all} --bench rooms -- 3"));
        let debug = "cargo bench --workspace --profile dev --bench ratios -- --quick";
        assert_eq!(lines("ratios", Effort::QuickDebug).1, debug);
        let (build, run) = lines("growth", Effort::Whole);
        assert_eq!(build, "cargo build --release -p vram-alloc --example fragmentation");
        assert_eq!(run, "cargo run --release -p vram-alloc --example fragmentation -- growth");
        assert_eq!(lines("placement", Effort::QuickDebug).1, "cargo run --example fragmentation");
        assert!(
            lines("peers", Effort::Quick)
                .1
                .contains("--manifest-path tests/peers/Cargo.toml --target-dir /t/peers")
        );
    }

    #[test]
    fn every_part_that_is_a_bench_is_of_a_package_that_is_built() {
        for part in PARTS.iter().filter(|part| part.target == Target::Bench) {
            assert!(WITH_BENCHES.contains(&part.package), "{}", part.package);
        }
    }

    #[test]
    fn names_are_unique() {
        for (at, part) in PARTS.iter().enumerate() {
            assert!(
                PARTS.iter().skip(at + 1).all(|other| other.name != part.name),
                "{}",
                part.name
            );
        }
    }
}
