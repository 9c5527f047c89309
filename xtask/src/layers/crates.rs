//! The permitted imports between crates: compares the table of ARCHITECTURE.md with the manifests.
//!
//! It covers dev-dependencies too, except for a short list. The pairs of `STRANGERS` must not meet in
//! any of them.

use std::collections::BTreeSet;

use crate::workspace::Package;

/// One crate's row in the table.
struct Room {
    name: &'static str,
    /// The workspace's crates that it may import.
    ours: &'static [&'static str],
    /// Whether the crate may contain `unsafe` at all; all others have `forbid(unsafe_code)`.
    may_be_unsafe: bool,
}

const ROOMS: &[Room] = &[
    Room { name: "vram-alloc", ours: &[], may_be_unsafe: false },
    Room { name: "vram-id", ours: &[], may_be_unsafe: false },
    Room { name: "vram-seal", ours: &["vram-alloc"], may_be_unsafe: false },
    Room {
        name: "vram-events",
        ours: &["vram-alloc", "vram-id", "vram-seal"],
        may_be_unsafe: false,
    },
    Room { name: "vram-files", ours: &["vram-alloc", "vram-seal"], may_be_unsafe: false },
    Room {
        name: "vram-store",
        ours: &["vram-alloc", "vram-seal", "vram-files"],
        may_be_unsafe: false,
    },
    Room {
        name: "vram-ticket",
        ours: &["vram-alloc", "vram-id", "vram-seal"],
        may_be_unsafe: false,
    },
    Room {
        name: "vram-audit",
        ours: &["vram-events", "vram-id", "vram-seal", "vram-files"],
        may_be_unsafe: false,
    },
    // `deny(unsafe_code)`, lifted only for its CUDA module, the host device's mapping and one file of
    // vector instructions.
    Room { name: "vram-gpu", ours: &["vram-alloc", "cuda-shim"], may_be_unsafe: true },
    Room { name: "vram-model", ours: &["vram-alloc"], may_be_unsafe: false },
    Room { name: "vram-space", ours: &["vram-alloc", "vram-gpu"], may_be_unsafe: false },
    Room {
        name: "vram-core",
        ours: &[
            "vram-alloc",
            "vram-id",
            "vram-seal",
            "vram-gpu",
            "vram-events",
            "vram-ticket",
            "vram-files",
            "vram-space",
        ],
        may_be_unsafe: false,
    },
    Room {
        name: "vram-residency",
        ours: &[
            "vram-alloc",
            "vram-id",
            "vram-seal",
            "vram-gpu",
            "vram-events",
            "vram-ticket",
            "vram-files",
            "vram-space",
            "vram-core",
            "vram-audit",
            "vram-model",
        ],
        may_be_unsafe: false,
    },
    Room {
        name: "vram-cli",
        ours: &["vram-residency", "vram-model", "vram-store"],
        may_be_unsafe: false,
    },
    // `deny(unsafe_code)`, lifted only for the folder of its C structures.
    Room { name: "vram-py", ours: &["vram-residency"], may_be_unsafe: true },
    Room { name: "cuda-shim", ours: &[], may_be_unsafe: true },
    Room { name: "find_cuda_helper", ours: &[], may_be_unsafe: false },
    Room { name: "cuda-sim-engine", ours: &[], may_be_unsafe: true },
    Room { name: "cuda-sim", ours: &["cuda-shim", "cuda-sim-engine"], may_be_unsafe: true },
    // Not cuda-shim: its trampolines have the names that the shared object exports.
    Room { name: "cuda-sim-so", ours: &["cuda-sim-engine"], may_be_unsafe: true },
    Room { name: "vram-test-limit", ours: &[], may_be_unsafe: false },
    Room { name: "vram-testkit", ours: &["vram-test-limit"], may_be_unsafe: false },
    Room {
        name: "vram-test-rigs",
        ours: &["vram-alloc", "vram-gpu", "vram-residency", "vram-testkit"],
        may_be_unsafe: false,
    },
    Room {
        name: "vram-fuzz",
        ours: &[
            "vram-alloc",
            "vram-id",
            "vram-seal",
            "vram-ticket",
            "vram-audit",
            "vram-model",
            "vram-residency",
        ],
        may_be_unsafe: false,
    },
    Room { name: "vram-planted", ours: &[], may_be_unsafe: false },
    Room { name: "xtask", ours: &[], may_be_unsafe: false },
    Room {
        name: "vram-tests",
        ours: &[
            "vram-alloc",
            "vram-id",
            "vram-seal",
            "vram-events",
            "vram-ticket",
            "vram-files",
            "vram-store",
            "vram-audit",
            "vram-gpu",
            "vram-model",
            "vram-residency",
            "vram-test-rigs",
            "cuda-shim",
            "cuda-sim",
            "cuda-sim-so",
        ],
        may_be_unsafe: false,
    },
];

