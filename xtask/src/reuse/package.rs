//! `cargo xtask package`: every library and program that is published, packed as a registry would take it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{arguments, shell, workspace};

/// The most bytes that crates.io takes of one package.
const BYTES_MAX: u64 = 10 << 20;
/// What each package has at its top beside its sources.
const TEXTS: &[&str] = &["LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Also builds each package from what was packed; asks the registry's index.
    verify: bool,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { verify: false };
        for flag in args {
            match flag.as_str() {
                "--verify" => options.verify = true,
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        Ok(options)
    }

    /// Those of CI.
    pub(crate) const fn for_ci() -> Self {
        Self { verify: false }
    }
}

/// Packs all of them in one call, and looks at what was packed.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let metadata = workspace::metadata()?;
    let packages: Vec<&Value> =
        workspace::array(&metadata, "packages").iter().filter(|one| is_published(one)).collect();
    if packages.is_empty() {
        return Err("no package is published".to_owned());
    }
    let mut wrong: Vec<String> = packages.iter().flat_map(|package| lacks(package)).collect();

    // What lies here is packed, committed or not.
    let mut child = shell::cargo(&["package", "--allow-dirty", "--quiet"]);
    if !options.verify {
        // Neither a network nor a build: a second or two. The packages name each other by version, so that
        // a build of what was packed asks the index of the registry, and compiles all of them anew. Their
        // sources are those that CI has built, and what is packed of them is looked at below.
        child = child.args(&["--no-verify", "--offline", "--exclude-lockfile"]);
    }
    for package in &packages {
        child = child.arg("-p").arg(workspace::text(package, "name"));
    }
    child.run()?;

    let folder = workspace::target_folder()?.join("package");
    for package in &packages {
        let name = workspace::text(package, "name");
        let stem = format!("{name}-{}", workspace::text(package, "version"));
        let packed = folder.join(format!("{stem}.crate"));
        wrong.extend(looked_at(&packed, &stem)?);
    }
    println!("{} packages in {}", packages.len(), folder.display());
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Whether a registry may take it: `publish = false` is an empty list of registries.
fn is_published(package: &Value) -> bool {
    !package.get("publish").and_then(Value::as_array).is_some_and(Vec::is_empty)
}

/// What a registry's page would show of it, and the manifest does not say.
fn lacks(package: &Value) -> Vec<String> {
    let name = workspace::text(package, "name");
    let texts = ["description", "license", "readme", "rust_version"];
    let lists = ["keywords", "categories"];
    let empty = texts.iter().filter(|field| workspace::text(package, field).is_empty());
    let none = lists.iter().filter(|field| workspace::array(package, field).is_empty());
    let mut wrong: Vec<String> =
        empty.chain(none).map(|field| format!("{name}: its manifest has no `{field}`")).collect();
    for (field, most) in [("keywords", 5), ("categories", 5)] {
        let count = workspace::array(package, field).len();
        if count > most {
            wrong.push(format!("{name}: {count} {field} are more than {most}"));
        }
    }
    wrong
}

/// What is wrong with a packed file.
fn looked_at(packed: &Path, stem: &str) -> Result<Vec<String>, String> {
    let shown = packed.display().to_string();
    let len = fs::metadata(packed).map_err(|error| format!("{shown}: {error}"))?.len();
    let listed = shell::program("tar", &["-tzf", &shown]).read()?;
    let mut wrong: Vec<String> = TEXTS
        .iter()
        .filter(|text| !listed.lines().any(|line| line == format!("{stem}/{text}")))
        .map(|text| format!("{stem}: no {text} is packed"))
        .collect();
    if len > BYTES_MAX {
        wrong.push(format!("{stem}: {len} bytes are more than the {BYTES_MAX} of crates.io"));
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_read_and_strangers_refused() {
        let parse = |text: &str| Options::parse(text.split_whitespace().map(str::to_owned));
        assert_eq!(parse(""), Ok(Options::for_ci()));
        assert_eq!(parse("--verify"), Ok(Options { verify: true }));
        assert!(parse("--all").is_err());
    }

    #[test]
    fn a_manifest_that_says_too_little_is_told() {
        let mut package = json!({
            "name": "a", "publish": null, "description": "d", "license": "MIT",
            "readme": "README.md", "rust_version": "1.95", "keywords": ["k"], "categories": ["c"],
        });
        assert!(is_published(&package));
        assert!(lacks(&package).is_empty());
        package["keywords"] = json!([]);
        package["description"] = json!(null);
        assert_eq!(lacks(&package).len(), 2);
        package["keywords"] = json!(["1", "2", "3", "4", "5", "6"]);
        assert!(lacks(&package).iter().any(|line| line == "a: 6 keywords are more than 5"));
        package["publish"] = json!([]);
        assert!(!is_published(&package));
    }
}
