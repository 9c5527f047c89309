//! Everything a manager holds, in one value: to store, to send, to compare with another.

use core::time::Duration;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::SinkCounts;
use vram_gpu::DeviceUuid;
use vram_id::{ShardId, Timestamp};
use vram_seal::{KeyId, Protection};
use vram_space::{GpuCapacity, LifeState};

use crate::error::ReservationId;
use crate::parts::{Core, keys};
use crate::reports::{
    GpuReport, LeaseReport, ModelReport, ModelState, Report, ShardReport, ages, report,
};
use crate::sealing::{ReservationReport, reservation};
use crate::shard::{ParkCapacity, Place};

/// Everything a manager holds. No content, no keys, no pointers, no digests.
///
/// With the feature `serde` it can be stored and read back. The state is kept apart from the values
/// that change by themselves, so that two snapshots can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// When the snapshot was taken.
    pub at: Timestamp,
    /// The state of the manager. Equal in two snapshots if no call changed it between them.
    pub state: SnapshotState,
    /// Values that rise or run out by themselves.
    pub counters: SnapshotCounters,
}

/// The state of a manager.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SnapshotState {
    /// All GPUs, in order of their index.
    pub gpus: Vec<GpuSnapshot>,
    /// All models, in ascending order of model id, owner and admission.
    #[cfg_attr(feature = "serde", serde(default))]
    pub models: Vec<ModelSnapshot>,
    /// All shards that lie on a GPU or are being restored there, in ascending order of their ids.
    pub shards: Vec<ShardReport>,
    /// All parked shards, in ascending order of their ids.
    pub parked: Vec<ParkedSnapshot>,
    /// The host memory of parked shards.
    pub park: ParkCapacity,
    /// All open reservations, in ascending order of their numbers.
    pub reservations: Vec<ReservationSnapshot>,
    /// Pairs of GPUs, source first, whose direct copies arrived altered.
    pub distrusted_links: Vec<(u32, u32)>,
    /// The keys, by their ids alone.
    pub keys: KeySnapshot,
}

/// One GPU in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct GpuSnapshot {
    pub capacity: GpuCapacity,
    pub name: String,
    pub uuid: DeviceUuid,
    /// Why the device is lost, in words; `None` if it is not.
    pub lost: Option<String>,
    pub state: LifeState,
    /// Why bytes could not be returned, in words; the last error, if there are such bytes.
    pub unreturned: Option<String>,
    pub shard_count: u64,
    pub quarantined: u64,
}

/// One model in a [`Snapshot`]: a [`ModelReport`] without its ages. A call that moves the whole model
/// changes the state for as long as it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "as in `ModelReport`")]
pub struct ModelSnapshot {
    pub model_id: Arc<str>,
    pub owner: Option<Arc<str>>,
    pub admission: Option<u64>,
    pub state: ModelState,
    pub gpus: Vec<u32>,
    pub pieces: u64,
    pub resident: u64,
    pub lost: u64,
    pub parked: u64,
    pub quarantined: u64,
    pub bytes: ByteLen,
    pub host_bytes: ByteLen,
    pub lease_count: u64,
    pub pinned: u64,
}

/// One parked shard in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub struct ParkedSnapshot {
    pub shard_id: ShardId,
    pub model_id: Arc<str>,
    /// The owner that the request named, if any.
    pub owner: Option<Arc<str>>,
    pub plaintext_len: ByteLen,
    /// Host bytes that the shard takes.
    pub host_len: ByteLen,
    /// What lies in device memory after the shard is woken.
    pub protection: Protection,
    /// Counts how often the shard was sealed anew.
    pub generation: u64,
}

/// One open reservation in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReservationSnapshot {
    /// The number of the reservation.
    pub id: ReservationId,
    /// The owner, if it was named.
    pub owner: Option<Arc<str>>,
    /// The purpose, if it was named.
    pub purpose: Option<Arc<str>>,
    /// Bytes that were promised.
    pub len: ByteLen,
    /// Promised bytes that were not used yet, for each GPU that has any, in ascending order.
    pub remaining: Vec<(u32, ByteLen)>,
    /// For a plan: the number of its pieces whose placement is still held.
    pub pieces: Option<u64>,
    /// Whether the reservation expires; [`SnapshotCounters::expires_in`] says when.
    pub expires: bool,
}

