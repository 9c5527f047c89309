//! How often does an arena refuse a piece although enough bytes are free, and what does a call cost?
//!
//! Fills a region of 139 GiB with models of real shapes up to an occupancy, then replaces models at
//! random, and counts the pieces that found no hole. The calls of each run are noted and repeated
//! without anything else between them, all allocators in turn; the time is the median of the rounds.
//! The same seed gives the same figures (but not the same times).
//!
//! ```sh
//! cargo run --release -p vram-alloc --example fragmentation             # one round
//! cargo run --release -p vram-alloc --example fragmentation -- peers    # beside other allocators
//! cargo run --release -p vram-alloc --example fragmentation -- sweep    # a choice of small_max
//! cargo run --release -p vram-alloc --example fragmentation -- growth   # calls by number of pieces; `--quick`: up to 10,000
//! ```

#![expect(clippy::expect_used, reason = "the regions are below the largest")]
#![expect(clippy::print_stdout, reason = "printing a table is the purpose")]
#![expect(clippy::arithmetic_side_effects, reason = "a simulation in figures far below 2^63")]

#[path = "fragmentation/growth.rs"]
mod growth;
#[path = "fragmentation/peers.rs"]
mod peers;
#[path = "fragmentation/traces.rs"]
mod traces;

use core::time::Duration;
use std::time::Instant;

use vram_alloc::{Alignment, Arena, ArenaPolicy, ByteLen};

use self::peers::{Allocator, Offsets, Ranges, kept};
use self::traces::{Random, Trace};

const REGION: u64 = 139 << 30;
const PIECES: u32 = 100_000;
const SEED: u64 = 0x5eed_2026;
const OCCUPANCIES: [u64; 3] = [85, 90, 95];

/// Makes an empty allocator over the region.
type Make = Box<dyn Fn() -> Box<dyn Allocator>>;

fn main() {
    let table = std::env::args().nth(1).unwrap_or_default();
    if table == "growth" {
        return growth::print(std::env::args().any(|argument| argument == "--quick"));
    }
    let rounds = if table.is_empty() { 1 } else { 7 };
    let arena = |small_max: u64| {
        let policy = ArenaPolicy { small_max: ByteLen::new(small_max) };
        let make: Make = Box::new(move || {
            let arena = Arena::with_policy(ByteLen::new(REGION), policy);
            kept(arena.expect("below the largest"))
        });
        (format!("arena, small_max {}", ByteLen::new(small_max)), make)
    };
    let mut allocators: Vec<(String, Make)> = if table == "sweep" {
        let choice = [0, 64 << 10, 1 << 20, 16 << 20, 64 << 20, 256 << 20, u64::MAX];
        choice.into_iter().map(arena).collect()
    } else {
        vec![("arena".to_owned(), arena(ArenaPolicy::default().small_max.get()).1)]
    };
    if table == "peers" {
        allocators.push(("offset-allocator".to_owned(), Box::new(|| kept(Offsets::new(REGION)))));
        allocators.push(("range-alloc".to_owned(), Box::new(|| kept(Ranges::new(REGION)))));
    }
    println!("refused pieces in % of those asked for, at 85/90/95 % occupancy; seed {SEED:#x}");
    println!("{:<25} {:<40} {:>23}  {:>9}", "trace", "allocator", "refused %", "ns a pair");
    for (name, trace, align) in traces::ALL {
        let runs: Vec<[Run; 3]> = allocators
            .iter()
            .map(|(_, make)| {
                OCCUPANCIES.map(|percent| note(make().as_mut(), trace, align, percent))
            })
            .collect();
        let nanos = median_nanos(&allocators, &runs, align, rounds);
        for (((allocator, _), runs), nanos) in allocators.iter().zip(&runs).zip(nanos) {
            let refused =
                runs.each_ref().map(|run| format!("{:.3}", run.refused_percent())).join(" / ");
            println!("{name:<25} {allocator:<40} {refused:>23}  {nanos:>9.0}");
        }
    }
}

/// A call of a run. Pieces are numbered in the order in which they were asked for.
enum Call {
    Place { len: u64 },
    Release { piece: usize },
}

#[derive(Default)]
struct Run {
    calls: Vec<Call>,
    asked: u32,
    refused: u32,
}

impl Run {
    fn refused_percent(&self) -> f64 {
        f64::from(self.refused) * 100.0 / f64::from(self.asked)
    }
}

/// Replaces models at random while the region stays filled to about `percent`.
fn note(allocator: &mut dyn Allocator, trace: Trace, align: Alignment, percent: u64) -> Run {
    let mut random = Random(SEED);
    let mut run = Run::default();
    let limit = REGION / 100 * percent;
    let mut pieces_placed = 0;
    let mut models: Vec<(Vec<(usize, u64)>, u64)> = Vec::new();
    let mut used = 0;
    while run.asked < PIECES {
        let pieces = trace(&mut random);
        let model_bytes: u64 = pieces.iter().sum();
        while !models.is_empty() && used + model_bytes > limit {
            let (model, _) = models.swap_remove(random.index_below(models.len()));
            for (piece, len) in model {
                allocator.release(piece);
                used -= len.next_multiple_of(256);
                run.calls.push(Call::Release { piece });
            }
        }
        let mut placed = Vec::with_capacity(pieces.len());
        for &len in &pieces {
            run.asked += 1;
            run.calls.push(Call::Place { len });
            if allocator.place(len, align.get()) {
                placed.push((pieces_placed, len));
                used += len.next_multiple_of(256);
            } else {
                run.refused += 1;
            }
            pieces_placed += 1;
        }
        models.push((placed, model_bytes));
    }
    run
}

/// Nanoseconds a placed piece, for each allocator: the median of rounds in which all take turns.
fn median_nanos(
    allocators: &[(String, Make)],
    runs: &[[Run; 3]],
    align: Alignment,
    rounds: usize,
) -> Vec<f64> {
    let mut spent: Vec<Vec<Duration>> = allocators.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (((_, make), runs), spent) in allocators.iter().zip(runs).zip(&mut spent) {
            spent.push(runs.iter().map(|run| make().repeat(&run.calls, align.get())).sum());
        }
    }
    let median = |(runs, mut spent): (&[Run; 3], Vec<Duration>)| {
        spent.sort_unstable();
        let pairs: u32 = runs.iter().map(|run| run.asked - run.refused).sum();
        let median = spent.get(rounds / 2).copied().unwrap_or_default();
        median.as_secs_f64() * 1e9 / f64::from(pairs)
    };
    runs.iter().zip(spent).map(median).collect()
}

/// The time of the calls and of what keeps their answers.
fn timed(mut call: impl FnMut()) -> Duration {
    let start = Instant::now();
    call();
    start.elapsed()
}
