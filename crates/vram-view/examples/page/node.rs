//! The snapshot of a node that does not exist, in the form of the facade's `Snapshot`.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "small numbers that are made up here, and one document in one place"
)]

use serde_json::{Value, json};

const GIB: u64 = 1 << 30;
/// Bytes of each GPU's budget.
const TOTAL: u64 = 80 * GIB;

/// What the node is like.
pub(crate) struct Node {
    /// Shards on all GPUs together.
    pub(crate) shards: u64,
    /// Whether nothing is wrong.
    pub(crate) sound: bool,
}

/// Model, owner, the GPU that holds it, tenths of the shards of that GPU.
const MODELS: &[(&str, &str, u64, u64)] = &[
    ("llama-3.1-70b-instruct", "chat", 0, 7),
    ("mistral-7b-v0.3", "search", 0, 2),
    ("bge-m3", "search", 0, 1),
    ("qwen2.5-coder-32b", "code", 1, 6),
    ("whisper-large-v3", "speech", 1, 2),
    // Names that would run in a page that took them for markup.
    ("</script><script>window.hacked = 1</script>", "<img src=x onerror=window.hacked=1>", 1, 2),
    ("deepseek-r1-distill-llama-70b", "research", 2, 10),
];

impl Node {
    /// The snapshot at a time in milliseconds.
    pub(crate) fn snapshot(&self, at: u64) -> Value {
        let (mut shards, mut models, mut ages) = (Vec::new(), Vec::new(), Vec::new());
        let mut used = [0_u64; 3];
        let each = self.shards / 3;
        for (number, &(model, owner, gpu, tenths)) in (0_u64..).zip(MODELS) {
            let count = match gpu {
                2 => self.shards - 2 * each,
                _ => each * tenths / 10,
            };
            let altered = !self.sound && model.starts_with("whisper");
            let lost = !self.sound && gpu == 2;
            // Nine tenths of a GPU at most, and holes between some shards.
            let len = (TOTAL / 10 * 8) / (each + 2) / 256 * 256;
            let mut first = None;
            for piece in 0..count {
                let id = id(number, piece);
                let place = &mut used[usize::try_from(gpu).unwrap_or_default()];
                if piece % 29 == 7 {
                    *place += len * 2;
                }
                let quarantine = (altered && piece % 5 == 1)
                    .then(|| json!({"first": [3, 4, 5 + piece], "count": 3}));
                shards.push(json!({
                    "shard_id": id, "gpu": gpu, "state": if lost { "lost" } else { "resident" },
                    "model_id": model, "owner": owner, "admission": number,
                    "piece": {"tensor": format!("model.layers.{piece}.mlp.down_proj.weight"), "part": 0},
                    "plaintext_len": len - 100, "offset": *place, "footprint": len,
                    "protection": if number % 2 == 0 { "encrypted" } else { "authenticated" },
                    "generation": 1, "quarantine": quarantine, "last_verified": at - 1000 * piece,
                    "last_checked": {"evidence": "fingerprint", "site": "card"},
                    "leases": u64::from(number % 3 == 0) * 2, "pinned": number == 0, "priority": 1,
                    "on_eviction": "park", "backed_up": number == 2,
                }));
                ages.push(json!([id, {"secs": piece * piece * 3 % 30_000, "nanos": 5}]));
                *place += len;
                first.get_or_insert(id);
            }
            let leases = if number.is_multiple_of(3) { 2 * count } else { 0 };
            models.push(json!({
                "model_id": model, "owner": owner, "admission": number, "state": "whole", "gpus": [gpu],
                "pieces": count, "resident": count, "lost": if lost { count } else { 0 }, "parked": 0,
                "quarantined": if altered { (count + 3) / 5 } else { 0 }, "bytes": len * count,
                "host_bytes": 0, "lease_count": leases, "pinned": if number == 0 { count } else { 0 },
            }));
        }
        let bytes: Vec<u64> = shards.iter().filter_map(|one| one["footprint"].as_u64()).collect();
        let on = |gpu: u64| {
            let mine = shards.iter().zip(&bytes).filter(|(one, _)| one["gpu"] == gpu);
            mine.map(|(_, bytes)| bytes).sum::<u64>()
        };
        let gpus: Vec<Value> = (0..3).map(|gpu| self.gpu(gpu, on(gpu))).collect();
        let lease = json!({
            "shard_id": id(0, 0), "model_id": MODELS[0].0, "owner": MODELS[0].1, "piece": null,
            "holder": "worker-7", "age": {"secs": 4210, "nanos": 0},
        });
        json!({
            "at": at,
            "state": {
                "gpus": gpus, "models": models, "shards": shards,
                "parked": [{"shard_id": id(9, 9), "model_id": "gemma-2-9b", "owner": "chat",
                    "plaintext_len": 9 * GIB, "host_len": 9 * GIB + 4096, "protection": "encrypted",
                    "generation": 1}],
                "park": {"limit": 128 * GIB, "used": 9 * GIB + 4096, "shard_count": 1},
                "reservations": [{"id": 4, "owner": "chat", "purpose": "gemma-2-9b comes back",
                    "len": 9 * GIB, "remaining": [[0, 4 * GIB]], "pieces": null, "expires": true}],
                "distrusted_links": if self.sound { json!([]) } else { json!([[0, 1]]) },
                "keys": {"active": "0".repeat(32), "all": ["0".repeat(32)]},
            },
            "counters": {
                "events": 1234, "sinks": [], "unverified_for": ages,
                "expires_in": [[4, {"secs": 95, "nanos": 0}]], "oldest_leases": [lease],
            },
        })
    }

    fn gpu(&self, gpu: u64, used: u64) -> Value {
        let lost = !self.sound && gpu == 2;
        let reserved = if gpu == 0 { 4 * GIB } else { 0 };
        let (headroom, foreign) = (2 * GIB, if gpu == 1 && !self.sound { 3 * GIB } else { 0 });
        let free = TOTAL - used - reserved;
        json!({
            "capacity": {
                "gpu": gpu, "total": TOTAL, "used": used, "reserved": reserved, "headroom": headroom,
                "foreign": foreign, "free": free, "room": free.saturating_sub(headroom + foreign),
                "largest_hole": free / 2, "hole_count": 4, "unreturned": 0,
            },
            "name": "NVIDIA H100 80GB HBM3", "uuid": format!("GPU-8932f937-d72c-4106-c12f-20bd9faed9f{gpu}"),
            "lost": lost.then_some("driver error 214 (CUDA_ERROR_ECC_UNCORRECTABLE) on gpu 2; the device is unusable until it is reset"),
            "state": if lost { "lost" } else { "serving" }, "unreturned": null,
            "shard_count": 0, "quarantined": 0,
        })
    }
}

/// An id in the form of a shard's.
fn id(model: u64, piece: u64) -> String {
    format!("shard-01K0VRAM{model:02}00000000{piece:08}")
}
