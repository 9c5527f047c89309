//! The packages of the workspace, from `cargo metadata`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::shell;

/// One package of this workspace.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) targets: Vec<Target>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) features: BTreeSet<String>,
}

/// One build target of a package.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    /// `lib`, `bin`, `test`, `bench`, `example`, `custom-build`, …
    pub(crate) kind: String,
    /// The root source file.
    pub(crate) source: PathBuf,
}

/// One line of a manifest's dependency tables.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `normal`, `build` or `dev`.
    pub(crate) kind: String,
}

/// Every package of this workspace, in the order of the members list.
pub(crate) fn packages() -> Result<Vec<Package>, String> {
    let packages: Vec<Package> = array(&metadata()?, "packages").iter().map(package).collect();
    if packages.is_empty() {
        return Err("cargo metadata lists no package".to_owned());
    }
    Ok(packages)
}

/// The package of a workspace of its own, in this folder.
pub(crate) fn packages_in(folder: &str) -> Result<Vec<Package>, String> {
    let manifest = format!("{folder}/Cargo.toml");
    let args = ["metadata", "--format-version", "1", "--no-deps", "--manifest-path", &manifest];
    let metadata = parsed(&shell::cargo(&args).read()?)?;
    Ok(array(&metadata, "packages").iter().map(package).collect())
}

/// The folder of cargo's output.
pub(crate) fn target_folder() -> Result<PathBuf, String> {
    Ok(PathBuf::from(text(&metadata()?, "target_directory")))
}

/// Integration-test targets whose name begins with one of `prefixes`, of the packages `only` or of
/// all.
///
/// Finding none is an error: a suite without tests proves nothing.
pub(crate) fn tests_beginning_with(
    prefixes: &[&str],
    only: Option<&str>,
) -> Result<Vec<(String, String)>, String> {
    let packages = packages()?;
    if let Some(only) = only
        && !packages.iter().any(|package| package.name == only)
    {
        let names: Vec<_> = packages.iter().map(|package| package.name.as_str()).collect();
        return Err(format!("no package `{only}`; there are {}", names.join(", ")));
    }
    let found: Vec<(String, String)> = packages
        .iter()
        .filter(|package| only.is_none_or(|only| package.name == only))
        .flat_map(|package| package.targets.iter().map(move |target| (package, target)))
        .filter(|(_, target)| target.kind == "test")
        .filter(|(_, target)| prefixes.iter().any(|prefix| target.name.starts_with(prefix)))
        .map(|(package, target)| (package.name.clone(), target.name.clone()))
        .collect();
    if found.is_empty() {
        return Err(format!(
            "no test target named {} in {}",
            prefixes.iter().map(|prefix| format!("{prefix}*")).collect::<Vec<_>>().join(" or "),
            only.unwrap_or("this workspace"),
        ));
    }
    Ok(found)
}

/// What cargo says of the members.
pub(crate) fn metadata() -> Result<Value, String> {
    parsed(&shell::cargo(&["metadata", "--format-version", "1", "--no-deps"]).read()?)
}

/// What cargo says of the members and of every crate that they need on Linux, with all features.
pub(crate) fn metadata_of_all() -> Result<Value, String> {
    let on = ["--filter-platform", "x86_64-unknown-linux-gnu"];
    parsed(
        &shell::cargo(&["metadata", "--format-version", "1", "--all-features"]).args(&on).read()?,
    )
}

/// The same of a workspace of its own, in this folder.
pub(crate) fn metadata_of_all_in(folder: &str) -> Result<Value, String> {
    let manifest = format!("{folder}/Cargo.toml");
    let on = ["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"];
    let args =
        ["metadata", "--format-version", "1", "--all-features", "--manifest-path", &manifest];
    parsed(&shell::cargo(&args).args(&on).read()?)
}

fn parsed(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("metadata: {error}"))
}

fn package(value: &Value) -> Package {
    Package {
        name: text(value, "name"),
        targets: array(value, "targets").iter().map(target).collect(),
        dependencies: array(value, "dependencies").iter().map(dependency).collect(),
        features: value
            .get("features")
            .and_then(Value::as_object)
            .map(|features| features.keys().cloned().collect())
            .unwrap_or_default(),
    }
}

fn target(value: &Value) -> Target {
    let kind = array(value, "kind").first().and_then(Value::as_str).unwrap_or_default();
    Target {
        name: text(value, "name"),
        kind: kind.to_owned(),
        source: PathBuf::from(text(value, "src_path")),
    }
}

fn dependency(value: &Value) -> Dependency {
    // `kind` is null for a normal dependency.
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or("normal").to_owned();
    Dependency { name: text(value, "name"), kind }
}

/// A field that is text; empty if it is not there.
pub(crate) fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A field that is a list; empty if it is not there.
pub(crate) fn array<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
