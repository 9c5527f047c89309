//! The import graph of a crate's files: paths are followed through re-exports to the defining file.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::Paths;
use super::source::Source;

/// The maximum number of re-exports through which one name is followed.
const HOPS_MAX: usize = 16;

/// Files by their position in the list of sources, and the files that each of them names.
#[derive(Debug)]
pub(super) struct Graph {
    modules: BTreeMap<Vec<String>, usize>,
    files: Vec<(Vec<String>, Paths)>,
    pub(super) arrows: Vec<BTreeSet<usize>>,
}

impl Graph {
    pub(super) fn of(sources: &[Source]) -> Self {
        let files: Vec<_> =
            sources.iter().map(|source| (source.module(), Paths::of(&source.code))).collect();
        let modules = files.iter().enumerate().map(|(at, (module, _))| (module.clone(), at));
        let mut graph = Self { modules: modules.collect(), files, arrows: Vec::new() };
        graph.arrows = (0..graph.files.len()).map(|at| graph.named_by(at)).collect();
        graph
    }

    fn named_by(&self, at: usize) -> BTreeSet<usize> {
        let Some((module, paths)) = self.files.get(at) else { return BTreeSet::new() };
        let named = paths.named.iter().filter_map(|path| self.file(module, path, HOPS_MAX));
        named.filter(|target| *target != at).collect()
    }

    /// The file that a path leads to, seen from a module; `None` if it leads out of the crate.
    fn file(&self, module: &[String], path: &[String], hops: usize) -> Option<usize> {
        let hops = hops.checked_sub(1)?;
        let (first, mut rest) = path.split_first()?;
        let mut here = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => parent(module),
            name => {
                let child = child(module, name);
                if self.modules.contains_key(&child) {
                    child
                } else {
                    return self.imported(module, name, rest, hops);
                }
            }
        };
        while let Some((name, after)) = rest.split_first() {
            let below = child(&here, name);
            if name == "super" {
                here = parent(&here);
            } else if self.modules.contains_key(&below) {
                here = below;
            } else {
                let elsewhere = self.imported(&here, name, after, hops);
                return elsewhere.or_else(|| self.own_or_external(&here, name));
            }
            rest = after;
        }
        self.modules.get(&here).copied()
    }

    /// Follows a name that a module imports, and the rest of the path.
    fn imported(
        &self,
        module: &[String],
        name: &str,
        rest: &[String],
        hops: usize,
    ) -> Option<usize> {
        let (_, paths) = self.modules.get(module).and_then(|at| self.files.get(*at))?;
        if paths.defined.contains(name) {
            return None;
        }
        let named = paths.imports.iter().filter(|import| import.name == name);
        for import in named {
            let path = [&import.path, rest].concat();
            if import.path.first().is_none_or(|first| first != name)
                || self.modules.contains_key(&child(module, name))
            {
                return self.file(module, &path, hops);
            }
        }
        let globs = paths.imports.iter().filter(|import| import.name == "*");
        for import in globs {
            let Some(target) = self.file(module, &import.path, hops) else { continue };
            let Some((_, paths)) = self.files.get(target) else { continue };
            if paths.defined.contains(name) {
                return Some(target);
            }
        }
        None
    }

    /// The module's own file, unless it imports the name from another crate.
    fn own_or_external(&self, module: &[String], name: &str) -> Option<usize> {
        let at = self.modules.get(module).copied()?;
        let (_, paths) = self.files.get(at)?;
        let external = paths.imports.iter().any(|import| import.name == name);
        (!external || paths.defined.contains(name)).then_some(at)
    }

    /// Whether one of two files is a module and the other is below it.
    pub(super) fn is_parent_or_child(&self, one: usize, other: usize) -> bool {
        let module = |at: usize| self.files.get(at).map(|(module, _)| module.as_slice());
        match (module(one), module(other)) {
            (Some(one), Some(other)) => one.starts_with(other) || other.starts_with(one),
            _ => false,
        }
    }
}

fn child(module: &[String], name: &str) -> Vec<String> {
    let mut child = module.to_vec();
    child.push(name.to_owned());
    child
}

fn parent(module: &[String]) -> Vec<String> {
    module.split_last().map(|(_, parent)| parent.to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arrows as pairs of paths.
    fn arrows(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        let graph = Graph::of(&sources);
        let pairs = graph.arrows.iter().enumerate();
        let path = |at: usize| sources[at].path.clone();
        pairs.flat_map(|(from, to)| to.iter().map(move |to| (path(from), path(*to)))).collect()
    }

    #[test]
    fn a_name_is_followed_to_the_file_where_it_lives() {
        let found = arrows(&[
            ("lib.rs", "mod a; mod b; pub use b::{Deep as Shown}; use other_crate as alias;"),
            ("a.rs", "use crate::Shown; use crate::alias::X; use crate::Nowhere; struct Own;"),
            ("b/mod.rs", "mod c; pub use self::c::Deep; pub use c::*;"),
            ("b/c.rs", "pub struct Deep; pub fn free() {} // crate::a"),
            ("d.rs", "fn x() { crate::b::free(); super::a::y(); }"),
        ]);
        let expected = [
            // `Nowhere` could come from a macro: the root counts as its file.
            ("a.rs", "b/c.rs"),
            ("a.rs", "lib.rs"),
            ("b/mod.rs", "b/c.rs"),
            ("d.rs", "a.rs"),
            ("d.rs", "b/c.rs"),
        ];
        let expected = expected.map(|(from, to)| (from.to_owned(), to.to_owned()));
        let mut found = found;
        found.sort();
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(found, expected);
    }
}
