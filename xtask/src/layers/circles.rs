//! Circles among the files of a crate: none spans several folders, and some crates have none at
//! all.

use std::collections::{BTreeSet, VecDeque};

use super::graph::Graph;
use super::source::Source;

/// Crates in which no files form a circle, except a module and the modules below it.
const WITHOUT_ANY: &[&str] =
    &["vram-alloc", "vram-id", "vram-seal", "vram-events", "vram-ticket", "vram-gpu"];

/// Every circle that a crate must not have.
pub(super) fn breaches(name: &str, sources: &[Source], graph: &Graph) -> Vec<String> {
    let strict = WITHOUT_ANY.contains(&name);
    let arrows: Vec<BTreeSet<usize>> = if strict {
        let beside = |from: usize, to: &usize| !graph.is_parent_or_child(from, *to);
        let arrows = graph.arrows.iter().enumerate();
        arrows
            .map(|(from, to)| to.iter().copied().filter(|to| beside(from, to)).collect())
            .collect()
    } else {
        graph.arrows.clone()
    };
    let circles = components(&arrows).into_iter().filter(|circle| {
        strict || common_folder(circle.iter().filter_map(|at| sources.get(*at)), sources).is_none()
    });
    circles.map(|circle| told(name, &circle, &arrows, sources)).collect()
}

/// The sets of two or more files, each of which reaches every other.
fn components(arrows: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let reached: Vec<_> = (0..arrows.len()).map(|from| reached(arrows, from)).collect();
    let leads = |from: usize, to: &usize| reached.get(from).is_some_and(|all| all.contains(to));
    let mut seen: BTreeSet<usize> = BTreeSet::new();
    let mut components = Vec::new();
    for at in 0..arrows.len() {
        if !seen.contains(&at) && leads(at, &at) {
            let all = (at..arrows.len()).filter(|to| leads(at, to) && leads(*to, &at));
            let circle: BTreeSet<_> = all.collect();
            seen.extend(&circle);
            components.push(circle);
        }
    }
    components
}

/// Every file that a file reaches; itself only in a circle.
fn reached(arrows: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut next = VecDeque::from([from]);
    while let Some(at) = next.pop_front() {
        for to in arrows.get(at).into_iter().flatten() {
            if reached.insert(*to) {
                next.push_back(*to);
            }
        }
    }
    reached
}

/// The folder that contains all of some files. A folder `x/` contains its own `x.rs` as well.
fn common_folder<'a>(
    files: impl Iterator<Item = &'a Source>,
    sources: &[Source],
) -> Option<String> {
    let folders = files.map(|file| {
        let own = file.module().join("/");
        let has_own = !own.is_empty() && sources.iter().any(|source| source.folder() == own);
        let mut folders = BTreeSet::from([file.folder().to_owned()]);
        folders.extend(has_own.then_some(own));
        folders
    });
    let common = folders.reduce(|all, one| all.intersection(&one).cloned().collect());
    common.and_then(|folders| folders.into_iter().next())
}

/// A circle as text: the number of files, and the shortest cycle.
fn told(
    name: &str,
    circle: &BTreeSet<usize>,
    arrows: &[BTreeSet<usize>],
    sources: &[Source],
) -> String {
    let round = circle.iter().filter_map(|from| way_round(*from, circle, arrows));
    let shortest = round.min_by_key(Vec::len).unwrap_or_default();
    let paths: Vec<_> = shortest.iter().filter_map(|at| sources.get(*at)).collect();
    let paths: Vec<_> = paths.iter().map(|source| source.path.as_str()).collect();
    format!("{name}: {} files name each other in a circle: {}", circle.len(), paths.join(" → "))
}

/// The shortest path from a file back to itself, within its circle.
fn way_round(
    from: usize,
    circle: &BTreeSet<usize>,
    arrows: &[BTreeSet<usize>],
) -> Option<Vec<usize>> {
    let mut ways = VecDeque::from([vec![from]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let at = *way.last()?;
        for to in arrows.get(at).into_iter().flatten().filter(|to| circle.contains(to)) {
            let longer = [way.as_slice(), &[*to]].concat();
            if *to == from {
                return Some(longer);
            }
            if seen.insert(*to) {
                ways.push_back(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        breaches(name, &sources, &Graph::of(&sources))
    }

    #[test]
    fn a_circle_that_leaves_its_folder_is_a_breach_and_one_within_is_not() {
        let across = [
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod x;"),
            ("a/x.rs", "use crate::b::Y;"),
            ("b.rs", "use crate::c::go; pub struct Y;"),
            ("c.rs", "pub fn go() { crate::a::x::f() }"),
        ];
        let breaches = found("any", &across);
        let [breach] = breaches.as_slice() else { panic!("{breaches:?}") };
        assert!(breach.contains("3 files") && breach.contains("a/x.rs → b.rs → c.rs"), "{breach}");

        let within = [
            ("a.rs", "mod x; mod y; pub struct A; fn f() { self::x::g() }"),
            ("a/x.rs", "use super::A; use super::y::Y;"),
            ("a/y.rs", "use crate::a::x::X; pub struct Y;"),
        ];
        assert_eq!(found("any", &within), Vec::<String>::new());
        assert_eq!(found("vram-seal", &within).len(), 1, "x and y are no parent and child");
    }

    #[test]
    fn a_module_and_what_lies_below_it_make_no_circle() {
        let nested = [
            ("a.rs", "mod x; pub struct A; fn f() { self::x::g() }"),
            ("a/x.rs", "use crate::a::A; pub fn g() {}"),
        ];
        assert_eq!(found("vram-seal", &nested), Vec::<String>::new());
    }
}
