//! Lists of digests: what `sha256sum`, `b3sum` and the programs of BSD write.
//!
//! ```text
//! HEX  NAME        HEX *NAME        the hash is that of the whole list
//! sha256:HEX  NAME  blake3:HEX  NAME
//! SHA256 (NAME) = HEX  BLAKE3 (NAME) = HEX
//! ```
//!
//! A backslash at the start of a line says that backslashes and line breaks in the name are escaped.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use vram_residency::{ExpectedDigest, FileState, HashKind, regular_file};

use super::digests::{Expectations, Given, KindFrom};
use crate::failure::Failure;
use crate::output::note;

/// Longest list that is read.
const LIST_LEN_MAX: u64 = 16 << 20;
/// Most lines of a list.
const LINE_COUNT_MAX: usize = 1 << 17;
/// Longest name that a message shows.
const SHOWN_MAX: usize = 200;
/// Most listed files that were not given and are named.
const NAMED_MAX: usize = 8;

/// The digests of one name, with the lines that they stand in: one of each kind at most.
#[derive(Debug, Default)]
struct Listed {
    digests: Vec<(Given, usize)>,
}

/// Reads a list, and finds every one of `files` in it.
pub(super) fn read(
    list: &Path,
    hash: HashKind,
    files: &[PathBuf],
) -> Result<Expectations, Failure> {
    let text = text_of(list)?;
    let mut listed = parse(&text, hash)
        .map_err(|(line, what)| refused(list, &format!("line {line}: {what}")))?;
    let mut found = Vec::with_capacity(files.len());
    let mut given = Vec::new();
    for file in files {
        let name = names(list, file).into_iter().find(|name| listed.contains_key(name));
        let Some(name) = name else {
            return Err(refused(list, &format!("it does not name {}", file.display())).hint(
                "names in a list are relative to its own folder; add the file, or leave out \
                       --digests",
            ));
        };
        let digests = listed.get(&name).map(|one| one.digests.iter());
        found.push(digests.into_iter().flatten().map(|(given, _)| *given).collect());
        given.push(name);
    }
    for name in given {
        listed.remove(&name);
    }
    tell_others(list, listed.into_keys().collect());
    Ok(Expectations::of_list(found))
}

fn refused(list: &Path, what: &str) -> Failure {
    Failure::input(format!("the list of digests {}: {what}", list.display()))
        .hint("give a list as `sha256sum` or `b3sum` writes it")
}

