//! Addresses of stores, and messages of their libraries without what is secret.

#[cfg(feature = "cloud")]
mod cloud;

use core::fmt;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

#[cfg(any(not(feature = "cloud"), test))]
use super::Store;
use crate::error::StoreError;

/// The scheme of an address, and what follows it; `None` for a path.
pub(super) fn scheme(address: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = address.split_once("://")?;
    let letter = |one: u8| one.is_ascii_alphanumeric() || matches!(one, b'+' | b'-' | b'.');
    (!scheme.is_empty() && scheme.bytes().all(letter)).then_some((scheme, rest))
}

/// What an address names.
pub(super) enum Place<'a> {
    Folder(PathBuf),
    /// What has this scheme.
    Remote(&'a str),
}

/// Reads an address. One that looks like a mistyped one is refused, and not taken for the name of a folder.
pub(super) fn place(address: &str) -> Result<Place<'_>, StoreError> {
    if let Some(why) = mistyped(address) {
        return Err(refused(address, why));
    }
    match scheme(address) {
        None => Ok(Place::Folder(PathBuf::from(address))),
        Some((name, rest)) if name.eq_ignore_ascii_case("file") => {
            check(address)?;
            file(rest).map(Place::Folder).map_err(|why| refused(address, why))
        }
        Some((name, _)) if !KNOWN.contains(&name) => Err(refused(address, unknown(name))),
        Some((name, _)) => Ok(Place::Remote(name)),
    }
}

/// What is wrong with a path that was probably to be an address; `None` for any other.
pub(crate) fn mistyped(address: &str) -> Option<String> {
    let text = address.trim_start();
    if begun(text).is_none() && from_user(text).is_some() {
        let why =
            "it has what looks like a user and a password; credentials come from the environment";
        return Some(format!("{why}; a folder of such a name is given as ./NAME"));
    }
    // Nobody begins an address so.
    if text.starts_with(['/', '.']) || scheme(address).is_some() {
        return None;
    }
    if text.starts_with('~') {
        let why = "`~` is of shells, and is not expanded here: give the path itself; a folder of such a \
                   name is ./~…";
        return Some(why.to_owned());
    }
    let begun = begun(text).map(|(name, _)| name.to_ascii_lowercase());
    let meant = match begun.as_deref() {
        Some("file") => "did you mean file:///…".to_owned(),
        Some(name) if KNOWN.contains(&name) => format!("did you mean {name}://…"),
        None if !text.contains("://") => return None,
        _ => "an address is a path, or SCHEME://…".to_owned(),
    };
    Some(format!("{meant}; a folder of such a name is given as ./NAME"))
}

/// What of a text without a scheme begins with USER:PASSWORD@: all of it, or what is behind two slashes.
fn from_user(text: &str) -> Option<&str> {
    let rest = text.split_once("//").map_or(text, |(_, rest)| rest);
    let head = rest.split('/').next().unwrap_or_default();
    let before = head.rsplit_once('@').and_then(|(before, _)| before.split_once(':'));
    let (user, password) = before.filter(|_| scheme(text).is_none())?;
    (!user.is_empty() && !password.is_empty()).then_some(rest)
}

/// The scheme with which a text begins that has a part of `://` after it, and all after that part.
fn begun(text: &str) -> Option<(&str, &str)> {
    let letter = |one: char| one.is_ascii_alphanumeric() || matches!(one, '+' | '-' | '.');
    let (name, rest) = text.split_at_checked(text.find(|one| !letter(one))?)?;
    let known = name.eq_ignore_ascii_case("file")
        || KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name));
    let begins = name.starts_with(|one: char| one.is_ascii_alphabetic());
    let after =
        rest.starts_with(":/") || known && (rest.starts_with(':') || rest.starts_with("//"));
    (begins && after).then(|| (name, rest.trim_start_matches([':', '/'])))
}

/// The path in a `file` address: of this machine, with its escapes replaced.
fn file(rest: &str) -> Result<PathBuf, &'static str> {
    let (host, path) =
        rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, ""));
    if path.is_empty() || !(host.is_empty() || host.eq_ignore_ascii_case("localhost")) {
        return Err("a file is of this machine, with an absolute path: file:///PATH");
    }
    let digit = |one: Option<u8>| one.and_then(|one| char::from(one).to_digit(16));
    let (mut found, mut bytes) = (Vec::new(), path.bytes());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            found.push(byte);
            continue;
        }
        let value = digit(bytes.next()).zip(digit(bytes.next())).map(|(high, low)| high << 4 | low);
        match value.and_then(|value| u8::try_from(value).ok()) {
            None | Some(0) => {
                return Err("a % is followed by two hexadecimal digits: write %25 for it");
            }
            Some(value) => found.push(value),
        }
    }
    Ok(PathBuf::from(OsString::from_vec(found)))
}

