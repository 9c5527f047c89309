//! What an adversary may try, with the key and without it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![expect(clippy::similar_names, reason = "opener and opened are what they are called")]

mod strict;
mod support;
mod tamper;
