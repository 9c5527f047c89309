//! What is asked for: tensors of models, and mixtures of shards.

use vram_alloc::{Alignment, ByteLen};

pub(crate) type Trace = fn(&mut Random) -> Vec<u64>;

pub(crate) const ALL: [(&str, Trace, Alignment); 4] = [
    ("LLM by tensor", llm_by_tensor, Alignment::GRANULE),
    ("LLM by layer", llm_by_layer, Alignment::GRANULE),
    ("shard mix, 2 MiB aligned", shard_mix, Alignment::MIB_2),
    ("log-uniform 4 KiB-4 GiB", log_uniform, Alignment::GRANULE),
];

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
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    pub(crate) fn index_below(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(ByteLen::from_usize(bound).get())).unwrap_or(0)
    }
}