pub(super) fn refused(address: &str, why: impl fmt::Display) -> StoreError {
    StoreError::Address { address: without_secrets(address), why: redact(&why) }
}

/// The schemes of the feature `cloud`.
const KNOWN: [&str; 7] = ["s3", "s3a", "gs", "az", "azure", "http", "https"];

fn unknown(scheme: &str) -> String {
    format!("no store has the scheme {scheme}; {FORMS}")
}

/// What an address may be, for messages.
const FORMS: &str = "a store is a folder (PATH, file:///PATH), s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, \
                     az://CONTAINER/PREFIX or http(s)://HOST/PATH";

/// Refuses an address that contains a credential: it would stand in lists of processes and in
/// histories of shells.
fn check(address: &str) -> Result<(), StoreError> {
    let (name, rest) = scheme(address).unwrap_or(("", address));
    let host = rest.split('/').next().unwrap_or_default();
    // `http:///host` is read as `http://host` by some.
    if host.is_empty() && !name.eq_ignore_ascii_case("file") {
        let why = format!("no bucket or host follows its two slashes; {FORMS}");
        return Err(refused(address, why));
    }
    if host.contains('@') || rest.contains('?') || rest.contains('#') {
        let why =
            "an address has no user, password or query; credentials come from the environment";
        return Err(refused(address, why));
    }
    Ok(())
}

#[cfg(not(feature = "cloud"))]
pub(super) fn remote(scheme: &str, address: &str) -> Result<Store, StoreError> {
    check(address)?;
    let why = format!(
        "this build reads and writes folders alone (PATH, file:///PATH); {scheme}:// needs the feature `cloud`"
    );
    Err(refused(address, why))
}

#[cfg(feature = "cloud")]
pub(super) use cloud::remote;

/// Names of environment variables whose values never stand in a message.
const SECRET: [&str; 12] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
];

