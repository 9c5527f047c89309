//! Links between the Markdown pages of the project: which there are, and which lead nowhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The top of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// Every Markdown page of the project, sorted.
pub(crate) fn pages() -> Result<Vec<PathBuf>, String> {
    let root = root();
    let mut found = Vec::new();
    for path in entries(&root)? {
        if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    for folder in ["docs", "crates", "tests", "xtask"] {
        below(&root.join(folder), &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    for path in entries(folder)? {
        if path.is_dir() {
            // What is built or installed brings pages of others.
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name != "target" && !name.starts_with('.') {
                below(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::read_dir(folder).map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

/// One line for each link, in any page, whose file or heading is not there.
pub(crate) fn broken() -> Result<Vec<String>, String> {
    let mut texts: BTreeMap<PathBuf, String> = BTreeMap::new();
    for page in pages()? {
        let text =
            fs::read_to_string(&page).map_err(|error| format!("{}: {error}", page.display()))?;
        let place = page.canonicalize().map_err(|error| format!("{}: {error}", page.display()))?;
        texts.insert(place, text);
    }
    let mut broken = Vec::new();
    for (page, text) in &texts {
        for link in in_text(text) {
            // An address of the web is not asked for: this runs without a network.
            if !link.contains("://")
                && !link.starts_with("mailto:")
                && let Some(why) = why_broken(page, &link, &texts)
            {
                broken.push(format!("{}: {link}: {why}", page.display()));
            }
        }
    }
    Ok(broken)
}

/// Why a link of a page leads nowhere.
fn why_broken(page: &Path, link: &str, texts: &BTreeMap<PathBuf, String>) -> Option<String> {
    let (file, heading) =
        link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
    let target = match (file, page.parent()) {
        ("", _) => page.to_path_buf(),
        (file, Some(folder)) => match folder.join(file).canonicalize() {
            Ok(target) => target,
            Err(error) => return Some(error.to_string()),
        },
        (_, None) => return Some("the page has no folder".to_owned()),
    };
    let heading = heading?;
    let text = texts.get(&target)?;
    (!headings(text).iter().any(|there| there == heading)).then(|| "no such heading".to_owned())
}

/// The targets of all links `[words](target)` of a page, without those in code.
pub(crate) fn in_text(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // Every second part lies between backticks.
        let outside: Vec<&str> = line.split('`').step_by(2).collect();
        // A link's words may be code, so the parts are joined again.
        for rest in outside.join("`").split("](").skip(1) {
            if let Some((target, _)) = rest.split_once(')') {
                // A title may follow the address.
                found.extend(target.split_whitespace().next().map(str::to_owned));
            }
        }
    }
    found
}

/// The anchors of a page's headings, as hubs and mdBook make them.
fn headings(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let words = line.trim_start_matches('#').trim();
        let anchor: String = words
            .to_lowercase()
            .chars()
            .filter(|&c| c.is_alphanumeric() || "-_ ".contains(c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let same = found.iter().filter(|there| **there == anchor).count();
        found.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
    }
    found
}

/// The lines outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# First, of `two`
See [a](a.md), [`b`](../b.md#there \"title\") and `[c](c.md)`.
```
[d](d.md)
# none
```
## First, of `two`
";

    #[test]
    fn links_in_code_are_none_and_words_of_links_may_be_code() {
        assert_eq!(in_text(PAGE), ["a.md", "../b.md#there"]);
    }

    #[test]
    fn headings_have_the_anchors_of_hubs() {
        assert_eq!(headings(PAGE), ["first-of-two", "first-of-two-1"]);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let page = root().join("README.md").canonicalize().unwrap();
        let texts = BTreeMap::from([(page.clone(), PAGE.to_owned())]);
        let why = |link: &str| why_broken(&page, link, &texts);
        assert_eq!(why("Cargo.toml"), None);
        assert_eq!(why("#first-of-two"), None);
        assert_eq!(why("README.md#first-of-two-1"), None);
        assert!(why("#second").is_some());
        assert!(why("no-such-file.md").is_some());
    }
}
