//! What a reset does to the device itself: waits until it is quiet, empties it, takes it anew.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use vram_alloc::ByteLen;
use vram_gpu::{DeviceState, GpuError};

use crate::error::VramError;
use crate::parts::core::in_use;
use crate::shard::gate::Busy;
use crate::shard::registry::Registry;
use crate::sync::{Deadline, lock};
use crate::vs::block::{Backing, Block};
use crate::vs::driver::foreign;
use crate::vs::gpu::{Gpu, WipePolicy};
use crate::vs::space::Space;

impl Gpu {
    /// Waits until nobody is under way on a GPU that takes no calls.
    ///
    /// # Errors
    ///
    /// Who is, at the deadline, or because the calling thread is inside a call itself.
    pub(crate) fn quiet(
        &self,
        registry: &Registry,
        deadline: Deadline,
    ) -> Result<(), &'static str> {
        let busy = "calls on it are still under way";
        self.health.quiet_until(deadline).map_err(|_left| busy)?;
        for entry in registry.on(self) {
            entry.gate.drained_until(deadline).map_err(|_refusal| busy)?;
        }
        Ok(())
    }

    /// Makes a GPU that works take no more calls, and wipes what it holds. If it is refused, it
    /// goes on working.
    pub(crate) fn give_up(
        &self,
        registry: &Registry,
        force: bool,
        deadline: Deadline,
    ) -> Result<(), VramError> {
        self.may_be_given_up(registry, force)?;
        // A loss that is nobody's news: what is refused from here on is refused for the reset.
        let (gpu, name) = (self.device.info().index, "being reset by its owner");
        if !self.health.give_up(GpuError::Lost { gpu, code: 0, name }) {
            return self
                .quiet(registry, deadline)
                .map_err(|why| VramError::GpuInUse { gpu: self.index, why });
        }
        let busy = |why| VramError::GpuInUse { gpu: self.index, why };
        let quiet = self.quiet(registry, deadline).map_err(busy);
        // Now that nobody comes in any more, what was true before is looked at for good.
        let begun = quiet.and_then(|()| self.may_be_given_up(registry, force)).and_then(|()| {
            let left = self.health.begin_until(deadline);
            left.map_err(|_left| busy("calls on it are still under way"))
        });
        if let Err(error) = begun {
            self.health.keep_on();
            return Err(error);
        }
        if self.wipe == WipePolicy::Never {
            return Ok(());
        }
        for entry in registry.on(self) {
            let state = entry.state();
            // One that was parked by way of its backup meanwhile may lie on another GPU by now.
            let space = state.space.as_ref().filter(|_| state.lies_on(self));
            let bytes = space.and_then(Space::written_bytes);
            drop(state);
            if let Some((block, range)) = bytes
                && let Some(block) = block.upgrade()
            {
                // Whatever it answers, the device is reset next.
                let _wiped = self.overwrite(&block, range);
            }
        }
        Ok(())
    }

    /// # Errors
    ///
    /// [`VramError::InUse`] for a leased shard, [`VramError::NotLost`] for any other.
    fn may_be_given_up(&self, registry: &Registry, force: bool) -> Result<(), VramError> {
        let entries = registry.on(self);
        if let Some(leased) = entries.iter().find(|entry| entry.gate.leases() > 0) {
            return Err(in_use(leased, Busy { leases: leased.gate.leases() }));
        }
        if entries.is_empty() || force {
            return Ok(());
        }
        let shards = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        Err(VramError::NotLost { gpu: self.index, shards })
    }

    /// Resets the device, takes memory of it again, and begins its next life. It takes no calls
    /// yet.
    ///
    /// # Errors
    ///
    /// What the device answered; everything is as it was.
    pub(crate) fn begin_anew(&self) -> Result<(), VramError> {
        let reset_by_others = matches!(self.health.lost(), Some(GpuError::StaleAllocation { .. }));
        let begun = catch_unwind(AssertUnwindSafe(|| {
            if !(reset_by_others && self.device.state() == DeviceState::Ready) {
                self.device.reset()?;
            }
            match &self.backing {
                Backing::Region(_) => match self.region_len() {
                    len if len.is_zero() => Ok((None, None)),
                    len => Ok((Some(self.device.allocate(len)?), None)),
                },
                Backing::Blocks(_) => Ok((None, Some(self.device.memory()?))),
            }
        }));
        let begun = begun.unwrap_or_else(|_panic| Err(self.stuck("the device panicked")));
        let (memory, figures) = begun.map_err(|error| {
            tracing::error!(gpu = self.index, %error, "the device could not be taken again");
            // Of one that worked this is the news; it stays lost.
            self.lose(error, None);
            self.failed(error)
        })?;

        let (life, buried) = self.health.renew();
        let old = match &self.backing {
            Backing::Region(region) => {
                self.ledger.set_foreign(ByteLen::ZERO);
                let fresh = memory.map(|memory| Block::region(memory, life));
                core::mem::replace(&mut *lock(region), fresh)
            }
            Backing::Blocks(held) => {
                held.renew();
                None
            }
        };
        if let Some(figures) = figures {
            let total = self.ledger.capacity().total;
            self.ledger.set_foreign(foreign(total, ByteLen::ZERO, figures));
        }
        // What is dropped here is of the last life, and calls no driver; a panic changes nothing.
        let _dropped = catch_unwind(AssertUnwindSafe(|| {
            drop((old, buried));
            self.pool.clear();
        }));
        Ok(())
    }

    /// Lets what could not be given back before be handed out again: the device was emptied.
    pub(crate) fn settle_unreturned(&self) -> ByteLen {
        let mut bytes = ByteLen::ZERO;
        for one in self.take_unreturned() {
            bytes = bytes.saturating_add(one.placement.footprint());
            let _dropped = catch_unwind(AssertUnwindSafe(|| self.returned(one)));
        }
        bytes
    }
}
