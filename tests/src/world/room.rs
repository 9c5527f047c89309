//! Steps with leases, reservations, budgets and evictions.

use std::collections::BTreeSet;

use vram_residency::{
    ByteLen, EvictionPlan, MemoryMode, OnEviction, Protection, ReserveRequest, SealRequest,
    ShardId, VramError,
};

use crate::reference::{Known, bytes, footprint};

use super::{Checked, Expect, World, fate};

impl World {
    pub(super) fn lease(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let gpu = known.gpu;
        // An Authenticated shard was read back in full when it was sealed, so a lease does not
        // check it again.
        let expect = if known.quarantined { Expect::Refused("quarantined") } else { Expect::Fine };
        let before = self.picture();
        let answer = self.rig.manager.lease(&known.handle);
        if let Some(lease) = self.judge(expect, &before, answer, &[gpu])? {
            let known = self.reference.shards.get_mut(&id).ok_or("it was just there")?;
            let plain = known.handle.protection == Protection::Authenticated;
            ensure!(lease.gpu() == gpu, "leased on gpu {}", lease.gpu());
            // An empty shard may have no pointer.
            let pointer = lease.device_pointer().is_some();
            ensure!(pointer == plain || known.bytes.is_empty(), "a pointer: {pointer}");
            known.leases += 1;
            self.leases.push((id, lease));
        }
        Ok(())
    }

    pub(super) fn end_lease(&mut self, lease: usize) -> Checked<()> {
        if self.leases.is_empty() {
            return Ok(());
        }
        let index = lease % self.leases.len();
        let (id, lease) = self.leases.swap_remove(index);
        let known = self.reference.shards.get_mut(&id).ok_or("a leased shard is gone")?;
        let closed = known.quarantined || self.rig.manager.capacity(known.gpu).is_err();
        ensure!(!closed || lease.device_pointer().is_none(), "an altered shard has a pointer");
        known.leases -= 1;
        drop(lease);
        Ok(())
    }

