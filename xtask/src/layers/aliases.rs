//! Spellings that would hide from the other checks which file a path leads to.

use super::paths::{self, Import, Paths};
use super::source::Source;
use super::strip;

/// Names that must be written raw, if at all: a field may be called `r#type`.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let",
    "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return",
    "static", "struct", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use",
    "virtual", "where", "while", "yield",
];

/// Every such spelling in a crate's sources.
pub(super) fn breaches(name: &str, sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources {
        let found = imports(source).into_iter().chain(spellings(&source.code));
        breaches.extend(found.map(|what| {
            format!("{name}: {} says {what}, which hides where a path leads", source.path)
        }));
    }
    breaches
}

/// A module above, imported under another name; the root, imported whole.
fn imports(source: &Source) -> Vec<String> {
    let depth = source.module().len();
    let mut found = Vec::new();
    for path in above(&source.code) {
        let ups = path.path.iter().filter(|name| *name == "super").count();
        let told = path.path.join("::");
        if path.name != "*" {
            if path.path.last() != Some(&path.name) {
                found.push(format!("`use {told} as {}`", path.name));
            }
        } else if told.starts_with("crate") || ups > depth {
            found.push(format!("`use {told}::*`"));
        }
    }
    // For a module within the file, as many steps lead less far.
    for path in above(&without_modules(&source.code)) {
        let ups = path.path.iter().filter(|name| *name == "super").count();
        if path.name == "*" && depth > 0 && ups == depth {
            found.push(format!("`use {}::*`", path.path.join("::")));
        }
    }
    found
}

/// Imports of modules above, or of all names in one, without a step down.
fn above(code: &str) -> impl Iterator<Item = Import> {
    let is_up = |name: &String| ["crate", "self", "super"].contains(&name.as_str());
    let imports = Paths::of(code).imports.into_iter();
    imports.filter(move |import| !import.path.is_empty() && import.path.iter().all(is_up))
}

/// Code without the modules that are written out in it.
fn without_modules(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("mod ") {
        let (before, item) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let word = before.chars().next_back().is_some_and(paths::is_word);
        let len = if word { "mod ".len() } else { strip::item_len(item) };
        let (item, after) = item.split_at_checked(len).unwrap_or((item, ""));
        out.push_str(before);
        out.push_str(if word { item } else { " " });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The crate under another name, names written raw without need, modules whose file has another
/// name, files that are read as code.
fn spellings(code: &str) -> Vec<String> {
    let tokens = paths::tokens(code);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let rest = tokens.get(at..).unwrap_or_default();
        match *rest {
            ["extern", "crate", "self", ..] => found.push("`extern crate self`".to_owned()),
            ["include", "!", ..] => found.push("`include!`".to_owned()),
            ["#", "[", "path" | "cfg_attr", ..] => {
                // The literal after it is blank here.
                let attribute = rest.iter().take_while(|token| **token != "]").collect::<Vec<_>>();
                if attribute.windows(2).any(|two| *two == [&"path", &"="]) {
                    found.push("`#[path = …]`".to_owned());
                }
            }
            ["r", "#", name, ..] if !KEYWORDS.contains(&name) && starts_a_word(name) => {
                found.push(format!("`r#{name}`"));
            }
            _ => {}
        }
    }
    found
}

fn starts_a_word(token: &str) -> bool {
    token.chars().next().is_some_and(paths::is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        breaches("any", &[Source::new(path, text)]).len()
    }

    #[test]
    fn a_spelling_that_hides_a_path_is_a_breach() {
        for text in [
            "use crate as c;",
            "use crate::{self as c};",
            "use crate::{error::E, self as c};",
            "fn f() { use {core::fmt, crate as c}; }",
            "pub(crate) use crate::{error::E, *};",
            "use crate::*;",
            "use super::*;",
            "mod deep;\nmod within { use super::E; }\nuse super::*;",
            "mod within { use super::super::*; }",
            "mod within { use crate as c; }",
            "use super::{self as c};",
            "use self::super as c;",
            "use crate::r#room::Plan;",
            "fn f() { crate::r#room::go() }",
            "extern crate self as me;",
            "#[path = \"../room/plan.rs\"]\nmod plan;",
            "#[cfg_attr(unix, path = \"../room/plan.rs\")]\nmod plan;",
            "mod plan { include!(\"../room/plan.inc\"); }",
        ] {
            assert_eq!(found("error.rs", text), 1, "{text}");
        }
    }

    #[test]
    fn paths_that_show_where_they_lead_are_none() {
        for text in [
            "// use crate as c;\nuse crate::error::E as F;",
            "use crate::error::{self, E};",
            "use self::deep::*;",
            "#[cfg(kani)] mod within { use super::*; }",
            "#[cfg(test)] mod tests { use super::*; use crate::*; }",
            "struct Q { r#type: u8, doc: &'static str } const D: &str = include_str!(\"x.md\");",
            "fn f() { tracing::debug!(path = \"x\", \"opened\"); }",
            "#[cfg(all(test, not(loom)))] mod tests { use super::*; use crate::*; }",
            "extern crate cuda_shim as _; let path = f(); r\"#\"; #[expr] fn r() {}",
        ] {
            assert_eq!(found("error.rs", text), 0, "{text}");
        }
        assert_eq!(found("error/file.rs", "use super::*;"), 0, "its folder's module is no root");
        assert_eq!(found("error/file.rs", "use super::super::*;"), 1);
    }
}
