//! `cargo xtask operator`: the files in docs/operator, read by the programs that they are for.

use std::fs;

use crate::{shell, workspace};

/// Where they lie.
const FOLDER: &str = "docs/operator";

/// Checks them. Each program that is not there is one line NOT RUN.
pub(crate) fn run() -> Result<(), String> {
    let file = |name: &str| format!("{FOLDER}/{name}");
    let mut failures = Vec::new();
    if shell::is_there("promtool") {
        for (what, name) in [("check", "alerts.yml"), ("test", "alerts.test.yml")] {
            let child = shell::program("promtool", &[what, "rules", &file(name)]);
            failures.extend(child.run().err());
        }
    } else {
        println!("NOT RUN: no promtool; install it with `apt-get install prometheus`");
    }
    if shell::is_there("systemd-analyze") {
        failures.extend(unit(&file("vram.service")).err());
    } else {
        println!("NOT RUN: no systemd-analyze; install it with `apt-get install systemd`");
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Checks the unit, with a program and a manual page that are there in place of its own.
fn unit(path: &str) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let text: String = text
        .replace("/usr/local/bin/vram", "/bin/true")
        .lines()
        .filter(|line| !line.starts_with("Documentation="))
        .flat_map(|line| [line, "\n"])
        .collect();
    let copy = workspace::target_folder()?.join("operator");
    fs::create_dir_all(&copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    let copy = copy.join("vram.service").display().to_string();
    fs::write(&copy, text).map_err(|error| format!("{copy}: {error}"))?;
    shell::program("systemd-analyze", &["verify", &copy]).run()?;
    // In percent: 0 is the least exposed. Of its long table the last line says it.
    let options = ["security", "--no-pager", "--offline=yes", "--threshold=25", &copy];
    let told = shell::program("systemd-analyze", &options).read()?;
    println!("{}", told.lines().next_back().unwrap_or_default());
    Ok(())
}
