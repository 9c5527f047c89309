//! The places of the methods of two central types: each in one place, so that a call names its
//! module.

use super::paths::{self, Paths};
use super::source::Source;

/// A type whose `impl` blocks, including trait impls, must be in one place.
struct Home {
    name: &'static str,
    /// Crates, and the path prefix of the permitted files in each.
    at: &'static [(&'static str, &'static str)],
}

/// The crates in which the rule applies: others have types with these names too.
const CRATES: &[&str] = &["vram-core", "vram-residency"];

const HOMES: &[Home] = &[
    Home { name: "Core", at: &[("vram-core", "parts/core.rs")] },
    Home {
        name: "VramManager",
        at: &[("vram-residency", "manager.rs"), ("vram-residency", "manager/")],
    },
];

/// Every `impl` of these types in another place, and every alias, which would hide an `impl`.
pub(super) fn breaches(name: &str, sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for home in HOMES.iter().filter(|_| CRATES.contains(&name)) {
        for source in sources {
            let mut homes = home.at.iter();
            let at_home =
                homes.any(|(krate, path)| *krate == name && source.path.starts_with(path));
            let tokens = paths::tokens(&source.code);
            let found = [
                ("an impl", !at_home && implements(&tokens, home.name)),
                ("an alias", renames(&source.code, &tokens, home.name)),
            ];
            for (what, _) in found.iter().filter(|(_, found)| *found) {
                let homes: Vec<_> =
                    home.at.iter().map(|(krate, path)| format!("{krate} {path}")).collect();
                breaches.push(format!(
                    "{name}: {} holds {what} of {}, whose home is {}",
                    source.path,
                    home.name,
                    homes.join(" or ")
                ));
            }
        }
    }
    breaches
}

/// Whether code contains an `impl` block, of a trait or inherent, for a type that names `name`.
fn implements(tokens: &[&str], name: &str) -> bool {
    let heads = tokens.iter().enumerate().filter(|(at, token)| {
        // Only the head of an item: an `impl Trait` in a signature follows `:`, `(`, `>`…
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        let starts = before.is_none_or(|last| ["{", "}", ";", "]", "unsafe"].contains(last));
        **token == "impl" && starts
    });
    heads.into_iter().any(|(at, _)| {
        let after = tokens.get(at.saturating_add(1)..).unwrap_or_default();
        target(after).contains(&name)
    })
}

/// The type that an `impl` is for: what stands between its `for`, if it has one, and its body.
fn target<'a>(after: &[&'a str]) -> Vec<&'a str> {
    let mut target = Vec::new();
    let (mut depth, mut before) = (0_usize, "");
    for token in after {
        match *token {
            "{" | "where" | ";" if depth == 0 => break,
            "for" if depth == 0 => target.clear(),
            "<" => depth = depth.saturating_add(1),
            // `Fn() -> X`
            ">" if before != "-" => depth = depth.saturating_sub(1),
            word if depth == 0 || !target.is_empty() => target.push(word),
            // Generics of the block itself, as in `impl<T>`.
            _ => {}
        }
        before = token;
    }
    target
}

/// Whether code gives a type of that name another one.
fn renames(code: &str, tokens: &[&str], name: &str) -> bool {
    let imported = Paths::of(code)
        .imports
        .into_iter()
        .any(|import| import.path.last().is_some_and(|last| last == name) && import.name != name);
    let mut types = tokens.split(|token| *token == "type").skip(1);
    imported
        || types.any(|after| {
            let mut item = after.iter().take_while(|token| **token != ";");
            item.any(|token| *token == "=") && item.any(|token| *token == name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, path: &str, text: &str) -> usize {
        breaches(name, &[Source::new(path, text)]).len()
    }

    #[test]
    fn methods_of_core_stand_in_one_file() {
        for text in [
            "impl Core { fn f() {} }",
            "use x;\n\nimpl Core\n{ fn f() {} }",
            "struct A; impl Drop for Core { }",
            "impl<T> From<T> for crate::parts::Core where T: X { }",
            "#[expect(x)]\nimpl parts::Core {}",
            "impl<T> Tr<T> for Core\nwhere\n    T: Clone,\n{\n}",
            "impl Core\nwhere\n    Self: Sized,\n{\n}",
            "impl Tr for &Core {}",
            "impl<'a, F: Fn() -> u8> Tr for &'a mut crate::parts::Core {}",
            "impl Tr for Arc<Core> {}",
            "impl<T: Tr<Of = u8>> Tr for Arc<Vec<Core>>\nwhere\n    T: Clone,\n{\n}",
            "unsafe\nimpl Tr\nfor Core {}",
            "use crate::parts::Core as C;",
            "use crate::parts::{Core as C, keys};",
            "type C = Core;",
            "pub(crate) type Shared<T>\n    = Arc<crate::parts::Core>;",
        ] {
            assert_eq!(found("vram-core", "moves/wake.rs", text), 1, "{text}");
            assert_eq!(found("vram-residency", "manager/seal.rs", text), 1, "{text}");
            // An alias made at home would hide an `impl` elsewhere.
            let alias = usize::from(!text.contains("impl"));
            assert_eq!(found("vram-core", "parts/core.rs", text), alias, "{text}");
            assert_eq!(found("vram-residency", "parts/core.rs", text), 1, "{text}");
            assert_eq!(found("vram-gpu", "fault/core.rs", text), 0, "{text}");
        }
        for text in [
            "impl CoreStats { }",
            "impl From<Core> for Other { }",
            "fn f(x: &impl Core) {} // impl Core {",
            "impl Other { fn core(&self) -> &Core { } }",
            "impl<T> Other for T\nwhere\n    T: AsRef<Core>,\n{\n}",
            "impl<T: AsRef<Core>> Other<T> {}",
            "use crate::parts::Core; use crate::parts::{core as c}; type C = u8; struct D(Core);",
        ] {
            assert_eq!(found("vram-core", "moves/wake.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn methods_of_the_manager_stand_in_its_folder() {
        let text = "impl fmt::Debug for VramManager { }";
        assert_eq!(found("vram-residency", "images.rs", text), 1);
        assert_eq!(found("vram-core", "parts/core.rs", text), 1);
        assert_eq!(found("vram-residency", "manager.rs", text), 0);
        assert_eq!(found("vram-residency", "manager/close.rs", text), 0);
    }
}
