//! The table refuses what it should.

use super::*;
use crate::workspace::Dependency;

fn package(name: &str, dependencies: &[(&str, &str)]) -> Package {
    Package {
        name: name.to_owned(),
        targets: Vec::new(),
        dependencies: dependencies
            .iter()
            .map(|&(name, kind)| Dependency { name: name.to_owned(), kind: kind.to_owned() })
            .collect(),
        features: BTreeSet::new(),
    }
}

#[test]
fn an_arrow_that_runs_up_or_sideways_is_a_breach() {
    let house = |dependencies: &[(&str, &str)]| {
        breaches(&[
            package("vram-alloc", &[]),
            package("vram-gpu", &[("vram-alloc", "normal")]),
            package("vram-residency", &[]),
            package("vram-seal", dependencies),
        ])
    };
    assert!(house(&[("vram-alloc", "normal"), ("ring", "normal")]).is_empty());
    assert_eq!(house(&[("vram-residency", "normal")]).len(), 1);
    assert_eq!(house(&[("vram-residency", "dev")]).len(), 1, "tests do not look up either");
    let met = house(&[("vram-gpu", "dev")]);
    assert!(met.contains(&"vram-seal and vram-gpu never meet".to_owned()), "{met:?}");
    assert_eq!(house(&[("dashmap", "normal")]).len(), 1);
    assert!(house(&[("dashmap", "dev")]).is_empty());
}

#[test]
fn dev_dependencies_obey_the_table_but_for_the_exceptions() {
    let breach = |name: &str, target: &str, kind: &str| {
        let all = breaches(&[package(name, &[(target, kind)]), package(target, &[])]);
        all.contains(&format!("{name} must not import {target}"))
    };
    for (name, target) in [
        ("vram-id", "vram-core"),
        ("vram-seal", "vram-residency"),
        ("vram-alloc", "vram-gpu"),
        ("vram-seal", "vram-test-rigs"),
    ] {
        assert!(breach(name, target, "dev"), "{name} and {target}");
    }
    assert!(!breach("vram-seal", "vram-alloc", "dev"));
    assert!(!breach("vram-seal", KIT, "dev") && breach("vram-seal", KIT, "normal"));
    for (name, target, reason) in DEV_EXCEPTIONS {
        assert!(!reason.is_empty() && !breach(name, target, "dev"), "{name} and {target}");
        assert!(breach(name, target, "normal"), "{name} and {target}: no exception is needed");
    }
}

/// All that a crate brings with it by the table.
fn brought(name: &str) -> BTreeSet<&'static str> {
    let room = ROOMS.iter().find(|room| room.name == name);
    let own = room.map(|room| room.ours).unwrap_or_default();
    own.iter().flat_map(|ours| brought(ours).into_iter().chain([*ours])).collect()
}

#[test]
fn no_exception_and_no_third_crate_lets_strangers_meet() {
    let tests = DEV_EXCEPTIONS.iter().map(|(who, whom, _)| (*who, *whom));
    let table = ROOMS.iter().flat_map(|room| room.ours.iter().map(|ours| (room.name, *ours)));
    for (who, whom) in tests.chain(table) {
        let all = brought(whom).into_iter().chain([whom]);
        let met: Vec<_> = all.filter(|brought| strangers(who, brought)).collect();
        assert!(met.is_empty(), "{who} meets {met:?} through {whom}");
    }
}

#[test]
fn a_foreign_crate_outside_its_home_is_a_breach() {
    for (foreign, homes) in HOMES {
        let found = breaches(&[package("vram-space", &[(foreign, "normal")])]);
        assert_eq!(found.len(), 1, "{foreign}");
        assert!(breaches(&[package(homes[0], &[(foreign, "normal")])]).is_empty(), "{foreign}");
    }
}

#[test]
fn strangers_do_not_meet_in_either_direction() {
    let met = |one, other| breaches(&[package(one, &[(other, "dev")])]);
    for (one, other) in STRANGERS {
        for (one, other) in [(one, other), (other, one)] {
            assert!(strangers(one, other), "{one} and {other}");
            // A planned crate that does not exist yet has no row.
            if ROOMS.iter().any(|room| room.name == *one) {
                assert_eq!(met(one, other), [format!("{one} and {other} never meet")]);
            }
        }
    }
    assert!(met("vram-residency", "vram-gpu").is_empty());
}

/// The rows of ARCHITECTURE.md's table of crates: name, our crates, foreign crates.
fn documented() -> Vec<[String; 3]> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| crate | is |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, _, ours, foreign] = cells.as_slice() else { panic!("{line}") };
        [name.trim_matches('`').to_owned(), (*ours).to_owned(), (*foreign).to_owned()]
    });
    rows.collect()
}

/// The names that a cell gives in backticks.
fn quoted(cell: &str) -> BTreeSet<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn architecture_md_says_the_same_of_our_crates() {
    let rows = documented();
    let mut compared = 0_usize;
    for (at, [name, ours, _]) in rows.iter().enumerate() {
        // Rows of several crates, and of the tests, name no list.
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else { continue };
        let listed = quoted(ours);
        let expected: BTreeSet<&str> = if let Some(but) = ours.strip_prefix("all above") {
            let but = quoted(but);
            let above = rows[..at].iter().map(|[name, ..]| name.as_str());
            above.filter(|name| !but.contains(name)).collect()
        } else {
            assert!(!listed.is_empty() || ours == "nothing", "{name}: {ours}");
            listed
        };
        let table: BTreeSet<&str> = room.ours.iter().copied().collect();
        assert_eq!(table, expected, "{name}");
        compared += 1;
    }
    assert!(compared >= 16, "{compared} rows of {}", rows.len());
}

#[test]
fn architecture_md_says_the_same_of_foreign_crates() {
    let rows = documented();
    let listed: BTreeSet<(&str, &str)> = rows
        .iter()
        .filter(|[_, _, foreign]| foreign != "–")
        .flat_map(|[name, _, foreign]| foreign.split(", ").map(|one| (one, name.as_str())))
        .collect();
    let alone = HOMES.iter().filter_map(|(foreign, homes)| match homes {
        [home] => Some((*foreign, *home)),
        _ => None,
    });
    assert_eq!(alone.collect::<BTreeSet<_>>(), listed);
    assert!(listed.contains(&("libloading", "cuda-shim")));
}

#[test]
fn a_crate_without_a_place_is_a_breach() {
    assert_eq!(breaches(&[package("vram-extra", &[])]).len(), 1);
}
