//! Which shards are resident where, and what memory is left: plain figures, and a table for people.

use core::fmt;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset};
use vram_events::{OnEviction, PieceName};
use vram_gpu::{DeviceUuid, GpuError};
use vram_id::{ShardId, Timestamp};
use vram_seal::{AlteredSegments, Checked, Protection};
use vram_space::{Gpu, GpuCapacity, LifeState, Space};

use crate::parts::Core;
use crate::reports::models::{self, figures, lines};
use crate::reports::table::{Clipped, row};
use crate::reports::{LeaseReport, ModelReport, Short};
use crate::room::victim;
use crate::shard::ShardState;

/// One GPU in a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct GpuReport {
    pub capacity: GpuCapacity,
    pub name: String,
    pub uuid: DeviceUuid,
    /// Why the device is lost; `None` if it is not.
    pub lost: Option<GpuError>,
    pub state: LifeState,
    /// Bytes that could not be wiped when they were freed, and the error of the last of them.
    pub unreturned: Option<(ByteLen, GpuError)>,
    pub shard_count: u64,
    pub quarantined: u64,
}

/// One shard in a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct ShardReport {
    pub shard_id: ShardId,
    pub gpu: u32,
    /// Resident, lost with its GPU, or being restored after a reset of it.
    pub state: ShardState,
    pub model_id: Arc<str>,
    /// The owner that the request named, if any.
    pub owner: Option<Arc<str>>,
    /// The number of the admission that brought its model; `None` for a shard that was sealed by
    /// itself.
    #[cfg_attr(feature = "serde", serde(default))]
    pub admission: Option<u64>,
    /// The piece of the model, if the shard was admitted with one.
    #[cfg_attr(feature = "serde", serde(default))]
    pub piece: Option<PieceName>,
    pub plaintext_len: ByteLen,
    /// Where the shard begins in the memory of its GPU, from the beginning of the region: no pointer.
    /// `None` while it is being restored, and where each shard is an allocation of its own.
    #[cfg_attr(feature = "serde", serde(default))]
    pub offset: Option<DeviceOffset>,
    /// Device bytes that it takes, in whole granules; 0 while it is being restored.
    #[cfg_attr(feature = "serde", serde(default))]
    pub footprint: ByteLen,
    /// What lies in device memory.
    pub protection: Protection,
    /// Counts how often the shard was sealed anew.
    pub generation: u64,
    /// The segments for which the shard is in quarantine; `None` if it is not.
    pub quarantine: Option<AlteredSegments>,
    /// When all of the shard was last found sound.
    pub last_verified: Option<Timestamp>,
    /// When all of the shard was last found sound by a proof: not later than that.
    #[cfg_attr(feature = "serde", serde(default))]
    pub last_proof: Option<Timestamp>,
    /// What the last check rests on, and where it was computed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub last_checked: Option<Checked>,
    pub leases: u64,
    /// Whether the shard is pinned, so that it is not evicted.
    pub pinned: bool,
    /// The priority of the shard: the least important is evicted first.
    pub priority: u32,
    /// What may happen to the shard when room is needed.
    pub on_eviction: OnEviction,
    /// Whether the manager holds a copy of the shard in host memory.
    pub backed_up: bool,
}

/// Which models and shards are resident where, and what memory is left. `Display` prints a table
/// with a line for each model; [`with_shards`](Self::with_shards) prints one for each shard as well.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// All GPUs, in order of their index.
    pub gpus: Vec<GpuReport>,
    /// All models, in ascending order of model id, owner and admission.
    pub models: Vec<ModelReport>,
    /// All shards on GPUs, in ascending order of their ids.
    pub shards: Vec<ShardReport>,
    /// Leases that exist, as the metrics count them: also those of shards that are gone.
    pub lease_count: u64,
    /// The lease of them that began first.
    oldest_lease: Option<LeaseReport>,
    /// Pairs of GPUs, source first, whose direct copies arrived altered; copies between them are
    /// now staged through the host.
    pub distrusted_links: Vec<(u32, u32)>,
}

