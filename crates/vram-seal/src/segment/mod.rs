//! One segment: its hash, its cipher, its entry in the table.

pub(crate) mod aead;
pub(crate) mod ahead;
pub(crate) mod altered;
pub(crate) mod chain;
pub(crate) mod hashes;
pub(crate) mod lent;
pub(crate) mod span;
pub(crate) mod table;