/// The keys in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KeySnapshot {
    /// The id of the key for new seals.
    pub active: KeyId,
    /// The ids of all keys, in ascending order.
    pub all: Vec<KeyId>,
}

/// Values that rise or run out by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SnapshotCounters {
    /// The number of the next event. Events from this number on may report changes that are not in
    /// the snapshot.
    pub events: u64,
    /// The counts of events, for each sink.
    pub sinks: Vec<SinkCounts>,
    /// For each resident shard, for how long no check has found all of it sound, in ascending order
    /// of the ids: see `VramManager::unverified_age`.
    pub unverified_for: Vec<(ShardId, Duration)>,
    /// The time until each reservation that expires does so.
    pub expires_in: Vec<(ReservationId, Duration)>,
    /// For each model with leases, the one that began first, in the order of the models.
    #[cfg_attr(feature = "serde", serde(default))]
    pub oldest_leases: Vec<LeaseReport>,
}

impl From<ModelReport> for ModelSnapshot {
    fn from(model: ModelReport) -> Self {
        Self {
            model_id: model.model_id,
            owner: model.owner,
            admission: model.admission,
            state: model.state,
            gpus: model.gpus,
            pieces: model.pieces,
            resident: model.resident,
            lost: model.lost,
            parked: model.parked,
            quarantined: model.quarantined,
            bytes: model.bytes,
            host_bytes: model.host_bytes,
            lease_count: model.lease_count,
            pinned: model.pinned,
        }
    }
}

impl From<GpuReport> for GpuSnapshot {
    fn from(gpu: GpuReport) -> Self {
        Self {
            capacity: gpu.capacity,
            name: gpu.name,
            uuid: gpu.uuid,
            lost: gpu.lost.map(|error| error.to_string()),
            state: gpu.state,
            unreturned: gpu.unreturned.map(|(_bytes, error)| error.to_string()),
            shard_count: gpu.shard_count,
            quarantined: gpu.quarantined,
        }
    }
}

impl From<ReservationReport> for ReservationSnapshot {
    fn from(report: ReservationReport) -> Self {
        Self {
            id: report.id,
            owner: report.owner,
            purpose: report.purpose,
            len: report.len,
            remaining: report.remaining,
            pieces: report.pieces,
            expires: report.expires_in.is_some(),
        }
    }
}

/// The state and the counters of a manager.
pub fn snapshot(core: &Core) -> Snapshot {
    // Read first: an event that is emitted during this call has this number or a later one.
    let events = core.events.emitted();
    let Report { gpus, models, shards, distrusted_links, .. } = report::report(core);
    let oldest_leases = models.iter().filter_map(|model| model.oldest_lease.clone()).collect();
    let reservations = reservation::reservations(core);
    let expires_in = reservations.iter().filter_map(|one| Some((one.id, one.expires_in?)));
    let counters = SnapshotCounters {
        events,
        sinks: core.events.counts(),
        unverified_for: ages::ages(core)
            .into_iter()
            .map(|age| (age.shard, age.unverified))
            .collect(),
        expires_in: expires_in.collect(),
        oldest_leases,
    };
    let keys = KeySnapshot { active: keys::active_key(core), all: keys::key_ids(core) };
    let state = SnapshotState {
        gpus: gpus.into_iter().map(GpuSnapshot::from).collect(),
        models: models.into_iter().map(ModelSnapshot::from).collect(),
        shards,
        parked: parked_shards(core),
        park: core.registry.parked.capacity(),
        reservations: reservations.into_iter().map(ReservationSnapshot::from).collect(),
        distrusted_links,
        keys,
    };
    Snapshot { at: core.clock.now(), state, counters }
}

fn parked_shards(core: &Core) -> Vec<ParkedSnapshot> {
    let show = |entry: Arc<crate::shard::Entry>| {
        let state = entry.state();
        let Place::Parked { host_len, .. } = *state.place() else { return None };
        Some(ParkedSnapshot {
            shard_id: entry.id.clone(),
            model_id: Arc::clone(&entry.sealed_as.model_id),
            owner: entry.holder().owner.clone(),
            plaintext_len: entry.plaintext_len,
            host_len,
            protection: state.seal.protection(),
            generation: state.generation,
        })
    };
    core.registry.all().into_iter().filter_map(show).collect()
}
