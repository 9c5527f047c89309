//! The request with which a caller admits a whole model.

use std::sync::{Arc, OnceLock};

use vram_alloc::{ByteLen, Piece};
use vram_events::OnEviction;
use vram_files::{CancelToken, Progress, WatchOptions};
use vram_seal::{Protection, SegmentSize, SivScope, Suite};

use crate::error::VramError;
use crate::parts::GpuChoice;
use crate::parts::gpus::named;
use crate::parts::limits::label;
use crate::sealing::SealRequest;
use crate::shard::entry::member::describe;
use crate::shard::{Admitted, Description, Member, Metadata};
use crate::transfer::ReadBack;

/// A request to make a whole model resident. All settings except model and GPUs have defaults.
///
/// ```
/// use vram_residency::{AdmitRequest, GpuChoice, Protection};
///
/// let request = AdmitRequest::new("llama-3-8b", GpuChoice::MostRoomFirst)
///     .protection(Protection::Authenticated)
///     .owner("pool-1");
/// # let _ = request;
/// ```
#[derive(Debug)]
#[must_use]
pub struct AdmitRequest<'a> {
    pub(crate) gpus: GpuChoice,
    /// The settings that the requests for all pieces have in common.
    pub(crate) common: SealRequest,
    pub(crate) watch: WatchOptions<'a>,
    /// Filled with the piece at which sealing failed.
    pub(crate) failed_at: Option<&'a OnceLock<usize>>,
    /// Whether the shards are leased from the moment in which they arrive, and the holder.
    pub(crate) leased: bool,
    pub(crate) holder: Option<Arc<str>>,
    /// The model that is being admitted.
    pub(crate) admitted: Option<Arc<Admitted>>,
}

impl<'a> AdmitRequest<'a> {
    /// A request for this model: Encrypted, with the manager's suite and segment size.
    pub fn new(model_id: &str, gpus: GpuChoice) -> Self {
        let common = SealRequest::new(model_id, 0);
        Self {
            gpus,
            common,
            watch: WatchOptions::default(),
            failed_at: None,
            leased: false,
            holder: None,
            admitted: None,
        }
    }

    setters! {
        /// Sets what lies in device memory: ciphertext, or plaintext that is verified against its
        /// tags.
        fn protection(protection: Protection) => common.protection = protection;
        /// Sets the cipher. Ignored for [`Protection::Authenticated`].
        fn suite(suite: Suite) => common.suite = Some(suite);
        /// Sets what the synthetic IV is computed over. Default: each segment. If it is computed
        /// over whole shards, the source is read twice.
        fn scope(scope: SivScope) => common.scope = Some(scope);
        /// Sets the segment size.
        fn segment(segment: SegmentSize) => common.segment = Some(segment);
        /// Sets how much is read back after writing.
        fn read_back(read_back: ReadBack) => common.read_back = Some(read_back);
        /// Binds the seals to bytes that must be the same whenever a shard is opened, such as a
        /// tenant.
        fn context(context: &[u8]) => common.sealed_as.context = context.into();
        /// Sets the caller's revision of the content.
        fn revision(revision: u64) => common.sealed_as.revision = revision;
        /// Sets the owner of the shards, for listings, as [`SealRequest::owner`] does for one.
        fn owner(owner: &str) => common.owner = label(owner);
        /// Sets the priority of the shards, as [`SealRequest::priority`] does for one.
        fn priority(priority: u32) => common.claim.priority = priority;
        /// Sets the cost of bringing one shard back after an eviction, as [`SealRequest::cost`]
        /// does.
        fn cost(cost: u64) => common.claim.cost = cost;
        /// Sets what may happen to the shards when room is needed for others. Default: the
        /// manager's setting.
        fn on_eviction(on_eviction: OnEviction) => common.claim.on_eviction = Some(on_eviction);
        /// Sets whether other shards may be evicted to make room for the model, if the manager has
        /// an eviction policy. Default: yes. If not, a refusal for lack of room states what could
        /// be evicted.
        fn evicts(evicts: bool) => common.evicts = evicts;
        /// Sets whether the shards are pinned from the moment in which they arrive, as `pin_model`
        /// does afterwards. Default: no.
        fn pinned(pinned: bool) => common.claim.pinned = pinned;
        /// Sets the name of the holder of the leases that `admit_leased` takes: at most 1,024 bytes.
        /// An empty text names nobody.
        fn holder(name: &str) => holder = label(name);
        /// Sets a callback that receives the progress: from worker threads, one at a time. If it
        /// panics, the call is rolled back and the panic continues in the caller.
        fn progress(callback: impl FnMut(Progress) + Send + 'a) =>
            watch.progress = Some(Box::new(callback));
        /// Sets where the call tells the piece at which sealing failed: its index in the plan. If
        /// several fail, the first that is told.
        fn failed_at(index: &'a OnceLock<usize>) => failed_at = Some(index);
        /// Sets the token that cancels the call.
        fn cancel(token: CancelToken) => watch.cancel = Some(token);
    }

    /// # Errors
    ///
    /// As [`SealRequest::check`].
    pub(crate) fn check(&self) -> Result<(), VramError> {
        self.common.check()
    }

    /// What the requests for its pieces have in common.
    pub(crate) const fn pieces(&self) -> Pieces<'_> {
        Pieces { common: &self.common, admitted: self.admitted.as_ref(), failed_at: self.failed_at }
    }
}

/// What the requests for the pieces of a model have in common, for many threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces<'a> {
    common: &'a SealRequest,
    admitted: Option<&'a Arc<Admitted>>,
    pub(crate) failed_at: Option<&'a OnceLock<usize>>,
}

impl Pieces<'_> {
    /// The request for one piece. The number of the piece is the shard index, and its description
    /// is bound as metadata, so that no piece can be passed off as another.
    pub(crate) fn request(&self, index: usize, piece: &Piece, gpu: u32) -> SealRequest {
        let number = ByteLen::from_usize(index).get();
        let mut request = self.common.clone().shard_index(number);
        let member = |model: &Arc<Admitted>| Member { model: Arc::clone(model), index };
        request.member = self.admitted.map(member);
        request.sealed_as.metadata = match &request.member {
            Some(member) => Description::Piece(member.clone()),
            None => Description::Given(Metadata::Known(describe(piece).into())),
        };
        request.gpu = gpu;
        request
    }
}

/// The GPU that a request names, if it names one.
#[must_use]
pub const fn gpu_of(request: &AdmitRequest<'_>) -> Option<u32> {
    named(request.gpus)
}
