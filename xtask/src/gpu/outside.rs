//! A program outside this workspace that uses the facade with the feature `cuda`, written as the
//! facade's README says, so that the README stays true.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{shell, workspace};

/// The page that says what such a program needs.
const README: &str = "crates/vram-residency/README.md";
/// The line after which the page has the manifest and then the program, each in a fenced block.
const HEADING: &str = "## From another workspace, with CUDA";
/// Where the page assumes this workspace to lie.
const ASSUMED: &str = "../vram/";
/// What the program prints on the simulated driver below.
const PRINTED: &str = "Simulated GPU: 1048576 bytes sealed, read back and verified";

/// Writes the program into the target folder, builds it there without a network, and runs it on the
/// simulated driver.
pub(crate) fn run() -> Result<(), String> {
    let here = std::env::current_dir().map_err(|error| error.to_string())?;
    let target = workspace::target_folder()?;
    let folder = target.join("outside");
    write(&folder, &here)?;

    shell::cargo(&["build", "-p", "cuda-sim-so"]).run()?;
    let driver = driver(&target)?;
    let manifest = folder.join("Cargo.toml").display().to_string();
    let program = shell::cargo(&["run", "--quiet", "--offline", "--manifest-path", &manifest])
        // A folder of its own: the patched crates of both workspaces differ.
        .env("CARGO_TARGET_DIR", folder.join("target").display().to_string())
        .env("VRAM_CUDA_DRIVER", driver.display().to_string())
        .env("CUDA_SIM_DEVICES", "capacity=64MiB");
    let (text, passed) = program.run_and_read()?;
    if passed && text.contains(PRINTED) {
        return Ok(());
    }
    Err(format!("the program of {README} does not print `{PRINTED}`"))
}

/// Writes manifest, lock file and source of the program.
fn write(folder: &Path, workspace: &Path) -> Result<(), String> {
    let page = fs::read_to_string(README).map_err(|error| format!("{README}: {error}"))?;
    let [manifest, source] = blocks(&page)?;
    let manifest = manifest.replace(ASSUMED, &format!("{}/", workspace.display()));
    let failed = |error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder.join("src")).map_err(failed)?;
    fs::write(folder.join("Cargo.toml"), manifest).map_err(failed)?;
    fs::write(folder.join("src/main.rs"), source).map_err(failed)?;
    // The versions of this workspace: they are on this machine already.
    fs::copy("Cargo.lock", folder.join("Cargo.lock")).map_err(failed)?;
    Ok(())
}

/// The two fenced blocks after the heading: the manifest and the program.
fn blocks(page: &str) -> Result<[String; 2], String> {
    let missing = |what: &str| format!("{README}: no {what} after `{HEADING}`");
    let (_, rest) = page.split_once(HEADING).ok_or_else(|| missing("section"))?;
    let section = rest.split("\n## ").next().unwrap_or(rest);
    let block = |fence: &str| -> Result<String, String> {
        let (_, rest) = section.split_once(fence).ok_or_else(|| missing(fence))?;
        let (block, _) = rest.split_once("```").ok_or_else(|| missing("end of a block"))?;
        Ok(block.to_owned())
    };
    Ok([block("```toml\n")?, block("```rust,no_run\n")?])
}

/// The shared object of the simulated driver.
fn driver(target: &Path) -> Result<PathBuf, String> {
    let places = ["debug/libcuda_sim_so.so", "debug/deps/libcuda_sim_so.so"];
    let mut places = places.iter().map(|place| target.join(place));
    places
        .find(|path| path.is_file())
        .ok_or_else(|| "cuda-sim-so was built, and is not there".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_a_manifest_with_the_patch_and_a_program() {
        let readme = fs::read_to_string(Path::new("..").join(README)).unwrap();
        let [manifest, source] = blocks(&readme).unwrap();
        assert!(manifest.contains("[patch.crates-io]"), "{manifest}");
        assert!(manifest.contains(ASSUMED), "{manifest}");
        assert!(source.contains("fn main"), "{source}");
        assert!(blocks("# another page").is_err());
    }
}
