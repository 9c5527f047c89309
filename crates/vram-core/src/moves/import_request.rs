//! The request with which a caller imports an image.

use vram_events::OnEviction;
use vram_files::{CancelToken, Progress, WatchOptions};
use vram_seal::{ContentDigest, Expected, Protection, SealError};

use crate::parts::limits::label;
use crate::sealing::SealRequest;
use crate::shard::{Metadata, SealedAs};
use crate::transfer::ReadBack;

/// A request to make the shard of a sealed image resident. Model and context must be those under
/// which it was sealed; the other values are compared if they are set.
///
/// ```
/// use vram_residency::ImportRequest;
///
/// let request = ImportRequest::new("llama-3-8b", 0).context(b"tenant-1").revision(3);
/// # let _ = request;
/// ```
#[derive(Debug)]
#[must_use]
pub struct ImportRequest<'a> {
    pub(crate) request: SealRequest,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) shard_index: Option<u64>,
    pub(crate) revision: Option<u64>,
    /// `None`: any.
    pub(crate) protection: Option<Protection>,
    /// `None`: as in the image.
    pub(crate) convert_to: Option<Protection>,
    pub(crate) expected_digest: Option<ContentDigest>,
    pub(crate) watch: WatchOptions<'a>,
}

impl<'a> ImportRequest<'a> {
    /// A request for an image of this model, without a context, onto the GPU with this index.
    pub fn new(model_id: &str, gpu: u32) -> Self {
        Self {
            request: SealRequest::new(model_id, gpu),
            metadata: None,
            shard_index: None,
            revision: None,
            protection: Some(Protection::Encrypted),
            convert_to: None,
            expected_digest: None,
            watch: WatchOptions::default(),
        }
    }

    /// A request for the image of a shard that this manager sealed before. The caller compares the
    /// whole record, and with it the protection.
    pub(crate) fn again(sealed_as: &SealedAs, gpu: u32) -> Self {
        let mut request =
            SealRequest::new(&sealed_as.model_id, gpu).read_back(ReadBack::Fingerprint);
        request.sealed_as = sealed_as.clone();
        Self {
            request,
            metadata: Some(sealed_as.metadata.metadata()),
            shard_index: Some(sealed_as.shard_index),
            revision: Some(sealed_as.revision),
            protection: None,
            convert_to: None,
            expected_digest: None,
            watch: WatchOptions::default(),
        }
    }

    /// A request for the image of one piece of a model, of this protection.
    pub(crate) fn of_piece(request: SealRequest, sealed: Protection) -> Self {
        let sealed_as = &request.sealed_as;
        Self {
            metadata: None,
            shard_index: Some(sealed_as.shard_index),
            revision: Some(sealed_as.revision),
            protection: Some(sealed),
            convert_to: Some(request.protection),
            expected_digest: None,
            watch: WatchOptions::default(),
            request,
        }
    }

    setters! {
        /// Sets the context with which the image must have been sealed. Default: none.
        fn context(context: &[u8]) => request.sealed_as.context = context.into();
        /// Requires this description of the content. Default: any. A shard whose description the
        /// manager does not know can be sealed anew only under the key of its image.
        fn metadata(metadata: &[u8]) => metadata = Some(Metadata::Known(metadata.into()));
        /// Requires this shard number within the model. Default: any.
        fn shard_index(index: u64) => shard_index = Some(index);
        /// Requires this revision. Default: any.
        fn revision(revision: u64) => revision = Some(revision);
        /// Requires an image of this protection, and makes the shard resident as it is in the
        /// image. Default: [`Protection::Encrypted`], so that plaintext in a file is not taken for
        /// ciphertext. [`convert_to`](Self::convert_to) makes it resident in another.
        fn protection(protection: Protection) => protection = Some(protection);
        /// Accepts an image of any protection.
        fn any_protection() => protection = None;
        /// Makes the shard resident in this protection, whatever the image has: it is sealed anew on
        /// the GPU, under the key of the image, before anybody can use it. Default: as in the image.
        fn convert_to(protection: Protection) => convert_to = Some(protection);
        /// Requires content with this BLAKE3 digest. Default: any digest that the record
        /// authenticates.
        fn expected_digest(digest: ContentDigest) => expected_digest = Some(digest);
        /// Sets the owner of the shard, for listings, as [`SealRequest::owner`] does.
        fn owner(owner: &str) => request.owner = label(owner);
        /// Sets the priority of the shard, as [`SealRequest::priority`] does.
        fn priority(priority: u32) => request.claim.priority = priority;
        /// Sets the cost of bringing the shard back, as [`SealRequest::cost`] does.
        fn cost(cost: u64) => request.claim.cost = cost;
        /// Sets what may happen to the shard when room is needed for others. Default: the manager's
        /// setting.
        fn on_eviction(on_eviction: OnEviction) => request.claim.on_eviction = Some(on_eviction);
        /// Sets whether other shards may be evicted to make room for this one, as
        /// [`SealRequest::evicts`] does. Default: yes.
        fn evicts(evicts: bool) => request.evicts = evicts;
        /// Sets how much is read back after writing. Default: every segment. The image itself is
        /// always verified in full.
        fn read_back(read_back: ReadBack) => request.read_back = Some(read_back);
        /// Sets a callback that receives the progress: from worker threads, one at a time. If it
        /// panics, the call is rolled back and the panic continues in the caller.
        fn progress(callback: impl FnMut(Progress) + Send + 'a) =>
            watch.progress = Some(Box::new(callback));
        /// Sets the token that cancels the call.
        fn cancel(token: CancelToken) => watch.cancel = Some(token);
    }

    pub(crate) fn expected(&self) -> Result<Expected<'_>, SealError> {
        let sealed_as = &self.request.sealed_as;
        let mut expected = Expected::in_context(&sealed_as.model_id, &sealed_as.context)?;
        expected = match self.protection {
            Some(protection) => expected.protection(protection),
            None => expected.any_protection(),
        };
        if let Some(metadata) = &self.metadata {
            expected = metadata.expect(expected);
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

/// The GPU that a request names.
#[must_use]
pub const fn gpu_of(request: &ImportRequest<'_>) -> u32 {
    request.request.gpu
}