/// Foreign crates that only one crate (or a few) may use, and those crates.
const HOMES: &[(&str, &[&str])] = &[
    ("ring", &["vram-seal"]),
    ("blake3", &["vram-seal"]),
    ("cust", &["vram-gpu"]),
    ("cust_raw", &["vram-gpu", "cuda-sim"]),
    ("dashmap", &["vram-core"]),
    ("ulid", &["vram-id"]),
    ("rustix", &["vram-files", "vram-gpu"]),
    ("safetensors", &["vram-model"]),
    ("object_store", &["vram-store"]),
    ("tokio", &["vram-store"]),
    ("futures-util", &["vram-store"]),
    ("reqwest", &["vram-store"]),
    ("rustls", &["vram-store"]),
    // Besides parsing headers: the program's `--json`, the metadata that this program reads, the
    // lines of an audit, manifests, and what Python is told.
    ("serde_json", &["vram-model", "vram-audit", "vram-store", "vram-cli", "vram-py", "xtask"]),
    ("pyo3", &["vram-py"]),
    ("clap", &["vram-cli"]),
    ("indicatif", &["vram-cli"]),
    ("terminal_size", &["vram-cli"]),
    ("libloading", &["cuda-shim"]),
];

/// Suites that are libraries or programs: as tests, they may use any foreign crate.
const SUITES: &[&str] = &["vram-fuzz"];

/// Pairs that must not depend on each other in either direction, not even in dev-dependencies.
const STRANGERS: &[(&str, &str)] = &[
    ("vram-seal", "vram-gpu"),
    ("vram-seal", "vram-space"),
    ("vram-id", "vram-gpu"),
    ("vram-events", "vram-gpu"),
    ("vram-ticket", "vram-gpu"),
    ("vram-files", "vram-gpu"),
    ("vram-audit", "vram-gpu"),
];

/// Dev-dependencies that the table does not allow: who, on whom, and why.
const DEV_EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("vram-core", "vram-residency", "examples in its documentation go through the facade"),
    ("vram-cli", "cuda-sim-so", "its shared object stands in for the driver; never linked"),
    ("cuda-sim-so", "cuda-shim", "its tests load it through the shim, as a program does"),
    ("cuda-sim-so", "vram-gpu", "its tests run the CUDA device on it"),
    ("cuda-sim-so", "vram-alloc", "the amounts in those tests"),
    ("vram-residency", "vram-test-rigs", "what its suites repeat; nothing else depends on it"),
];

/// The kit of all test suites, which gives every test its limit: each crate may use it in its tests.
const KIT: &str = "vram-testkit";

fn excepted(name: &str, target: &str) -> bool {
    target == KIT || DEV_EXCEPTIONS.iter().any(|(who, whom, _)| (*who, *whom) == (name, target))
}

fn strangers(one: &str, other: &str) -> bool {
    STRANGERS.contains(&(one, other)) || STRANGERS.contains(&(other, one))
}

