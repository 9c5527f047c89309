//! Conditions that must hold after every step, and the effects that a failure may have.

use core::time::Duration;

use vram_gpu::fault::{Call, Op};
use vram_residency::{
    ByteLen, GpuCapacity, LifeState, MemoryMode, SealedShard, ShardId, ShardState, SnapshotState,
    VramError,
};

use crate::reference::bytes;

use super::{Checked, Expect, World};

/// Everything that a failed call must leave unchanged.
#[derive(Debug, PartialEq)]
pub(super) struct Picture {
    /// The snapshot, except what a failure may reveal: quarantines, and bytes that were not
    /// returned.
    pub(super) state: SnapshotState,
    capacities: Vec<GpuCapacity>,
    shards: Vec<SealedShard>,
}

impl Picture {
    /// Bytes that were not returned so far.
    pub(super) fn unreturned(&self, gpu: u32) -> ByteLen {
        self.capacities.get(gpu as usize).map_or(ByteLen::ZERO, |books| books.unreturned)
    }
}

impl World {
    /// Compares an answer with the prediction. `gpus` are the GPUs that the step needs.
    pub(super) fn judge<T>(
        &self,
        expect: Expect,
        before: &Picture,
        answer: Result<T, VramError>,
        gpus: &[u32],
    ) -> Checked<Option<T>> {
        match (expect, answer) {
            (Expect::Fine | Expect::FineOrNoRoom, Ok(value)) => Ok(Some(value)),
            // Bytes that were not returned earlier came back in this step, and were enough.
            (Expect::Refused("insufficient-vram"), Ok(value))
                if gpus.iter().any(|gpu| !before.unreturned(*gpu).is_zero()) =>
            {
                Ok(Some(value))
            }
            (Expect::Refused(code), Ok(_)) => Err(format!("succeeded, and should be {code}")),
            (Expect::RefusedAs(codes), Ok(_)) => Err(format!("succeeded, not one of {codes:?}")),
            (expect, Err(error)) => {
                let code = error.code();
                let expected = match expect {
                    Expect::Refused(expected) => expected == code,
                    Expect::RefusedAs(expected) => expected.contains(&code),
                    Expect::FineOrNoRoom => code == "insufficient-vram",
                    Expect::Fine => false,
                };
                let injected = self.faulty && (error.is_device() || error.is_integrity());
                let lost = gpus.iter().any(|gpu| self.is_lost(*gpu)) && code == "device-lost";
                ensure!(expected || injected || lost, "failed: {error} ({code})");
                self.unchanged(before, &error)?;
                Ok(None)
            }
        }
    }

    /// P15: a failed call leaves everything unchanged, except bytes that could not be wiped.
    pub(super) fn unchanged(&self, before: &Picture, error: &VramError) -> Checked<()> {
        let now = self.picture();
        ensure!(now.shards == before.shards, "failed with {error}, and the shards changed");
        // A reservation loses a place that could not be wiped.
        let kept = now
            .capacities
            .iter()
            .zip(&before.capacities)
            .any(|(is, was)| is.unreturned != was.unreturned);
        ensure!(
            now.state == before.state || kept,
            "failed with {error}, and the state changed: {:?}, now {:?}",
            before.state,
            now.state
        );
        for (was, is) in before.capacities.iter().zip(&now.capacities) {
            // Bytes that were not returned earlier may have come back meanwhile, and others not.
            let kept = is.unreturned != was.unreturned;
            let in_use = |books: &GpuCapacity| books.used.get() - books.unreturned.get();
            let from_promises = was.reserved.get().saturating_sub(is.reserved.get());
            let same = in_use(was) == in_use(is)
                && is.reserved <= was.reserved
                && from_promises <= is.unreturned.get()
                && (kept || was == is);
            ensure!(same, "failed with {error}, and the books changed: {was:?}, now {is:?}");
            ensure!(!kept || self.faulty, "{} bytes were not returned", is.unreturned);
        }
        Ok(())
    }

