//! The reference model: a plain map of resident shards, and sums.

use std::collections::BTreeMap;

use vram_residency::{OnEviction, SealedShard, ShardId};
pub use vram_test_rigs::content as bytes;

/// Bytes that a shard occupies on a GPU whose budget is in whole granules.
#[must_use]
pub const fn footprint(len: usize) -> u64 {
    (len as u64).next_multiple_of(256)
}

/// The model's knowledge of one resident shard.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Known {
    /// The plaintext.
    pub bytes: Vec<u8>,
    /// The GPU that should hold it.
    pub gpu: u32,
    /// The latest handle.
    pub handle: SealedShard,
    /// The handle before the shard was last sealed again.
    pub stale: Option<SealedShard>,
    /// Positions whose device byte was changed without a call of the manager.
    pub flipped: BTreeMap<usize, u8>,
    /// Whether the facade has reported it as altered.
    pub quarantined: bool,
    /// The number of its active leases.
    pub leases: usize,
    /// Whether it is pinned, so that it is not evicted.
    pub pinned: bool,
    /// The action for it when room is needed.
    pub fate: OnEviction,
    /// Index of the rig's key that it is sealed under.
    pub key: usize,
    /// Whether the manager keeps a copy of it in host memory.
    pub backed_up: bool,
    /// Whether it was written to an image, under its present seal.
    pub exported: bool,
    /// What the manager knows of its description.
    pub description: Description,
}

/// What the manager knows of the description that a shard was sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Description {
    /// There is none.
    Empty,
    /// Its bytes.
    Known,
    /// Its code under the shard's key: it came from an image.
    Coded,
}

impl Known {
    /// A shard that has just become resident.
    #[must_use]
    pub fn new(bytes: Vec<u8>, handle: SealedShard, fate: OnEviction, key: usize) -> Self {
        Self {
            bytes,
            gpu: handle.gpu_index,
            handle,
            stale: None,
            flipped: BTreeMap::new(),
            quarantined: false,
            leases: 0,
            pinned: false,
            fate,
            key,
            backed_up: false,
            exported: false,
            description: Description::Empty,
        }
    }

    /// Records that the shard was sealed again: copies of the old seal are removed.
    pub fn seal_anew(&mut self, handle: SealedShard) {
        self.stale = Some(core::mem::replace(&mut self.handle, handle));
        (self.backed_up, self.exported) = (false, false);
    }

    /// Records that device memory contains the sealed bytes again.
    pub fn heal(&mut self) {
        self.flipped.clear();
        self.quarantined = false;
    }

    /// Whether the device bytes are the sealed bytes.
    #[must_use]
    pub fn sound(&self) -> bool {
        self.flipped.values().all(|mask| *mask == 0)
    }

    /// Whether any changed byte lies in the segments that a range touches.
    #[must_use]
    pub fn altered_in(&self, offset: usize, length: usize, segment: usize) -> bool {
        if length == 0 {
            return false;
        }
        let first = offset / segment * segment;
        let last = (offset + length).div_ceil(segment) * segment;
        self.flipped.range(first..last).any(|(_, mask)| *mask != 0)
    }
}

/// The whole model.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    /// The length of the region of each GPU, a multiple of the granule.
    pub regions: Vec<u64>,
    /// The budget of each GPU.
    pub budgets: Vec<u64>,
    /// Index of the rig's key that seals.
    pub active_key: usize,
    /// The resident shards by id: ids rise, so this is the order in which they were sealed.
    pub shards: BTreeMap<ShardId, Known>,
    /// Handles of shards that were removed.
    pub gone: Vec<SealedShard>,
}

impl Reference {
    /// Bytes that the resident shards of a GPU occupy.
    #[must_use]
    pub fn used(&self, gpu: u32) -> u64 {
        self.shards
            .values()
            .filter(|known| known.gpu == gpu)
            .map(|known| footprint(known.bytes.len()))
            .sum()
    }

    /// The shard that a selector picks, if any is resident.
    #[must_use]
    pub fn pick(&self, selector: usize) -> Option<ShardId> {
        let count = self.shards.len();
        (count > 0).then(|| self.shards.keys().nth(selector % count).cloned())?
    }

    /// Removes a shard from the model.
    pub fn remove(&mut self, id: &ShardId) {
        if let Some(known) = self.shards.remove(id) {
            self.forget(known.handle);
        }
    }

    /// Keeps the handle of a removed shard, to be tried later.
    pub fn forget(&mut self, handle: SealedShard) {
        self.gone.push(handle);
        if self.gone.len() > 16 {
            self.gone.remove(0);
        }
    }
}
