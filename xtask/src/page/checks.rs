//! What is tried: files in both themes and widths, the keyboard, thousands of shards, the live form.

use serde_json::{Value, json};

use super::Trial;
use super::server::Server;

/// Checks in the page itself, in JavaScript.
const IN_THE_PAGE: &str = include_str!("checks.js");
/// Keys of the keyboard, by their code points in `WebDriver`.
const TAB: &str = "\u{e004}";
const RIGHT: &str = "\u{e014}";
const HOME: &str = "\u{e011}";
const END: &str = "\u{e010}";
/// The widths of a desk's screen and of a small phone, in CSS pixels.
const WIDTHS: [u32; 2] = [1280, 360];
const THEMES: [&str; 2] = ["light", "dark"];

/// A node with a lost GPU and a model in quarantine, and a sound one: words, contrast, width, hostile
/// names.
pub(super) fn of_files(trial: &mut Trial) -> Result<(), String> {
    for (name, options, words) in [
        ("node", &[][..], "GPU 2 is lost"),
        ("sound", &["--sound"], "Nothing."),
        ("empty", &["--shards", "0", "--sound"], "no shard"),
    ] {
        let url = trial.page(&format!("{name}.html"), options)?;
        for (theme, width) in THEMES.iter().flat_map(|theme| WIDTHS.map(|width| (theme, width))) {
            let name = format!("{name}-{theme}-{width}");
            println!("{name}");
            trial.look(width, theme)?;
            trial.browser.go(&url)?;
            in_the_page(trial, &name)?;
            let findings = text(trial, "#findings")?;
            trial.expect(findings.contains(words), format!("{name}: it says {words:?} at the top"));
            let shown = trial.browser.run("return document.documentElement.dataset.theme")?;
            trial.expect(shown == **theme, format!("{name}: the theme is the system's"));
            trial.picture(&name)?;
            trial.quiet(&name, &["file:", "data:"])?;
        }
    }
    Ok(())
}

/// What a person without a mouse or without sight meets.
pub(super) fn of_keyboard(trial: &mut Trial) -> Result<(), String> {
    let url = trial.page("node.html", &[])?;
    trial.look(1280, "light")?;
    trial.browser.go(&url)?;
    let told = "const bar = document.activeElement; return bar.matches('.bar') ? \
                document.getElementById(bar.getAttribute('aria-activedescendant')).textContent : null";
    let mut reached = Value::Null;
    for _ in 0..12 {
        trial.browser.press(&[TAB])?;
        reached = trial.browser.run(told)?;
        if !reached.is_null() {
            break;
        }
    }
    trial.expect(!reached.is_null(), "keyboard: the tab key reaches the first bar");
    let outline =
        trial.browser.run("return getComputedStyle(document.activeElement).outlineStyle")?;
    trial.expect(outline == "solid", "keyboard: the focus is visible");
    trial.browser.press(&[HOME])?;
    let first = trial.browser.run(told)?;
    trial.browser.press(&[RIGHT])?;
    let second = trial.browser.run(told)?;
    trial
        .expect(first != second && second.is_string(), "keyboard: an arrow goes to the next shard");
    trial.browser.press(&[END])?;
    trial.expect(trial.browser.run(told)? != second, "keyboard: End goes to the last shard");
    trial.picture("focus-light-1280")?;
    trial.browser.run("document.querySelectorAll('.bar')[1].focus()")?;
    trial.browser.press(&[HOME, "w"])?;
    let said = trial.browser.run(told)?.to_string();
    trial.expect(said.contains("ALTERED"), format!("keyboard: W goes to an altered shard: {said}"));
    trial.browser.run("document.getElementById('theme').click()")?;
    let theme = trial.browser.run("return document.documentElement.dataset.theme")?;
    trial.expect(theme == "dark", "the button changes the theme");
    trial.browser.run("localStorage.clear()")?;
    trial.browser.run(
        "const find = document.getElementById('find'); find.value = 'altered'; \
         find.dispatchEvent(new Event('input'))",
    )?;
    let rows = trial.browser.run("return document.querySelectorAll('#shards tbody tr').length")?;
    let altered = rows.as_u64().unwrap_or_default();
    trial.expect((1..20).contains(&altered), format!("the search finds the altered: {altered}"));
    names(trial)
}

