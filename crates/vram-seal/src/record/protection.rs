//! Whether ciphertext or plaintext is sealed.

/// Which form of the content lies in memory, and how it is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Protection {
    /// Ciphertext: any change is detected before a byte of plaintext is released.
    #[default]
    Encrypted,
    /// Plaintext in place, with a keyed code for each segment: a change is detected when a check is
    /// requested.
    Authenticated,
}
