//! Seals small shards that lie side by side: all of them in one staging buffer, with one copy
//! to the device, and one back.
//!
//! ```text
//!  seal(lanes, shards)
//!   1 for each: a seal is begun, its place may be written
//!   2 for each: plaintext → its part of the buffer, hashed and sealed there
//!   3 one copy to the device                             zeros between, where a place is longer
//!   4 for each: record and table
//!   5 one copy back; each is opened on the host, by its tags or hashes
//! ```
//!
//! After any failure all places are returned, wiped: none of the shards stays.

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceRange};
use vram_files::Watch;
use vram_seal::{Checked, SealParams, SegmentCollector, SegmentLayout};
use vram_space::{Lanes, Space, Span, Worker, hull, rest_from};

use crate::error::VramError;
use crate::parts::Core;
use crate::sealing::entry::{Ready, entry};
use crate::sealing::{SealRequest, seal};
use crate::shard::seal::prints::Arming;
use crate::shard::{Check, Counted, KeyUse, Moment, View};
use crate::transfer::convert::part;
use crate::transfer::walk::send;
use crate::transfer::write::needs_digest_first;
use crate::transfer::{Pass, ReadBack, SourceFeed, Windows, kernels};

/// A shard of a batch: what is asked for, its place, and its source.
pub(crate) struct Member<'a> {
    pub(crate) request: SealRequest,
    pub(crate) space: Space,
    pub(crate) counted: Counted,
    pub(crate) feed: SourceFeed<'a>,
}

/// Why a batch failed, and at which of its shards. What befell all of them is of the first.
pub(crate) struct Failed {
    pub(crate) at: usize,
    pub(crate) error: VramError,
}

/// An error of the shard with this number.
fn at<E: Into<VramError>>(at: usize) -> impl FnOnce(E) -> Failed {
    move |error| Failed { at, error: error.into() }
}

/// The place of a shard that may be sealed together with its neighbours: the host seals it, in one
/// window, in memory that others share. Needs nothing of its source.
pub(crate) fn joins(space: &Space, params: SealParams) -> Option<Span> {
    let gpu = space.gpu();
    let len = space.range().len();
    if len.is_zero()
        || gpu.blocks().is_some()
        || needs_digest_first(params)
        || kernels::seals(gpu, params)
    {
        return None;
    }
    let layout = SegmentLayout::new(len, params.segment()).ok()?;
    if Windows::on(gpu, layout).ok()?.count() != 1 {
        return None;
    }
    Span::of(space)
}

/// Seals shards of one GPU whose places [join](Span::joined), in any order, through the buffer of `lanes`,
/// which holds all of them. They are complete and not yet in the registry: dropping them
/// returns everything.
pub(crate) fn seal(
    core: &Core,
    shards: Vec<Member<'_>>,
    lanes: Lanes<'_>,
    watch: &Watch<'_>,
) -> Result<Vec<Ready>, Failed> {
    let mut begun = Vec::with_capacity(shards.len());
    for (number, member) in shards.into_iter().enumerate() {
        begun.push(Begun::new(core, member).map_err(at(number))?);
    }
    // Declared after the places: if this fails, the copy has ended before they are wiped.
    let lanes = lanes;
    let whole = whole_of(&begun).map_err(at(0))?;
    write(&begun, whole, &mut lanes.worker(), watch)?;
    lanes.finish().map_err(at(0))?;

    let mut written = Vec::with_capacity(begun.len());
    for (number, one) in begun.into_iter().enumerate() {
        written.push(one.finish(core).map_err(at(number))?);
    }
    if written.iter().all(|one| one.view.reads_all_back(one.read_back)) {
        check(core, &mut written, whole, &mut lanes.worker())?;
        drop(lanes);
    } else {
        drop(lanes);
        for (number, one) in written.iter_mut().enumerate() {
            one.check_alone(core).map_err(at(number))?;
        }
    }
    let ready = written.into_iter().enumerate();
    ready.map(|(number, one)| one.ready(core).map_err(at(number))).collect()
}

/// A shard whose seal was begun, with the right to write to its place.
struct Begun<'a> {
    member: Member<'a>,
    params: SealParams,
    collector: SegmentCollector,
    key_use: KeyUse,
    windows: Windows,
    read_back: ReadBack,
    arming: Option<Arming>,
}

impl<'a> Begun<'a> {
    fn new(core: &Core, mut member: Member<'a>) -> Result<Self, VramError> {
        let params = member.request.params(core.defaults);
        let (fresh, key_use) =
            seal::begin(core, &member.request, params, member.space.range().len())?;
        let windows = Windows::on(member.space.gpu(), *fresh.layout())?;
        let collector = SegmentCollector::new(fresh.one_pass()?)?;
        let read_back = member.request.read_back.unwrap_or(core.read_back);
        let gpu = member.space.gpu();
        let arming = read_back.arming(gpu, windows.layout(), params.protection())?;
        member.space.written()?;
        Ok(Self { member, params, collector, key_use, windows, read_back, arming })
    }

