//! Sealing: plaintext in, a resident shard out, or nothing.
//!
//! ```text
//!  seal(request, data)
//!   1 limits, model id, GPU                             nothing is taken yet
//!   2 a place among the shards, a placement, its bytes in the books
//!   3 scope Shard: one pass that hashes all segments    → digest, synthetic IV
//!   4 for each window, on all threads:                  two staging buffers a worker
//!       plaintext → staging, sealed there, queued to the device
//!   5 wait for every copy                               late errors surface here
//!   6 record and table; the expected digest is compared
//!   7 read back, as much as the policy says             a copy that "succeeded" can be wrong
//!   8 into the registry                                 now it is resident
//! ```
//!
//! Whatever fails, everything taken is given back in reverse order, the device bytes wiped.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_seal::parallel::for_each_segment;
use vram_seal::{
    ContentDigest, Expected, SealError, SealParams, Sealer, SegmentCollector, SegmentHash,
    SivScope, hash_all,
};

use crate::age::{Ages, Moment};
use crate::backup::Copies;
use crate::error::VramError;
use crate::events::EventKind;
use crate::evict::Goal;
use crate::feed::Feed;
use crate::gpu::Gpu;
use crate::id::ShardId;
use crate::lanes::{Lanes, Worker};
use crate::manager::Core;
use crate::registry::{Counted, Entry, Seal, State, View};
use crate::request::SealRequest;
use crate::shard::SealedShard;
use crate::space::{Space, locate};
use crate::standing::Standing;
use crate::sync::{Mutex, lock, read};
use crate::verify::Selection;
use crate::windows::{Window, Windows};

/// How much of a shard is read back from the device before it counts as resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadBack {
    /// An Authenticated shard in full, since kernels will read it unchecked; an Encrypted one by
    /// sample, since every later read authenticates what it touches.
    #[default]
    Default,
    /// Every segment.
    Full,
    /// The first and the last segment, and a few between.
    Sample,
    /// Nothing.
    None,
}

/// How one shard is written, besides what the request says.
#[derive(Clone, Copy)]
pub(crate) struct WriteOptions<'a> {
    /// The scope where the request names none.
    pub(crate) scope: SivScope,
    /// The content that must come out, if the caller named one.
    pub(crate) expected_digest: Option<&'a ContentDigest>,
    /// Called with the bytes just done, from any thread: progress and cancellation.
    pub(crate) watch: &'a (dyn Fn(ByteLen) -> Result<(), VramError> + Sync),
}

impl WriteOptions<'_> {
    /// For a slice: nobody watches.
    pub(crate) const SLICE: Self =
        Self { scope: SivScope::Shard, expected_digest: None, watch: &|_done| Ok(()) };
}

impl Core {
    /// Seals a slice onto the GPU that the request names.
    pub(crate) fn seal_slice(
        &self,
        request: &SealRequest,
        data: &[u8],
    ) -> Result<SealedShard, VramError> {
        let len = ByteLen::from_usize(data.len());
        let write = |(space, counted)| {
            self.write_shard(request, space, counted, &data, &WriteOptions::SLICE)
        };
        let entry = match write(self.place(request, len)?) {
            // There was memory to lie in, and none to write it with: once more, if somebody gives
            // way. Only a slice can be read again for certain.
            Err(VramError::Device { source, .. })
                if source.is_out_of_memory()
                    && self.give_way(self.gpu(request.gpu)?, len, request.room_making()) =>
            {
                write(self.place_once(request, len)?)
            }
            other => other,
        }?;
        Ok(self.publish(entry))
    }

    /// Takes everything that one more shard of `len` bytes needs. Nothing is read or written.
    pub(crate) fn place(
        &self,
        request: &SealRequest,
        len: ByteLen,
    ) -> Result<(Space, Counted), VramError> {
        let (gpu, lens) = (self.gpu(request.gpu)?, [len]);
        let gpus = core::slice::from_ref(gpu);
        self.with_room(gpus, Goal::Pieces(&lens), request.room_making(), || {
            self.place_once(request, len)
        })
    }

    /// As [`place`](Self::place), in what room there is.
    pub(crate) fn place_once(
        &self,
        request: &SealRequest,
        len: ByteLen,
    ) -> Result<(Space, Counted), VramError> {
        let counted = self.admissible(request, len)?;
        Ok((self.gpu(request.gpu)?.place(len)?, counted))
    }

