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

pub(crate) mod pass;

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_seal::{
    ContentDigest, Expected, SealError, SealParams, Sealer, SegmentCollector, SivScope,
};

use crate::age::{Ages, Moment};
use crate::backup::Copies;
use crate::error::VramError;
use crate::events::EventKind;
use crate::evict::plan::Goal;
use crate::feed::Feed;
use crate::id::ShardId;
use crate::manager::parts::Core;
use crate::registry::{Counted, Entry, Seal, State, View};
use crate::request::SealRequest;
use crate::shard::SealedShard;
use crate::space::Space;
use crate::standing::Standing;
use crate::sync::read;
use crate::verify::Selection;
use crate::write::pass::{Pass, hash_feed};
use crate::{evict, key_uses, lease};

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

impl View {
    /// Reads back what was just written. Says whether that was all of it.
    pub(crate) fn read_back(&self, policy: ReadBack) -> Result<bool, VramError> {
        let count = self.seal.opener.layout().count();
        let full = match policy {
            ReadBack::None => return Ok(false),
            ReadBack::Full => true,
            ReadBack::Sample => false,
            ReadBack::Default => self.seal.protection() == vram_seal::Protection::Authenticated,
        };
        let selection = if full {
            Selection::Run(0..count)
        } else {
            // What is picked depends on the record alone, so a run can be repeated.
            Selection::sample(count, SAMPLED, seed_of(&self.seal))
        };
        let segments = self.altered_segments(selection)?;
        if segments.is_empty() {
            return Ok(full);
        }
        let gpu = self.gpu.index;
        tracing::error!(gpu, ?segments, "written bytes read back differently");
        Err(VramError::WriteNotKept { gpu, segments })
    }
}

/// Seals a slice onto the GPU that the request names.
pub(crate) fn seal_slice(
    core: &Core,
    request: &SealRequest,
    data: &[u8],
) -> Result<SealedShard, VramError> {
    let len = ByteLen::from_usize(data.len());
    let write =
        |(space, counted)| write_shard(core, request, space, counted, &data, &WriteOptions::SLICE);
    let entry = match write(place(core, request, len)?) {
        // There was memory to lie in, and none to write it with: once more, if somebody gives
        // way. Only a slice can be read again for certain.
        Err(VramError::Device { source, .. })
            if source.is_out_of_memory()
                && evict::give_way(core, core.gpu(request.gpu)?, len, request.room_making()) =>
        {
            write(place_once(core, request, len)?)
        }
        other => other,
    }?;
    Ok(publish(core, entry))
}

/// Takes everything that one more shard of `len` bytes needs. Nothing is read or written.
pub(crate) fn place(
    core: &Core,
    request: &SealRequest,
    len: ByteLen,
) -> Result<(Space, Counted), VramError> {
    let (gpu, lens) = (core.gpu(request.gpu)?, [len]);
    let gpus = core::slice::from_ref(gpu);
    evict::with_room(core, gpus, Goal::Pieces(&lens), request.room_making(), || {
        place_once(core, request, len)
    })
}

/// As [`place`](Self::place), in what room there is.
pub(crate) fn place_once(
    core: &Core,
    request: &SealRequest,
    len: ByteLen,
) -> Result<(Space, Counted), VramError> {
    let counted = admissible(core, request, len)?;
    Ok((core.gpu(request.gpu)?.place(len)?, counted))
}

/// Checks a request, and takes a place among the shards for it.
pub(crate) fn admissible(
    core: &Core,
    request: &SealRequest,
    len: ByteLen,
) -> Result<Counted, VramError> {
    core.check_open()?;
    request.sealed_as.context()?;
    core.gpu(request.gpu)?;
    let limit = core.limits.shard_len_max;
    if len > limit {
        return Err(VramError::LimitExceeded {
            what: "bytes of one shard",
            limit: limit.get(),
            wanted: len.get(),
        });
    }
    core.registry.count_one()
}

/// Seals `feed` into `space`. The entry that comes out is complete, and not yet in the registry:
/// dropping it gives everything back.
pub(crate) fn write_shard(
    core: &Core,
    request: &SealRequest,
    mut space: Space,
    counted: Counted,
    feed: &dyn Feed,
    options: &WriteOptions<'_>,
) -> Result<Arc<Entry>, VramError> {
    let params = request.params(core.defaults, options.scope);
    let id = core.ids.next(&*core.clock);
    let seal = write_seal(core, request, params, &mut space, feed, options)?;

    let read_back = request.read_back.unwrap_or(core.read_back);
    let view = space.view(Arc::new(seal));
    let began = Moment::now(&*core.clock);
    let verified = view.read_back(read_back)?.then_some(began);
    Ok(entry(core, id, request, view.seal, space, counted, verified))
}

/// A complete entry of what lies in `space`; `verified` is when its read-back began, if that was
/// of all of it. It is not in the registry yet: dropping it gives everything back.
pub(crate) fn entry(
    core: &Core,
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
        ages: Ages::new(Moment::now(&*core.clock), verified),
        copies: Copies::default(),
    };
    let owner = request.owner.clone();
    let standing = Standing::new(request.claim);
    let events = Arc::clone(&core.events);
    let sealed_as = request.sealed_as.clone();
    let entry = Entry::new(id, sealed_as, owner, len, standing, events, state, counted);
    lease::used(core, &entry);
    Arc::new(entry)
}

/// Makes a complete entry resident.
pub(crate) fn publish(core: &Core, entry: Arc<Entry>) -> SealedShard {
    let handle = core.handle(&entry);
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
    core.registry.insert(entry);
    // Only now: whoever waits for the calls under way finds it.
    if let Some(space) = known.state().space.as_mut() {
        space.rest();
    }
    core.events.emit(EventKind::Sealed {
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
    core: &Core,
    request: &SealRequest,
    params: SealParams,
    space: &mut Space,
    feed: &dyn Feed,
    options: &WriteOptions<'_>,
) -> Result<Seal, VramError> {
    let context = request.sealed_as.context()?;
    let keys = read(&core.keys);
    let mut sealer = Sealer::new(keys.active(), &context, params, feed.len())?;
    // Held until the seal counts, so that the key is not retired meanwhile.
    let _key_use = core.key_uses.take(keys.active().id());
    drop(keys);
    let gpu = Arc::clone(space.gpu());
    let windows = gpu.windows(*sealer.layout())?;
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
    key_uses::open_seal(core, done, params, &Expected::from(&context))
}

/// Segments of a sample besides the first and the last.
const SAMPLED: u64 = 4;

fn seed_of(seal: &Seal) -> u64 {
    let mac = seal.record.mac();
    mac.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
