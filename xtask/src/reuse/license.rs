//! Licence expressions, as manifests state them.

/// Whether an expression can be met with licences that `allowed` accepts: of `OR` one side, of `AND`
/// both. What is no expression is not met.
pub(super) fn is_met(expression: &str, allowed: impl Fn(&str) -> bool) -> bool {
    // An older way to write OR.
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut reader = Reader { words: &words, allowed: &allowed };
    reader.either() == Some(true) && reader.words.is_empty()
}

/// Reads from the front; `None` is a mistake in the expression.
struct Reader<'a> {
    words: &'a [&'a str],
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Reader<'a> {
    fn either(&mut self) -> Option<bool> {
        let mut met = self.both()?;
        while self.takes("OR") {
            // Both sides are read, whichever is met.
            met |= self.both()?;
        }
        Some(met)
    }

    fn both(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.takes("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        if self.takes("(") {
            let met = self.either()?;
            return self.takes(")").then_some(met);
        }
        let name = self.next().filter(|name| !["OR", "AND", "WITH", ")"].contains(name))?;
        if self.takes("WITH") {
            let exception = self.next()?;
            return Some((self.allowed)(&format!("{name} WITH {exception}")));
        }
        Some((self.allowed)(name))
    }

    fn takes(&mut self, word: &str) -> bool {
        let there = self.words.first() == Some(&word);
        if there {
            self.next();
        }
        there
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_of_or_and_both_sides_of_and_must_be_allowed() {
        let met = |text: &str| {
            is_met(text, |name| ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].contains(&name))
        };
        for text in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(GPL-3.0 OR MIT) AND Zlib",
            "MIT OR GPL-3.0 AND X",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(met(text), "{text}");
        }
        for text in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "Apache-2.0",
            "MIT WITH LLVM-exception",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "MIT OR",
            "OR",
            "MIT AND (GPL-3.0 OR AND)",
        ] {
            assert!(!met(text), "{text}");
        }
    }
}
