//! `cargo xtask examples`: runs every example of the workspace, as built for the tests.

use std::fs;
use std::path::Path;

use crate::{shell, workspace};

/// Examples that need a server, and a feature: the tests of `vram` with CUDA build and run them.
const BY_TESTS: &[&str] = &["worker"];

/// Runs all of them, also after one has failed, so that one run reports all failures.
pub(crate) fn run() -> Result<(), String> {
    // Builds all of them together, with the features of `cargo test --workspace`: nothing is built
    // twice.
    shell::cargo(&["build", "--workspace", "--examples"]).run()?;
    let target = workspace::target_folder()?;
    let scratch = target.join("examples-scratch");
    fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;

    let mut failures = Vec::new();
    for package in workspace::packages()? {
        for example in package.targets.iter().filter(|target| target.kind == "example") {
            if BY_TESTS.contains(&example.name.as_str()) {
                println!("{}: run by the tests of {} with CUDA", example.name, package.name);
                continue;
            }
            let path = target.join("debug").join("examples").join(&example.name);
            let Some(path) = path.to_str().filter(|_| path.is_file()) else {
                return Err(format!("{} was not built: it needs a feature", example.name));
            };
            let mut child = shell::program(path, &[]);
            for argument in arguments(&example.name, &scratch) {
                child = child.arg(argument);
            }
            if let Err(error) = child.run() {
                failures.push(format!("{} of {}: {error}", example.name, package.name));
            }
        }
    }
    let _left_over = fs::remove_dir_all(&scratch);
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// The arguments of an example that does nothing without them.
fn arguments(example: &str, scratch: &Path) -> Vec<String> {
    let file = |name: &str| scratch.join(name).display().to_string();
    match example {
        // Without `--check` it writes a source file.
        "generate" => vec!["--check".to_owned()],
        "synth" => vec!["1MiB".to_owned(), file("synth.safetensors")],
        _ => Vec::new(),
    }
}
