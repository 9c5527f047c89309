//! The paths in a source file: its imports, its inline paths, and the names that it defines.

use std::collections::BTreeSet;

/// A name that a `use` brings into a module, and the path behind it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// The name in this module; `*` for all names of the path's module.
    pub(super) name: String,
    pub(super) path: Vec<String>,
}

/// The paths and names of a file.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Every path that begins with `crate`, `self` or `super`, imported or inline.
    pub(super) named: BTreeSet<Vec<String>>,
    pub(super) imports: Vec<Import>,
    /// Names of items that are defined in the file.
    pub(super) defined: BTreeSet<String>,
}

impl Paths {
    /// Reads code without comments and literals.
    pub(super) fn of(code: &str) -> Self {
        let tokens = tokens(code);
        let token = |at: usize| tokens.get(at).copied().unwrap_or_default();
        let mut paths = Self::default();
        let mut at = 0_usize;
        while at < tokens.len() {
            let before = at.checked_sub(1).map(token).unwrap_or_default();
            let next = token(at.saturating_add(1));
            match token(at) {
                "use" => {
                    let mut leaves = Vec::new();
                    at = tree(&tokens, at.saturating_add(1), &[], &mut leaves);
                    for import in leaves {
                        if is_ours(&import.path) {
                            paths.named.insert(import.path.clone());
                        }
                        paths.imports.push(import);
                    }
                    continue;
                }
                // `pub(in crate::x)` sets the visibility of an item, and imports nothing.
                "crate" | "self" | "super" if next == "::" && before != "in" && before != "::" => {
                    let mut leaves = Vec::new();
                    at = tree(&tokens, at, &[], &mut leaves);
                    paths.named.extend(leaves.into_iter().map(|leaf| leaf.path));
                    continue;
                }
                "struct" | "enum" | "union" | "trait" | "type" | "const" | "static" | "fn"
                | "mod" | "macro_rules"
                    if next.chars().next().is_some_and(is_word) =>
                {
                    paths.defined.insert(next.to_owned());
                }
                _ => {}
            }
            at = at.saturating_add(1);
        }
        paths
    }
}

fn is_ours(path: &[String]) -> bool {
    path.first().is_some_and(|first| ["crate", "self", "super"].contains(&first.as_str()))
}

pub(super) fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Words, `::`, and every other character by itself.
pub(super) fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = if is_word(first) {
            rest.find(|letter| !is_word(letter)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at_checked(len).unwrap_or((rest, ""));
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

/// Reads one tree of paths, such as `crate::{a::B, c::{self, D as E}}`, and returns the position of
/// its end.
fn tree(tokens: &[&str], start: usize, prefix: &[String], leaves: &mut Vec<Import>) -> usize {
    let token = |at: usize| tokens.get(at).copied().unwrap_or_default();
    let mut path = prefix.to_vec();
    let mut at = start;
    loop {
        match token(at) {
            "{" => {
                at = at.saturating_add(1);
                while !["}", ""].contains(&token(at)) {
                    let before = at;
                    at = tree(tokens, at, &path, leaves);
                    if token(at) == "," || at == before {
                        at = at.saturating_add(1);
                    }
                }
                return at.saturating_add(1);
            }
            "*" => {
                leaves.push(Import { name: "*".to_owned(), path });
                return at.saturating_add(1);
            }
            word if word.chars().next().is_some_and(is_word) => {
                // `{self, …}` names the module before it.
                if word != "self" || path.is_empty() {
                    path.push(word.to_owned());
                }
                at = at.saturating_add(1);
                let after = token(at.saturating_add(1));
                let goes_on = after == "{" || after == "*" || after.chars().all(is_word);
                if token(at) == "::" && goes_on && !after.is_empty() {
                    at = at.saturating_add(1);
                    continue;
                }
                let name = if token(at) == "as" {
                    at = at.saturating_add(2);
                    token(at.saturating_sub(1)).to_owned()
                } else {
                    path.last().cloned().unwrap_or_default()
                };
                leaves.push(Import { name, path });
                return at;
            }
            // `use ::external`.
            "::" if path.is_empty() => at = at.saturating_add(1),
            _ => return at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(code: &str) -> Vec<String> {
        Paths::of(code).named.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn imports_and_inline_paths_are_found() {
        assert_eq!(
            named(
                "use crate::{a::B, c::{self, D as E}, f::*}; use std::x; pub(in crate::g) fn h() { \
                 super::i::j(); let k = self::l::<u8>(); crate::m!(); x.self_; }"
            ),
            ["crate::a::B", "crate::c", "crate::c::D", "crate::f", "crate::m", "self::l"]
                .into_iter()
                .chain(["super::i::j"])
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn names_are_known_by_what_they_are_imported_as() {
        let paths = Paths::of("pub use a::{B as C, d}; use ::e::F; struct G; pub const fn h() {}");
        let imports: Vec<_> =
            paths.imports.iter().map(|import| (&*import.name, import.path.join("::"))).collect();
        let expected = [("C", "a::B"), ("d", "a::d"), ("F", "e::F")];
        assert_eq!(imports, expected.map(|(name, path)| (name, path.to_owned())));
        assert!(["G", "h"].iter().all(|name| paths.defined.contains(*name)));
    }
}
