//! The text of an image: its heads, its kernels, and the statements of their bodies.

use std::sync::Arc;

use super::decode::decode;
use super::instruction::Kernel;

/// A PTX image.
#[derive(Debug)]
pub(crate) struct Image {
    /// `.version`, major × 10 + minor.
    pub(crate) version: u32,
    /// `.target`, as in `sm_80`.
    pub(crate) target: u32,
    pub(crate) entries: Vec<Entry>,
}

/// A kernel that an image declares.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Bytes of each parameter.
    pub(crate) parameters: Vec<usize>,
    /// Its decoded body, or why it has none.
    pub(crate) kernel: Result<Arc<Kernel>, String>,
}

/// A parameter as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) len: usize,
    pub(super) align: usize,
}

/// One statement of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Statement<'t> {
    Open,
    Close,
    Label(&'t str),
    Directive(&'t str),
    Instruction(&'t str),
}

/// Reads PTX text. Bodies that cannot be decoded refuse nothing yet: a kernel may have another body.
pub(crate) fn read_image(text: &str) -> Result<Image, String> {
    let text = without_comments(text);
    let mut image = Image { version: 0, target: 0, entries: Vec::new() };
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let word_len = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_len);
        rest = match word {
            ".version" => {
                let (value, after) = next_word(after);
                image.version = version(value).ok_or_else(|| refused("version", value))?;
                after
            }
            ".target" => {
                let (value, after) = next_word(after);
                let digits = value.strip_prefix("sm_").map(|digits| digits.trim_end_matches(','));
                image.target = digits
                    .and_then(|digits| digits.trim_end_matches('a').parse().ok())
                    .ok_or_else(|| refused("target", value))?;
                after
            }
            ".address_size" => {
                let (value, after) = next_word(after);
                if value != "64" {
                    return Err(refused("address size", value));
                }
                after
            }
            ".visible" => after,
            ".entry" => entry(after, &mut image.entries)?,
            other => return Err(refused("directive", other)),
        }
        .trim_start();
    }
    if image.version == 0 || image.target == 0 {
        return Err(refused("image", "it has no version or no target"));
    }
    Ok(image)
}

fn refused(what: &str, value: &str) -> String {
    let value: String = value.chars().take(80).collect();
    format!("unknown {what}: {value}")
}

fn next_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

fn version(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once('.')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    (minor < 10).then_some(())?;
    major.checked_mul(10)?.checked_add(minor)
}

/// Reads ` name(parameters) .directives { body }`; returns what follows.
fn entry<'t>(text: &'t str, entries: &mut Vec<Entry>) -> Result<&'t str, String> {
    let text = text.trim_start();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%');
    let (name, rest) = text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()));
    let broken = |what: &str| format!("kernel {name}: {what}");
    if name.is_empty() {
        return Err(broken("it has no name"));
    }
    let (list, rest) = match rest.trim_start().strip_prefix('(') {
        Some(rest) => rest.split_once(')').ok_or_else(|| broken("its parameters do not end"))?,
        None => ("", rest),
    };
    let parameters: Option<Vec<Parameter>> =
        list.split(',').map(str::trim).filter(|text| !text.is_empty()).map(parameter).collect();
    let parameters = parameters.ok_or_else(|| broken("an unknown kind of parameter"))?;
    let (bounds, rest) = rest.split_once('{').ok_or_else(|| broken("it has no body"))?;
    let body_len = body_len(rest).ok_or_else(|| broken("its body does not end"))?;
    let (body, rest) = rest.split_at(body_len);
    let kernel = decode(name, &parameters, bounds, body).map(Arc::new);
    let parameters = parameters.iter().map(|parameter| parameter.len).collect();
    entries.push(Entry { name: name.to_owned(), parameters, kernel });
    Ok(rest.get(1..).unwrap_or(""))
}

