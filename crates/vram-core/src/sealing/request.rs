//! What a caller asks for when sealing.

use std::sync::Arc;

use vram_events::OnEviction;
use vram_seal::{ContentHasher, HashKind, Protection, SealParams, SegmentSize, SivScope, Suite};

use crate::room::RoomMaking;
use crate::shard::{Claim, SealedAs};
use crate::transfer::ReadBack;

/// A request to seal something onto one GPU. Everything but model and GPU has a default.
///
/// ```
/// use vram_residency::{Protection, SealRequest};
///
/// let request = SealRequest::new("llama-3-8b", 0)
///     .protection(Protection::Authenticated)
///     .owner("pool-1");
/// # let _ = request;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SealRequest {
    pub(crate) sealed_as: SealedAs,
    pub(crate) gpu: u32,
    pub(crate) protection: Protection,
    pub(crate) suite: Option<Suite>,
    pub(crate) scope: Option<SivScope>,
    pub(crate) segment: Option<SegmentSize>,
    pub(crate) read_back: Option<ReadBack>,
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) claim: Claim,
    pub(crate) evicts: bool,
}

impl SealRequest {
    /// A request for this model on the GPU of this index: Encrypted, with the manager's suite and
    /// segment size.
    pub fn new(model_id: &str, gpu: u32) -> Self {
        Self {
            sealed_as: SealedAs {
                model_id: model_id.into(),
                context: Arc::from([]),
                metadata: ContentHasher::digest(HashKind::Blake3, &[]),
                shard_index: 0,
                revision: 0,
            },
            gpu,
            protection: Protection::Encrypted,
            suite: None,
            scope: None,
            segment: None,
            read_back: None,
            owner: None,
            claim: Claim::default(),
            evicts: true,
        }
    }

    setters! {
        /// Sets what lies in device memory: ciphertext, or plaintext that is watched over.
        fn protection(protection: Protection) => protection = protection;
        /// Sets the cipher. Without meaning for [`Protection::Authenticated`].
        fn suite(suite: Suite) => suite = Some(suite);
        /// Sets what the synthetic IV is computed over. Default: the shard for a slice, each
        /// segment for anything that is read.
        fn scope(scope: SivScope) => scope = Some(scope);
        /// Sets the segment size.
        fn segment(segment: SegmentSize) => segment = Some(segment);
        /// Sets how much is read back after writing.
        fn read_back(read_back: ReadBack) => read_back = Some(read_back);
        /// Binds the seal to bytes that have to be the same wherever it is opened, such as a
        /// tenant.
        fn context(context: &[u8]) => sealed_as.context = context.into();
        /// Binds the seal to a description of the content, such as dtype and shape.
        fn metadata(metadata: &[u8]) =>
            sealed_as.metadata = ContentHasher::digest(HashKind::Blake3, metadata);
        /// Sets the shard's number within its model.
        fn shard_index(index: u64) => sealed_as.shard_index = index;
        /// Sets the caller's revision of the content.
        fn revision(revision: u64) => sealed_as.revision = revision;
        /// Names who the shard belongs to, for listings. Not part of the seal.
        fn owner(owner: &str) => owner = Some(owner.into());
        /// Sets how important the shard is, for policies that evict the least important first.
        /// Default: 0. Room for a shard is never made by evicting one of a higher priority.
        fn priority(priority: u32) => claim.priority = priority;
        /// Sets what it costs to bring the shard back once it was evicted, in a unit of the
        /// caller's, for policies that evict first what is cheap for its size. Default: 0.
        fn cost(cost: u64) => claim.cost = cost;
        /// Sets what may become of the shard when room is needed for others. Default: the
        /// manager's.
        fn on_eviction(on_eviction: OnEviction) => claim.on_eviction = Some(on_eviction);
        /// Sets whether others may be evicted to make room for the shard, where the manager has an
        /// eviction policy. Default: yes. If not, a refusal for want of room says what could go.
        fn evicts(evicts: bool) => evicts = evicts;
    }

    pub(crate) const fn room_making(&self) -> RoomMaking {
        RoomMaking { evicts: self.evicts, priority: self.claim.priority }
    }

    /// The choices of the seal, the manager's where the request makes none.
    pub(crate) fn params(&self, defaults: SealParams, scope: SivScope) -> SealParams {
        defaults
            .with_protection(self.protection)
            .with_suite(self.suite.unwrap_or(defaults.suite()))
            .with_scope(self.scope.unwrap_or(scope))
            .with_segment(self.segment.unwrap_or(defaults.segment()))
    }
}

/// The GPU that a request names.
#[must_use]
pub const fn gpu_of(request: &SealRequest) -> u32 {
    request.gpu
}
