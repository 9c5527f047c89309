//! Converts errors of files into errors of the facade: the same variants, the same texts.

use vram_files::FileError;

use super::VramError;

impl From<FileError> for VramError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::LimitExceeded { what, limit, wanted } => {
                Self::LimitExceeded { what, limit, wanted }
            }
            FileError::SourceChanged { model_id, segment } => {
                Self::SourceChanged { model_id, segment }
            }
            FileError::SourceLength { model_id, source_name, declared, found } => {
                Self::SourceLength { model_id, source_name, declared, found }
            }
            FileError::Source(error) => Self::Source(error),
            FileError::DigestMismatch { model_id, expected, found } => {
                Self::DigestMismatch { model_id, expected, found }
            }
            FileError::Cancelled { done, total } => Self::Cancelled { done, total },
            FileError::Io { action, path, source } => Self::Io { action, path, source },
            FileError::Key(error) => Self::Key(error),
            FileError::Image { path, source } => Self::Image { path, source },
            FileError::Seal(error) => Self::Seal(error),
            FileError::HostMemory { wanted } => Self::HostMemory { wanted },
            FileError::Config { what } => Self::Config { what },
            // A variant that a later version of that crate adds.
            other => Self::Config { what: other.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use vram_alloc::ByteLen;
    use vram_files::SourceError;
    use vram_seal::{ContentHasher, HashKind, KeyError, SealError};

    use super::*;

    #[test]
    fn every_error_of_a_file_keeps_its_words_and_whether_it_is_about_integrity() {
        let io = || Arc::new(std::io::Error::other("refused"));
        let digest = |of: &[u8]| Box::new(ContentHasher::digest(HashKind::Blake3, of));
        let (name, len) = (|| Arc::from("m"), ByteLen::new);
        let path = || PathBuf::from("image");
        let errors = [
            (FileError::LimitExceeded { what: "bytes", limit: 1, wanted: 2 }, "limit-exceeded"),
            (FileError::SourceChanged { model_id: name(), segment: 3 }, "source-changed"),
            (
                FileError::SourceLength {
                    model_id: name(),
                    source_name: "a file".to_owned(),
                    declared: len(1),
                    found: len(2),
                },
                "source-length",
            ),
            (FileError::Source(SourceError::io("a file", std::io::Error::other("x"))), "source"),
            (
                FileError::DigestMismatch {
                    model_id: name(),
                    expected: digest(b"a"),
                    found: digest(b"b"),
                },
                "digest-mismatch",
            ),
            (FileError::Cancelled { done: len(1), total: len(2) }, "cancelled"),
            (FileError::Io { action: "read", path: Some(path()), source: io() }, "io"),
            (FileError::Io { action: "read", path: None, source: io() }, "io"),
            (FileError::Key(KeyError::NotHex { found: 3 }), "key"),
            (
                FileError::Image { path: path(), source: Box::new(SealError::RecordMismatch) },
                SealError::RecordMismatch.code(),
            ),
            (FileError::Seal(SealError::NotASeal), SealError::NotASeal.code()),
            (FileError::HostMemory { wanted: len(5) }, "host-memory"),
            (FileError::Config { what: "no".to_owned() }, "config"),
        ];
        for (error, code) in errors {
            let (words, integrity) = (error.to_string(), error.is_integrity());
            let answered = VramError::from(error);
            assert_eq!(answered.to_string(), words);
            assert_eq!(answered.code(), code);
            assert_eq!(answered.is_integrity(), integrity);
        }
    }

    #[test]
    fn an_error_that_holds_two_digests_shows_no_part_of_them() {
        let digest = |bytes: &[u8]| ContentHasher::digest(HashKind::Blake3, bytes);
        let (expected, found) = (digest(b"a"), digest(b"b"));
        let error = VramError::another_content(&"m".into(), expected, found);
        let shown = format!("{error} {error:?}");
        for digest in [expected, found] {
            assert!(!shown.contains(&digest.to_string()[..4]), "{shown}");
        }
    }
}