    /// Records that the facade has found a shard altered.
    pub(super) fn note_quarantine<T>(&mut self, id: &ShardId, answer: &Result<T, VramError>) {
        if let Err(VramError::ShardAltered { .. } | VramError::Quarantined { .. }) = answer
            && let Some(known) = self.reference.shards.get_mut(id)
        {
            known.quarantined = true;
        }
    }

    /// Checks the conditions that hold after every step.
    pub(super) fn books_hold(&self) -> Checked<()> {
        let manager = &self.rig.manager;
        let regions = self.reference.regions.iter().zip(&self.reference.budgets);
        for (gpu, (region, budget)) in (0_u32..).zip(regions) {
            let now = manager.capacity(gpu).map_err(|error| error.to_string())?;
            let (used, free) = (now.used.get(), now.free.get());
            let expected = self.reference.used(gpu) + now.unreturned.get();
            ensure!(used == expected, "gpu {gpu} uses {used}, and should {expected}");
            let promised = self.promised(gpu);
            ensure!(
                now.reserved.get() == promised,
                "gpu {gpu} promises {}, and should {promised}",
                now.reserved
            );
            ensure!(now.total.get() == *budget, "gpu {gpu} has a budget of {}", now.total);
            let left = budget.saturating_sub(used + promised);
            ensure!(free == left, "gpu {gpu}: {free} free, and {left} of {budget} is not taken");
            ensure!(
                now.largest_hole.get() <= region - used,
                "gpu {gpu}: a hole larger than what is free"
            );
            ensure!(self.faulty || now.unreturned.get() == 0, "bytes were not returned");
            let device = &self.rig.devices[gpu as usize];
            // Dropping a block is not counted: the device knows that it is lost.
            let calls = device.calls();
            // A call of another thread may be running at the moment of the loss.
            let was_lost = self.lost.get(gpu as usize).is_some_and(|lost| *lost);
            if !was_lost && self.is_lost(gpu) {
                device.clear_log();
            }
            let late = |call: &&Call| was_lost && call.after_loss && call.op != Op::Drop;
            let late = calls.iter().find(late);
            ensure!(late.is_none(), "gpu {gpu}: {late:?} came after its loss");
            // P6: the ledger equals the driver's own count, except on a lost device.
            let driver: u64 = device.live().iter().map(|(_, len)| len.get()).sum();
            let held = if self.mode == MemoryMode::Blocks {
                used + self.promised_blocks(gpu)
            } else {
                *region
            };
            // After a reset of the GPU, blocks behind reserved places are allocated again on use.
            let unbacked = self.unbacked.iter().any(|(_, at)| *at == gpu);
            let held = if unbacked { driver.clamp(used, held) } else { held };
            ensure!(self.is_lost(gpu) || driver == held, "gpu {gpu} holds {driver}, not {held}");
        }
        let listed = manager.shards();
        let known = &self.reference.shards;
        ensure!(listed.len() == known.len(), "{} listed, {} known", listed.len(), known.len());
        for (handle, (id, known)) in listed.iter().zip(known) {
            ensure!(handle.shard_id == *id, "{} listed in place of {id}", handle.shard_id);
            ensure!(handle.gpu_index == known.gpu, "{id} listed on gpu {}", handle.gpu_index);
        }
        let holds = self.holds();
        for ((leases, pinned), (id, known)) in holds.iter().zip(&self.reference.shards) {
            ensure!(*leases == known.leases as u64, "{id} has {leases} leases");
            ensure!(*pinned == known.pinned, "{id} is pinned: {pinned}");
        }
        let expected = self.reference.shards.iter().filter(|(_, known)| known.quarantined);
        let expected: Vec<_> = expected.map(|(id, _)| id.clone()).collect();
        let found = self.quarantined();
        ensure!(found == expected, "{found:?} are in quarantine, and should be {expected:?}");
        self.parked_hold()
    }

