//! The floors inside vram-core: no file imports from a higher floor.

use super::graph::Graph;
use super::paths;
use super::source::Source;

/// The crate with floors.
const HOUSE: &str = "vram-core";

/// Its folders (and files beside its root), from the lowest floor up.
const FLOORS: &[&str] = &[
    "error",
    "shard",
    "transfer",
    "parts",
    "resident",
    "room",
    "sealing",
    "moves",
    "models",
    "scrub",
    "repair",
    "reset",
    "close",
    "reports",
    "schedules",
];

/// The module that every floor may import, and that imports none: the locks.
const GROUND: &str = "sync";

/// The floor of a file, counted from the lowest; the error is the name that has no floor.
fn floor(source: &Source) -> Result<Option<usize>, String> {
    let module = source.module();
    let Some(first) = module.first() else { return Ok(None) };
    if first == GROUND {
        return Ok(Some(0));
    }
    let at = FLOORS.iter().position(|floor| floor == first);
    at.map(|at| Some(at.saturating_add(1))).ok_or_else(|| first.clone())
}

/// Every path to a higher floor.
pub(super) fn breaches(name: &str, sources: &[Source], graph: &Graph) -> Vec<String> {
    if name != HOUSE {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    let floors: Vec<_> = sources.iter().map(floor).collect();
    for ((source, own), arrows) in sources.iter().zip(&floors).zip(&graph.arrows) {
        let own = match own {
            Ok(Some(own)) => *own,
            Ok(None) => {
                breaches.extend(in_the_root(&source.code).iter().map(|what| {
                    format!(
                        "{name}: {} holds `{what}`: the root has no floor, and holds modules, \
                             re-exports and macros that name no module",
                        source.path
                    )
                }));
                continue;
            }
            Err(unknown) => {
                breaches.push(format!(
                    "{name}: {unknown} has no floor (xtask/src/layers/floors.rs), as of {}",
                    source.path
                ));
                continue;
            }
        };
        for target in arrows {
            let (Some(to), Some(Ok(Some(floor)))) = (sources.get(*target), floors.get(*target))
            else {
                continue;
            };
            if *floor > own {
                breaches.push(format!(
                    "{name}: {} names {}, which stands on a higher floor",
                    source.path, to.path
                ));
            }
        }
    }
    breaches
}

/// The first thing in the root that could lead from one floor to a higher one.
fn in_the_root(code: &str) -> Option<&'static str> {
    let tokens = paths::tokens(code);
    let mut within = false;
    let (mut depth, mut macros) = (0_usize, Vec::new());
    let mut items = Vec::new();
    for token in tokens {
        within |= token == "macro_rules";
        if within {
            macros.push(token);
        } else {
            items.push(token);
        }
        match token {
            "{" | "(" | "[" => depth = depth.saturating_add(1),
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                within &= depth != 0;
            }
            _ => {}
        }
    }
    let has = |tokens: &[&str], words: &[&'static str]| {
        words.iter().find(|word| tokens.contains(word)).copied()
    };
    has(&items, &["fn", "impl", "const", "static", "type", "struct", "enum", "trait"])
        .or_else(|| has(&macros, &["crate"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        breaches("vram-core", &sources, &Graph::of(&sources))
    }

    #[test]
    fn the_root_leads_nowhere() {
        let fine =
            "macro_rules! m { ($a:ident) => { fn $a() {} }; } pub mod error; pub use error::E;";
        assert!(found(&[("lib.rs", fine), ("error.rs", "")]).is_empty());
        for text in [
            "mod error; pub(crate) fn help() { room::go() }",
            "mod error; macro_rules! m { () => { crate::room::go() }; }",
            "macro_rules! m { () => {}; } mod error; type R = room::Plan;",
        ] {
            assert_eq!(found(&[("lib.rs", text), ("error.rs", "")]).len(), 1, "{text}");
        }
    }

    #[test]
    fn a_path_to_a_higher_floor_is_a_breach_whatever_way_it_takes() {
        let house = |error: &str| {
            found(&[
                ("lib.rs", "mod error; mod room; mod sync; pub use room::Plan;"),
                ("sync.rs", ""),
                ("error/mod.rs", error),
                ("room/mod.rs", "mod plan; pub use plan::Plan; use crate::error::E;"),
                ("room/plan.rs", "use crate::sync::lock; use crate::error::E; pub struct Plan;"),
            ])
        };
        assert!(house("pub struct E; use crate::sync::lock; // crate::room::Plan").is_empty());
        assert!(house("#[cfg(test)] mod tests { use crate::room::Plan; }").is_empty());
        for up in
            ["use crate::room::Plan;", "use crate::Plan;", "fn f() { super::room::plan::go() }"]
        {
            let breaches = house(up);
            let [breach] = breaches.as_slice() else { panic!("{up}: {breaches:?}") };
            assert!(breach.contains("error/mod.rs names room/plan.rs"), "{breach}");
        }
    }

    #[test]
    fn the_ground_imports_no_floor_and_a_folder_without_a_floor_is_a_breach() {
        let breaches = found(&[("sync.rs", "use crate::error::E;"), ("error.rs", "struct E;")]);
        assert_eq!(breaches.len(), 1, "{breaches:?}");
        let breaches = found(&[("lib.rs", "mod core;"), ("core/mod.rs", "")]);
        assert!(breaches[0].contains("core has no floor"), "{breaches:?}");
    }

    #[test]
    fn other_crates_have_no_floors() {
        let sources = [Source::new("anything.rs", "use crate::room::X;")];
        assert!(breaches("vram-seal", &sources, &Graph::of(&sources)).is_empty());
    }
}
