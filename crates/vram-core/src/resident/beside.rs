//! Seals a shard anew into a second placement.

use std::sync::Arc;

use vram_seal::{Hashes, SealParams, SealedSegment, Sealer, SegmentCollector};
use vram_space::{Space, locate};

use crate::error::VramError;
use crate::parts::Core;
use crate::resident::contents::{altered, content_hashes, finish_seal, fresh};
use crate::resident::{Anew, on_card};
use crate::shard::seal::prints::Arming;
use crate::shard::{Arrived, Check, Entry, Moment, Seal, View};
use crate::transfer::convert::part;
use crate::transfer::walk::send;
use crate::transfer::{Convert, Windows};

/// Seals the bytes at `old` anew into a second placement. The shard itself is not changed.
pub(crate) fn write_anew(
    core: &Core,
    entry: &Entry,
    old: &View,
    anew: Anew,
    mut space: Space,
) -> Result<(Arc<Seal>, Arrived), VramError> {
    space.written()?;
    if let Some(seal) = on_card::write_anew(core, entry, old, anew, &space)? {
        return verified(core, seal, space);
    }
    let sealer = fresh(core, entry, anew)?.begin(|_fresh| content_hashes(entry, old))?;
    let arming = core.read_back.arming(space.gpu(), sealer.layout(), anew.params.protection())?;
    let seal = write_beside(core, entry, old, (&space, arming.as_ref()), sealer, anew.params);
    let seal = seal.map_err(|error| altered(entry, error))?;
    if let Some(arming) = arming {
        seal.prints.keep_all(arming);
    }
    verified(core, seal, space)
}

/// Reads the new copy back.
fn verified(core: &Core, seal: Seal, mut space: Space) -> Result<(Arc<Seal>, Arrived), VramError> {
    let new = View::of(&mut space, Arc::new(seal))?;
    let began = Moment::now(&*core.clock);
    let verified = new.read_back(core.read_back)?.map(|by| Check { began, by });
    Ok((new.seal, Arrived { space, verified }))
}

/// Reads every window of the old copy, seals it anew and writes it to `space`.
fn write_beside(
    core: &Core,
    entry: &Entry,
    old: &View,
    (space, arming): (&Space, Option<&Arming>),
    sealer: Sealer,
    params: SealParams,
) -> Result<Seal, VramError> {
    let (gpu, target) = (&*old.gpu, space.range());
    let windows = Windows::on(gpu, *sealer.layout())?;
    let collector = SegmentCollector::new(sealer)?;
    let sealer = collector.sealer();
    let found = Hashes::new(sealer.layout())?;
    let convert = Convert { from: &old.seal.opener, to: sealer };
    let keep = |segment, done: SealedSegment| {
        found.put(segment, done.hash().clone());
        collector.put(segment, done)
    };
    windows.run(gpu, windows.buffers(), windows.count(), |worker, index| {
        let Some(window) = windows.get(index) else { return Ok(()) };
        if window.bytes.is_empty() {
            return convert.window(&windows, &window, &mut [], &keep);
        }
        let (from, to) = (locate(old.range, window.bytes)?, locate(target, window.bytes)?);
        let staging = worker.read(&**old.memory()?, from)?;
        send(worker, staging, |buffer| {
            let bytes = part(buffer, from.len())?;
            convert.window(&windows, &window, bytes, &keep)?;
            if let Some(arming) = arming {
                window.each(windows.layout(), bytes, |segment, bytes| {
                    arming.put(windows.layout(), segment, bytes);
                    Ok::<_, VramError>(())
                })?;
            }
            Ok(Some((space.memory()?, to)))
        })
    })?;
    old.seal.opener.check_digest(&found.into_vec())?;
    finish_seal(core, entry, old, params, collector.finish()?)
}
