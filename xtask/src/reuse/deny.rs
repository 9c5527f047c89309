//! `cargo xtask deny`: licences and sources of all foreign crates, by a check of our own that needs no tool, and by cargo-deny where it is.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::license;
use crate::{bench, shell, workspace};

/// What is accepted, for both checks.
const ACCEPTED: &str = "xtask/deny.toml";
/// The only place that crates come from.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The lists of licences in the file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Accepted {
    licenses: Vec<String>,
    /// A crate, and one more licence that is accepted of it alone.
    exceptions: Vec<(String, String)>,
}

/// Runs both.
pub(crate) fn run() -> Result<(), String> {
    let text = fs::read_to_string(ACCEPTED).map_err(|error| format!("{ACCEPTED}: {error}"))?;
    let accepted = Accepted::read(&text);
    let metadata = workspace::metadata_of_all()?;
    let foreign = foreign_of(&metadata);
    if foreign.is_empty() || accepted.licenses.is_empty() {
        return Err("no foreign crate, or no accepted licence, was found".to_owned());
    }
    let mut refused: Vec<String> =
        foreign.iter().filter_map(|package| why_refused(package, &accepted)).collect();
    println!("{} foreign crates: {} refused", foreign.len(), refused.len());
    for (name, versions) in several_versions(&foreign) {
        println!("  {name} in {} versions: {}", versions.len(), versions.join(", "));
    }
    // Measured beside ours, and no part of any other build.
    let peers = workspace::metadata_of_all_in(bench::PEERS)?;
    let of_peers = foreign_of(&peers);
    println!("{} of {}", of_peers.len(), bench::PEERS);
    refused.extend(of_peers.into_iter().filter_map(|package| why_refused(package, &accepted)));
    if !refused.is_empty() {
        return Err(refused.join("\n"));
    }
    if !shell::is_there("cargo-deny") {
        println!("NOT RUN: no cargo-deny; install it with `cargo install cargo-deny`");
        return Ok(());
    }
    let checks =
        ["--config", ACCEPTED, "check", "--hide-inclusion-graph", "licenses", "bans", "sources"];
    shell::cargo(&["deny"]).args(&checks).run()
}

/// The crates that are not ours.
fn foreign_of(metadata: &Value) -> Vec<&Value> {
    let packages = workspace::array(metadata, "packages").iter();
    packages.filter(|package| !workspace::text(package, "source").is_empty()).collect()
}

/// Why a crate is not accepted.
fn why_refused(package: &Value, accepted: &Accepted) -> Option<String> {
    let field = |name| workspace::text(package, name);
    let (name, expression) = (field("name"), field("license"));
    let told = |why: &str| Some(format!("{name} {}: {why}", field("version")));
    if field("source") != CRATES_IO {
        return told(&format!("comes from {}, not from crates.io", field("source")));
    }
    let allowed = |license: &str| {
        accepted.licenses.iter().any(|one| one == license)
            || accepted.exceptions.iter().any(|(of, one)| *of == name && one == license)
    };
    if license::is_met(&expression, allowed) {
        return None;
    }
    told(&format!("its licence, `{expression}`, is not among those of {ACCEPTED}"))
}

fn several_versions(packages: &[&Value]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        let versions = all.entry(workspace::text(package, "name")).or_default();
        versions.push(workspace::text(package, "version"));
    }
    all.retain(|_, versions| versions.len() > 1);
    all
}

impl Accepted {
    /// Reads the two lines of the file that this check shares with cargo-deny.
    fn read(text: &str) -> Self {
        let quoted = |start: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
            line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let pairs = quoted("exceptions = [");
        Self {
            licenses: quoted("allow = ["),
            exceptions: pairs
                .chunks_exact(2)
                .filter_map(|pair| Some((pair.first()?.clone(), pair.last()?.clone())))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_lists_are_read() {
        let text = "[licenses]\nallow = [\"MIT\", \"Zlib\"]\nexceptions = [{ crate = \"a\", allow = [\"NCSA\"] }]\n";
        let accepted = Accepted::read(text);
        assert_eq!(accepted.licenses, ["MIT", "Zlib"]);
        assert_eq!(accepted.exceptions, [("a".to_owned(), "NCSA".to_owned())]);
    }

    #[test]
    fn a_licence_or_a_source_that_is_not_accepted_is_refused_by_name() {
        let accepted = Accepted {
            licenses: vec!["MIT".to_owned()],
            exceptions: vec![("a".to_owned(), "NCSA".to_owned())],
        };
        let why = |name: &str, license: &str, source: &str| {
            let package =
                json!({ "name": name, "version": "1.0.0", "license": license, "source": source });
            why_refused(&package, &accepted)
        };
        assert_eq!(why("b", "MIT", CRATES_IO), None);
        assert_eq!(why("a", "MIT AND NCSA", CRATES_IO), None);
        assert!(why("b", "MIT AND NCSA", CRATES_IO).unwrap().starts_with("b 1.0.0: its licence"));
        assert!(why("b", "", CRATES_IO).is_some());
        let elsewhere = "git+https://example.org/b";
        assert!(why("b", "MIT", elsewhere).unwrap().contains(elsewhere));
    }
}
