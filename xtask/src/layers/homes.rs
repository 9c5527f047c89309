//! The places of the methods of two central types: each in one place, so that a call names its
//! module.

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

/// Every `impl` of these types in another place.
pub(super) fn breaches(name: &str, sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for home in HOMES.iter().filter(|_| CRATES.contains(&name)) {
        for source in sources {
            let mut homes = home.at.iter();
            let at_home =
                homes.any(|(krate, path)| *krate == name && source.path.starts_with(path));
            if !at_home && implements(&source.code, home.name) {
                let homes: Vec<_> =
                    home.at.iter().map(|(krate, path)| format!("{krate} {path}")).collect();
                breaches.push(format!(
                    "{name}: {} holds an impl of {}, whose home is {}",
                    source.path,
                    home.name,
                    homes.join(" or ")
                ));
            }
        }
    }
    breaches
}

/// Whether code contains an `impl` block, of a trait or inherent, for a type with that name.
fn implements(code: &str, name: &str) -> bool {
    let word = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices("impl").any(|(at, found)| {
        let (before, from) = code.split_at_checked(at).unwrap_or_default();
        let after = from.get(found.len()..).unwrap_or_default();
        // Only the head of an item: an `impl Trait` in a signature follows `:`, `(`, `>`…
        let starts = before.trim_end().chars().next_back();
        let starts = starts.is_none_or(|last| "{};]".contains(last) || before.ends_with("unsafe "));
        if !starts || after.chars().next().is_some_and(word) {
            return false;
        }
        let head = after.split('{').next().unwrap_or_default();
        let head = head.split(" where ").next().unwrap_or_default();
        let target = head.rsplit(" for ").next().unwrap_or_default();
        // Skips the generics of `impl<…>` and a trait's name; then takes the last name of the
        // type's path.
        let target = if target.trim_start().starts_with('<') {
            target.split_once('>').map_or("", |(_, rest)| rest)
        } else {
            target
        };
        let path = target.trim().split('<').next().unwrap_or_default();
        path.rsplit("::").next().is_some_and(|last| last.trim() == name)
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
        ] {
            assert_eq!(found("vram-core", "moves/wake.rs", text), 1, "{text}");
            assert_eq!(found("vram-residency", "manager/seal.rs", text), 1, "{text}");
            assert_eq!(found("vram-core", "parts/core.rs", text), 0, "{text}");
            assert_eq!(found("vram-residency", "parts/core.rs", text), 1, "{text}");
            assert_eq!(found("vram-gpu", "fault/core.rs", text), 0, "{text}");
        }
        for text in [
            "impl CoreStats { }",
            "impl From<Core> for Other { }",
            "fn f(x: &impl Core) {} // impl Core {",
            "impl Other { fn core(&self) -> &Core { } }",
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