/// The position of the brace that closes a body.
fn body_len(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, sign) in text.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Reads `.param .u64 a` or `.param .align 8 .b8 b[16]`.
fn parameter(text: &str) -> Option<Parameter> {
    let mut words = text.strip_prefix(".param")?.split_whitespace();
    let mut word = words.next()?;
    let mut align = None;
    if word == ".align" {
        align = Some(words.next()?.parse().ok()?);
        word = words.next()?;
    }
    let kind = word.strip_prefix('.')?;
    let (sign, bits) = kind.split_at_checked(1)?;
    let bytes = matches!(sign, "u" | "s" | "b" | "f").then(|| bits.parse::<usize>().ok())?? / 8;
    let name = words.next()?;
    let (name, count) = match name.split_once('[') {
        Some((name, count)) => (name, count.strip_suffix(']')?.parse().ok()?),
        None => (name, 1_usize),
    };
    let len = bytes.checked_mul(count)?;
    let align: usize = align.unwrap_or(bytes);
    let sound = matches!(bytes, 1 | 2 | 4 | 8) && align.is_power_of_two() && words.next().is_none();
    sound.then(|| Parameter { name: name.to_owned(), len, align })
}

/// Comments become spaces.
fn without_comments(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, from) = rest.split_at(at);
        clean.push_str(before);
        let end = if from.starts_with("//") {
            from.find('\n').unwrap_or(from.len())
        } else if from.starts_with("/*") {
            from.find("*/").map_or(from.len(), |end| end + 2)
        } else {
            clean.push('/');
            rest = &from[1..];
            continue;
        };
        clean.push(' ');
        rest = &from[end..];
    }
    clean.push_str(rest);
    clean
}

/// The statements of a body.
pub(super) fn statements(body: &str) -> Result<Vec<Statement<'_>>, String> {
    let (mut list, mut rest) = (Vec::new(), body.trim_start());
    while let Some(first) = rest.chars().next() {
        let (statement, after) = match first {
            '{' => (Statement::Open, &rest[1..]),
            '}' => (Statement::Close, &rest[1..]),
            _ => {
                let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
                let name_len = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                let (name, after) = rest.split_at(name_len);
                if let (false, Some(after)) = (name.is_empty(), after.strip_prefix(':')) {
                    (Statement::Label(name), after)
                } else {
                    let (text, after) = rest
                        .split_once(';')
                        .ok_or_else(|| format!("a statement without an end: {}", rest.trim()))?;
                    let text = text.trim();
                    let kind = if text.starts_with('.') {
                        Statement::Directive(text)
                    } else {
                        Statement::Instruction(text)
                    };
                    (kind, after)
                }
            }
        };
        list.push(statement);
        rest = after.trim_start();
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "
        .version 6.0 // a comment { that opens nothing
        .target sm_70
        .address_size 64
        .visible .entry add(
            .param .u64 add_param_0,
            .param .u32 add_param_1,
            .param .align 8 .b8 add_param_2[24]
        )
        { ret; }
        .entry nothing() { /* ; } */ ret; }";

    #[test]
    fn an_image_declares_its_kernels_and_their_parameters() {
        let image = read_image(IMAGE).unwrap();
        assert_eq!((image.version, image.target), (60, 70));
        let entries: Vec<_> =
            image.entries.iter().map(|e| (e.name.as_str(), e.parameters.as_slice())).collect();
        assert_eq!(entries, [("add", &[8, 4, 24][..]), ("nothing", &[])]);
        assert!(image.entries.iter().all(|entry| entry.kernel.is_ok()));
    }

    #[test]
    fn what_is_no_image_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "no version"),
            ("\u{7f}ELF", "directive"),
            (".version 6.0 .target sm_70 .entry a(b", "do not end"),
            (".version 6.0 .target sm_70 .entry a() { ret;", "does not end"),
            (".version 6.0 .target sm_70 .entry a(.param .v2 b) { ret; }", "parameter"),
            (".version 6 .target sm_70", "version"),
            (".version 6.0 .target gfx90", "target"),
            (".version 6.0 .target sm_70 .func f() { ret; }", ".func"),
        ] {
            let refused = read_image(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
