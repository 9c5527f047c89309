//! What an import demands of an image, and what the shard is to be.

use core::fmt;

use vram_events::OnEviction;
use vram_files::{CancelToken, Progress, ProgressFn};
use vram_seal::{ContentDigest, ContentHasher, Expected, HashKind, SealError};

use crate::sealing::SealRequest;
use crate::shard::SealedAs;
use crate::transfer::ReadBack;

/// A request to make the shard of a sealed image resident. Model and context must be those that it
/// was sealed as; the rest is compared where it is given.
///
/// ```
/// use vram_residency::ImportRequest;
///
/// let request = ImportRequest::new("llama-3-8b", 0).context(b"tenant-1").revision(3);
/// # let _ = request;
/// ```
#[must_use]
pub struct ImportRequest<'a> {
    pub(crate) request: SealRequest,
    pub(crate) metadata: Option<ContentDigest>,
    pub(crate) shard_index: Option<u64>,
    pub(crate) revision: Option<u64>,
    pub(crate) expected_digest: Option<ContentDigest>,
    pub(crate) progress: Option<Box<ProgressFn<'a>>>,
    pub(crate) cancel: Option<CancelToken>,
}

impl<'a> ImportRequest<'a> {
    /// A request for an image of this model, without a context, onto the GPU of this index.
    pub fn new(model_id: &str, gpu: u32) -> Self {
        Self {
            request: SealRequest::new(model_id, gpu),
            metadata: None,
            shard_index: None,
            revision: None,
            expected_digest: None,
            progress: None,
            cancel: None,
        }
    }

    /// A request for the image of something that was sealed here before.
    pub(crate) fn again(sealed_as: &SealedAs, gpu: u32) -> Self {
        let mut request = SealRequest::new(&sealed_as.model_id, gpu).read_back(ReadBack::Full);
        request.sealed_as = sealed_as.clone();
        Self {
            request,
            metadata: Some(sealed_as.metadata),
            shard_index: Some(sealed_as.shard_index),
            revision: Some(sealed_as.revision),
            expected_digest: None,
            progress: None,
            cancel: None,
        }
    }

    /// Sets the context that the image must have been sealed with. Default: none.
    pub fn context(mut self, context: &[u8]) -> Self {
        self.request = self.request.context(context);
        self
    }

    /// Demands this description of the content. Default: any.
    pub fn metadata(mut self, metadata: &[u8]) -> Self {
        self.metadata = Some(ContentHasher::digest(HashKind::Blake3, metadata));
        self
    }

    /// Demands this number within the model. Default: any.
    pub fn shard_index(mut self, index: u64) -> Self {
        self.shard_index = Some(index);
        self
    }

    /// Demands this revision. Default: any.
    pub fn revision(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// Demands content of this BLAKE3 digest. Default: any that the record vouches for.
    pub fn expected_digest(mut self, digest: ContentDigest) -> Self {
        self.expected_digest = Some(digest);
        self
    }

    /// Names who the shard belongs to, for listings.
    pub fn owner(mut self, owner: &str) -> Self {
        self.request = self.request.owner(owner);
        self
    }

    /// Sets how important the shard is, as [`SealRequest::priority`] does.
    pub fn priority(mut self, priority: u32) -> Self {
        self.request = self.request.priority(priority);
        self
    }

    /// Sets what it costs to bring the shard back, as [`SealRequest::cost`] does.
    pub fn cost(mut self, cost: u64) -> Self {
        self.request = self.request.cost(cost);
        self
    }

    /// Sets what may become of the shard when room is needed for others. Default: the manager's.
    pub fn on_eviction(mut self, on_eviction: OnEviction) -> Self {
        self.request = self.request.on_eviction(on_eviction);
        self
    }

    /// Sets whether others may be evicted to make room for the shard, as [`SealRequest::evicts`]
    /// does. Default: yes.
    pub fn evicts(mut self, evicts: bool) -> Self {
        self.request = self.request.evicts(evicts);
        self
    }

    /// Sets how much is read back after writing. Default: every segment. The image itself is
    /// verified in full whatever is set here.
    pub fn read_back(mut self, read_back: ReadBack) -> Self {
        self.request = self.request.read_back(read_back);
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

    pub(crate) fn expected(&self) -> Result<Expected<'_>, SealError> {
        let sealed_as = &self.request.sealed_as;
        let mut expected = Expected::new(&sealed_as.model_id)?.context(&sealed_as.context);
        if let Some(digest) = &self.metadata {
            expected = expected.metadata_digest(digest);
        }
        if let Some(index) = self.shard_index {
            expected = expected.shard_index(index);
        }
        if let Some(revision) = self.revision {
            expected = expected.revision(revision);
        }
        Ok(expected)
    }
}

impl fmt::Debug for ImportRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportRequest")
            .field("request", &self.request)
            .field("metadata", &self.metadata)
            .field("shard_index", &self.shard_index)
            .field("revision", &self.revision)
            .field("expected_digest", &self.expected_digest)
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel)
            .finish()
    }
}

/// The GPU that a request names.
#[must_use]
pub const fn gpu_of(request: &ImportRequest<'_>) -> u32 {
    request.request.gpu
}