/// Each thing that a screen reader stops at has a name.
fn names(trial: &mut Trial) -> Result<(), String> {
    const ROLES: [&str; 7] =
        ["button", "searchbox", "listbox", "option", "region", "table", "columnheader"];
    let tree = trial.browser.tool("Accessibility.getFullAXTree", &json!({}))?;
    let nodes = tree.get("nodes").and_then(Value::as_array).cloned().unwrap_or_default();
    let (mut seen, mut nameless) = (0_u32, Vec::new());
    for node in &nodes {
        let word = |path| node.pointer(path).and_then(Value::as_str).unwrap_or_default();
        if node.get("ignored") != Some(&Value::Bool(true)) && ROLES.contains(&word("/role/value")) {
            seen = seen.saturating_add(1);
            if word("/name/value").is_empty() {
                nameless.push(word("/role/value"));
            }
        }
    }
    trial.expect(seen > 10 && nameless.is_empty(), format!("{seen} roles have names {nameless:?}"));
    Ok(())
}

/// 10,000 shards: shown at once, and an arrow within a frame.
pub(super) fn of_many(trial: &mut Trial) -> Result<(), String> {
    let url = trial.page("many.html", &["--shards", "10000"])?;
    trial.look(1280, "light")?;
    trial.browser.go(&url)?;
    let time = |trial: &Trial, script: &str| {
        let script =
            format!("const began = performance.now(); {script}; return performance.now() - began");
        trial.browser.run(&script).map(|value| value.as_f64().unwrap_or(f64::MAX))
    };
    let all = time(trial, "show(JSON.parse(document.getElementById('snapshot').textContent))")?;
    trial.expect(all < 500.0, format!("10,000 shards are shown in {all:.0} ms, of 500"));
    let steps =
        time(trial, "for (let at = 0; at < 100; at += 1) cards.get(0).pick(at * 30)")? / 100.0;
    trial.expect(steps < 16.0, format!("a step among them takes {steps:.1} ms, of 16"));
    trial.picture("many-light-1280")?;
    trial.quiet("many", &["file:", "data:"])
}

/// The live form: events, a server that goes and comes back.
pub(super) fn of_the_live_form(trial: &mut Trial) -> Result<(), String> {
    let server = Server::start(&trial.program, "0")?;
    trial.look(1280, "dark")?;
    trial.browser.go(&server.address)?;
    trial.wait("document.querySelectorAll('#events li').length > 3", "live: events appear")?;
    trial.wait("document.getElementById('link').textContent === 'live'", "live: it says so")?;
    trial.wait(
        "document.getElementById('sums').textContent.includes('scrubber')",
        "live: the scrubber is shown",
    )?;
    trial.wait(
        "document.getElementById('events').textContent.includes('worker-7')",
        "live: what the server itself tells is shown",
    )?;
    in_the_page(trial, "live")?;
    trial.picture("live-dark-1280")?;
    trial.quiet("live", &[&server.address, "data:"])?;

    let port = server.port();
    drop(server);
    // As if the time had passed.
    trial.browser.run("link.seen -= 20000")?;
    trial.wait(
        "document.getElementById('link').textContent.startsWith('STALE')",
        "live: without a server it says that it is stale",
    )?;
    trial.picture("stale-dark-1280")?;
    let _server = Server::start(&trial.program, &port)?;
    trial.wait(
        "document.getElementById('link').textContent === 'live'",
        "live: it connects again",
    )?;
    Ok(())
}

fn in_the_page(trial: &mut Trial, name: &str) -> Result<(), String> {
    let wrong = trial.browser.run(IN_THE_PAGE)?;
    let wrong = wrong.as_array().cloned().unwrap_or_else(|| vec![Value::Null]);
    trial.expect(wrong.is_empty(), format!("{name}: names, width and contrast {wrong:?}"));
    Ok(())
}

fn text(trial: &Trial, selector: &str) -> Result<String, String> {
    let script = format!("return document.querySelector('{selector}').textContent");
    Ok(trial.browser.run(&script)?.as_str().unwrap_or_default().to_owned())
}
