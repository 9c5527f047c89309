//! How often does an arena refuse a piece although enough bytes are free, and what does a call cost?
//!
//! Fills a region of 139 GiB with models of real shapes up to an occupancy, then replaces models at
//! random, and counts the pieces that found no hole. The same seed gives the same figures (but not
//! the same times).
//!
//! ```sh
//! cargo run --release -p vram-alloc --example fragmentation            # small_max of the default policy
//! cargo run --release -p vram-alloc --example fragmentation -- sweep   # a choice of them
//! ```

#![expect(clippy::print_stdout, reason = "printing a table is the purpose")]
#![expect(clippy::arithmetic_side_effects, reason = "a simulation in figures far below 2^63")]

use core::time::Duration;
use std::time::Instant;

use vram_alloc::{Alignment, Arena, ArenaPolicy, ByteLen, Placement};

const REGION: u64 = 139 << 30;
const PIECES: u32 = 100_000;
const SEED: u64 = 0x5eed_2026;
const OCCUPANCIES: [u64; 3] = [85, 90, 95];

type Trace = fn(&mut Random) -> Vec<u64>;

fn main() {
    let traces: [(&str, Trace, Alignment); 4] = [
        ("LLM by tensor", llm_by_tensor, Alignment::GRANULE),
        ("LLM by layer", llm_by_layer, Alignment::GRANULE),
        ("shard mix, 2 MiB aligned", shard_mix, Alignment::MIB_2),
        ("log-uniform 4 KiB-4 GiB", log_uniform, Alignment::GRANULE),
    ];
    let sweep = std::env::args().nth(1).is_some_and(|argument| argument == "sweep");
    let policies = if sweep {
        [0, 64 << 10, 1 << 20, 16 << 20, 64 << 20, 256 << 20, u64::MAX]
            .map(|small_max| ArenaPolicy { small_max: ByteLen::new(small_max) })
            .to_vec()
    } else {
        vec![ArenaPolicy::default()]
    };
    println!("refused pieces in % of those asked for, at 85/90/95 % occupancy; seed {SEED:#x}");
    println!("{:<26} {:>28}  {:>23}  {:>9}", "trace", "small_max", "refused %", "ns a pair");
    for (name, trace, align) in traces {
        for policy in &policies {
            let runs = OCCUPANCIES.map(|percent| run(*policy, trace, align, percent));
            let refused = runs.map(|run| format!("{:.3}", run.refused_percent())).join(" / ");
            let pairs: u32 = runs.iter().map(|run| run.asked - run.refused).sum();
            let spent: Duration = runs.iter().map(|run| run.spent).sum();
            let nanos = spent.as_secs_f64() * 1e9 / f64::from(pairs);
            let small_max = match policy.small_max.get() {
                u64::MAX => "everything".to_owned(),
                _ => policy.small_max.to_string(),
            };
            println!("{name:<26} {small_max:>28}  {refused:>23}  {nanos:>9.0}");
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Run {
    asked: u32,
    refused: u32,
    spent: Duration,
}

impl Run {
    fn refused_percent(self) -> f64 {
        f64::from(self.refused) * 100.0 / f64::from(self.asked)
    }
}

/// Replaces models at random while the region stays filled to about `percent`.
fn run(policy: ArenaPolicy, trace: Trace, align: Alignment, percent: u64) -> Run {
    let mut random = Random(SEED);
    let mut run = Run::default();
    let limit = REGION / 100 * percent;
    let Ok(mut arena) = Arena::with_policy(ByteLen::new(REGION), policy) else { return run };
    let mut models: Vec<Vec<Placement>> = Vec::new();
    let mut bytes: Vec<u64> = Vec::new();

    while run.asked < PIECES {
        let pieces = trace(&mut random);
        let model_bytes: u64 = pieces.iter().sum();
        while !models.is_empty() && arena.report().used.get() + model_bytes > limit {
            let victim = random.index_below(models.len());
            let model = models.swap_remove(victim);
            bytes.swap_remove(victim);
            let start = Instant::now();
            for placement in model {
                let released = arena.release(placement);
                debug_assert!(released.is_ok());
            }
            run.spent += start.elapsed();
        }
        let mut placed = Vec::with_capacity(pieces.len());
        let start = Instant::now();
        for &len in &pieces {
            run.asked += 1;
            match arena.place(ByteLen::new(len), align) {
                Ok(placement) => placed.push(placement),
                Err(_) => run.refused += 1,
            }
        }
        run.spent += start.elapsed();
        models.push(placed);
        bytes.push(model_bytes);
    }
    run
}

/// Hidden size, intermediate size, rows of keys and values, layers, vocabulary, experts.
const SHAPES: [(u64, u64, u64, u64, u64, u64); 5] = [
    (4096, 14_336, 1024, 32, 128_256, 1), // Llama-3-8B
    (8192, 28_672, 1024, 20, 128_256, 1), // a quarter of Llama-3-70B, as split over four GPUs
    (3584, 18_944, 512, 28, 152_064, 1),  // Qwen2.5-7B
    (5120, 27_648, 1024, 32, 152_064, 1), // half of Qwen2.5-32B
    (2048, 768, 512, 24, 151_936, 128),   // half of Qwen3-30B-A3B
];

/// The tensors of each layer in bfloat16, then those outside the layers.
fn layers(random: &mut Random) -> (Vec<Vec<u64>>, Vec<u64>) {
    let (hidden, inner, kv, layer_count, vocabulary, experts) =
        SHAPES.get(random.index_below(SHAPES.len())).copied().unwrap_or_default();
    // One in four comes in 4 bits: a fourth of the bytes, with scales beside them.
    let quantised = random.below(4) == 0;
    let matrix = |rows: u64, columns: u64| {
        let bytes = rows * columns * 2;
        if quantised { vec![bytes / 4, bytes / 256, bytes / 1024] } else { vec![bytes] }
    };
    let layer = || {
        let attention = [hidden, kv, kv, hidden].into_iter().flat_map(|rows| matrix(rows, hidden));
        let expert = || [inner, inner, hidden].into_iter().flat_map(|_| matrix(inner, hidden));
        let norms = [hidden * 2, hidden * 2];
        attention.chain((0..experts).flat_map(|_| expert())).chain(norms).collect()
    };
    let outside = vec![vocabulary * hidden * 2, vocabulary * hidden * 2, hidden * 2];
    ((0..layer_count).map(|_| layer()).collect(), outside)
}

fn llm_by_tensor(random: &mut Random) -> Vec<u64> {
    let (layers, outside) = layers(random);
    layers.into_iter().flatten().chain(outside).collect()
}

fn llm_by_layer(random: &mut Random) -> Vec<u64> {
    let (layers, outside) = layers(random);
    layers.into_iter().map(|layer| layer.into_iter().sum()).chain(outside).collect()
}

/// Shards of 2 MiB to 512 MiB, whole ones of 64 MiB among them, with a tail of odd bytes.
fn shard_mix(random: &mut Random) -> Vec<u64> {
    let count = 4 + random.below(60);
    let mut shards: Vec<_> = (0..count)
        .map(|_| match random.below(3) {
            0 => 64 << 20,
            1 => 2 << (20 + random.below(8)),
            _ => (2 << 20) + random.below(510 << 20),
        })
        .collect();
    shards.push(1 + random.below(1 << 20));
    shards
}

fn log_uniform(random: &mut Random) -> Vec<u64> {
    let power = random.below(20);
    vec![(4096 << power) + random.below(4096 << power)]
}

/// A small generator (xorshift), so that the seed alone decides.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn index_below(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(ByteLen::from_usize(bound).get())).unwrap_or(0)
    }
}
