//! The names in docs/operations.md exist: metrics, events, error codes, calls.

use core::time::Duration;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use vram_residency::nvml::{Monitor, MonitorOptions};
use vram_residency::{ByteLen, Event, ScrubOptions, ScrubRate, VramManager};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text() -> String {
    fs::read_to_string(root().join("docs/operations.md")).unwrap()
}

/// The sources of all crates as one text.
fn sources() -> String {
    let crates = fs::read_dir(root().join("crates")).unwrap();
    let mut folders: Vec<_> = crates.map(|one| one.unwrap().path().join("src")).collect();
    let mut all = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                all.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    all
}

/// The words of a text that consist of the characters `of`.
fn words(text: &str, of: fn(char) -> bool) -> BTreeSet<&str> {
    text.split(|letter| !of(letter)).filter(|word| !word.is_empty()).collect()
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// A scrape of a manager with a sink and a scrubber.
fn scrape() -> String {
    let manager = VramManager::builder()
        .host_device(ByteLen::MIB)
        .event_sink(|_event: &Event| {})
        .card_monitor(Monitor::start(MonitorOptions::new([])))
        .build()
        .unwrap();
    let hour = ScrubRate::Within(Duration::from_hours(1));
    let _scrubber = manager.start_scrubber(ScrubOptions::new(hour)).unwrap();
    manager.metrics().to_prometheus() + &manager.card_metrics()
}

/// The metrics that a text names.
fn metrics(text: &str) -> Vec<&str> {
    let named = words(text, |letter| letter.is_ascii_lowercase() || letter == '_');
    named.into_iter().filter(|word| word.starts_with("vram_")).collect()
}

#[test]
fn every_metric_in_the_guide_is_one_that_a_scrape_answers() {
    let (scrape, text) = (scrape(), text());
    let named = metrics(&text);
    assert!(named.len() > 15, "{named:?}");
    // Those of a server are its own: its tests look for them.
    for name in named.into_iter().filter(|name| !name.starts_with("vram_serve_")) {
        assert!(scrape.contains(&format!("# TYPE {name} ")), "{name}");
    }
}

/// Property P123.
#[test]
fn every_metric_of_the_alert_rules_and_of_the_dashboard_is_one_that_a_scrape_answers() {
    let scrape = scrape();
    for (file, least) in [("alerts.yml", 20), ("alerts.test.yml", 5), ("dashboard.json", 25)] {
        let text = fs::read_to_string(root().join("docs/operator").join(file)).unwrap();
        let named = metrics(&text);
        assert!(named.len() >= least, "{file}: {named:?}");
        for name in named {
            // Of a histogram a scrape has three series.
            let series = ["", "_bucket", "_sum", "_count"];
            let known = series.iter().filter_map(|end| name.strip_suffix(end));
            let mut known = known.map(|name| format!("# TYPE {name} "));
            assert!(known.any(|head| scrape.contains(&head)), "{file}: {name}");
        }
    }
}

/// Each alert of the guide has a rule, but for what no rule can tell.
#[test]
fn every_metric_of_the_guides_alerts_has_a_rule() {
    let rules = fs::read_to_string(root().join("docs/operator/alerts.yml")).unwrap();
    let text = text();
    let (_, table) = text.split_once("## Alerts").unwrap();
    let (table, _) = table.split_once("## Events").unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 15, "{rows:?}");
    for row in rows {
        let named = metrics(row);
        assert!(named.iter().any(|name| rules.contains(name)), "no rule for: {row}");
    }
}

#[test]
fn every_call_event_and_code_in_the_guide_is_in_the_sources() {
    let (text, sources) = (text(), sources());
    let known = words(&sources, |letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter));
    let plain = words(&sources, |letter| letter.is_ascii_alphanumeric() || letter == '_');
    let mut looked_up = 0;
    for quote in quoted(&text) {
        // `call(`, `.call(` and `Type::call(`: a function with that name exists.
        let before = quote.split('(');
        for part in before.clone().take(before.count().saturating_sub(1)) {
            let name = part.rsplit(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
            let name = name.into_iter().next().unwrap();
            assert!(sources.contains(&format!("fn {name}")), "{name} in {quote}");
            looked_up += 1;
        }
        let word = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
        if quote.chars().all(word) && !quote.starts_with("vram_") {
            let there = plain.contains(quote) || sources.contains(&format!("\"{quote}\""));
            assert!(there || known.contains(quote), "{quote}");
            looked_up += 1;
        }
        if let Some((of, name)) = quote.split_once("::").filter(|_| !quote.contains('(')) {
            // A function, or a variant.
            let named = sources.contains(&format!("fn {name}"))
                || name.starts_with(char::is_uppercase) && plain.contains(name);
            assert!(plain.contains(of) && named, "{quote}");
            looked_up += 1;
        }
    }
    assert!(looked_up > 100, "{looked_up}");
}