    /// Checks a request, and takes a place among the shards for it.
    pub(crate) fn admissible(
        &self,
        request: &SealRequest,
        len: ByteLen,
    ) -> Result<Counted, VramError> {
        self.check_open()?;
        request.sealed_as.context()?;
        self.gpu(request.gpu)?;
        let limit = self.limits.shard_len_max;
        if len > limit {
            return Err(VramError::LimitExceeded {
                what: "bytes of one shard",
                limit: limit.get(),
                wanted: len.get(),
            });
        }
        self.registry.count_one()
    }

    /// Seals `feed` into `space`. The entry that comes out is complete, and not yet in the registry:
    /// dropping it gives everything back.
    pub(crate) fn write_shard(
        &self,
        request: &SealRequest,
        mut space: Space,
        counted: Counted,
        feed: &dyn Feed,
        options: &WriteOptions<'_>,
    ) -> Result<Arc<Entry>, VramError> {
        let params = request.params(self.defaults, options.scope);
        let id = self.ids.next(&*self.clock);
        let seal = self.write_seal(request, params, &mut space, feed, options)?;

        let read_back = request.read_back.unwrap_or(self.read_back);
        let view = space.view(Arc::new(seal));
        let began = Moment::now(&*self.clock);
        let verified = self.read_back(&view, read_back)?.then_some(began);
        Ok(self.entry(id, request, view.seal, space, counted, verified))
    }

    /// A complete entry of what lies in `space`; `verified` is when its read-back began, if that was
    /// of all of it. It is not in the registry yet: dropping it gives everything back.
    pub(crate) fn entry(
        &self,
        id: ShardId,
        request: &SealRequest,
        seal: Arc<Seal>,
        mut space: Space,
        counted: Counted,
        verified: Option<Moment>,
    ) -> Arc<Entry> {
        space.commit();
        let len = seal.opener.fields().plaintext_len();
        let state = State {
            seal,
            space: Some(space),
            parked: false,
            host_len: ByteLen::ZERO,
            generation: 0,
            quarantine: None,
            ages: Ages::new(Moment::now(&*self.clock), verified),
            copies: Copies::default(),
        };
        let owner = request.owner.clone();
        let standing = Standing::new(request.claim);
        let events = Arc::clone(&self.events);
        let sealed_as = request.sealed_as.clone();
        let entry = Entry::new(id, sealed_as, owner, len, standing, events, state, counted);
        self.used(&entry);
        Arc::new(entry)
    }

    /// Makes a complete entry resident.
    pub(crate) fn publish(&self, entry: Arc<Entry>) -> SealedShard {
        let handle = self.handle(&entry);
        if let Some(space) = entry.state().space.as_mut() {
            space.settle();
        }
        tracing::info!(
            shard = %entry.id,
            gpu = handle.gpu_index,
            bytes = entry.plaintext_len.get(),
            "sealed"
        );
        // Whoever finds it at once waits at its gate, so that nothing is told of it before this.
        // Nobody is there yet: it is had at once.
        let known = Arc::clone(&entry);
        let _pass = known.gate.exclusive();
        self.registry.insert(entry);
        // Only now: whoever waits for the calls under way finds it.
        if let Some(space) = known.state().space.as_mut() {
            space.rest();
        }
        self.events.emit(EventKind::Sealed {
            shard: known.id.clone(),
            model_id: Arc::clone(&known.sealed_as.model_id),
            owner: known.owner.clone(),
            gpu: handle.gpu_index,
            bytes: known.plaintext_len,
        });
        handle
    }