    pub(super) fn pin(&mut self, shard: usize, pinned: bool) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = self.reference.shards.get_mut(&id).ok_or("it was just there")?;
        let manager = &self.rig.manager;
        let answer = if pinned { manager.pin(&known.handle) } else { manager.unpin(&known.handle) };
        answer.map_err(|error| error.to_string())?;
        known.pinned = pinned;
        Ok(())
    }

    pub(super) fn reserve(&mut self, gpu: u32, bytes: u64) -> Checked<()> {
        let whole = bytes.next_multiple_of(256);
        let expect = match self.rig.manager.capacity(gpu) {
            Err(_) => Expect::Refused("unknown-gpu"),
            // The last granule of a budget may be short.
            Ok(now) if bytes > now.room.get() => Expect::Refused("insufficient-vram"),
            Ok(_) => Expect::Fine,
        };
        let before = self.picture();
        let request = ReserveRequest::new(gpu, ByteLen::new(bytes)).owner("world");
        let answer = self.rig.manager.reserve_with(request);
        if let Some(reservation) = self.judge(expect, &before, answer, &[gpu])? {
            let len = reservation.len().get();
            ensure!(len == whole || len == bytes, "{len} promised for {bytes}");
            self.reservations.push((reservation, len));
        }
        Ok(())
    }

    pub(super) fn seal_reserved(
        &mut self,
        reservation: usize,
        len: usize,
        seed: u64,
    ) -> Checked<()> {
        if self.reservations.is_empty() {
            return Ok(());
        }
        let index = reservation % self.reservations.len();
        let (gpu, left) = (self.reservations[index].0.gpu(), self.reservations[index].1);
        let now = self.rig.manager.capacity(gpu).map_err(|error| error.to_string())?;
        // Promised bytes are a sum: a region may have no hole of that length.
        let expect = if self.mode == MemoryMode::Region && footprint(len) > now.largest_hole.get() {
            Expect::Refused("insufficient-vram")
        } else if footprint(len) > left {
            Expect::Refused("reservation-too-small")
        } else {
            Expect::Fine
        };
        let (data, fate) = (bytes(len, seed), fate(seed));
        let before = self.picture();
        let request = SealRequest::new("model-reserved", gpu).on_eviction(fate);
        let (reservation, _) = &mut self.reservations[index];
        let answer = self.rig.manager.seal_reserved(reservation, request, &data);
        if let Some(handle) = self.judge(expect, &before, answer, &[gpu])? {
            self.reservations[index].1 -= footprint(len);
            self.remember(handle, data, fate)?;
        }
        let faulty = self.faulty;
        let (reservation, left) = &mut self.reservations[index];
        let remaining = reservation.remaining().get();
        // The reservation loses bytes that could not be wiped.
        ensure!(remaining == *left || (faulty && remaining < *left), "{remaining} is left");
        *left = remaining;
        Ok(())
    }

    pub(super) fn release(&mut self, reservation: usize) {
        if !self.reservations.is_empty() {
            let index = reservation % self.reservations.len();
            let (reservation, _) = self.reservations.swap_remove(index);
            reservation.release();
        }
    }

    pub(super) fn budget(&mut self, gpu: u32, bytes: u64) -> Checked<()> {
        let expect = match self.reference.regions.get(gpu as usize) {
            None => Expect::Refused("unknown-gpu"),
            Some(region) if bytes > *region => Expect::Refused("limit-exceeded"),
            Some(_) => Expect::Fine,
        };
        let before = self.picture();
        let answer = self.rig.manager.set_budget(gpu, ByteLen::new(bytes));
        if self.judge(expect, &before, answer, &[])?.is_some() {
            self.reference.budgets[gpu as usize] = bytes;
        }
        Ok(())
    }

    pub(super) fn headroom(&mut self, gpu: u32, bytes: u64) -> Checked<()> {
        let known = (gpu as usize) < self.reference.regions.len();
        let expect = if known { Expect::Fine } else { Expect::Refused("unknown-gpu") };
        let before = self.picture();
        let answer = self.rig.manager.set_headroom(gpu, ByteLen::new(bytes));
        if self.judge(expect, &before, answer, &[])?.is_some() {
            let now = self.rig.manager.capacity(gpu).map_err(|error| error.to_string())?;
            let room = now.free.get().saturating_sub(bytes).saturating_sub(now.foreign.get());
            ensure!(now.room.get() == room, "room of {} with {bytes} kept free", now.room);
        }
        Ok(())
    }

    pub(super) fn evict(&mut self, gpu: u32, bytes: u64) -> Checked<()> {
        let before = self.picture();
        let answer = self.rig.manager.plan_eviction(gpu, ByteLen::new(bytes));
        ensure!(self.picture() == before, "a dry run changed something");
        let plan = match answer {
            Ok(plan) => plan,
            Err(VramError::UnknownGpu { .. }) => {
                ensure!(self.reference.regions.get(gpu as usize).is_none(), "gpu {gpu} is unknown");
                return Ok(());
            }
            Err(VramError::InsufficientVram(_)) => return self.nothing_helps(gpu, bytes),
            Err(VramError::DeviceLost { .. }) if self.is_lost(gpu) => return Ok(()),
            Err(error) => return Err(format!("planning for {bytes}: {error}")),
        };
        self.may_all_go(&plan, gpu)?;
        match self.rig.manager.evict(&plan) {
            Ok(report) => {
                ensure!(self.faulty || self.altered(&report.kept), "kept: {:?}", report.kept);
                self.learn_quarantine()?;
                for parked in report.parked {
                    self.hold(parked)?;
                }
                self.went(&plan)?;
                if report.kept.is_empty() && !self.faulty {
                    self.as_planned(&plan)?;
                }
            }
            Err(error) => {
                ensure!(self.faulty, "a fresh plan was refused: {error}");
                self.unchanged(&before, &error)?;
            }
        }
        Ok(())
    }

    /// Whether every kept shard is altered, and was found so when it was to be parked.
    fn altered(&self, kept: &[(ShardId, VramError)]) -> bool {
        kept.iter().all(|(id, error)| match (self.reference.shards.get(id), error) {
            (Some(known), VramError::ShardAltered { .. }) => !known.sound(),
            _ => false,
        })
    }

    /// Records which shards are in quarantine. A device with faults may have altered any of them.
    fn learn_quarantine(&mut self) -> Checked<()> {
        for id in self.quarantined() {
            let known = self.reference.shards.get_mut(&id).ok_or("a stranger is in quarantine")?;
            ensure!(self.faulty || !known.sound(), "{id} is sound, and in quarantine");
            known.quarantined = true;
        }
        Ok(())
    }

    /// The shards that the manager has in quarantine.
    #[must_use]
    pub fn quarantined(&self) -> Vec<ShardId> {
        let shards = self.rig.manager.report().shards.into_iter();
        shards.filter(|shard| shard.quarantine.is_some()).map(|shard| shard.shard_id).collect()
    }

    /// Checks that no plan was possible: evicting every permitted shard would not give enough room.
    fn nothing_helps(&self, gpu: u32, bytes: u64) -> Checked<()> {
        if self.faulty || self.mode == MemoryMode::Region {
            // In a region the result depends on the positions of the shards.
            return Ok(());
        }
        let now = self.rig.manager.capacity(gpu).map_err(|error| error.to_string())?;
        // Freed shards need no host memory, parked ones do.
        let shards = self.reference.shards.values();
        let may_go = shards.filter(|known| known.gpu == gpu && may_go(known));
        let freed: u64 = may_go
            .filter(|known| known.fate == OnEviction::Free)
            .map(|known| footprint(known.bytes.len()))
            .sum();
        let taken = now.used.get() + now.reserved.get() - freed;
        let room = now
            .total
            .get()
            .saturating_sub(taken)
            .saturating_sub(now.headroom.get())
            .saturating_sub(now.foreign.get());
        ensure!(room < bytes.next_multiple_of(256), "{room} could be had, and no plan says so");
        Ok(())
    }

    /// Checks that a plan contains only shards whose owner permits their eviction.
    fn may_all_go(&self, plan: &EvictionPlan, gpu: u32) -> Checked<()> {
        let mut seen = BTreeSet::new();
        for eviction in &plan.evictions {
            let known =
                self.reference.shards.get(&eviction.shard_id).ok_or("a stranger is to go")?;
            let id = &eviction.shard_id;
            ensure!(known.gpu == gpu && eviction.gpu == gpu, "{id} is on another gpu");
            ensure!(may_go(known), "{id} is to go, and may not");
            ensure!(eviction.how == known.fate, "{id} is to be {:?}", eviction.how);
            ensure!(eviction.bytes.get() == footprint(known.bytes.len()), "{}", eviction.bytes);
            ensure!(seen.insert(id.clone()), "{id} is to go twice");
        }
        Ok(())
    }

    /// Removes evicted shards from the model. Parked ones are already with the parked shards.
    fn went(&mut self, plan: &EvictionPlan) -> Checked<()> {
        for eviction in &plan.evictions {
            let id = &eviction.shard_id;
            if self.rig.manager.shard(id).is_some() || !self.reference.shards.contains_key(id) {
                continue;
            }
            ensure!(eviction.how == OnEviction::Free, "{id} was to be parked, and is gone");
            self.reference.remove(id);
        }
        Ok(())
    }

    /// As [`went`](Self::went), if a second plan was made because the driver had no memory.
    fn went_away(&mut self, gpu: u32) -> Checked<()> {
        let listed = self.rig.manager.shards();
        let gone = |id: &ShardId| !listed.iter().any(|shard| shard.shard_id == *id);
        let all: Vec<_> = self.reference.shards.keys().filter(|id| gone(id)).cloned().collect();
        for id in all {
            let known = &self.reference.shards[&id];
            let freed = known.gpu == gpu && known.fate == OnEviction::Free && may_go(known);
            ensure!(freed, "{id} is gone, and may not");
            self.reference.remove(&id);
        }
        Ok(())
    }

    /// Checks that the room is what the plan promised.
    fn as_planned(&self, plan: &EvictionPlan) -> Checked<()> {
        for after in &plan.after {
            let now = self.rig.manager.capacity(after.gpu).map_err(|error| error.to_string())?;
            ensure!(now.room == after.room, "room of {}, {} was planned", now.room, after.room);
            ensure!(
                now.largest_hole == after.largest_hole,
                "a hole of {}, {} was planned",
                now.largest_hole,
                after.largest_hole
            );
        }
        Ok(())
    }

    pub(super) fn seal_evicting(&mut self, gpu: u32, len: usize, seed: u64) -> Checked<()> {
        let manager = &self.rig.manager;
        let placing = self.placing(gpu, len);
        let plan = manager.plan_eviction(gpu, ByteLen::new(len as u64));
        let before = self.picture();
        let (data, fate) = (bytes(len, seed), fate(seed));
        let request = SealRequest::new("model-urgent", gpu).priority(u32::MAX).on_eviction(fate);
        let answer = manager.seal(request, &data);
        let evicted = manager.take_evicted();
        // Bytes that were not returned earlier may come back in this step, and make a plan possible.
        let more = !before.unreturned(gpu).is_zero();
        if plan.is_err() && more {
            for parked in evicted {
                self.hold(parked)?;
            }
            self.went_away(gpu)?;
            self.learn_quarantine()?;
            return match answer {
                Ok(handle) => self.remember(handle, data, fate),
                Err(error) if error.is_capacity() || error.is_device() => Ok(()),
                Err(error) if error.is_integrity() => Ok(()),
                Err(error) => Err(format!("failed: {error}")),
            };
        }
        let Ok(plan) = plan else {
            ensure!(evicted.is_empty(), "evicted without a plan: {evicted:?}");
            let expect = match placing {
                Expect::Fine if self.is_lost(gpu) => Expect::Refused("device-lost"),
                other => other,
            };
            if let Some(handle) = self.judge(expect, &before, answer, &[gpu])? {
                self.remember(handle, data, fate)?;
            }
            return Ok(());
        };
        self.may_all_go(&plan, gpu)?;
        for parked in evicted {
            self.hold(parked)?;
        }
        self.went_away(gpu)?;
        // A flipped bit is detected when its shard is to be parked: the shard stays, and there may
        // be too little room then.
        let hidden = plan.evictions.iter().any(|eviction| {
            let known = self.reference.shards.get(&eviction.shard_id);
            known.is_some_and(|known| !known.sound())
        });
        self.learn_quarantine()?;
        match answer {
            Ok(handle) => self.remember(handle, data, fate),
            Err(VramError::InsufficientVram(_)) if hidden || self.faulty => Ok(()),
            Err(error) if self.faulty && (error.is_device() || error.is_integrity()) => Ok(()),
            Err(error) if self.is_lost(gpu) && error.code() == "device-lost" => Ok(()),
            Err(error) => Err(format!("the plan was {plan}, and the seal failed: {error}")),
        }
    }

    /// The expected promised bytes of a GPU.
    pub(super) fn promised(&self, gpu: u32) -> u64 {
        let here = self.reservations.iter().filter(|(reservation, _)| reservation.gpu() == gpu);
        here.map(|(_, left)| left).sum::<u64>() + self.promised_blocks(gpu)
    }

    /// The part of them that is reserved as places.
    pub(super) fn promised_blocks(&self, gpu: u32) -> u64 {
        let reports = self.rig.manager.reservations();
        let ours = |id| self.plans.iter().any(|(plan, _)| plan.id() == id);
        let held = reports.iter().filter(|report| ours(report.id)).flat_map(|r| &r.remaining);
        held.filter(|(at, _)| *at == gpu).map(|(_, bytes)| bytes.get()).sum()
    }

    /// Ends all leases and reservations, and sets the budget of each GPU to its whole region.
    pub(super) fn let_go(&mut self) -> Checked<()> {
        while !self.leases.is_empty() {
            self.end_lease(0)?;
        }
        self.reservations.clear();
        self.plans.clear();
        for (gpu, region) in (0_u32..).zip(self.reference.regions.clone()) {
            self.budget(gpu, region)?;
            self.headroom(gpu, 0)?;
        }
        self.unpark_models();
        self.books_hold()
    }
}

/// Whether a shard may be evicted.
fn may_go(known: &Known) -> bool {
    known.fate != OnEviction::Never && !known.pinned && known.leases == 0 && !known.quarantined
}
