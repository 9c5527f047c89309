//! Building the programs that run targets.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PACKAGE;
use crate::shell;

/// What cargo-fuzz passes without a sanitizer: counters of edges, and the operands of comparisons.
const FLAGS: &[&str] = &[
    "--cfg fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// The profile: optimized, with all checks.
const PROFILE: &str = "fuzz";

/// The C++ compiler that builds libFuzzer, if one starts.
pub(crate) fn cxx() -> Option<String> {
    let named = std::env::var("CXX").ok().filter(|name| !name.is_empty());
    let name = named.unwrap_or_else(|| "c++".to_owned());
    let asked = Command::new(&name)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success()).then_some(name)
}

/// The program with libFuzzer, in an instrumented build.
pub(super) fn coverage(home: &Path) -> Result<PathBuf, String> {
    if cxx().is_none() {
        return Err(
            "libFuzzer is C++, and there is no C++ compiler: install g++ or clang, or name \
                    one in CXX"
                .to_owned(),
        );
    }
    let host = host()?;
    let features = ["--features", "libfuzzer", "--bin", "fuzz-coverage"];
    // With a target, since build scripts and macros are then built without these flags.
    build(home, &features)
        .arg("--target")
        .arg(host.as_str())
        .env("RUSTFLAGS", FLAGS.join(" "))
        .run()?;
    Ok(home.join(host).join(PROFILE).join("fuzz-coverage"))
}

/// The program without libFuzzer.
pub(super) fn plain(home: &Path) -> Result<PathBuf, String> {
    build(home, &["--bin", "fuzz-plain"]).run()?;
    Ok(home.join(PROFILE).join("fuzz-plain"))
}

fn build(home: &Path, more: &[&str]) -> shell::Child {
    let child = shell::cargo(&["build", "--profile", PROFILE, "-p", PACKAGE]);
    let child = child.arg("--target-dir").arg(home.display().to_string());
    more.iter().fold(child, |child, word| child.arg(*word))
}

/// The triple of this machine.
fn host() -> Result<String, String> {
    let text = shell::program("rustc", &["-vV"]).read()?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_one_that_cargo_builds_for() {
        let host = host().unwrap();
        assert!(host.contains('-') && !host.contains(' '), "{host}");
    }

    #[test]
    fn builds_go_to_a_folder_of_their_own() {
        let line = build(Path::new("there"), &["--bin", "fuzz-plain"]).line();
        assert!(line.contains("--target-dir there --bin fuzz-plain"), "{line}");
    }
}
