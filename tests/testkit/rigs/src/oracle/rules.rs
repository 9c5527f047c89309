//! When a refusal is right: one rule for each code.

use vram_residency::{ShardId, Shortfall, VramError};

use super::call::Made;
use super::history::{Happened, History, What};

/// Slack for the bytes of tags and of whole granules.
const MARGIN: u64 = 8192;

/// Whether `error` was right at some moment of `call`.
///
/// | code | right if |
/// |---|---|
/// | `insufficient-vram` | the free bytes, and those of shards that no call could be using, were too few |
/// | `shard-freed` | a free, a drop or a reset that gave the shard up had begun before the answer |
/// | `parked` | the shard was parked before the answer, and not back before the call |
/// | `restoring` | a reset ran meanwhile that restored this shard, or gave it up |
/// | `stale-handle` | the shard was sealed anew, or restored, after the handle was asked for |
/// | `device-lost` | a fault was injected into this GPU, and no reset ended between it and the call |
/// | `gpu-in-use` | a reset of this GPU, or a close, ran meanwhile; for a reset: any other call |
/// | `not-lost` | a reset without force, and the GPU holds shards |
/// | `in-use`, `timed-out` | a lease, or another call that could use the shard, existed meanwhile |
/// | `plan-outdated` | another call ran since the plan was made |
/// | `park-limit` | its own figures say so |
/// | `reservation-too-small` | its own figures say so |
/// | `closed` | a close had begun before the answer |
/// | any other | never |
///
/// # Errors
///
/// Why it was never right.
pub(super) fn judge(history: &History<'_>, call: &Made, error: &VramError) -> Result<(), String> {
    match error {
        VramError::InsufficientVram(shortfall) => room(history, call, shortfall),
        VramError::ShardFreed { shard } => freed(history, call, shard),
        VramError::Parked { shard, .. } => parked(history, call, shard),
        VramError::Restoring { shard } => {
            let reset = history.resets_of(shard).any(|reset| meets(reset, call));
            right(reset, || "no reset that met this shard ran meanwhile".to_owned())
        }
        VramError::StaleHandle { shard } => stale(history, call, shard),
        VramError::DeviceLost { gpu, .. } => {
            let lost = history.may_be_lost(*gpu, call);
            right(lost, || "no fault, or a reset ended it before".to_owned())
        }
        VramError::GpuInUse { gpu, .. } => {
            let own = call.doing.resets && call.doing.gpu == Some(*gpu);
            let by_reset = |other: &Made| other.doing.resets && other.doing.gpu == Some(*gpu);
            let by = |other: &Made| own || by_reset(other) || other.doing.closes;
            right(history.beside(call).any(by), || "nothing used the gpu".to_owned())
        }
        VramError::NotLost { shards, .. } => {
            let right_to = call.doing.resets && !call.doing.forced && *shards > 0;
            right(right_to, || "it was forced, or is not a reset".to_owned())
        }
        VramError::InUse { shard, leases, .. } => in_use(history, call, shard, *leases > 0),
        VramError::TimedOut { shard, .. } => in_use(history, call, shard, false),
        VramError::PlanOutdated { .. } => {
            right(history.beside(call).next().is_some(), || "no other call ran".to_owned())
        }
        VramError::ParkLimit { needed, room, limit } => {
            let figures = || format!("{needed} of {limit}, room for {room}");
            right(needed > room && room <= limit, figures)
        }
        VramError::ReservationTooSmall { remaining, needed, .. } => {
            right(needed > remaining, || format!("{needed} of {remaining}"))
        }
        VramError::Closed => {
            let begun = |other: &Made| other.doing.closes && other.begin < call.end;
            right(history.all().any(begun), || "no close had begun".to_owned())
        }
        _ => Err("no rule allows this code".to_owned()),
    }
}

