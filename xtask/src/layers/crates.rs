//! The permitted imports between crates: compares the table of ARCHITECTURE.md with the manifests.
//!
//! It covers normal and build dependencies. The pairs of `STRANGERS` must not meet in
//! dev-dependencies either.

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
        name: "vram-ticket",
        ours: &["vram-alloc", "vram-id", "vram-seal"],
        may_be_unsafe: false,
    },
    Room {
        name: "vram-audit",
        ours: &["vram-events", "vram-id", "vram-seal", "vram-files"],
        may_be_unsafe: false,
    },
    // `deny(unsafe_code)`, lifted only for its CUDA module.
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
        ],
        may_be_unsafe: false,
    },
    Room { name: "vram-cli", ours: &["vram-residency", "vram-model"], may_be_unsafe: false },
    Room { name: "cuda-shim", ours: &[], may_be_unsafe: true },
    Room { name: "find_cuda_helper", ours: &[], may_be_unsafe: false },
    Room { name: "cuda-sim-engine", ours: &[], may_be_unsafe: true },
    Room { name: "cuda-sim", ours: &["cuda-shim", "cuda-sim-engine"], may_be_unsafe: true },
    // Not cuda-shim: its trampolines have the names that the shared object exports.
    Room { name: "cuda-sim-so", ours: &["cuda-sim-engine"], may_be_unsafe: true },
    Room { name: "vram-testkit", ours: &[], may_be_unsafe: false },
    Room {
        name: "vram-test-rigs",
        ours: &["vram-alloc", "vram-gpu", "vram-residency", "vram-testkit"],
        may_be_unsafe: false,
    },
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
    ("rustix", &["vram-files"]),
    ("safetensors", &["vram-model"]),
    // Besides parsing headers: the program's `--json`, the metadata that this program reads, and
    // the lines of an audit.
    ("serde_json", &["vram-model", "vram-audit", "vram-cli", "xtask"]),
    ("clap", &["vram-cli"]),
    ("indicatif", &["vram-cli"]),
];

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
            if dependency.kind == "dev" {
                continue;
            }
            if ours.contains(target) && !room.ours.contains(&target) {
                breaches.push(format!("{name} must not import {target}"));
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

/// Library, binary and build-script roots without a required `forbid(unsafe_code)`.
pub(super) fn missing_forbid(package: &Package) -> Result<Vec<String>, String> {
    let may = ROOMS.iter().any(|room| room.name == package.name && room.may_be_unsafe);
    let mut breaches = Vec::new();
    for target in &package.targets {
        if !["lib", "bin"].contains(&target.kind.as_str()) || may {
            continue;
        }
        let source = std::fs::read_to_string(&target.source)
            .map_err(|error| format!("{}: {error}", target.source.display()))?;
        if !source.contains("#![forbid(unsafe_code)]") {
            breaches.push(format!("{} {} lacks forbid(unsafe_code)", package.name, target.name));
        }
    }
    Ok(breaches)
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
        assert_eq!(house(&[("vram-gpu", "dev")]).len(), 1, "siblings do not meet in tests either");
        assert_eq!(house(&[("dashmap", "normal")]).len(), 1);
        assert!(house(&[("dashmap", "dev")]).is_empty());
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

    #[test]
    fn a_crate_without_a_place_is_a_breach() {
        assert_eq!(breaches(&[package("vram-extra", &[])]).len(), 1);
    }
}
