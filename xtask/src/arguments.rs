//! Parsing of options: an unknown option is an error, never ignored.

use core::fmt::Display;
use core::str::FromStr;

/// Refuses any argument, for commands that take none.
pub(crate) fn none(mut args: impl Iterator<Item = String>) -> Result<(), String> {
    match args.next() {
        None => Ok(()),
        Some(extra) => Err(unknown(&extra)),
    }
}

/// The error for an option that does not exist.
pub(crate) fn unknown(flag: &str) -> String {
    format!("no option `{flag}`; see `cargo xtask help`")
}

/// The value that must follow `flag`.
pub(crate) fn value(flag: &str, args: &mut impl Iterator<Item = String>) -> Result<String, String> {
    args.next().ok_or_else(|| format!("{flag} needs a value"))
}

/// The value that must follow `flag`, parsed.
pub(crate) fn parsed<T>(flag: &str, args: &mut impl Iterator<Item = String>) -> Result<T, String>
where
    T: FromStr,
    T::Err: Display,
{
    let text = value(flag, args)?;
    text.parse().map_err(|error| format!("{flag} {text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> impl Iterator<Item = String> {
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn a_command_without_options_refuses_one() {
        assert_eq!(none(words("")), Ok(()));
        assert!(none(words("--fast")).unwrap_err().contains("--fast"));
    }

    #[test]
    fn a_missing_or_garbled_value_is_named() {
        assert!(value("--only", &mut words("")).unwrap_err().contains("--only"));
        assert!(parsed::<u32>("--cases", &mut words("many")).unwrap_err().contains("many"));
        assert_eq!(parsed::<u32>("--cases", &mut words("7")), Ok(7));
    }
}
