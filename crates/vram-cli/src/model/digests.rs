//! The digests that files must have: from the command line or from a list.

use core::str::FromStr;
use std::path::{Path, PathBuf};

use vram_residency::{ContentDigest, ContentHasher, ExpectedDigest, HashKind, ParseDigestError};

use crate::failure::Failure;

/// A digest as it stands on the command line or in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(super) digest: ExpectedDigest,
    pub(super) kind_from: KindFrom,
}

/// What says of which kind a digest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KindFrom {
    /// The digest itself.
    Itself,
    /// Nothing: digits alone on the command line.
    Default,
    /// The kind of the whole list.
    List,
}

impl FromStr for Given {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let itself = text.contains(':');
        let kind_from = if itself { KindFrom::Itself } else { KindFrom::Default };
        Ok(Self { digest: text.parse()?, kind_from })
    }
}

impl Given {
    /// The failure of a digest that is right, but for its kind.
    fn of_kind(&self, path: &Path, kind: HashKind) -> Failure {
        let name = |kind| match kind {
            HashKind::Sha256 => "SHA-256",
            _ => "BLAKE3",
        };
        let (taken, is) = (name(self.digest.kind()), name(kind));
        let right = ExpectedDigest::new(kind, self.digest.digest());
        let what = format!(
            "the digest given for {} is its {is}, and was taken for its {taken}",
            path.display()
        );
        Failure::input(what).hint(match self.kind_from {
            KindFrom::Itself | KindFrom::Default => format!("write {right}"),
            KindFrom::List => format!("give --list-hash {kind}, or write {right} in the list"),
        })
    }
}

/// The digests of one file as it lies in device memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) blake3: ContentDigest,
    /// If it was asked for.
    pub(crate) sha256: Option<ContentDigest>,
}

/// Computes them, of bytes in order.
#[derive(Debug)]
pub(crate) struct Hashers {
    blake3: ContentHasher,
    sha256: Option<ContentHasher>,
}

impl Hashers {
    /// For BLAKE3, and SHA-256 if it is asked for.
    pub(crate) fn new(sha256: bool) -> Self {
        let sha256 = sha256.then(|| ContentHasher::new(HashKind::Sha256));
        Self { blake3: ContentHasher::new(HashKind::Blake3), sha256 }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }

    pub(crate) fn finalize(self) -> Found {
        let sha256 = self.sha256.map(ContentHasher::finalize);
        Found { blake3: self.blake3.finalize(), sha256 }
    }
}

impl Found {
    fn of_kind(&self, kind: HashKind) -> Option<ContentDigest> {
        match kind {
            HashKind::Blake3 => Some(self.blake3),
            HashKind::Sha256 => self.sha256,
            _ => None,
        }
    }
}

/// What each file must have: as many lists as there are files, or none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectations(Vec<Vec<Given>>);

impl Expectations {
    /// One digest for each file, in order; or none at all.
    pub(crate) fn in_order(given: &[Given], files: usize) -> Result<Self, Failure> {
        if !given.is_empty() && given.len() != files {
            return Err(Failure::input(format!(
                "{} --expect-digest for {files} files",
                given.len()
            ))
            .hint("give one for each file, in order, or none"));
        }
        Ok(Self(given.iter().map(|one| vec![*one]).collect()))
    }

    pub(super) const fn of_list(files: Vec<Vec<Given>>) -> Self {
        Self(files)
    }

    /// Returns true if the content of every file is compared with a digest.
    pub(crate) const fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Returns true if the SHA-256 of this file is needed.
    pub(crate) fn needs_sha256(&self, file: usize) -> bool {
        self.of(file).iter().any(|given| given.digest.kind() == HashKind::Sha256)
    }

    fn of(&self, file: usize) -> &[Given] {
        self.0.get(file).map(Vec::as_slice).unwrap_or_default()
    }

    /// Compares the digests of one file with those that it must have.
    ///
    /// # Arguments
    ///
    /// * `other`: computes the SHA-256 of the file, which digits alone may be meant as.
    pub(crate) fn check(
        &self,
        file: usize,
        path: &Path,
        found: &Found,
        other: impl Fn() -> Result<ContentDigest, Failure>,
    ) -> Result<(), Failure> {
        for given in self.of(file) {
            let (kind, expected) = (given.digest.kind(), given.digest.digest());
            let is = found.of_kind(kind);
            if is == Some(expected) {
                continue;
            }
            if kind == HashKind::Sha256 && found.blake3 == expected {
                return Err(given.of_kind(path, HashKind::Blake3));
            }
            if kind == HashKind::Blake3
                && given.kind_from != KindFrom::Itself
                && other()? == expected
            {
                return Err(given.of_kind(path, HashKind::Sha256));
            }
            let path = path.display();
            let is = is.map_or_else(String::new, |is| is.to_string());
            return Err(Failure::integrity(format!(
                "{path} has {kind} digest {is}, and {expected} was expected"
            ))
            .hint("fetch the file again, or check the digest"));
        }
        Ok(())
    }
}

/// The hash that the digits alone in a list of digests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ListHash {
    /// As `sha256sum` writes it.
    Sha256,
    /// As `b3sum` writes it.
    Blake3,
}

impl From<ListHash> for HashKind {
    fn from(hash: ListHash) -> Self {
        match hash {
            ListHash::Sha256 => Self::Sha256,
            ListHash::Blake3 => Self::Blake3,
        }
    }
}

/// Where the digests come from.
#[derive(clap::Args, Debug)]
pub(crate) struct DigestArgs {
    /// Digest that a file must have, `blake3:HEX` or `sha256:HEX`; digits alone are BLAKE3, as
    /// `b3sum` prints it. One for each file, in order.
    #[arg(long = "expect-digest", value_name = "DIGEST")]
    pub(crate) expect_digests: Vec<Given>,
    /// A list of digests, as `sha256sum` or `b3sum` writes it; it must name every file, relative to
    /// its own folder.
    #[arg(long, value_name = "LIST", conflicts_with = "expect_digests")]
    pub(crate) digests: Option<PathBuf>,
    /// Which hash the lines of that list have that do not say it.
    #[arg(long, value_enum, value_name = "HASH", default_value_t = ListHash::Sha256, requires = "digests")]
    pub(crate) list_hash: ListHash,
}

impl DigestArgs {
    /// What each of these files must have.
    pub(crate) fn expectations(&self, files: &[PathBuf]) -> Result<Expectations, Failure> {
        match &self.digests {
            Some(list) => super::list::read(list, self.list_hash.into(), files),
            None => Expectations::in_order(&self.expect_digests, files.len()),
        }
    }
}
