//! One value that stands for all seal records of a model.

use vram_alloc::ByteLen;
use vram_id::ShardId;
use vram_seal::{ContentHasher, HashKind, SealRecord};

const DOMAIN: &[u8; 16] = b"vram-modelroot/1";

/// The root over the seal records of a model, in the order of its plan. An auditor who has the
/// records computes it without a manager, and compares it with that of a ticket.
///
/// SHA-256 over, numbers in little endian:
///
/// | bytes | field                                                             |
/// |-------|-------------------------------------------------------------------|
/// | 16    | domain separator `vram-modelroot/1`                               |
/// | 8     | the number of shards                                              |
/// | each  | length of the shard id (2 bytes), the shard id, its record (256)  |
///
/// # Examples
///
/// ```
/// use vram_id::ShardId;
/// use vram_seal::SealRecord;
/// use vram_ticket::model_root;
///
/// let records: Vec<(ShardId, SealRecord)> = Vec::new(); // as they were when the model was admitted
/// let root = model_root(records.iter().map(|(id, record)| (id, record)));
/// assert_eq!(root[..2], [0x5e, 0x9e]);
/// ```
#[must_use]
pub fn model_root<'a>(
    records: impl ExactSizeIterator<Item = (&'a ShardId, &'a SealRecord)>,
) -> [u8; 32] {
    let mut hasher = ContentHasher::new(HashKind::Sha256);
    hasher.update(DOMAIN);
    hasher.update(&ByteLen::from_usize(records.len()).get().to_le_bytes());
    for (shard, record) in records {
        // A shard id has 37 bytes.
        let len = u16::try_from(shard.len()).unwrap_or(u16::MAX);
        hasher.update(&len.to_le_bytes()).update(shard.as_bytes()).update(record);
    }
    *hasher.finalize().as_bytes()
}
