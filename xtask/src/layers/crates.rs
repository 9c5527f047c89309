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
    Room { name: "vram-nvml", ours: &["vram-alloc"], may_be_unsafe: false },
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
            "vram-nvml",
        ],
        may_be_unsafe: false,
    },
    Room { name: "vram-view", ours: &[], may_be_unsafe: false },
    Room {
        name: "vram-serve",
        ours: &["vram-residency", "vram-store", "vram-view"],
        may_be_unsafe: false,
    },
    Room {
        name: "vram-cli",
        ours: &[
            "vram-residency",
            "vram-files",
            "vram-model",
            "vram-store",
            "vram-serve",
            "vram-view",
        ],
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
    Room { name: "nvml-sim-so", ours: &[], may_be_unsafe: true },
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
    Room { name: "vram-peers", ours: &["vram-seal", "vram-files"], may_be_unsafe: false },
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
    ("rustix", &["vram-files", "vram-gpu", "vram-serve"]),
    ("safetensors", &["vram-model"]),
    ("object_store", &["vram-store"]),
    ("tokio", &["vram-store", "vram-serve"]),
    ("bytes", &["vram-store"]),
    ("futures-util", &["vram-store", "vram-serve"]),
    ("reqwest", &["vram-store"]),
    ("rustls", &["vram-store", "vram-serve"]),
    // Besides parsing headers: the program's `--json`, the metadata that this program reads, the
    // lines of an audit, manifests, what a server answers, what Python is told, and the snapshot in
    // a page.
    (
        "serde_json",
        &[
            "vram-model",
            "vram-audit",
            "vram-store",
            "vram-view",
            "vram-serve",
            "vram-cli",
            "vram-py",
            "xtask",
        ],
    ),
    ("axum", &["vram-serve"]),
    ("hyper", &["vram-serve"]),
    ("hyper-util", &["vram-serve"]),
    ("http-body-util", &["vram-serve"]),
    ("socket2", &["vram-serve"]),
    ("subtle", &["vram-serve"]),
    ("tokio-rustls", &["vram-serve"]),
    ("toml", &["vram-serve"]),
    ("pyo3", &["vram-py"]),
    ("clap", &["vram-cli"]),
    ("clap_complete", &["vram-cli"]),
    ("clap_mangen", &["vram-cli"]),
    ("indicatif", &["vram-cli"]),
    ("signal-hook", &["vram-cli"]),
    ("terminal_size", &["vram-cli"]),
    ("libloading", &["cuda-shim"]),
    ("nvml-wrapper", &["vram-nvml"]),
    // The types of the real library, for the simulated one.
    ("nvml-wrapper-sys", &["nvml-sim-so"]),
];

/// Suites that are libraries or programs: as tests, they may use any foreign crate.
const SUITES: &[&str] = &["vram-fuzz", "vram-tests", "vram-peers"];

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
    ("vram-cli", "nvml-sim-so", "its shared object stands in for the library; never linked"),
    ("vram-nvml", "nvml-sim-so", "its shared object stands in for the library; never linked"),
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
mod tests;