    /// Seals `feed` into `space` and waits until the device has it.
    fn write_seal(
        &self,
        request: &SealRequest,
        params: SealParams,
        space: &mut Space,
        feed: &dyn Feed,
        options: &WriteOptions<'_>,
    ) -> Result<Seal, VramError> {
        let context = request.sealed_as.context()?;
        let keys = read(&self.keys);
        let mut sealer = Sealer::new(keys.active(), &context, params, feed.len())?;
        // Held until the seal counts, so that the key is not retired meanwhile.
        let _key_use = self.key_uses.take(keys.active().id());
        drop(keys);
        let gpu = Arc::clone(space.gpu());
        let windows = self.windows(&gpu, *sealer.layout())?;
        let collector = SegmentCollector::new(&sealer)?;

        let changed = |error| match error {
            VramError::Seal(SealError::SourceChanged { segment }) => {
                let model_id = Arc::clone(&request.sealed_as.model_id);
                VramError::SourceChanged { model_id, segment }
            }
            other => other,
        };
        let mut hashes = None;
        if sealer.needs_digest_first() {
            let first_pass = hash_feed(&gpu, &windows, feed, options)?;
            sealer.fix(&first_pass)?;
            hashes = Some(first_pass);
        }
        let pass = Pass { sealer: &sealer, collector: &collector, windows: &windows, feed };
        pass.write_all(space, hashes.as_deref(), options).map_err(changed)?;

        let done = collector.finish(sealer)?;
        if let Some(expected) = options.expected_digest
            && *expected != done.digest
        {
            return Err(VramError::DigestMismatch {
                model_id: Arc::clone(&request.sealed_as.model_id),
                expected: Box::new(*expected),
                found: Box::new(done.digest),
            });
        }
        self.open_seal(done, params, &Expected::from(&context))
    }

    /// Reads back what was just written. Says whether that was all of it.
    pub(crate) fn read_back(&self, view: &View, policy: ReadBack) -> Result<bool, VramError> {
        let count = view.seal.opener.layout().count();
        let full = match policy {
            ReadBack::None => return Ok(false),
            ReadBack::Full => true,
            ReadBack::Sample => false,
            ReadBack::Default => view.seal.protection() == vram_seal::Protection::Authenticated,
        };
        let selection = if full {
            Selection::Run(0..count)
        } else {
            // What is picked depends on the record alone, so a run can be repeated.
            Selection::sample(count, SAMPLED, seed_of(&view.seal))
        };
        let segments = self.altered_segments(view, selection)?;
        if segments.is_empty() {
            return Ok(full);
        }
        let gpu = view.gpu.index;
        tracing::error!(gpu, ?segments, "written bytes read back differently");
        Err(VramError::WriteNotKept { gpu, segments })
    }

    /// Cuts a shard into work for a GPU.
    pub(crate) fn windows(
        &self,
        gpu: &Gpu,
        layout: vram_seal::SegmentLayout,
    ) -> Result<Windows, VramError> {
        Windows::plan(layout, gpu.device.info(), self.threads, self.limits.staging_bytes)
    }
}

/// Segments of a sample besides the first and the last.
const SAMPLED: u64 = 4;

fn seed_of(seal: &Seal) -> u64 {
    let mac = seal.record.mac();
    mac.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The pass that seals and copies.
struct Pass<'a> {
    sealer: &'a Sealer,
    collector: &'a SegmentCollector,
    windows: &'a Windows,
    feed: &'a dyn Feed,
}

