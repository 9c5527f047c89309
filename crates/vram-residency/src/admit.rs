//! Admitting a whole model: every piece of its plan becomes resident, or none does.
//!
//! ```text
//!  admit(request, plan, source)
//!   1 every piece is placed and counted, in the order of the plan    nothing is read yet
//!   2 small pieces are sealed side by side, one thread each
//!   3 large pieces one after the other, all threads inside each
//!   4 the source is asked whether it is still what it was
//!   5 all shards become resident
//! ```
//!
//! Whatever fails, all placements, counts and device bytes are given back, wiped.

mod request;

use std::sync::Arc;

use vram_alloc::{ByteLen, ModelPlan, Piece};
use vram_seal::parallel::for_each_segment;

use crate::call::Call;
use crate::error::VramError;
use crate::evict::Goal;
use crate::free::FreedReceipt;
use crate::gpu::Gpu;
use crate::manager::{Core, VramManager};
use crate::model::{ModelHandle, ModelPiece, ModelSource, PieceSource};
use crate::progress::Watch;
use crate::registry::{Counted, Entry};
use crate::request::SealRequest;
use crate::shortfall::Shortfall;
use crate::space::Space;
use crate::stream::SourceFeed;
use crate::sync::{Mutex, lock};

pub use request::{AdmitRequest, GpuChoice};

/// Up to this length a piece is sealed by one thread: handing parts of it to others costs more
/// than it saves.
const SMALL_LEN_MAX: ByteLen = ByteLen::new(256 << 10);

impl VramManager {
    /// Makes a whole model resident: one shard for each piece of the plan, or nothing at all.
    ///
    /// All pieces are placed before a byte is read. Each shard is sealed as its piece: the number
    /// in the plan is its shard index, and tensor, part, format and shape are bound as metadata.
    ///
    /// # Errors
    ///
    /// [`VramError::InsufficientVram`] if a piece finds no room, on any GPU that was allowed;
    /// otherwise as [`seal_from`](Self::seal_from). Nothing is resident then, and everything taken
    /// was given back.
    ///
    /// # Panics
    ///
    /// If the source or the progress callback panics: with their payload, after everything was
    /// given back. The manager stays usable.
    ///
    /// # Examples
    ///
    /// ```
    /// use vram_residency::{
    ///     AdmitRequest, ByteLen, GpuChoice, ModelPlan, Piece, SliceSource, VramManager,
    /// };
    ///
    /// let file = SliceSource::new(b"....embeddings.head");
    /// let plan = ModelPlan::new([
    ///     Piece::new("embeddings", 0, 4, ByteLen::new(10)),
    ///     Piece::new("head", 0, 15, ByteLen::new(4)),
    /// ])?;
    /// let manager = VramManager::new_mock(1 << 20)?;
    /// let request = AdmitRequest::new("tiny", GpuChoice::MostRoomFirst);
    /// let model = manager.admit(request, &plan, &vec![file])?;
    /// let head = model.tensor("head").next().expect("it is in the plan");
    /// assert_eq!(manager.unseal_model(&head.shard)?, b"head");
    /// manager.free_model(&model)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[tracing::instrument(
        level = "info",
        skip_all,
        fields(pieces = plan.pieces().len(), bytes = plan.total().get())
    )]
    pub fn admit(
        &self,
        request: AdmitRequest<'_>,
        plan: &ModelPlan,
        source: &dyn ModelSource,
    ) -> Result<ModelHandle, VramError> {
        let (gpu, bytes) = (request.gpus.named(), plan.total().get());
        let work = || self.core.admit(request, plan, source);
        self.core.watched(Call::Admit, None, gpu, bytes, work)
    }

    /// The same model with fresh handles, after shards of it were moved, opened or closed.
    ///
    /// # Errors
    ///
    /// [`VramError::ForeignHandle`] or [`VramError::HandleAltered`] for a bad handle,
    /// [`VramError::ShardFreed`] if a shard of the model is gone.
    pub fn refresh_model(&self, model: &ModelHandle) -> Result<ModelHandle, VramError> {
        self.core.check_open()?;
        let pieces = model.pieces.iter().map(|made| {
            self.core.marker.check(&made.shard)?;
            let fresh = self.shard(&made.shard.shard_id);
            let gone = || VramError::ShardFreed { shard: made.shard.shard_id.clone() };
            Ok(ModelPiece { piece: made.piece.clone(), shard: fresh.ok_or_else(gone)? })
        });
        let pieces = pieces.collect::<Result<_, VramError>>()?;
        Ok(ModelHandle { model_id: Arc::clone(&model.model_id), pieces })
    }

    /// Frees every shard of a model, or none. A shard that is gone already is passed over.
    ///
    /// # Errors
    ///
    /// Those of a bad handle, [`VramError::Parked`], [`VramError::InUse`] and
    /// [`VramError::DeviceLost`] of any shard, with nothing freed. [`VramError::NotReturned`] for the
    /// first whose bytes stay counted, after all of them are gone. Only if a device is lost while its
    /// shards are being freed, some of them are left behind on it.
    #[tracing::instrument(level = "info", skip_all, fields(pieces = model.pieces.len()))]
    pub fn free_model(&self, model: &ModelHandle) -> Result<Vec<FreedReceipt>, VramError> {
        let freed = |receipts: &Vec<FreedReceipt>| {
            receipts.iter().fold(0, |sum: u64, receipt| sum.saturating_add(receipt.bytes.get()))
        };
        let work = || self.core.free_model(model);
        self.core.watched_for(Call::FreeModel, None, None, work, freed)
    }
}

