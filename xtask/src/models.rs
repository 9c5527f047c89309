//! The models of concurrency: every interleaving under loom, many random ones under shuttle.
//!
//! Loom models are test targets named `loom_*`. Shuttle models are unit tests named `shuttle_*` of
//! the packages that depend on shuttle; they read `VRAM_MODEL_SCHEDULES`.

use crate::shell::{self, Child};
use crate::workspace;

/// How much time the models may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Minutes in all: for CI.
    Short,
    /// As long as it takes: for a stress run.
    Long,
}

impl Effort {
    /// The number of schedules that shuttle tries for each model.
    fn schedules(self) -> &'static str {
        match self {
            Self::Short => "2000",
            Self::Long => "50000",
        }
    }

    /// The time limit of one model.
    fn limit_seconds(self) -> &'static str {
        match self {
            Self::Short => "300",
            Self::Long => "3600",
        }
    }
}

/// All models of the workspace: a name and a command for each group.
pub(crate) fn all(effort: Effort) -> Result<Vec<(String, Child)>, String> {
    let loom = workspace::tests_beginning_with(&["loom_"], None)?;
    let loom = loom.into_iter().map(|(package, target)| {
        let child = shell::cargo(&["test", "--release", "-p", &package, "--test", &target]);
        (format!("{package} {target}"), compiled_for("loom", child))
    });
    let packages = workspace::packages()?;
    let shuttle = packages.iter().filter(|package| {
        package.dependencies.iter().any(|dependency| dependency.name == "shuttle")
    });
    let shuttle = shuttle.map(|package| {
        let child = shell::cargo(&["test", "--profile", "proptest", "-p", &package.name, "--lib"])
            .arg("shuttle_")
            .env("VRAM_MODEL_SCHEDULES", effort.schedules());
        (format!("{} shuttle_*", package.name), compiled_for("shuttle", child))
    });
    let limited = |(name, child): (String, Child)| {
        (name, child.env(shell::TEST_LIMIT, effort.limit_seconds()))
    };
    Ok(loom.chain(shuttle).map(limited).collect())
}

/// `child`, compiled with `--cfg` and into a target folder of its own: another cfg would overwrite
/// the usual build.
fn compiled_for(cfg: &str, child: Child) -> Child {
    child.env("RUSTFLAGS", format!("--cfg {cfg}")).env("CARGO_TARGET_DIR", format!("target/{cfg}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_of_the_ledger_are_found_and_built_apart() {
        let models = all(Effort::Short).unwrap();
        let (_, ledger) = models.iter().find(|(name, _)| name == "vram-alloc loom_ledger").unwrap();
        let line = ledger.line();
        assert!(line.contains("RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=target/loom"), "{line}");
    }
}