/// Dependencies in the manifests that the table does not permit.
pub(super) fn breaches(packages: &[Package]) -> Vec<String> {
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut breaches = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
            breaches.push(format!("{name} has no place in the table (xtask/src/layers/crates.rs)"));
            continue;
        };
        for dependency in &package.dependencies {
            let target = dependency.name.as_str();
            if strangers(name, target) {
                breaches.push(format!("{name} and {target} never meet"));
            }
            let dev = dependency.kind == "dev";
            let allowed = room.ours.contains(&target) || (dev && excepted(name, target));
            if ours.contains(target) && !allowed {
                breaches.push(format!("{name} must not import {target}"));
            }
            if dev || SUITES.contains(&name) {
                continue;
            }
            let home = HOMES.iter().find(|(foreign, _)| *foreign == target);
            if let Some((_, homes)) = home
                && !homes.contains(&name)
            {
                breaches.push(format!("{name} must not import {target}: its home is {homes:?}"));
            }
        }
    }
    breaches
}

/// Whether a crate may hold `unsafe` at all.
pub(super) fn may_be_unsafe(name: &str) -> bool {
    ROOMS.iter().any(|room| room.name == name && room.may_be_unsafe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependencies: &[(&str, &str)]) -> Package {
        Package {
            name: name.to_owned(),
            targets: Vec::new(),
            dependencies: dependencies
                .iter()
                .map(|&(name, kind)| Dependency { name: name.to_owned(), kind: kind.to_owned() })
                .collect(),
            features: BTreeSet::new(),
        }
    }

    #[test]
    fn an_arrow_that_runs_up_or_sideways_is_a_breach() {
        let house = |dependencies: &[(&str, &str)]| {
            breaches(&[
                package("vram-alloc", &[]),
                package("vram-gpu", &[("vram-alloc", "normal")]),
                package("vram-residency", &[]),
                package("vram-seal", dependencies),
            ])
        };
        assert!(house(&[("vram-alloc", "normal"), ("ring", "normal")]).is_empty());
        assert_eq!(house(&[("vram-residency", "normal")]).len(), 1);
        assert_eq!(house(&[("vram-residency", "dev")]).len(), 1, "tests do not look up either");
        let met = house(&[("vram-gpu", "dev")]);
        assert!(met.contains(&"vram-seal and vram-gpu never meet".to_owned()), "{met:?}");
        assert_eq!(house(&[("dashmap", "normal")]).len(), 1);
        assert!(house(&[("dashmap", "dev")]).is_empty());
    }

    #[test]
    fn dev_dependencies_obey_the_table_but_for_the_exceptions() {
        let breach = |name: &str, target: &str, kind: &str| {
            let all = breaches(&[package(name, &[(target, kind)]), package(target, &[])]);
            all.contains(&format!("{name} must not import {target}"))
        };
        for (name, target) in [
            ("vram-id", "vram-core"),
            ("vram-seal", "vram-residency"),
            ("vram-alloc", "vram-gpu"),
            ("vram-seal", "vram-test-rigs"),
        ] {
            assert!(breach(name, target, "dev"), "{name} and {target}");
        }
        assert!(!breach("vram-seal", "vram-alloc", "dev"));
        assert!(!breach("vram-seal", KIT, "dev") && breach("vram-seal", KIT, "normal"));
        for (name, target, reason) in DEV_EXCEPTIONS {
            assert!(!reason.is_empty() && !breach(name, target, "dev"), "{name} and {target}");
            assert!(breach(name, target, "normal"), "{name} and {target}: no exception is needed");
        }
    }

    /// All that a crate brings with it by the table.
    fn brought(name: &str) -> BTreeSet<&'static str> {
        let room = ROOMS.iter().find(|room| room.name == name);
        let own = room.map(|room| room.ours).unwrap_or_default();
        own.iter().flat_map(|ours| brought(ours).into_iter().chain([*ours])).collect()
    }

    #[test]
    fn no_exception_and_no_third_crate_lets_strangers_meet() {
        let tests = DEV_EXCEPTIONS.iter().map(|(who, whom, _)| (*who, *whom));
        let table = ROOMS.iter().flat_map(|room| room.ours.iter().map(|ours| (room.name, *ours)));
        for (who, whom) in tests.chain(table) {
            let all = brought(whom).into_iter().chain([whom]);
            let met: Vec<_> = all.filter(|brought| strangers(who, brought)).collect();
            assert!(met.is_empty(), "{who} meets {met:?} through {whom}");
        }
    }

    #[test]
    fn a_foreign_crate_outside_its_home_is_a_breach() {
        for (foreign, homes) in HOMES {
            let found = breaches(&[package("vram-space", &[(foreign, "normal")])]);
            assert_eq!(found.len(), 1, "{foreign}");
            assert!(breaches(&[package(homes[0], &[(foreign, "normal")])]).is_empty(), "{foreign}");
        }
    }

    #[test]
    fn strangers_do_not_meet_in_either_direction() {
        let met = |one, other| breaches(&[package(one, &[(other, "dev")])]);
        for (one, other) in STRANGERS {
            for (one, other) in [(one, other), (other, one)] {
                assert!(strangers(one, other), "{one} and {other}");
                // A planned crate that does not exist yet has no row.
                if ROOMS.iter().any(|room| room.name == *one) {
                    assert_eq!(met(one, other), [format!("{one} and {other} never meet")]);
                }
            }
        }
        assert!(met("vram-residency", "vram-gpu").is_empty());
    }

    /// The rows of ARCHITECTURE.md's table of crates: name, our crates, foreign crates.
    fn documented() -> Vec<[String; 3]> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md");
        let text = std::fs::read_to_string(path).unwrap();
        let rows = text.lines().skip_while(|line| !line.starts_with("| crate | is |")).skip(2);
        let rows = rows.take_while(|line| line.starts_with('|')).map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [name, _, ours, foreign] = cells.as_slice() else { panic!("{line}") };
            [name.trim_matches('`').to_owned(), (*ours).to_owned(), (*foreign).to_owned()]
        });
        rows.collect()
    }

    /// The names that a cell gives in backticks.
    fn quoted(cell: &str) -> BTreeSet<&str> {
        cell.split('`').skip(1).step_by(2).collect()
    }

    #[test]
    fn architecture_md_says_the_same_of_our_crates() {
        let rows = documented();
        let mut compared = 0_usize;
        for (at, [name, ours, _]) in rows.iter().enumerate() {
            // Rows of several crates, and of the tests, name no list.
            let Some(room) = ROOMS.iter().find(|room| room.name == name) else { continue };
            let listed = quoted(ours);
            let expected: BTreeSet<&str> = if let Some(but) = ours.strip_prefix("all above") {
                let but = quoted(but);
                let above = rows[..at].iter().map(|[name, ..]| name.as_str());
                above.filter(|name| !but.contains(name)).collect()
            } else {
                assert!(!listed.is_empty() || ours == "nothing", "{name}: {ours}");
                listed
            };
            let table: BTreeSet<&str> = room.ours.iter().copied().collect();
            assert_eq!(table, expected, "{name}");
            compared += 1;
        }
        assert!(compared >= 16, "{compared} rows of {}", rows.len());
    }

    #[test]
    fn architecture_md_says_the_same_of_foreign_crates() {
        let rows = documented();
        let listed: BTreeSet<(&str, &str)> = rows
            .iter()
            .filter(|[_, _, foreign]| foreign != "–")
            .flat_map(|[name, _, foreign]| foreign.split(", ").map(|one| (one, name.as_str())))
            .collect();
        let alone = HOMES.iter().filter_map(|(foreign, homes)| match homes {
            [home] => Some((*foreign, *home)),
            _ => None,
        });
        assert_eq!(alone.collect::<BTreeSet<_>>(), listed);
        assert!(listed.contains(&("libloading", "cuda-shim")));
    }

    #[test]
    fn a_crate_without_a_place_is_a_breach() {
        assert_eq!(breaches(&[package("vram-extra", &[])]).len(), 1);
    }
}