/// The text of a list, if it is one and does not change while it is read.
fn text_of(list: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::file("read the list of digests", list, &error);
    let file = regular_file::open_regular(list).map_err(failed)?;
    let before = FileState::of(&file).map_err(failed)?;
    let mut bytes = Vec::new();
    (&file).take(LIST_LEN_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    before
        .check(&file, &list.display().to_string())
        .map_err(|error| super::not_the_file(&error))?;
    if bytes.len() > usize::try_from(LIST_LEN_MAX).unwrap_or(usize::MAX) {
        return Err(refused(list, "it is longer than 16 MiB"));
    }
    String::from_utf8(bytes).map_err(|_not_text| refused(list, "it is not a text"))
}

/// All names with their digests; or the number of the line that is none, and what is wrong with it.
fn parse(text: &str, hash: HashKind) -> Result<HashMap<PathBuf, Listed>, (usize, String)> {
    let mut listed: HashMap<PathBuf, Listed> = HashMap::new();
    for (number, line) in (1_usize..).zip(text.lines()) {
        if number > LINE_COUNT_MAX {
            return Err((number, format!("there are more than {LINE_COUNT_MAX} lines")));
        }
        if line.is_empty() {
            continue;
        }
        let Some((name, given)) = entry(line, hash) else {
            let shown: String = line.chars().take(SHOWN_MAX).collect();
            return Err((number, format!("this is no digest and name: `{shown}`")));
        };
        let one = listed.entry(plain(Path::new(&name))).or_default();
        match one.digests.iter().find(|(known, _)| known.digest.kind() == given.digest.kind()) {
            None => one.digests.push((given, number)),
            Some((known, _)) if known.digest == given.digest => {}
            Some((_, line)) => {
                let shown: String = name.chars().take(SHOWN_MAX).collect();
                return Err((number, format!("{shown} has another digest than in line {line}")));
            }
        }
    }
    Ok(listed)
}

/// The name and the digest of one line.
fn entry(line: &str, hash: HashKind) -> Option<(String, Given)> {
    let (line, escaped) = match line.strip_prefix('\\') {
        Some(rest) => (rest, true),
        None => (line, false),
    };
    let itself = |digest| Given { digest, kind_from: KindFrom::Itself };
    let (name, given) = if let Some((name, digest)) = tagged(line) {
        (name, itself(digest))
    } else {
        let (digits, name) = line.split_once(' ')?;
        let given = if digits.contains(':') {
            itself(digits.parse().ok()?)
        } else {
            let digest = ExpectedDigest::new(hash, digits.parse().ok()?);
            Given { digest, kind_from: KindFrom::List }
        };
        (name.strip_prefix([' ', '*'])?, given)
    };
    let name = if escaped { unescaped(name)? } else { name.to_owned() };
    (!name.is_empty()).then_some((name, given))
}

/// A line of the BSD form.
fn tagged(line: &str) -> Option<(&str, ExpectedDigest)> {
    let (kind, rest) = [(HashKind::Sha256, "SHA256 ("), (HashKind::Blake3, "BLAKE3 (")]
        .into_iter()
        .find_map(|(kind, tag)| Some((kind, line.strip_prefix(tag)?)))?;
    let (name, digits) = rest.rsplit_once(") = ")?;
    Some((name, ExpectedDigest::new(kind, digits.parse().ok()?)))
}

/// A name with its escapes undone.
fn unescaped(name: &str) -> Option<String> {
    let mut plain = String::with_capacity(name.len());
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

/// A path without `.`.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// The names that a list may have for a file: relative to its folder, as the paths are written and
/// with all links of the folders resolved; and absolute.
fn names(list: &Path, file: &Path) -> Vec<PathBuf> {
    let written = |path: &Path| std::path::absolute(path).ok();
    let mut names = Vec::new();
    for (list, file) in [(written(list), written(file)), (resolved(list), resolved(file))] {
        let (Some(list), Some(file)) = (list, file) else { continue };
        if let Some(name) = list.parent().and_then(|folder| file.strip_prefix(folder).ok()) {
            names.push(plain(name));
        }
        names.push(plain(&file));
    }
    names
}

/// An absolute path with all links of its folder resolved; not the last one, which may lead to a file
/// of another name.
fn resolved(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Some(fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()?.join(path.file_name()?))
}

/// Says which files of a list were not given: they were not checked.
fn tell_others(list: &Path, mut names: Vec<PathBuf>) {
    if names.is_empty() {
        return;
    }
    names.sort();
    let shown: Vec<String> =
        names.iter().take(NAMED_MAX).map(|name| name.display().to_string()).collect();
    let rest = names.len().saturating_sub(shown.len());
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    note(format!(
        "{} also lists, and these were not given: {}{more}",
        list.display(),
        shown.join(", ")
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const OTHER: &str = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";

    fn sha256(hex: &str) -> ExpectedDigest {
        ExpectedDigest::sha256(hex.parse().unwrap())
    }

    #[test]
    fn every_form_of_a_line_is_read_and_no_other() {
        for (line, name, kind) in [
            (format!("{HEX}  m.safetensors"), "m.safetensors", HashKind::Sha256),
            (format!("{HEX} *m.safetensors"), "m.safetensors", HashKind::Sha256),
            (format!("{HEX}   two spaces"), " two spaces", HashKind::Sha256),
            (format!("blake3:{HEX}  m"), "m", HashKind::Blake3),
            (format!("sha256:{HEX} *m"), "m", HashKind::Sha256),
            (format!("SHA256 (a (b) = c) = {HEX}"), "a (b) = c", HashKind::Sha256),
            (format!("BLAKE3 (m) = {HEX}"), "m", HashKind::Blake3),
            (format!("\\{HEX}  a\\\\b\\nc"), "a\\b\nc", HashKind::Sha256),
        ] {
            let (found, given) = entry(&line, HashKind::Sha256).unwrap();
            assert_eq!((found.as_str(), given.digest.kind()), (name, kind), "{line}");
            assert_eq!(given.digest.digest(), HEX.parse().unwrap());
        }
        for line in [
            HEX.to_owned(),
            format!("{HEX}  "),
            format!("{HEX} m"),
            format!("{HEX}\tm"),
            format!("{}  m", &HEX[1..]),
            format!("md5:{HEX}  m"),
            format!("SHA512 (m) = {HEX}"),
            format!("SHA256 (m) ={HEX}"),
            format!("SHA256 () = {HEX}"),
            format!("\\{HEX}  a\\x"),
            "# a comment".to_owned(),
            "-----BEGIN PGP SIGNED MESSAGE-----".to_owned(),
        ] {
            assert_eq!(entry(&line, HashKind::Sha256), None, "{line}");
        }
    }

    #[test]
    fn a_name_that_stands_twice_has_one_digest_of_each_kind() {
        let text = format!("{HEX}  m\n\n{HEX}  ./m\nblake3:{OTHER}  m\n");
        let listed = parse(&text, HashKind::Sha256).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[Path::new("m")].digests.len(), 2);
        let (line, what) = parse(&format!("{text}{OTHER}  m"), HashKind::Sha256).unwrap_err();
        assert!(line == 5 && what.contains("line 1"), "{line} {what}");
        assert_eq!(listed[Path::new("m")].digests[0].0.digest, sha256(HEX));
    }

    #[test]
    fn a_list_of_more_lines_than_any_model_has_files_is_refused() {
        let text = "\n".repeat(LINE_COUNT_MAX + 1);
        assert_eq!(parse(&text, HashKind::Sha256).unwrap_err().0, LINE_COUNT_MAX + 1);
    }
}
