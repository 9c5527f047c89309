//! Models of the ledger, for every interleaving of two threads (P1, P5, P8).
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test --release -p vram-alloc --test loom_ledger
//! ```

#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a panic is the failure of the test")]

#[macro_use]
extern crate vram_testkit;

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use loom::thread;
use vram_alloc::{ByteLen, Ledger};

fn len(bytes: u64) -> ByteLen {
    ByteLen::new(bytes)
}

/// Runs a model. One with a single interleaving would prove nothing: loom overlooks a change by a
/// thread that has looked at the same value before, if the other thread only looks.
fn every_interleaving(model: impl Fn() + Sync + Send + 'static) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    assert!(count.load(Ordering::Relaxed) > 1, "only one interleaving was tried");
}

/// P1: of two threads, one always gets the last bytes, and never both.
#[test]
fn exactly_one_of_two_wins_the_last_bytes() {
    every_interleaving(|| {
        let ledger = Ledger::new(len(100)).unwrap();
        let other = ledger.clone();
        let racer = thread::spawn(move || other.reserve(len(60)).ok());
        let ours = ledger.reserve(len(60)).ok();
        let theirs = racer.join().unwrap();
        assert_ne!(ours.is_some(), theirs.is_some());
        assert_eq!(ledger.capacity().reserved, len(60));
        drop((ours, theirs));
        assert_eq!(ledger.capacity().taken(), len(0));
    });
}

/// No spurious refusal: requests that fit together are both granted.
#[test]
fn two_requests_that_fit_are_both_granted() {
    every_interleaving(|| {
        let ledger = Ledger::new(len(100)).unwrap();
        let other = ledger.clone();
        let racer = thread::spawn(move || other.reserve(len(50)).unwrap());
        let ours = ledger.reserve(len(50)).unwrap();
        let theirs = racer.join().unwrap();
        assert_eq!(ledger.capacity().free(), len(0));
        drop((ours, theirs));
    });
}

/// P8: a grant that races with a shrinking budget either precedes it or is refused; after
/// `set_total` has returned, the bytes taken do not rise.
#[test]
fn no_grant_follows_a_lowered_limit() {
    every_interleaving(|| {
        let ledger = Ledger::new(len(100)).unwrap();
        let other = ledger.clone();
        let racer = thread::spawn(move || other.reserve(len(60)).ok());
        ledger.set_total(len(50)).unwrap();
        let after = ledger.capacity().taken();
        let theirs = racer.join().unwrap();
        assert_eq!(ledger.capacity().taken(), after, "granted under the lowered limit");
        drop(theirs);
    });
}

/// A request that fits at every instant is granted, though figures from different instants would
/// refuse it: 60 of 100 taken, then 0 of 100, then 0 of 50.
#[test]
fn a_refusal_never_mixes_two_instants() {
    every_interleaving(|| {
        let ledger = Ledger::new(len(100)).unwrap();
        let held = ledger.reserve(len(60)).unwrap();
        let other = ledger.clone();
        let racer = thread::spawn(move || {
            drop(held);
            other.set_total(len(50)).unwrap();
        });
        assert!(ledger.reserve(len(40)).is_ok());
        racer.join().unwrap();
    });
}

/// Snapshots add up at every step of commit and release, and no byte is lost.
#[test]
fn a_snapshot_adds_up_at_every_step() {
    every_interleaving(|| {
        let ledger = Ledger::new(len(100)).unwrap();
        let mut reservation = ledger.reserve(len(70)).unwrap();
        let worker = thread::spawn(move || {
            let charge = reservation.split(len(30)).unwrap().commit();
            drop(reservation);
            charge.release();
        });
        let now = ledger.capacity();
        assert_eq!(now.used.get() + now.reserved.get() + now.free().get(), 100);
        worker.join().unwrap();
        assert_eq!(ledger.capacity().free(), len(100));
    });
}

/// Kept bytes that are released after all: at every step they are counted once, and no figure shows
/// more bytes kept than used. A thread that needs them gets them exactly when they are released.
#[test]
fn kept_bytes_come_back_once() {
    every_interleaving(|| {
        let ledger = Ledger::new(len(100)).unwrap();
        let kept = ledger.reserve(len(70)).unwrap().commit().keep();
        let other = ledger.clone();
        let racer = thread::spawn(move || other.reserve(len(60)).ok());
        kept.release();
        let now = ledger.capacity();
        assert_eq!(now.used.get() + now.reserved.get() + now.free().get(), 100);
        assert!(now.kept <= now.used);
        let theirs = racer.join().unwrap();
        let taken = if theirs.is_some() { 60 } else { 0 };
        assert_eq!(ledger.capacity().taken(), len(taken));
        assert!(theirs.is_some() || ledger.reserve(len(60)).is_ok());
        drop(theirs);
        assert_eq!(ledger.capacity().taken(), len(0));
    });
}

/// The headroom is set before the foreign bytes are: no moment shows the latter alone.
#[test]
fn a_snapshot_never_mixes_two_instants() {
    every_interleaving(|| {
        let ledger = Ledger::new(len(100)).unwrap();
        let other = ledger.clone();
        let racer = thread::spawn(move || {
            other.set_headroom(len(10));
            other.set_foreign(len(30));
        });
        let seen = ledger.capacity();
        assert!(seen.foreign == len(0) || seen.headroom == len(10), "{seen}");
        racer.join().unwrap();
    });
}
