//! Seals plaintext: the shard becomes resident, or nothing stays on the GPU.
//!
//! ```text
//!  seal(request, data)
//!   1 limits, model id, GPU                             nothing is taken yet
//!   2 a slot in the count of shards, a placement, its bytes in the ledger
//!   3 scope Shard alone: a pass that hashes all segments  → synthetic IV, hashes to compare with
//!   4 for each window, on all threads:                  two staging buffers a worker
//!       plaintext → staging, hashed and sealed there, queued to the device
//!   5 wait for every copy                               late errors surface here
//!   6 record and table; the expected digest is compared
//!   7 read back, as much as the policy says             a copy that "succeeded" can be wrong
//!   8 into the registry                                 now it is resident
//! ```
//!
//! After any failure, everything that was taken is returned in reverse order, and the device bytes
//! are wiped.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_files::Feed;
use vram_seal::{ContentDigest, Fresh, SealError, SealParams, Sealer, SegmentCollector};
use vram_space::Space;

use crate::error::VramError;
use crate::parts::{Core, keys};
use crate::room::make_room;
use crate::sealing::SealRequest;
use crate::sealing::entry::{Ready, entry, publish};
use crate::sealing::on_card::OnCard;
use crate::sealing::place::{place, place_once};
use crate::shard::seal::prints::Arming;
use crate::shard::{Check, Counted, KeyUse, Moment, Seal, SealedShard, View};
use crate::transfer::kernels;
use crate::transfer::write::hash_feed;
use crate::transfer::{Pass, ReadBack, Windows, WriteOptions};

/// Seals a slice onto the GPU that the request names.
pub fn seal_slice(
    core: &Core,
    request: &SealRequest,
    data: &[u8],
) -> Result<SealedShard, VramError> {
    let len = ByteLen::from_usize(data.len());
    let write =
        |(space, counted)| write_shard(core, request, space, counted, &data, &WriteOptions::SLICE);
    let ready = match write(place(core, request, len)?) {
        // The shard was placed, but the driver had no memory for writing: retry once if shards
        // could be evicted. Only a slice can certainly be read again.
        Err(VramError::Device { source, .. })
            if source.is_out_of_memory()
                && make_room::give_way(
                    core,
                    core.gpu(request.gpu)?,
                    len,
                    request.room_making(),
                ) =>
        {
            write(place_once(core, request, len)?)
        }
        other => other,
    }?;
    publish(core, ready)
}

/// Seals `feed` into `space`. The returned shard is complete and not yet in the registry: dropping
/// it returns everything.
pub(crate) fn write_shard(
    core: &Core,
    request: &SealRequest,
    mut space: Space,
    counted: Counted,
    feed: &dyn Feed,
    options: &WriteOptions<'_>,
) -> Result<Ready, VramError> {
    let params = request.params(core.defaults);
    let id = request.id(core);
    let seal = write_seal(core, request, params, &mut space, feed, options)?;

    let read_back = request.read_back.unwrap_or(core.read_back);
    let view = View::of(&mut space, Arc::new(seal))?;
    let verified = if read_back == ReadBack::None {
        None
    } else {
        let began = Moment::now(&*core.clock);
        view.read_back(read_back)?.map(|by| Check { began, by })
    };
    Ok(entry(core, id, request, view.seal, space, counted, verified))
}

/// Seals `feed` into `space` and waits until the device has all bytes.
fn write_seal(
    core: &Core,
    request: &SealRequest,
    params: SealParams,
    space: &mut Space,
    feed: &dyn Feed,
    options: &WriteOptions<'_>,
) -> Result<Seal, VramError> {
    let (fresh, key_use) = begin(core, request, params, feed.len())?;
    let gpu = Arc::clone(space.gpu());
    let windows = Windows::on(&gpu, *fresh.layout())?;

    let changed = |error| match error {
        VramError::Seal(SealError::SourceChanged { segment }) => {
            let model_id = Arc::clone(&request.sealed_as.model_id);
            VramError::SourceChanged { model_id, segment }
        }
        other => other,
    };
    if kernels::seals(&gpu, params)
        && !feed.len().is_zero()
        && let Some(kernels) = gpu.kernels()
    {
        let kernels = &*kernels;
        let done = OnCard { kernels, windows: &windows, feed, options }.seal(fresh, space)?;
        return keys::made_seal(core, done, params, key_use);
    }
    let sealer = fresh.begin(|_fresh| hash_feed(&gpu, &windows, feed, options))?;
    let collector = SegmentCollector::new(sealer)?;
    let read_back = request.read_back.unwrap_or(core.read_back);
    let arming = read_back.arming(&gpu, windows.layout(), params.protection())?;
    let pass = Pass { collector: &collector, windows: &windows, feed, arming: arming.as_ref() };
    pass.write_all(space, options).map_err(changed)?;

    finish(core, params, collector, key_use, arming, options.check)
}

/// Begins a seal under the active key.
pub(crate) fn begin(
    core: &Core,
    request: &SealRequest,
    params: SealParams,
    len: ByteLen,
) -> Result<(Sealer<Fresh>, KeyUse), VramError> {
    let mut described = Vec::new();
    let context = request.sealed_as.context(&mut described)?;
    let keys = keys::ring(core)?;
    let fresh = Sealer::new(keys.active(), &context, params, len)?;
    // Held until the seal is counted, so that no other thread retires the key before.
    let key_use = core.key_uses.take(keys.active().id());
    Ok((fresh, key_use))
}

/// The seal of a shard all of whose bytes the device has.
pub(crate) fn finish(
    core: &Core,
    params: SealParams,
    collector: SegmentCollector,
    key_use: KeyUse,
    arming: Option<Arming>,
    check: &dyn Fn(ContentDigest) -> Result<(), VramError>,
) -> Result<Seal, VramError> {
    let done = collector.finish_open()?;
    check(done.digest)?;
    let seal = keys::made_seal(core, done, params, key_use)?;
    if let Some(arming) = arming {
        seal.prints.keep_all(arming);
    }
    Ok(seal)
}
