//! The cost of the ledger, the arena and the bounds check.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use vram_alloc::{
    Alignment, Arena, ByteLen, ByteOffset, ByteRange, Ledger, LedgerError, Placement,
};

/// One bounds check, at the three outcomes a caller can see.
fn bounds_check(c: &mut Criterion) {
    let capacity = ByteLen::new(80 << 30);
    let mut group = c.benchmark_group("bounds_check");
    for (outcome, offset, len) in
        [("in_bounds", 4096, 65_536), ("out_of_bounds", 80 << 30, 1), ("overflow", u64::MAX, 1)]
    {
        let access = (ByteOffset::new(offset), ByteLen::new(len));
        group.bench_with_input(
            BenchmarkId::from_parameter(outcome),
            &access,
            |b, &(offset, len)| {
                b.iter(|| {
                    ByteRange::checked(black_box(offset), black_box(len), black_box(capacity))
                });
            },
        );
    }
    group.finish();
}

/// One reserve and its release, against the simplest accounts: a number under a mutex, and a bare
/// compare-and-swap that never exceeds the budget.
fn ledger(c: &mut Criterion) {
    let mut group = c.benchmark_group("ledger");
    let len = ByteLen::MIB;
    group.bench_function("mutex_reference", |b| {
        let taken = Mutex::new(0_u64);
        b.iter(|| {
            if let Ok(mut taken) = taken.lock() {
                *taken = taken.wrapping_add(black_box(len).get());
            }
            if let Ok(mut taken) = taken.lock() {
                *taken = taken.wrapping_sub(black_box(len).get());
            }
        });
    });
    group.bench_function("compare_and_swap_reference", |b| {
        let (taken, total) = (AtomicU64::new(0), black_box(ByteLen::GIB.get()));
        b.iter(|| {
            let len = black_box(len).get();
            let grant = |taken: u64| taken.checked_add(len).filter(|sum| *sum <= total);
            let granted = taken.try_update(Ordering::AcqRel, Ordering::Relaxed, grant).is_ok();
            if granted {
                taken.fetch_sub(len, Ordering::AcqRel);
            }
            granted
        });
    });
    group.bench_function("reserve_and_drop", |b| {
        let ledger = Ledger::new(ByteLen::GIB);
        b.iter(|| ledger.as_ref().map(|ledger| ledger.reserve(black_box(len)).is_ok()));
    });
    group.bench_function("refusal", |b| {
        let ledger = Ledger::new(ByteLen::KIB);
        b.iter(|| ledger.as_ref().map(|ledger| ledger.reserve(black_box(len)).is_err()));
    });
    group.bench_function("snapshot", |b| {
        let ledger: Result<_, LedgerError> = Ledger::new(ByteLen::GIB);
        b.iter(|| ledger.as_ref().map(Ledger::capacity));
    });
    group.finish();
}

/// One place and its release among many live placements, with half of the space around them free.
fn arena(c: &mut Criterion) {
    let mut group = c.benchmark_group("arena");
    for live_count in [100_u64, 1_000, 20_000] {
        for (name, align) in [("granule", Alignment::GRANULE), ("2MiB", Alignment::MIB_2)] {
            let Some(mut arena) = checkerboard(live_count) else { continue };
            let len = ByteLen::new(3 << 20);
            group.bench_function(BenchmarkId::new(name, live_count), |b| {
                b.iter(|| {
                    let placed = arena.place(black_box(len), align).ok();
                    placed.map(|placement| arena.release(placement).is_ok())
                });
            });
        }
    }
    group.finish();
}

/// Placements with a hole between each two of them, all of different sizes.
fn checkerboard(live_count: u64) -> Option<Arena> {
    let mut arena = Arena::new(ByteLen::new(139 << 30)).ok()?;
    let len = |index: u64| ByteLen::new((1_u64 << 20).wrapping_add(index.wrapping_mul(256)));
    let placed: Vec<Placement> = (0..live_count.saturating_mul(2))
        .map_while(|index| arena.place(len(index), Alignment::GRANULE).ok())
        .collect();
    for (index, placement) in placed.into_iter().enumerate() {
        if index.is_multiple_of(2) {
            arena.release(placement).ok()?;
        }
    }
    Some(arena)
}

criterion_group!(benches, bounds_check, ledger, arena);
criterion_main!(benches);