/// Reports which shards are resident where, and what memory is left.
pub fn report(core: &Core) -> Report {
    let lost = core.lost_gpus();
    let entries = core.registry.all();
    let models = models::look(core, &entries, &lost);
    let shards: Vec<ShardReport> = entries
        .iter()
        .filter_map(|entry| {
            let state = entry.state();
            let standing = state.standing(&lost);
            standing.is_on_gpu().then(|| ShardReport {
                shard_id: entry.id.clone(),
                gpu: state.gpu_index(),
                state: standing,
                model_id: Arc::clone(&entry.sealed_as.model_id),
                owner: entry.holder().owner.clone(),
                admission: entry.member().map(|member| member.model.number),
                piece: entry.of.piece_name(),
                plaintext_len: entry.plaintext_len,
                offset: state.space().and_then(Space::offset),
                footprint: state.space().map_or(ByteLen::ZERO, Space::footprint),
                protection: state.seal.protection(),
                generation: state.generation,
                quarantine: state.quarantine.as_ref().map(|known| known.listed()),
                last_verified: state.ages.last_verified(),
                last_proof: state.ages.last_proof(),
                last_checked: state.ages.last_checked(),
                pinned: entry.standing.pinned(),
                priority: entry.standing.priority,
                on_eviction: victim::fate(core, entry),
                backed_up: state.copies.backup.is_some(),
                leases: u64::try_from(entry.gate.leases()).unwrap_or(u64::MAX),
            })
        })
        .collect();
    let gpus = core.gpus.iter().map(|gpu| of_gpu(core, gpu)).collect();
    let distrusted_links = core.links.distrusted();
    let (lease_count, oldest_lease) = figures::leases(core, core.clock.monotonic());
    Report { gpus, models, shards, lease_count, oldest_lease, distrusted_links }
}

/// The figures of one GPU; they cost the same however many shards it holds.
pub(crate) fn of_gpu(core: &Core, gpu: &Gpu) -> GpuReport {
    let lost = gpu.lost();
    let (shards, quarantined) = core.registry.census.counts(gpu.index);
    let count = |count| u64::try_from(count).unwrap_or(u64::MAX);
    GpuReport {
        capacity: gpu.capacity(),
        name: gpu.device.info().name.clone(),
        uuid: gpu.device.info().uuid,
        lost,
        state: gpu.life.state(),
        unreturned: gpu.unreturned(),
        shard_count: count(shards),
        quarantined: count(quarantined),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = [5, 20, 12, 12, 12, 12, 14, 8];
        row(
            f,
            &width,
            &["gpu", "name", "total", "used", "reserved", "free", "largest hole", "shards"],
        )?;
        for gpu in &self.gpus {
            let figures = &gpu.capacity;
            let index = figures.gpu.to_string();
            let lens =
                [figures.total, figures.used, figures.reserved, figures.free, figures.largest_hole]
                    .map(Short);
            let [total, used, reserved, free, hole] = lens.map(|len| len.to_string());
            let shards = gpu.shard_count.to_string();
            row(f, &width, &[&index, &gpu.name, &total, &used, &reserved, &free, &hole, &shards])?;
            if let Some(lost) = &gpu.lost {
                writeln!(f, "      lost: {lost}")?;
            }
            if let Some((bytes, error)) = &gpu.unreturned {
                writeln!(f, "      {bytes} could not be given back and stay counted: {error}")?;
            }
        }
        for (source, target) in &self.distrusted_links {
            writeln!(f, "direct copies from gpu {source} to gpu {target} arrived altered: staged")?;
        }
        lines::write(&self.models, f)
    }
}

impl Report {
    /// The report with its shards: prints a line for each of the first thousand as well.
    #[must_use]
    pub fn with_shards(&self) -> impl fmt::Display {
        WithShards(self)
    }

    /// The lease that began first, also if its shard is gone.
    #[must_use]
    pub const fn oldest_lease(&self) -> Option<&LeaseReport> {
        self.oldest_lease.as_ref()
    }
}

/// The most shards that are printed.
const SHARD_LINES_MAX: usize = 1000;

struct WithShards<'a>(&'a Report);

impl fmt::Display for WithShards<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        write!(f, "{report}")?;
        if report.shards.is_empty() {
            return Ok(());
        }
        let width = [38, 4, 24, 14, 13, 10];
        row(f, &width, &["shard", "gpu", "model", "bytes", "protection", "state"])?;
        for shard in report.shards.iter().take(SHARD_LINES_MAX) {
            let (gpu, bytes) = (shard.gpu.to_string(), shard.plaintext_len.get().to_string());
            let protection = match shard.protection {
                Protection::Encrypted => "encrypted",
                Protection::Authenticated => "authenticated",
                _ => "unknown",
            };
            let state = match (shard.state, &shard.quarantine, shard.leases) {
                (ShardState::Resident, Some(_), _) => "quarantine",
                (ShardState::Resident, None, 1..) => "leased",
                (state, ..) => state.name(),
            };
            let model = Clipped(&shard.model_id, 22).to_string();
            row(f, &width, &[&*shard.shard_id, &gpu, &model, &bytes, protection, state])?;
        }
        match report.shards.len().saturating_sub(SHARD_LINES_MAX) {
            0 => Ok(()),
            rest => writeln!(f, "… and {rest} more"),
        }
    }
}
