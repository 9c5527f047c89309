//! The figures, in both forms: each family is declared once, and what is a counter says so by its name.

use std::collections::BTreeMap;

use crate::support::{Answer, Rig};

/// Family and kind, as the text declares them.
fn families(text: &str) -> BTreeMap<String, String> {
    let mut families = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("# TYPE ") else { continue };
        let (name, kind) = rest.split_once(' ').unwrap();
        assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} stands twice");
    }
    families
}

fn scrape(rig: &Rig, accept: &str) -> Answer {
    rig.ask("GET", "/metrics", &[&format!("Accept: {accept}")], "").expect(200)
}

#[test]
fn figures_are_given_in_both_forms_and_no_name_of_one_clashes_with_another() {
    let rig = Rig::three();
    let plain = scrape(&rig, "text/plain;version=0.0.4;q=0.5,*/*;q=0.1");
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4"), "{}", plain.head);
    let counted = families(&plain.body);
    for (name, kind) in &counted {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
    let open = scrape(&rig, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert!(open.head.contains("content-type: application/openmetrics-text"), "{}", open.head);
    assert!(open.body.ends_with("\n# EOF\n"));
    let declared = families(&open.body);
    assert_eq!(declared.len(), counted.len());
    // Every sample is of a family that is declared, with the ending of its kind.
    for line in open.body.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let is_of = |ending: &str, kind: &str| {
            let family = name.strip_suffix(ending);
            family.and_then(|family| declared.get(family)).is_some_and(|found| found == kind)
        };
        let known = is_of("", "gauge")
            || is_of("_total", "counter")
            || ["_bucket", "_sum", "_count"].iter().any(|ending| is_of(ending, "histogram"));
        assert!(known, "{line}");
    }
}

#[test]
fn every_figure_of_a_server_in_the_guide_is_one_that_a_scrape_answers() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let rig = Rig::three();
    let declared = families(&scrape(&rig, "text/plain").body);
    let words = guide.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
    let named: Vec<_> = words.filter(|word| word.starts_with("vram_serve_")).collect();
    assert!(named.len() >= 9, "{named:?}");
    for name in named {
        assert!(declared.contains_key(name), "{name}");
    }
}
