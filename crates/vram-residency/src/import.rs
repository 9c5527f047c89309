//! Importing a sealed image: resident once every segment was verified, or not at all.
//!
//! ```text
//!   1 the record: key, model, context, length      nothing is allocated from it before
//!   2 padding and table
//!   3 a place among the shards, a placement
//!   4 each window, in order: read, opened in scratch memory, hashed, written as it came
//!   5 the end of the image; the content as a whole against the record
//!   6 every segment is opened where it arrived
//!   7 into the registry
//! ```

use core::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_seal::parallel::for_each_segment;
use vram_seal::{
    ContentDigest, ContentHasher, Expected, HashKind, ImageLayout, OpenLimits, Opener, SealError,
    SealRecord, SegmentTags, open_record_in,
};
use zeroize::Zeroizing;

use crate::age::Moment;
use crate::backup::Exported;
use crate::call::Call;
use crate::cancel::CancelToken;
use crate::error::VramError;
use crate::gpu::Gpu;
use crate::hashes::Hashes;
use crate::key_uses::KeyUse;
use crate::lanes::{Lanes, Worker};
use crate::manager::{Core, VramManager};
use crate::progress::{Progress, ProgressFn, Watch};
use crate::read::zeroed;
use crate::registry::Seal;
use crate::regular_file;
use crate::request::{SealRequest, SealedAs};
use crate::shard::SealedShard;
use crate::space::{Space, locate};
use crate::standing::OnEviction;
use crate::sync::{Mutex, lock, read};
use crate::windows::{Window, Windows};
use crate::write::ReadBack;

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
    metadata: Option<ContentDigest>,
    shard_index: Option<u64>,
    revision: Option<u64>,
    expected_digest: Option<ContentDigest>,
    progress: Option<Box<ProgressFn<'a>>>,
    cancel: Option<CancelToken>,
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
    fn again(sealed_as: &SealedAs, gpu: u32) -> Self {
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

    fn expected(&self) -> Result<Expected<'_>, SealError> {
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

impl VramManager {
    /// Reads a sealed image and makes its shard resident, under a new id. The image is read once,
    /// in order, with bounded host memory, and believed bit by bit: nothing is resident before
    /// every segment was verified in the image and where it arrived.
    ///
    /// # Errors
    ///
    /// [`VramError::Seal`] if it is no sealed image, of another key, model, context or revision,
    /// altered, cut short or longer than it states; [`VramError::Io`] if it cannot be read;
    /// [`VramError::DigestMismatch`]; [`VramError::UnknownGpu`]; [`VramError::InsufficientVram`];
    /// [`VramError::LimitExceeded`]; [`VramError::WriteNotKept`]; [`VramError::Cancelled`];
    /// [`VramError::HostMemory`], [`VramError::Device`], [`VramError::DeviceLost`]. Nothing is
    /// resident then, and everything taken was given back.
    ///
    /// # Panics
    ///
    /// If the reader or the progress callback panics: with their payload, after everything was
    /// given back. The manager stays usable.
    #[tracing::instrument(level = "info", skip_all, fields(gpu = request.request.gpu))]
    pub fn import(
        &self,
        request: ImportRequest<'_>,
        mut image: impl Read + Send,
    ) -> Result<SealedShard, VramError> {
        let gpu = Some(request.request.gpu);
        let work = || self.core.import(request, &mut image);
        self.core.watched_for(Call::Import, None, gpu, work, |shard| shard.plaintext_len)
    }

    /// As [`import`](Self::import), from a file.
    ///
    /// # Errors
    ///
    /// As [`import`](Self::import), with [`VramError::Image`] naming the file in place of
    /// [`VramError::Seal`].
    ///
    /// # Panics
    ///
    /// If the progress callback panics, after everything was given back.
    #[tracing::instrument(level = "info", skip_all, fields(gpu = request.request.gpu))]
    pub fn import_from(
        &self,
        request: ImportRequest<'_>,
        image: impl AsRef<Path>,
    ) -> Result<SealedShard, VramError> {
        let path = image.as_ref();
        let gpu = Some(request.request.gpu);
        let work = || {
            self.core.check_open()?;
            let mut file = open_image(path)?;
            self.core.import(request, &mut file).map_err(|error| in_file(path, error))
        };
        self.core.watched_for(Call::Import, None, gpu, work, |shard| shard.plaintext_len)
    }
}

fn open_image(path: &Path) -> Result<File, VramError> {
    regular_file::open_regular(path).map_err(|error| VramError::Io {
        action: "open the sealed image",
        path: Some(path.to_path_buf()),
        source: Arc::new(error),
    })
}

/// The error of an image, naming its file.
fn in_file(path: &Path, error: VramError) -> VramError {
    match error {
        VramError::Seal(source) => {
            VramError::Image { path: path.to_path_buf(), source: Box::new(source) }
        }
        VramError::Io { action, path: None, source } => {
            VramError::Io { action, path: Some(path.to_path_buf()), source }
        }
        other => other,
    }
}

/// Record and table of an image, proven.
struct Proven {
    record: SealRecord,
    opener: Opener,
    key_use: KeyUse,
    image_len: u64,
}

/// An image that lies in device memory, verified there. Dropping it gives everything back.
struct Landed {
    seal: Arc<Seal>,
    space: Space,
    /// When reading back all of it began, if all of it was.
    verified: Option<Moment>,
}

impl Core {
    fn import(
        &self,
        mut request: ImportRequest<'_>,
        image: &mut (dyn Read + Send),
    ) -> Result<SealedShard, VramError> {
        self.check_open()?;
        let gpu = Arc::clone(self.gpu(request.request.gpu)?);
        gpu.ready()?;
        let proven = self.prove(&request, image)?;
        let len = proven.opener.fields().plaintext_len();
        let watch = Watch::new(len, request.progress.take(), request.cancel.take());
        watch.go_on()?;

        // What was not demanded is as the image has it.
        let mut wanted = request.request;
        let fields = proven.opener.fields();
        wanted.sealed_as.metadata = ContentDigest::from_bytes(*fields.metadata_hash());
        wanted.sealed_as.shard_index = fields.shard_index();
        wanted.sealed_as.revision = fields.revision();
        let (space, counted) = self.place(&wanted, len)?;
        let landed = self.land(&wanted, proven, image, space, &watch)?;
        if let Some(expected) = request.expected_digest
            && expected != landed.seal.digest
        {
            return Err(VramError::DigestMismatch {
                model_id: wanted.sealed_as.model_id,
                expected: Box::new(expected),
                found: Box::new(landed.seal.digest),
            });
        }
        let Landed { seal, space, verified } = landed;
        let id = self.ids.next(&*self.clock);
        let entry = self.entry(id, &wanted, seal, space, counted, verified);
        // Before the shard is resident: a callback that panics must not leave one behind.
        watch.finish();
        Ok(self.publish(entry))
    }

    /// Writes an image to the place that was found for it, and verifies it there.
    fn land(
        &self,
        wanted: &SealRequest,
        proven: Proven,
        image: &mut (dyn Read + Send),
        mut space: Space,
        watch: &Watch<'_>,
    ) -> Result<Landed, VramError> {
        let fields = proven.opener.fields();
        let params = self
            .defaults
            .with_protection(fields.protection())
            .with_segment(fields.segment())
            .with_suite(fields.suite().unwrap_or(self.defaults.suite()))
            .with_scope(fields.scope().unwrap_or(self.defaults.scope()));
        space.written()?;
        let hashes = self.write_image(&proven, image, &space, watch)?;
        let digest = proven.opener.check_digest(&hashes)?;
        let Proven { record, opener, key_use, .. } = proven;
        let seal = Arc::new(Seal { record, opener, params, digest, key_use });
        let view = space.view(seal);
        let began = Moment::now(&*self.clock);
        let read_back = wanted.read_back.unwrap_or(ReadBack::Full);
        let verified = self.read_back(&view, read_back)?.then_some(began);
        Ok(Landed { seal: view.seal, space, verified })
    }

    /// Brings the content of a lost shard to a GPU, from the image that it was written to. `lost` is
    /// the seal that it had; what lies there afterwards need not have its protection.
    ///
    /// # Errors
    ///
    /// As an import. None if the file holds another image by now.
    pub(crate) fn bring_back(
        &self,
        sealed_as: &SealedAs,
        exported: &Exported,
        lost: &Seal,
        target: &Arc<Gpu>,
        place: impl FnOnce() -> Result<Space, VramError>,
    ) -> Result<Option<(Arc<Seal>, Space)>, VramError> {
        target.ready()?;
        let path = &exported.path;
        let mut file = open_image(path)?;
        let request = ImportRequest::again(sealed_as, target.index);
        let back = || {
            let proven = self.prove(&request, &mut file)?;
            if proven.record != exported.record {
                return Ok(None);
            }
            let watch = Watch::new(proven.opener.fields().plaintext_len(), None, None);
            let mut landed = self.land(&request.request, proven, &mut file, place()?, &watch)?;
            if let Some(began) = landed.verified {
                landed.space.verified(began);
            }
            // The content of an Authenticated shard was sealed anew for the image.
            let same = landed.seal.digest == lost.digest;
            Ok(same.then_some((landed.seal, landed.space)))
        };
        back().map_err(|error| in_file(path, error))
    }

    /// Reads and proves everything that comes before the data.
    fn prove(
        &self,
        request: &ImportRequest<'_>,
        image: &mut (dyn Read + Send),
    ) -> Result<Proven, VramError> {
        let expected = request.expected()?;
        let mut head = [0_u8; SealRecord::LEN];
        let found = read_some(image, &mut head)?;
        let record = SealRecord::from_bytes(head);
        if found < SealRecord::LEN {
            return Err(cut_short("a sealed image, at least", 256, found));
        }
        let limits = OpenLimits { max_len: self.limits.shard_len_max };
        let keys = read(&self.keys);
        let opened = open_record_in(&keys, &record, &expected, limits)?;
        let key_use = self.key_uses.take(opened.fields().key_id());
        drop(keys);

        // The record is genuine: what it states may be allocated.
        let layout = ImageLayout::for_fields(opened.fields());
        let table = read_part(image, layout.table_len(), layout.padding_offset())?;
        let padding = read_part(image, layout.padding_len(), layout.data_offset())?;
        layout.check_padding(&padding)?;
        let tags = SegmentTags::from_bytes(opened.fields(), table)?;
        let image_len = layout.total_len();
        Ok(Proven { record, opener: opened.with_table(tags)?, key_use, image_len })
    }

    /// Writes the data to `space`, each segment opened before, and waits until the device has it.
    fn write_image(
        &self,
        proven: &Proven,
        image: &mut (dyn Read + Send),
        space: &Space,
        watch: &Watch<'_>,
    ) -> Result<Vec<vram_seal::SegmentHash>, VramError> {
        let opener = &proven.opener;
        let layout = *opener.layout();
        let windows = self.windows(space.gpu(), layout)?;
        let hashes = Hashes::new(&layout)?;
        let arrival = Arrival { windows: &windows, next: Mutex::new((0, image)), proven };
        let lanes = Lanes::new(space.gpu(), windows.window_len(), windows.buffers());
        let longest = layout.segment_size().bytes().min(layout.plaintext_len());
        for_each_segment(
            windows.threads(),
            windows.count(),
            || Ok((lanes.worker(), Zeroizing::new(zeroed(longest)?))),
            |(worker, scratch), _turn| {
                watch.go_on()?;
                let done = arrival.write_window(worker, scratch, space, &hashes)?;
                watch.advance(done);
                Ok::<_, VramError>(())
            },
        )?;
        lanes.finish()?;
        arrival.expect_end()?;
        Ok(hashes.into_vec())
    }
}

/// The data of an image, which comes in order, for threads that take turns to read it.
struct Arrival<'a> {
    windows: &'a Windows,
    /// The next window, and where it comes from: choosing and reading it is one step.
    next: Mutex<(u64, &'a mut (dyn Read + Send))>,
    proven: &'a Proven,
}

impl Arrival<'_> {
    /// Reads the next window, opens its segments in `scratch`, and starts writing it as it came.
    fn write_window(
        &self,
        worker: &mut Worker<'_>,
        scratch: &mut [u8],
        space: &Space,
        hashes: &Hashes,
    ) -> Result<ByteLen, VramError> {
        let mut staging = worker.buffer()?;
        let outcome = self.read_next(staging.as_mut_slice()).and_then(|window| {
            self.open(&window, staging.as_mut_slice(), scratch, hashes)?;
            Ok((locate(space.range(), window.bytes)?, space.memory()))
        });
        let (to, memory) = match outcome {
            Ok((to, Ok(memory))) if !to.is_empty() => (to, memory),
            // An empty shard has nothing to write, and a budget of zero no memory to write to.
            Ok((to, memory)) => {
                worker.put(staging);
                return if to.is_empty() { Ok(ByteLen::ZERO) } else { memory.map(|_| to.len()) };
            }
            Err(error) => {
                worker.put(staging);
                return Err(error);
            }
        };
        worker.queue_write(&**memory, to.start(), staging, to.len());
        Ok(to.len())
    }

    fn read_next(&self, buffer: &mut [u8]) -> Result<Window, VramError> {
        let mut next = lock(&self.next);
        let (index, image) = &mut *next;
        let window =
            self.windows.get(*index).ok_or(VramError::HostMemory { wanted: ByteLen::ZERO })?;
        let wanted = window.bytes.len();
        let target = wanted.to_usize().and_then(|len| buffer.get_mut(..len));
        let target = target.ok_or(VramError::HostMemory { wanted })?;
        let found = read_some(&mut **image, target)?;
        if found < target.len() {
            let data_len = self.windows.layout().plaintext_len().get();
            let before = self.proven.image_len.saturating_sub(data_len);
            let start = before.saturating_add(window.bytes.start().get());
            let found = usize::try_from(start).unwrap_or(usize::MAX).saturating_add(found);
            return Err(cut_short("the sealed image", self.proven.image_len, found));
        }
        *index = index.saturating_add(1);
        Ok(window)
    }

    fn open(
        &self,
        window: &Window,
        bytes: &mut [u8],
        scratch: &mut [u8],
        hashes: &Hashes,
    ) -> Result<(), VramError> {
        let opener = &self.proven.opener;
        let len = window.bytes.len();
        let refused = || VramError::HostMemory { wanted: len };
        let bytes = len.to_usize().and_then(|len| bytes.get_mut(..len)).ok_or_else(refused)?;
        window.each(opener.layout(), bytes, |segment, sealed| {
            let plaintext = scratch.get_mut(..sealed.len()).ok_or_else(refused)?;
            opener.open_segment_to(segment, sealed, plaintext)?;
            hashes.put(segment, opener.hash_segment(segment, plaintext)?);
            Ok(())
        })
    }

    /// Trailing bytes are refused like missing ones.
    fn expect_end(&self) -> Result<(), VramError> {
        let mut next = lock(&self.next);
        if read_some(&mut *next.1, &mut [0])? == 0 {
            return Ok(());
        }
        let expected = self.proven.image_len;
        let found = expected.saturating_add(1);
        Err(SealError::WrongLength { what: "the sealed image", expected, found }.into())
    }
}

/// Fills `target` from its start, as far as the image goes.
fn read_some(image: &mut dyn Read, target: &mut [u8]) -> Result<usize, VramError> {
    let mut filled = 0_usize;
    while let Some(rest) = target.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let len = rest.len();
        match image.read(rest) {
            Ok(0) => break,
            Ok(more) => filled = filled.saturating_add(more.min(len)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let action = "read the sealed image";
                return Err(VramError::Io { action, path: None, source: Arc::new(error) });
            }
        }
    }
    Ok(filled)
}

/// Reads the next `len` bytes, which end at `end` of the image.
fn read_part(image: &mut dyn Read, len: u64, end: u64) -> Result<Vec<u8>, VramError> {
    let mut bytes = zeroed(ByteLen::new(len))?;
    let found = read_some(image, &mut bytes)?;
    if found < bytes.len() {
        let start = usize::try_from(end.saturating_sub(len)).unwrap_or(usize::MAX);
        return Err(cut_short("the sealed image, at least", end, start.saturating_add(found)));
    }
    Ok(bytes)
}

fn cut_short(what: &'static str, expected: u64, found: usize) -> VramError {
    SealError::WrongLength { what, expected, found: ByteLen::from_usize(found).get() }.into()
}
