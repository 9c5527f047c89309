//! What a caller asks for when a whole model is to become resident.

use core::fmt;

use vram_alloc::{ByteLen, Piece};
use vram_events::OnEviction;
use vram_files::{CancelToken, Progress, ProgressFn};
use vram_seal::{Protection, SealError, SegmentSize, SivScope, Suite};

use crate::parts::GpuChoice;
use crate::parts::gpus::named;
use crate::sealing::SealRequest;
use crate::transfer::ReadBack;

/// A request to make a whole model resident. Everything but model and GPUs has a default.
///
/// ```
/// use vram_residency::{AdmitRequest, GpuChoice, Protection};
///
/// let request = AdmitRequest::new("llama-3-8b", GpuChoice::MostRoomFirst)
///     .protection(Protection::Authenticated)
///     .owner("pool-1");
/// # let _ = request;
/// ```
#[must_use]
pub struct AdmitRequest<'a> {
    pub(crate) gpus: GpuChoice,
    /// What the requests for all pieces have in common.
    pub(crate) common: SealRequest,
    pub(crate) progress: Option<Box<ProgressFn<'a>>>,
    pub(crate) cancel: Option<CancelToken>,
}

impl<'a> AdmitRequest<'a> {
    /// A request for this model: Encrypted, with the manager's suite and segment size.
    pub fn new(model_id: &str, gpus: GpuChoice) -> Self {
        let common = SealRequest::new(model_id, 0);
        Self { gpus, common, progress: None, cancel: None }
    }

    /// Sets what lies in device memory: ciphertext, or plaintext that is watched over.
    pub fn protection(mut self, protection: Protection) -> Self {
        self.common = self.common.protection(protection);
        self
    }

    /// Sets the cipher. Without meaning for [`Protection::Authenticated`].
    pub fn suite(mut self, suite: Suite) -> Self {
        self.common = self.common.suite(suite);
        self
    }

    /// Sets what the synthetic IV is computed over. Default: each segment. Over whole shards, the
    /// source is read twice.
    pub fn scope(mut self, scope: SivScope) -> Self {
        self.common = self.common.scope(scope);
        self
    }

    /// Sets the segment size.
    pub fn segment(mut self, segment: SegmentSize) -> Self {
        self.common = self.common.segment(segment);
        self
    }

    /// Sets how much is read back after writing.
    pub fn read_back(mut self, read_back: ReadBack) -> Self {
        self.common = self.common.read_back(read_back);
        self
    }

    /// Binds the seals to bytes that have to be the same wherever they are opened, such as a
    /// tenant.
    pub fn context(mut self, context: &[u8]) -> Self {
        self.common = self.common.context(context);
        self
    }

    /// Sets the caller's revision of the content.
    pub fn revision(mut self, revision: u64) -> Self {
        self.common = self.common.revision(revision);
        self
    }

    /// Names who the shards belong to, for listings. Not part of the seal.
    pub fn owner(mut self, owner: &str) -> Self {
        self.common = self.common.owner(owner);
        self
    }

    /// Sets how important the shards are, as [`SealRequest::priority`] does for one.
    pub fn priority(mut self, priority: u32) -> Self {
        self.common = self.common.priority(priority);
        self
    }

    /// Sets what it costs to bring one shard back once it was evicted, as [`SealRequest::cost`].
    pub fn cost(mut self, cost: u64) -> Self {
        self.common = self.common.cost(cost);
        self
    }

    /// Sets what may become of the shards when room is needed for others. Default: the manager's.
    pub fn on_eviction(mut self, on_eviction: OnEviction) -> Self {
        self.common = self.common.on_eviction(on_eviction);
        self
    }

    /// Sets whether others may be evicted to make room for the model, where the manager has an
    /// eviction policy. Default: yes. If not, a refusal for want of room says what could go.
    pub fn evicts(mut self, evicts: bool) -> Self {
        self.common = self.common.evicts(evicts);
        self
    }

    /// Sets who is told how far the call has come: from worker threads, one at a time. If it
    /// panics, the call is rolled back and the panic goes on to the caller.
    pub fn progress(mut self, callback: impl FnMut(Progress) + Send + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Sets the token that ends the call early.
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel = Some(token);
        self
    }

    /// # Errors
    ///
    /// [`SealError::ModelId`] unless the model id has 1 to 1024 bytes.
    pub(crate) fn check(&self) -> Result<(), SealError> {
        self.common.sealed_as.context().map(drop)
    }

    /// The request for one piece: its number is the shard index, and its description is bound as
    /// metadata, so that no piece passes for another.
    pub(crate) fn for_piece(&self, index: u64, piece: &Piece, gpu: u32) -> SealRequest {
        let mut request = self.common.clone().shard_index(index).metadata(&describe(piece));
        request.gpu = gpu;
        request
    }
}

impl fmt::Debug for AdmitRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdmitRequest")
            .field("gpus", &self.gpus)
            .field("common", &self.common)
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel)
            .finish()
    }
}

/// A piece as bytes, the same for the same tensor wherever it lies in its file: a domain, then
/// each text after its length and each number in little endian.
fn describe(piece: &Piece) -> Vec<u8> {
    let mut bytes = b"vram-piece/0001\0".to_vec();
    let format = piece.format.map(|format| format.to_string()).unwrap_or_default();
    for text in [&piece.name, &format] {
        bytes.extend_from_slice(&ByteLen::from_usize(text.len()).get().to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.extend_from_slice(&piece.part.to_le_bytes());
    bytes.extend_from_slice(&piece.part_count.to_le_bytes());
    for extent in &piece.shape {
        bytes.extend_from_slice(&extent.to_le_bytes());
    }
    bytes
}

/// The one GPU that a request names, if it does.
#[must_use]
pub const fn gpu_of(request: &AdmitRequest<'_>) -> Option<u32> {
    named(request.gpus)
}