    /// Reads and seals the shard at the start of `buffer`, which is as long as its place, and returns
    /// its length.
    fn fill(&self, buffer: &mut [u8]) -> Result<ByteLen, VramError> {
        let Self { collector, windows, .. } = self;
        let (feed, arming) = (&self.member.feed, self.arming.as_ref());
        let window = Pass { collector, windows, feed, arming }.fill_window(0, buffer)?;
        let len = window.bytes.len();
        let rest = len.to_usize().and_then(|len| buffer.get_mut(len..)).unwrap_or_default();
        // What an earlier shard left in the buffer stays on the host.
        rest.fill(0);
        Ok(len)
    }

    fn finish(self, core: &Core) -> Result<Written<'a>, VramError> {
        let Self { mut member, params, collector, key_use, read_back, arming, .. } = self;
        let check = |found| member.feed.check_digest(None, found);
        let seal = seal::finish(core, params, collector, key_use, arming, &check)?;
        let view = View::of(&mut member.space, Arc::new(seal))?;
        Ok(Written { member, view, read_back, verified: None })
    }
}

/// A shard whose bytes the device has.
struct Written<'a> {
    member: Member<'a>,
    view: View,
    read_back: ReadBack,
    verified: Option<Check>,
}

impl Written<'_> {
    fn check_alone(&mut self, core: &Core) -> Result<(), VramError> {
        if self.read_back != ReadBack::None {
            let began = Moment::now(&*core.clock);
            self.found(began, self.view.read_back(self.read_back)?);
        }
        Ok(())
    }

    fn found(&mut self, began: Moment, checked: Option<Checked>) {
        self.verified = checked.map(|by| Check { began, by });
    }

    fn ready(self, core: &Core) -> Result<Ready, VramError> {
        let Self { member, view, verified, .. } = self;
        let Member { request, space, counted, feed } = member;
        let id = request.id(core);
        feed.finish(false)?;
        Ok(entry(core, id, &request, view.seal, space, counted, verified))
    }
}

fn whole_of(begun: &[Begun<'_>]) -> Result<DeviceRange, VramError> {
    let whole = hull(begun.iter().map(|one| one.member.space.range()));
    whole.ok_or(VramError::HostMemory { wanted: ByteLen::ZERO })
}

/// The part of the buffer that the place of a shard takes.
fn place_in<'b>(
    buffer: &'b mut [u8],
    whole: DeviceRange,
    space: &Space,
) -> Result<&'b mut [u8], VramError> {
    let wanted = space.footprint();
    let rest = rest_from(buffer, whole, space.range()).ok_or(VramError::HostMemory { wanted })?;
    // The end of the last granule of the highest shard is not in the batch.
    let len = wanted.to_usize().unwrap_or(usize::MAX).min(rest.len());
    Ok(rest.split_at_mut(len).0)
}

/// Seals all shards in one buffer, and starts copying it to the device.
fn write(
    begun: &[Begun<'_>],
    whole: DeviceRange,
    worker: &mut Worker<'_>,
    watch: &Watch<'_>,
) -> Result<(), Failed> {
    let staging = worker.buffer().map_err(at(0))?;
    let mut number = 0;
    let sent = send(worker, staging, |buffer| {
        let buffer = part(buffer, whole.len())?;
        for (position, one) in begun.iter().enumerate() {
            number = position;
            watch.go_on()?;
            let done = one.fill(place_in(buffer, whole, &one.member.space)?)?;
            watch.advance(done);
        }
        watch.go_on()?;
        number = 0;
        let space = begun.first().map(|first| &first.member.space);
        let memory = space.map(Space::memory).transpose()?;
        Ok(memory.map(|memory| (memory, whole)))
    });
    sent.map_err(at(number))
}

/// Reads all shards back at once, and opens each where the policy looks at it.
fn check(
    core: &Core,
    written: &mut [Written<'_>],
    whole: DeviceRange,
    worker: &mut Worker<'_>,
) -> Result<(), Failed> {
    let Some(first) = written.first() else { return Ok(()) };
    let began = Moment::now(&*core.clock);
    let memory = first.view.memory().map_err(at(0))?;
    let mut staging = worker.read(&**memory, whole).map_err(at(0))?;
    let mut look = |number: usize, one: &mut Written<'_>| {
        let bytes = part(staging.as_mut_slice(), whole.len()).map_err(at(number))?;
        let own = place_in(bytes, whole, &one.member.space).map_err(at(number))?;
        let checked = one.view.read_back_from(one.read_back, own);
        one.found(began, checked.map_err(at(number))?);
        Ok(())
    };
    let found = written.iter_mut().enumerate().try_for_each(|(number, one)| look(number, one));
    worker.put(staging);
    found
}
