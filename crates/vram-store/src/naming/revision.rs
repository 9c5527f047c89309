//! A revision of a model, as people write it.

use core::fmt;
use core::str::FromStr;

/// A revision of a model, as in `llama-3-70b@7`: the number is what follows the last `@`.
///
/// ```
/// let revision: vram_store::Revision = "llama-3-70b@7".parse()?;
/// assert_eq!((&*revision.model, revision.revision), ("llama-3-70b", 7));
/// # Ok::<(), vram_store::ParseRevisionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Revision {
    /// The id of the model.
    pub model: String,
    /// The publisher's number for its content.
    pub revision: u64,
}

/// A text that is no revision of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no revision; write it as in llama-3-70b@7")]
pub struct ParseRevisionError {
    text: String,
}

impl FromStr for Revision {
    type Err = ParseRevisionError;

    fn from_str(text: &str) -> Result<Self, ParseRevisionError> {
        let wrong = || ParseRevisionError { text: text.to_owned() };
        let (model, revision) = text.rsplit_once('@').ok_or_else(wrong)?;
        let number: u64 = revision.parse().map_err(|_not_a_number| wrong())?;
        // One spelling: `+7` and `07` may be typing errors of another number.
        let revision = Some(number).filter(|number| number.to_string() == revision);
        let revision = revision.ok_or_else(wrong)?;
        if model.is_empty() { Err(wrong()) } else { Ok(Self { model: model.to_owned(), revision }) }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.model, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_the_number_after_the_last_at() {
        let read = |text: &str| text.parse::<Revision>();
        assert_eq!(read("a@b@7"), Ok(Revision { model: "a@b".into(), revision: 7 }));
        assert_eq!(read("m@0"), Ok(Revision { model: "m".into(), revision: 0 }));
        for wrong in ["", "m", "m@", "@7", "m@x", "m@-1", "m@+7", "m@07", "m@00", "m@ 7"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
