//! Attacks of an adversary with the key and without it.

mod expected;
mod strict;
mod tamper;