fn right(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn meets(one: &Made, other: &Made) -> bool {
    one.begin < other.end && other.begin < one.end
}

fn freed(history: &History<'_>, call: &Made, shard: &ShardId) -> Result<(), String> {
    let given_up = |one: &Happened| {
        // Told at the end of a reset, and done before.
        one.what == What::GivenUp
            && history.resets_of(shard).any(|reset| {
                reset.begin < one.tick && one.tick < reset.end && reset.begin < call.end
            })
    };
    // Told once its bytes were given back, by a call that began before the answer.
    let begun =
        |tick| history.all().any(|by| by.begin < call.end && by.begin < tick && tick < by.end);
    let gone = |one: &Happened| one.what == What::Gone && (one.tick < call.end || begun(one.tick));
    let events = history.of(shard);
    right(events.iter().any(|one| gone(one) || given_up(one)), || format!("{events:?}"))
}

fn parked(history: &History<'_>, call: &Made, shard: &ShardId) -> Result<(), String> {
    let events = history.of(shard);
    let explains = |(at, one): (usize, &Happened)| {
        let until = events.get(at + 1).map_or(u64::MAX, |next| history.settled(next.tick));
        one.what == What::Parked && one.tick < call.end && call.begin < until
    };
    right(events.iter().enumerate().any(explains), || format!("{events:?}"))
}

fn stale(history: &History<'_>, call: &Made, shard: &ShardId) -> Result<(), String> {
    let events = history.of(shard);
    let anew = |one: &Happened| {
        let is = one.what == What::SealedAnew || one.what == What::Restored;
        is && one.tick < call.end && history.settled(one.tick) > call.doing.origin
    };
    // During the reset, before its event.
    let reset = |reset: &Made| reset.begin < call.end && reset.end > call.doing.origin;
    let explained = events.iter().any(anew) || history.resets_of(shard).any(reset);
    right(explained, || format!("{events:?}"))
}

fn in_use(history: &History<'_>, call: &Made, shard: &ShardId, leased: bool) -> Result<(), String> {
    let uses = |other: &Made| {
        let named = other.doing.shard.as_ref() == Some(shard);
        if leased {
            named && other.doing.leases
        } else {
            named || other.doing.anything || other.doing.evicts
        }
    };
    right(history.beside(call).any(uses), || "nobody could use the shard".to_owned())
}

/// The bytes that other calls can have kept from the request at any one moment, in how many pieces;
/// `None` if they may be all.
fn kept(history: &History<'_>, call: &Made, gpu: u32, evicts: bool) -> Option<(u64, u64)> {
    let largest = history.world.largest;
    let (mut bytes, mut pieces) = (0_u64, 0_u64);
    for other in history.beside(call) {
        let doing = &other.doing;
        if doing.anything {
            return None;
        }
        let takes = if doing.gpu == Some(gpu) { doing.takes } else { 0 };
        // One that makes room holds a victim, or the place that it has found; on any gpu, where it
        // has a choice.
        let victims = if doing.evicts { doing.takes.max(largest) } else { 0 };
        // Against a request that evicts, whoever uses a shard keeps it; otherwise whatever lay
        // there before lay there at the start.
        let uses = if evicts && doing.shard.is_some() { largest } else { 0 };
        let most = takes.max(victims).saturating_add(uses);
        bytes = bytes.saturating_add(most);
        pieces = pieces.saturating_add(u64::from(takes.max(victims) > 0) + u64::from(uses > 0));
    }
    Some((bytes, pieces))
}

fn room(history: &History<'_>, call: &Made, shortfall: &Shortfall) -> Result<(), String> {
    let (gpu, needed, evicts) = (shortfall.gpu, shortfall.needed.get(), call.doing.evicts);
    let total = history.world.totals[usize::try_from(gpu).unwrap_or(usize::MAX)];
    let start = match (evicts && history.world.all_may_go, call.doing.hole) {
        (true, _) => total,
        (false, Some(hole)) if !evicts || needed + MARGIN <= hole => hole,
        // Nothing is known of what lay there.
        _ => return Ok(()),
    };
    if call.doing.anything || shortfall.others > 0 {
        return Ok(());
    }
    let Some((bytes, pieces)) = kept(history, call, gpu, evicts && history.world.all_may_go) else {
        return Ok(());
    };
    let left = start.saturating_sub(bytes);
    let left = if history.world.in_one_piece { left / (pieces + 1) } else { left };
    let slack = if history.world.in_one_piece { MARGIN * (pieces + 1) } else { 0 };
    right(needed + slack > left, || {
        format!(
            "{start} bytes could be free, others kept at most {bytes} of them in {pieces} pieces"
        )
    })
}
