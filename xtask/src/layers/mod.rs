//! `cargo xtask layers`: checks the permitted imports against manifests and sources.
//!
//! Between crates: the table of ARCHITECTURE.md. Inside the crates: the floors of vram-core, the
//! places of `impl Core` and `impl VramManager`, circles among files, the size of folders and files,
//! the folder of `unsafe`, and spellings that would hide a path from these checks.

mod aliases;
mod circles;
mod crates;
mod floors;
mod graph;
mod homes;
mod paths;
mod sizes;
mod source;
mod strip;
mod unsafety;

use crate::workspace::{self, Package};
use crate::{bench, python};

/// Checks the whole workspace; the error lists every breach.
pub(crate) fn run() -> Result<(), String> {
    let mut packages = workspace::packages()?;
    for apart in [python::FOLDER, bench::PEERS] {
        packages.extend(workspace::packages_in(apart)?);
    }
    let mut breaches = crates::breaches(&packages);
    let mut files = 0_usize;
    for package in &packages {
        breaches.extend(unsafety::missing_forbid(package)?);
        files = files.saturating_add(inside(package, &mut breaches)?);
    }
    if breaches.is_empty() {
        println!("layers: {} packages and {files} files keep to the rules", packages.len());
        Ok(())
    } else {
        Err(format!("the layers do not hold:\n  {}", breaches.join("\n  ")))
    }
}

/// Checks the sources of one package, and returns their number.
fn inside(package: &Package, breaches: &mut Vec<String>) -> Result<usize, String> {
    let name = package.name.as_str();
    let sources = source::of(package)?;
    let graph = graph::Graph::of(&sources);
    breaches.extend(aliases::breaches(name, &sources));
    breaches.extend(floors::breaches(name, &sources, &graph));
    breaches.extend(homes::breaches(name, &sources));
    breaches.extend(circles::breaches(name, &sources, &graph));
    breaches.extend(sizes::breaches(name, &sources));
    breaches.extend(unsafety::breaches(name, &sources));
    Ok(sources.len())
}
