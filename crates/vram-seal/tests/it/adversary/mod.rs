//! Attacks of an adversary with the key and without it.

mod strict;
mod tamper;
