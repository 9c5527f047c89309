//! Removes comments, literals and test modules from Rust source before the checks read it.

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

/// Blanks out items under `#[cfg(test)]`. `code` has no comments and literals any more.
pub(super) fn tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";

    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let (before, item) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let len = item_len(item);
        let (blank, after) = item.split_at_checked(len).unwrap_or((item, ""));
        out.push_str(before);
        out.extend(blank.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The length of an item: to its semicolon, or to the brace that closes its body.
pub(super) fn item_len(item: &str) -> usize {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, letter) in item.char_indices() {
        let mut end = at.saturating_add(1);
        match letter {
            '{' => braces = braces.saturating_add(1),
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 && others == 0 {
                    // `use a::{b};`
                    let after = item.get(end..).unwrap_or_default();
                    end = end.saturating_add(usize::from(after.starts_with(';')));
                    return end;
                }
            }
            '(' | '[' => others = others.saturating_add(1),
            ')' | ']' => others = others.saturating_sub(1),
            ';' if braces == 0 && others == 0 => return end,
            _ => {}
        }
    }
    item.len()
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
    fn test_modules_and_test_imports_go() {
        let code = "use a;\n#[cfg(test)]\nuse b::{c};\nfn d() {}\n#[cfg(test)]\n#[expect(x)]\nmod \
                    tests { use e; fn f() { g } }\nfn h() {}\n#[cfg(test)]\nmod i;\nfn j() {}";
        let kept = tests(code);
        let words: Vec<_> = kept.split_whitespace().collect();
        let expected = ["use", "a;", "fn", "d()", "{}", "fn", "h()", "{}", "fn", "j()", "{}"];
        assert_eq!(words, expected);
    }
}