/// The text of a library's error, without addresses' users and queries and without the values of
/// secret variables.
pub(crate) fn redact(error: &dyn fmt::Display) -> String {
    let mut text = error.to_string();
    let values = SECRET.iter().filter_map(|name| std::env::var(name).ok());
    for value in values.filter(|value| value.len() >= 4) {
        text = text.replace(&value, "(secret)");
    }
    let words: Vec<_> = text.split_whitespace().map(without_secrets).collect();
    let mut text = words.join(" ");
    // Bodies of answers can be long, and are of others.
    if let Some((at, _)) = text.char_indices().nth(400) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// The text of a library's error, which ends with its root: what it rests on is often the one thing that helps.
pub(crate) fn caused(error: &dyn core::error::Error) -> String {
    let text = redact(&error);
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    let root = redact(&root);
    if text.contains(&root) { text } else { format!("{text}: {root}") }
}

/// An address, or one that is mistyped, without user, password, query and fragment.
fn without_secrets(word: &str) -> String {
    let parts = match word.split_once("://") {
        Some((before, rest)) => word.get(..before.len().saturating_add(3)).zip(Some(rest)),
        None => begun(word).and_then(|(_, rest)| word.strip_suffix(rest).zip(Some(rest))),
    };
    let parts = parts.or_else(|| Some("").zip(from_user(word)));
    let Some((start, rest)) = parts else { return word.to_owned() };
    let (rest, hidden) = match rest.find(['?', '#']) {
        Some(at) => (rest.get(..at).unwrap_or_default(), "?(hidden)"),
        None => (rest, ""),
    };
    let rest = if rest.contains('@') { rest.trim_start_matches('/') } else { rest };
    let host = rest.split('/').next().unwrap_or_default();
    // A password may contain a slash; what follows a host is a number.
    let has_port = |(_, port): (&str, &str)| port.bytes().all(|one| one.is_ascii_digit());
    let user = if host.split_once(':').is_none_or(has_port) { host } else { rest };
    let hidden_len = user.rfind('@').map_or(0, |at| at.saturating_add(1));
    format!("{start}{}{hidden}", rest.get(hidden_len..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_and_no_message_shows_a_credential() {
        for (text, shown) in [
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("https://user:hunter2@host/x?sig=abc#y", "https://host/x?(hidden)"),
            ("GET https://host/x?X-Amz-Signature=abc: 403", "GET https://host/x?(hidden) 403"),
            ("no address", "no address"),
            ("http:///user:hunter2@host/x", "http://host/x"),
            ("user:hunter2@host", "host"),
            ("//user:hunter2@host/x", "host/x"),
            ("http;//user:hunter2@host/x", "host/x"),
            ("m@1", "m@1"),
            ("https//user:hunter2@host/x?sig=abc", "https//host/x?(hidden)"),
            ("http:/user:hunter2@host/x#abc", "http:/host/x?(hidden)"),
            ("https://user:hun/ter2@host/x", "https://host/x"),
            ("s3:bucket/at@b", "s3:bucket/at@b"),
            ("http://host:80/at@b", "http://host:80/at@b"),
        ] {
            assert_eq!(redact(&text), shown);
        }
        for wrong in ["https://user:hunter2@host/x", "https://host/x?sig=abc", "s3://k:s@bucket"] {
            let error = Store::open(wrong).unwrap_err().to_string();
            assert!(error.contains("environment"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("abc") && !error.contains("k:s"));
        }
        let long = redact(&"x ".repeat(1000));
        assert!(long.chars().count() <= 401);
    }

    #[test]
    fn an_error_of_a_library_ends_with_its_root_and_without_secrets() {
        #[derive(Debug, thiserror::Error)]
        #[error("error {0}")]
        struct Above(&'static str, #[source] Box<dyn core::error::Error>);
        let root = "no route to https://user:hunter2@host/x?sig=abc";
        let root = Above("of the system", Box::from(root));
        let error = Above("performing GET", Box::new(Above("sending", Box::new(root))));
        assert_eq!(caused(&error), "error performing GET: no route to https://host/x?(hidden)");
        assert_eq!(caused(&Above("alone: why", Box::from("why"))), "error alone: why");
    }

    #[test]
    fn a_mistyped_address_is_no_folder() {
        for (wrong, advice) in [
            ("s3:/bucket/x", "did you mean s3://…"),
            ("S3:bucket", "did you mean s3://…"),
            ("gs:bucket", "did you mean gs://…"),
            ("http:/u:hunter2@h/x?sig=hunter2", "did you mean http://…"),
            ("https//u:hunter2@h", "did you mean https://…"),
            ("s3//b", "did you mean s3://…"),
            ("file:rel", "did you mean file:///…"),
            ("foo:/rel", "SCHEME://…"),
            (" s3://b", "did you mean s3://…"),
            ("my s3://b", "SCHEME://…"),
            ("~/st", "not expanded"),
            ("file://host/x", "file:///PATH"),
            ("file://rel", "file:///PATH"),
            ("file:///a%2", "%25"),
            ("file:///a%00", "%25"),
            ("file:///a?b", "no user, password or query"),
            ("s3://", "s3://BUCKET/PREFIX"),
            ("s3:///key", "s3://BUCKET/PREFIX"),
            ("abfss://box@account.dfs.core.windows.net/x", "az://CONTAINER/PREFIX"),
            ("abfss://u:hunter2@account/x", "no store has the scheme abfss"),
            ("S3://b", "s3://BUCKET/PREFIX"),
        ] {
            for opened in
                [Store::open(wrong), Store::open_or_create(wrong), Store::open_or_absent(wrong)]
            {
                let said = opened.unwrap_err().to_string();
                assert!(said.contains(advice) && !said.contains("hunter2"), "{wrong}: {said}");
            }
            assert!(!Store::is_path(wrong), "{wrong}");
        }
        for path in ["st", "./s3:/b", "/s3:/b", "s3/b", "2024:01/x", "backup-2024:01", "a b", "s3"]
        {
            assert_eq!(mistyped(path), None, "{path}");
            assert!(Store::is_path(path), "{path}");
        }
    }

    #[test]
    fn a_file_address_is_a_path_of_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b%");
        for host in ["", "localhost", "LOCALHOST"] {
            let address = format!("file://{host}{}/a%20b%25", folder.path().display());
            let store = Store::open_or_create(&address).unwrap();
            assert_eq!(&**store.name(), path.to_str().unwrap(), "{address}");
            assert!(path.is_dir());
        }
    }

    #[test]
    fn a_path_is_no_address() {
        assert_eq!(scheme("/var/lib/store"), None);
        assert_eq!(scheme("C://x"), Some(("C", "x")));
        assert_eq!(scheme("s3://bucket/a"), Some(("s3", "bucket/a")));
        let unknown = Store::open("foo://x").unwrap_err().to_string();
        assert!(unknown.contains("no store has the scheme foo"), "{unknown}");
        assert!(matches!(Store::open("/does/not/exist"), Err(StoreError::Address { .. })));
    }
}