impl Pass<'_> {
    fn write_all(
        &self,
        space: &mut Space,
        hashes: Option<&[SegmentHash]>,
        options: &WriteOptions<'_>,
    ) -> Result<(), VramError> {
        space.written()?;
        let space = &*space;
        let gpu = Arc::clone(space.gpu());
        let lanes = Lanes::new(&gpu, self.windows.window_len(), self.windows.buffers());
        // What was hashed last is still in cache, so a repeatable source is sealed from its end.
        let backwards = hashes.is_some() && self.feed.slice().is_some();
        let count = self.windows.count();
        for_each_segment(
            self.windows.threads(),
            count,
            || Ok(lanes.worker()),
            |worker, index| {
                let index =
                    if backwards { count.saturating_sub(index).saturating_sub(1) } else { index };
                let done = self.write_window(worker, space, index, hashes)?;
                (options.watch)(done)
            },
        )?;
        lanes.finish()
    }

    /// Reads, seals and copies one window, and says how long it was. A source that can only be
    /// read in order gives its own next window instead of `index`: over the whole pass each window
    /// is written once all the same.
    fn write_window(
        &self,
        worker: &mut Worker<'_>,
        space: &Space,
        index: u64,
        hashes: Option<&[SegmentHash]>,
    ) -> Result<ByteLen, VramError> {
        let mut staging = worker.buffer()?;
        let window = match self.read_window(staging.as_mut_slice(), index) {
            Ok(window) => window,
            Err(error) => {
                worker.put(staging);
                return Err(error);
            }
        };
        let len = window.bytes.len();
        let outcome = self.seal_window(staging.as_mut_slice(), &window, hashes);
        if outcome.is_err() || len.is_zero() {
            worker.put(staging);
            return outcome.map(|()| len);
        }
        let to = locate(space.range(), window.bytes)?;
        match space.memory() {
            Ok(memory) => {
                worker.queue_write(&**memory, to.start(), staging, to.len());
                Ok(len)
            }
            Err(error) => {
                worker.put(staging);
                Err(error)
            }
        }
    }

    /// Fills the start of `buffer` with the bytes of a window.
    fn read_window(&self, buffer: &mut [u8], index: u64) -> Result<Window, VramError> {
        let Some(turn) = self.feed.turn() else { return self.fill(buffer, index) };
        let mut turn = lock(turn);
        let window = self.fill(buffer, *turn)?;
        *turn = turn.saturating_add(1);
        Ok(window)
    }

    fn fill(&self, buffer: &mut [u8], index: u64) -> Result<Window, VramError> {
        // The queue gives out the windows there are.
        let window =
            self.windows.get(index).ok_or(VramError::HostMemory { wanted: ByteLen::ZERO })?;
        let len = window.bytes.len();
        let target = len.to_usize().and_then(|len| buffer.get_mut(..len));
        self.feed.fill(window.bytes, target.ok_or(VramError::HostMemory { wanted: len })?)?;
        Ok(window)
    }

    /// Seals one window where it lies.
    fn seal_window(
        &self,
        buffer: &mut [u8],
        window: &Window,
        hashes: Option<&[SegmentHash]>,
    ) -> Result<(), VramError> {
        let len = window.bytes.len();
        let buffer = len
            .to_usize()
            .and_then(|len| buffer.get_mut(..len))
            .ok_or(VramError::HostMemory { wanted: len })?;
        // A slice cannot have changed since it was hashed; anything else is hashed again.
        let hashes = hashes.filter(|_| self.feed.slice().is_none());
        window.each(self.windows.layout(), buffer, |segment, bytes| {
            let hash = hashes.and_then(|hashes| hashes.get(usize::try_from(segment).ok()?));
            let sealed = match hash {
                Some(hash) => self.sealer.seal_segment_checked(segment, bytes, hash),
                None => self.sealer.seal_segment(segment, bytes),
            }?;
            self.collector.put(segment, sealed)?;
            Ok(())
        })
    }
}

/// The pass that hashes every segment, for scope Shard.
fn hash_feed(
    gpu: &Gpu,
    windows: &Windows,
    feed: &dyn Feed,
    options: &WriteOptions<'_>,
) -> Result<Vec<SegmentHash>, VramError> {
    let layout = windows.layout();
    if let Some(slice) = feed.slice() {
        return Ok(hash_all(layout, windows.threads(), slice)?);
    }
    let count = usize::try_from(layout.count()).unwrap_or(usize::MAX);
    let mut hashes = Vec::new();
    let wanted = ByteLen::new(layout.count().saturating_mul(32));
    hashes.try_reserve_exact(count).map_err(|_no_room| VramError::HostMemory { wanted })?;
    hashes.resize(count, None);
    let hashes = Mutex::new(hashes);
    let lanes = Lanes::new(gpu, windows.window_len(), windows.buffers());
    for_each_segment(
        windows.threads(),
        windows.count(),
        || Ok(lanes.worker()),
        |worker, index| {
            let Some(window) = windows.get(index) else { return Ok(()) };
            let mut staging = worker.buffer()?;
            let len = window.bytes.len();
            let buffer = len.to_usize().and_then(|len| staging.as_mut_slice().get_mut(..len));
            let outcome = buffer.ok_or(VramError::HostMemory { wanted: len }).and_then(|buffer| {
                feed.fill(window.bytes, buffer)?;
                window.each(layout, buffer, |segment, bytes| {
                    let hash = SegmentHash::of(layout, segment, bytes)?;
                    let index = usize::try_from(segment).unwrap_or(usize::MAX);
                    if let Some(slot) = lock(&hashes).get_mut(index) {
                        *slot = Some(hash);
                    }
                    Ok(())
                })
            });
            worker.put(staging);
            outcome?;
            // Nothing is done yet, but the caller may have had enough.
            (options.watch)(ByteLen::ZERO)
        },
    )?;
    lanes.finish()?;
    let hashes = hashes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(hashes.into_iter().flatten().collect())
}
