//! What an adversary may try, with the key and without it.

mod strict;
mod tamper;
