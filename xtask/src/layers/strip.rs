//! Removes comments, literals and test modules from Rust source before the checks read it.

use super::paths;

/// Blanks out comments and the content of string and character literals. Lines keep their
/// positions.
pub(super) fn literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let len = skipped(rest, out.chars().next_back());
        if len == 0 {
            out.push(next);
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
        } else {
            let (blank, after) = rest.split_at_checked(len).unwrap_or((rest, ""));
            out.extend(blank.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }));
            rest = after;
        }
    }
    out
}

/// The length of the comment or literal at the start of `rest`; 0 if there is none.
fn skipped(rest: &str, before: Option<char>) -> usize {
    let within_word = before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, 1);
    }
    if !within_word {
        for prefix in ["r", "br", "cr"] {
            let Some(after) = rest.strip_prefix(prefix) else { continue };
            let hashes = after.chars().take_while(|letter| *letter == '#').count();
            if after.get(hashes..).is_some_and(|after| after.starts_with('"')) {
                let end = format!("\"{}", "#".repeat(hashes));
                let start = prefix.len().saturating_add(hashes).saturating_add(1);
                let body = rest.get(start..).unwrap_or_default();
                let len = body.find(&end).map_or(body.len(), |at| at.saturating_add(end.len()));
                return start.saturating_add(len);
            }
        }
    }
    if rest.starts_with('\'') { character(rest) } else { 0 }
}

/// Comments of this kind nest.
fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0_usize, 0_usize);
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            depth = depth.saturating_add(1);
            at = at.saturating_add(2);
        } else if here.starts_with("*/") {
            depth = depth.saturating_sub(1);
            at = at.saturating_add(2);
            if depth == 0 {
                break;
            }
        } else {
            at = at.saturating_add(here.chars().next().map_or(1, char::len_utf8));
        }
    }
    at
}

/// The end of a literal that ends at the next quote without a backslash before it.
fn quoted(rest: &str, start: usize) -> usize {
    let quote = rest.chars().next();
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(start) {
        if !escaped && Some(letter) == quote {
            return at.saturating_add(1);
        }
        escaped = !escaped && letter == '\\';
    }
    rest.len()
}

/// A character literal; 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut letters = rest.chars().skip(1);
    match (letters.next(), letters.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(rest, 1),
        _ => 0,
    }
}

/// Blanks out what stands under `#[cfg(test)]`, or `test` and more. `code` has no comments and
/// literals any more.
pub(super) fn tests(code: &str) -> String {
    const MARKS: [&str; 2] = ["#[cfg(test)]", "#[cfg(all(test,"];

    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = MARKS.iter().filter_map(|mark| rest.find(mark)).min() {
        let (before, item) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let len = len_to(item, if is_item(item) { ';' } else { ',' });
        let (blank, after) = item.split_at_checked(len).unwrap_or((item, ""));
        out.push_str(before);
        out.extend(blank.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether attributes stand before an item, and not before an arm, a field or an argument.
fn is_item(code: &str) -> bool {
    const FIRST: &str = "fn mod use struct enum union impl const static type trait unsafe extern \
                         async macro_rules let";

    let mut rest = code;
    while let Some(attribute) = rest.strip_prefix('#') {
        rest = attribute.get(len_to(attribute, ']')..).unwrap_or_default().trim_start();
    }
    // `pub` stands before fields too: what follows it decides.
    let mut words = paths::tokens(rest).into_iter().peekable();
    if words.next_if_eq(&"pub").is_some() && words.peek() == Some(&"(") {
        words.find(|token| *token == ")");
    }
    words.next().is_some_and(|word| FIRST.split_whitespace().any(|first| first == word))
}

/// The length of an item: to its semicolon, or to the brace that closes its body.
pub(super) fn item_len(item: &str) -> usize {
    len_to(item, ';')
}

/// The length of code to `end` or a semicolon outside all brackets, to a closing bracket that is
/// `end` or a brace, with an `end` behind it, or to what closes the list in which the code stands.
fn len_to(code: &str, end: char) -> usize {
    let mut depth = 0_usize;
    for (at, letter) in code.char_indices() {
        let next = at.saturating_add(1);
        match letter {
            '{' | '(' | '[' => depth = depth.saturating_add(1),
            '}' | ')' | ']' if depth == 0 => return at,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && (letter == '}' || letter == end) {
                    // `use a::{b};`, and an arm with a block and a comma.
                    let after = code.get(next..).unwrap_or_default();
                    return next.saturating_add(usize::from(after.starts_with(end)));
                }
            }
            _ if depth == 0 && (letter == end || letter == ';') => return next,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::{literals, tests};

    #[test]
    fn comments_and_literals_go_and_code_stays() {
        let stripped = literals(concat!(
            "a // crate::x\n/* crate::y /* nested */ still */ b \"crate::z \\\" {\" c\n",
            "r#\"crate::w \" {\"# d '{' '\\'' e &'static f b\"{\" expr\"{\" g"
        ));
        let words: Vec<_> = stripped.split_whitespace().collect();
        assert_eq!(words, ["a", "b", "c", "d", "e", "&'static", "f", "b", "expr", "g"]);
        assert_eq!(stripped.lines().count(), 3);
    }

    #[test]
    fn a_test_arm_field_or_argument_goes_and_its_neighbours_stay() {
        for (code, kept) in [
            ("match a { #[cfg(test)] 9 => b(c, d), 1 => { e() } }", "match a { 1 => { e() } }"),
            ("match a { #[cfg(test)] 9 => { b } 1 => { e() } }", "match a { 1 => { e() } }"),
            ("fn f(#[cfg(test)] a: u8, b: u8) { c() }", "fn f( b: u8) { c() }"),
            ("S { #[cfg(test)] a: b }; d()", "S { }; d()"),
            ("struct S { #[cfg(test)] pub(crate) a: B, c: D }", "struct S { c: D }"),
            ("#[cfg(all(test, not(loom)))] mod t { a } b", " b"),
        ] {
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words(&tests(code)), words(kept), "{code}");
        }
    }

    #[test]
    fn test_modules_and_test_imports_go() {
        let code = "use a;\n#[cfg(test)]\nuse b::{c};\nfn d() {}\n#[cfg(test)]\n#[expect(x)]\nmod \
                    tests { use e; fn f() { g } }\nfn h() {}\n#[cfg(test)]\nmod i;\nfn j() {}";
        let kept = tests(code);
        let words: Vec<_> = kept.split_whitespace().collect();
        let expected = ["use", "a;", "fn", "d()", "{}", "fn", "h()", "{}", "fn", "j()", "{}"];
        assert_eq!(words, expected);
    }
}