impl Core {
    fn free_model(&self, model: &ModelHandle) -> Result<Vec<FreedReceipt>, VramError> {
        loop {
            let mut named = Vec::new();
            for shard in model.shards() {
                match self.resolve(shard) {
                    Ok(entry) => named.push((shard, entry)),
                    Err(VramError::ShardFreed { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            match Self::exclusive_among(named, |entries| self.free_all(entries)) {
                // One was freed by others during the wait: that happens once to each.
                Err(VramError::ShardFreed { .. }) => {}
                done => return done,
            }
        }
    }

    /// Frees shards. The caller is exclusive at all of their gates.
    fn free_all(&self, entries: &[Arc<Entry>]) -> Result<Vec<FreedReceipt>, VramError> {
        for entry in entries {
            entry.view()?.gpu.ready()?;
        }
        let mut receipts = Vec::with_capacity(entries.len());
        let mut failure = None;
        for entry in entries {
            match self.free_entry(entry) {
                Ok(receipt) => receipts.push(receipt),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(receipts), Err)
    }
}

/// A piece with everything it needs to be sealed.
pub(crate) struct Placed {
    pub(crate) request: SealRequest,
    pub(crate) space: Space,
    pub(crate) counted: Counted,
}

impl Core {
    fn admit(
        &self,
        mut request: AdmitRequest<'_>,
        plan: &ModelPlan,
        source: &dyn ModelSource,
    ) -> Result<ModelHandle, VramError> {
        let watch = Watch::new(plan.total(), request.progress.take(), request.cancel.take());
        watch.go_on()?;
        let placed = self.place_all(&request, plan)?;
        self.seal_placed(&request, plan, source, &watch, placed)
    }

    /// As [`admit`](Self::admit), into places that were found before.
    pub(crate) fn admit_placed(
        &self,
        mut request: AdmitRequest<'_>,
        plan: &ModelPlan,
        source: &dyn ModelSource,
        placed: Vec<Placed>,
    ) -> Result<ModelHandle, VramError> {
        let watch = Watch::new(plan.total(), request.progress.take(), request.cancel.take());
        watch.go_on()?;
        self.seal_placed(&request, plan, source, &watch, placed)
    }

    fn seal_placed(
        &self,
        request: &AdmitRequest<'_>,
        plan: &ModelPlan,
        source: &dyn ModelSource,
        watch: &Watch<'_>,
        placed: Vec<Placed>,
    ) -> Result<ModelHandle, VramError> {
        let job = Job {
            core: self,
            plan,
            source,
            watch,
            placed: placed.into_iter().map(|placed| Mutex::new(Some(placed))).collect(),
            sealed: plan.pieces().iter().map(|_| Mutex::new(None)).collect(),
        };
        let entries = job.run()?;
        source.finish().map_err(|error| error.while_sealing(&request.common.sealed_as.model_id))?;
        // Before anything is resident: a callback that panics must not leave shards behind.
        watch.finish();
        let pieces = plan
            .pieces()
            .iter()
            .zip(entries)
            .map(|(piece, entry)| ModelPiece { piece: piece.clone(), shard: self.publish(entry) });
        let pieces = pieces.collect();
        Ok(ModelHandle { model_id: Arc::clone(&request.common.sealed_as.model_id), pieces })
    }

    /// Takes room for every piece, in the order of the plan.
    pub(crate) fn place_all(
        &self,
        request: &AdmitRequest<'_>,
        plan: &ModelPlan,
    ) -> Result<Vec<Placed>, VramError> {
        let gpus = self.choose(request.gpus)?;
        let lens: Vec<ByteLen> = plan.pieces().iter().map(|piece| piece.len).collect();
        self.with_room(&gpus, Goal::Pieces(&lens), request.common.room_making(), || {
            self.place_all_once(request, plan)
        })
    }

    /// As [`place_all`](Self::place_all), in what room there is.
    fn place_all_once(
        &self,
        request: &AdmitRequest<'_>,
        plan: &ModelPlan,
    ) -> Result<Vec<Placed>, VramError> {
        let gpus = self.choose(request.gpus)?;
        // A model that is too large as a whole is refused as a whole.
        let whole = Shortfall::of(&gpus, Goal::Room(plan.footprint()));
        // A region's last granule may be short, which a plan does not know.
        let slack = ByteLen::new(256).checked_mul(u64::from(whole.others).saturating_add(1));
        if plan.footprint() > whole.room.saturating_add(slack.unwrap_or(ByteLen::ZERO)) {
            return Err(VramError::InsufficientVram(Box::new(whole)));
        }
        let mut placed = Vec::new();
        for (index, piece) in (0..).zip(plan.pieces()) {
            placed.push(self.place_piece(request, index, piece, &gpus)?);
        }
        Ok(placed)
    }

    /// The GPUs to try for each piece, in this order.
    pub(crate) fn choose(&self, choice: GpuChoice) -> Result<Vec<Arc<Gpu>>, VramError> {
        self.check_open()?;
        let usable = match choice {
            GpuChoice::One(index) => vec![Arc::clone(self.gpu(index)?)],
            GpuChoice::MostRoomFirst => {
                // A lost GPU has no room; with all of them lost, the first says so.
                let mut usable: Vec<_> =
                    self.gpus.iter().filter(|gpu| gpu.lost().is_none()).map(Arc::clone).collect();
                if usable.is_empty() {
                    usable.extend(self.gpus.first().map(Arc::clone));
                }
                usable.sort_by_cached_key(|gpu| {
                    let room = gpu.books().room();
                    (core::cmp::Reverse(room), gpu.index)
                });
                usable
            }
        };
        // Where there is no other, it has to be there, also for a plan without a piece.
        if let [only] = usable.as_slice() {
            only.ready()?;
        }
        Ok(usable)
    }

    fn place_piece(
        &self,
        request: &AdmitRequest<'_>,
        index: u64,
        piece: &Piece,
        gpus: &[Arc<Gpu>],
    ) -> Result<Placed, VramError> {
        let mut refusal = None;
        for gpu in gpus {
            let request = request.for_piece(index, piece, gpu.index);
            match self.place_once(&request, piece.len) {
                Ok((space, counted)) => return Ok(Placed { request, space, counted }),
                // The first refusal is of the GPU that had most room.
                Err(error @ VramError::InsufficientVram(_)) => {
                    refusal.get_or_insert(error);
                }
                // A device that was lost meanwhile: another may do.
                Err(error @ VramError::DeviceLost { .. }) if gpus.len() > 1 => {
                    refusal.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(refusal.unwrap_or(VramError::UnknownGpu { gpu: 0, count: self.gpu_count() }))
    }
}

/// The sealing of all pieces.
struct Job<'a, 'w> {
    core: &'a Core,
    plan: &'a ModelPlan,
    source: &'a dyn ModelSource,
    watch: &'a Watch<'w>,
    // One slot for each piece: taken by whoever seals it, filled when it is sealed.
    placed: Vec<Mutex<Option<Placed>>>,
    sealed: Vec<Mutex<Option<Arc<Entry>>>>,
}

impl Job<'_, '_> {
    fn run(self) -> Result<Vec<Arc<Entry>>, VramError> {
        let is_small = |index: &usize| {
            self.plan.pieces().get(*index).is_some_and(|piece| piece.len <= SMALL_LEN_MAX)
        };
        let indices = 0..self.plan.pieces().len();
        let (small, large): (Vec<_>, Vec<_>) = indices.partition(is_small);
        let count = u64::try_from(small.len()).unwrap_or(u64::MAX);
        for_each_segment(
            self.core.threads,
            count,
            || Ok(()),
            |(), position| {
                let index = usize::try_from(position).ok().and_then(|at| small.get(at));
                index.map_or(Ok(()), |index| self.seal(*index))
            },
        )?;
        for index in large {
            self.seal(index)?;
        }
        let entries = self.sealed.into_iter().filter_map(|slot| {
            slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
        });
        Ok(entries.collect())
    }

    fn seal(&self, index: usize) -> Result<(), VramError> {
        self.watch.go_on()?;
        let placed = self.placed.get(index).and_then(|slot| lock(slot).take());
        let (Some(placed), Some(piece)) = (placed, self.plan.pieces().get(index)) else {
            return Ok(());
        };
        let Placed { request, space, counted } = placed;
        let source = PieceSource { model: self.source, piece };
        let feed = SourceFeed::new(&source, &request.sealed_as.model_id);
        let entry = self.core.seal_feed(&request, (space, counted), &feed, None, self.watch)?;
        if let Some(slot) = self.sealed.get(index) {
            *lock(slot) = Some(entry);
        }
        Ok(())
    }
}