    /// For each resident shard: the number of active leases, and whether it is pinned.
    pub(super) fn holds(&self) -> Vec<(u64, bool)> {
        let shards = self.rig.manager.report().shards;
        shards.iter().map(|shard| (shard.leases, shard.pinned)).collect()
    }

    pub(super) fn picture(&self) -> Picture {
        let manager = &self.rig.manager;
        let gpus = 0..manager.gpu_count();
        let capacities = gpus.map(|gpu| manager.capacity(gpu).expect("it is there")).collect();
        let mut state = manager.snapshot().state;
        // A failed copy may mark its link as distrusted.
        state.distrusted_links.clear();
        for gpu in &mut state.gpus {
            // These are compared separately.
            gpu.capacity = GpuCapacity::default();
            (gpu.quarantined, gpu.unreturned, gpu.lost) = (0, None, None);
            gpu.state = LifeState::Serving;
        }
        for model in &mut state.models {
            (model.quarantined, model.lost) = (0, 0);
        }
        for shard in &mut state.shards {
            (shard.quarantine, shard.last_verified) = (None, None);
            shard.state = ShardState::Resident;
        }
        Picture { state, capacities, shards: manager.shards() }
    }

    /// Whether a sticky error made this GPU lost.
    #[must_use]
    pub fn is_lost(&self, gpu: u32) -> bool {
        let gpus = self.rig.manager.report().gpus;
        gpus.get(gpu as usize).is_some_and(|gpu| gpu.lost.is_some())
    }

    /// P19: faults stop, lost GPUs are reset, and then every operation ends and succeeds on all
    /// GPUs.
    pub fn recover(&mut self) -> Checked<()> {
        for device in &self.rig.devices {
            device.clear();
        }
        self.let_go()?;
        for gpu in 0..self.rig.manager.gpu_count() {
            if self.is_lost(gpu) {
                self.reset(gpu, false, false)?;
                ensure!(!self.is_lost(gpu), "gpu {gpu} is still lost after its reset");
            }
        }
        self.books_hold()?;
        for (id, known) in self.reference.shards.clone() {
            match self.rig.manager.unseal_model(&known.handle) {
                Ok(out) => ensure!(out == known.bytes, "{id}: other bytes came out"),
                Err(error @ (VramError::ShardAltered { .. } | VramError::Quarantined { .. })) => {
                    let known = known.quarantined || !known.sound();
                    ensure!(known || self.faulty, "{id} is sound: {error}");
                }
                Err(error) => return Err(format!("{id} on working devices: {error}")),
            }
            let freed = self.rig.manager.free_shard(&known.handle);
            freed.map_err(|error| format!("freeing {id} on working devices: {error}"))?;
            self.reference.remove(&id);
        }
        self.wake_everything()?;
        self.books_hold()?;
        for gpu in 0..self.rig.manager.gpu_count() {
            let now = self.rig.manager.capacity(gpu).map_err(|error| error.to_string())?;
            let len = now.largest_hole.get() as usize;
            let data = bytes(len, u64::from(gpu));
            let manager = &self.rig.manager;
            let whole = manager.seal_model("after", gpu, &data).map_err(|e| e.to_string())?;
            let out = manager.unseal_and_free(&whole).map_err(|error| error.to_string())?;
            ensure!(out == data, "gpu {gpu}: other bytes came out after recovery");
        }
        self.end()
    }

    /// Closes the manager: working devices get all bytes back, including those that they refused
    /// before.
    fn end(&self) -> Checked<()> {
        let report = self.rig.manager.close(Duration::ZERO);
        ensure!(report.complete, "closed, and something is left: {report:?}");
        for (gpu, device) in self.rig.devices.iter().enumerate() {
            let live = device.live();
            ensure!(live.is_empty(), "gpu {gpu} still holds {live:?}");
        }
        let answer = self.rig.manager.seal_model("after the end", 0, b"1");
        ensure!(matches!(answer, Err(VramError::Closed)), "closed, it answers {answer:?}");
        Ok(())
    }
}
