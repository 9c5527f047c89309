//! A key is made from a copy of the caller's array, which stays as it is.
//!
//! In the past a key was made from an array by value and wiped its copy: rustc 1.95 at opt-level 1
//! let the inlined callee wipe the caller's array. The fault needed the closure and the crate
//! boundary, so this test keeps both.

#[macro_use]
extern crate vram_testkit;

use vram_seal::{SealKey, TicketKey};

#[test]
fn a_key_made_from_an_array_leaves_the_callers_array_alone() {
    let id = |bytes: [u8; 32]| SealKey::from_bytes(&bytes).id();
    for bytes in [[1; 32], [2; 32]] {
        let first = [SealKey::from_bytes(&bytes).id(), id(bytes)];
        let second = [SealKey::from_bytes(&bytes).id(), id(bytes)];
        assert_eq!(first[0], first[1]);
        assert_eq!(first, second);
    }
}

#[test]
fn a_ticket_key_made_from_an_array_leaves_the_callers_array_alone() {
    let sign = |bytes: [u8; 32]| TicketKey::from_bytes(&bytes).sign(b"statement");
    for bytes in [[1; 32], [2; 32]] {
        let first = [TicketKey::from_bytes(&bytes).sign(b"statement"), sign(bytes)];
        let second = [TicketKey::from_bytes(&bytes).sign(b"statement"), sign(bytes)];
        assert_eq!(first[0], first[1]);
        assert_eq!(first, second);
    }
}
