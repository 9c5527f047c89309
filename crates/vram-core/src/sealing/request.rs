//! The request with which a caller seals one shard.

use std::sync::Arc;

use vram_events::OnEviction;
use vram_id::ShardId;
use vram_seal::{Protection, SealParams, SegmentSize, SivScope, Suite};

use crate::error::VramError;
use crate::parts::Core;
use crate::parts::limits::{check_label, label};
use crate::room::RoomMaking;
use crate::shard::{Claim, Description, HeldBy, Member, Metadata, SealedAs};
use crate::transfer::ReadBack;

/// A request to seal one shard onto one GPU. All settings except model and GPU have defaults.
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
    /// The model that the shard is admitted with.
    pub(crate) member: Option<Member>,
    pub(crate) claim: Claim,
    pub(crate) evicts: bool,
}

impl SealRequest {
    /// A request for this model on the GPU with this index: Encrypted, with the manager's suite and
    /// segment size.
    pub fn new(model_id: &str, gpu: u32) -> Self {
        Self {
            sealed_as: SealedAs::new(model_id),
            gpu,
            protection: Protection::Encrypted,
            suite: None,
            scope: None,
            segment: None,
            read_back: None,
            owner: None,
            member: None,
            claim: Claim::default(),
            evicts: true,
        }
    }

    setters! {
        /// Sets what lies in device memory: ciphertext, or plaintext that is verified against its
        /// tags.
        fn protection(protection: Protection) => protection = protection;
        /// Sets the cipher. Ignored for [`Protection::Authenticated`].
        fn suite(suite: Suite) => suite = Some(suite);
        /// Sets what the synthetic IV is computed over. Default: each segment by itself, which
        /// reads any source once. Scope Shard reads it twice, and refuses a source that changed
        /// meanwhile.
        fn scope(scope: SivScope) => scope = Some(scope);
        /// Sets the segment size.
        fn segment(segment: SegmentSize) => segment = Some(segment);
        /// Sets how much is read back after writing.
        fn read_back(read_back: ReadBack) => read_back = Some(read_back);
        /// Binds the seal to bytes that must be the same whenever it is opened, such as a tenant: at
        /// most 64 KiB.
        fn context(context: &[u8]) => sealed_as.context = context.into();
        /// Binds the seal to a description of the content, such as dtype and shape: at most 64 KiB.
        fn metadata(metadata: &[u8]) =>
            sealed_as.metadata = Description::Given(Metadata::Known(metadata.into()));
        /// Sets the shard's number within its model.
        fn shard_index(index: u64) => sealed_as.shard_index = index;
        /// Sets the caller's revision of the content.
        fn revision(revision: u64) => sealed_as.revision = revision;
        /// Sets the owner of the shard, for listings: at most 1,024 bytes, as for a model id. An
        /// empty text names no owner. Not part of the seal.
        fn owner(owner: &str) => owner = label(owner);
        /// Sets the priority of the shard, for policies that evict the least important first.
        /// Default: 0. A request never evicts a shard of a higher priority than its own.
        fn priority(priority: u32) => claim.priority = priority;
        /// Sets the cost of bringing the shard back after an eviction, in a unit of the caller's
        /// choice, for policies that first evict shards that are cheap for their size. Default: 0.
        fn cost(cost: u64) => claim.cost = cost;
        /// Sets what may happen to the shard when room is needed for others. Default: the manager's
        /// setting.
        fn on_eviction(on_eviction: OnEviction) => claim.on_eviction = Some(on_eviction);
        /// Sets whether the shard is pinned from the moment in which it arrives, as `pin` does
        /// afterwards. Default: no.
        fn pinned(pinned: bool) => claim.pinned = pinned;
        /// Sets whether other shards may be evicted to make room for this one, if the manager has
        /// an eviction policy. Default: yes. If not, a refusal for lack of room states what could
        /// be evicted.
        fn evicts(evicts: bool) => evicts = evicts;
    }

    /// # Errors
    ///
    /// [`SealError::ModelId`](vram_seal::SealError::ModelId) unless the model id has 1 to 1024
    /// bytes; [`VramError::LimitExceeded`] for a context, a description or an owner that is too
    /// long.
    pub(crate) fn check(&self) -> Result<(), VramError> {
        self.sealed_as.check()?;
        check_label("bytes of an owner", self.owner.as_ref())
    }

    /// Whose the shard will be.
    pub(crate) fn holder(&self) -> HeldBy {
        HeldBy { owner: self.owner.clone(), model_id: Arc::clone(&self.sealed_as.model_id) }
    }

    /// The id of the shard: that which its model has for the piece, or a new one.
    pub(crate) fn id(&self, core: &Core) -> ShardId {
        let named = self.member.as_ref().and_then(Member::shard);
        named.cloned().unwrap_or_else(|| core.ids.next(&*core.clock))
    }

    pub(crate) fn room_making(&self) -> RoomMaking<'_> {
        let asker = Some((&self.sealed_as.model_id, self.owner.as_ref()));
        let (evicts, priority) = (self.evicts, self.claim.priority);
        RoomMaking { evicts, priority, asker, waking: None }
    }

    /// The seal parameters: those of the request, or the manager's where the request sets none.
    pub(crate) fn params(&self, defaults: SealParams) -> SealParams {
        defaults
            .with_protection(self.protection)
            .with_suite(self.suite.unwrap_or(defaults.suite()))
            .with_scope(self.scope.unwrap_or(defaults.scope()))
            .with_segment(self.segment.unwrap_or(defaults.segment()))
    }
}

/// The GPU that a request names.
#[must_use]
pub const fn gpu_of(request: &SealRequest) -> u32 {
    request.gpu
}
