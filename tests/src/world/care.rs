//! Steps for repairs, scrubbing, tickets and accounts.

use vram_residency::{
    ByteLen, RepairOptions, SliceSource, TicketExpectation, TicketKey, TicketState, TicketVerifier,
};

use super::{Checked, Expect, World, alone};

impl World {
    pub(super) fn repair(&mut self, shard: usize, wrong: bool) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (gpu, handle) = (known.gpu, known.handle.clone());
        let mut source = known.bytes.clone();
        let wrong = wrong && !source.is_empty();
        if wrong {
            let at = shard % source.len();
            source[at] ^= 1;
        }
        let whole = known.sound() && !known.quarantined;
        // The source is not read for a shard that needs no repair.
        let expect =
            if wrong && !whole { Expect::Refused("digest-mismatch") } else { Expect::Fine };
        let expect = alone(known, expect);
        let before = self.picture();
        let source = SliceSource::new(&source);
        let answer = self.rig.manager.repair_from(&handle, source, RepairOptions::new());
        let quarantined = self.is_quarantined(&id);
        let known = self.reference.shards.get_mut(&id).ok_or("it was just there")?;
        if quarantined && !known.quarantined {
            // The check of a repair detects alterations that were not known before.
            ensure!(self.faulty || !known.sound(), "{id} is sound, and in quarantine");
            known.quarantined = true;
        }
        if let Some(report) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(report.was_altered != whole || self.faulty, "it was altered: {report:?}");
            let known = self.reference.shards.get_mut(&id).ok_or("it was just there")?;
            known.heal();
            ensure!(!self.is_quarantined(&id), "{id} was repaired, and is in quarantine");
        }
        Ok(())
    }

    fn is_quarantined(&self, id: &vram_residency::ShardId) -> bool {
        self.quarantined().contains(id)
    }

    pub(super) fn scrub(&mut self, bytes: u64) -> Checked<()> {
        let step = self.rig.manager.scrub_step(&mut self.cursor, ByteLen::new(bytes));
        ensure!(self.faulty || step.errors == 0, "{:?}", step.error);
        ensure!(step.skipped == 0, "nobody is in its way: {step:?}");
        for id in step.altered {
            let known = self.reference.shards.get_mut(&id).ok_or("a stranger was altered")?;
            ensure!(self.faulty || !known.sound(), "{id} is sound, and called altered");
            known.quarantined = true;
        }
        Ok(())
    }

    pub(super) fn ticket(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let nonce = [u8::try_from(shard % 251).unwrap_or(0); 32];
        let before = self.picture();
        let answer = self.rig.manager.ticket(&known.handle, nonce);
        let Some(ticket) = self.judge(Expect::Fine, &before, answer, &[known.gpu])? else {
            return Ok(());
        };
        let quarantined = ticket.state == TicketState::Quarantined;
        ensure!(quarantined == known.quarantined, "{:?}", ticket.state);
        let verifier = TicketVerifier::new(TicketKey::from_bytes(&[9; 32]));
        let expected = TicketExpectation::new(nonce, ticket.issued_at)
            .shard_id(id)
            .model_id(&known.handle.model_id)
            .record(&known.handle.sealed_data);
        let plain = verifier.verify(&ticket, &expected);
        ensure!(plain.is_ok() != quarantined, "{plain:?} of a ticket that says {:?}", ticket.state);
        let allowed = verifier.verify(&ticket, &expected.allow_quarantined());
        allowed.map_err(|error| error.to_string())
    }

    pub(super) fn reconcile(&mut self, gpu: u32) -> Checked<()> {
        let known = (gpu as usize) < self.reference.regions.len();
        let expect = if known { Expect::Fine } else { Expect::Refused("unknown-gpu") };
        let before = self.picture();
        let answer = self.rig.manager.reconcile(gpu);
        if let Some(accounts) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(accounts.agrees && accounts.differences.is_empty(), "{accounts}");
            ensure!(accounts.in_flight.is_zero(), "nothing is under way: {accounts}");
            let resident = self.reference.used(gpu);
            ensure!(accounts.resident.get() == resident, "{accounts}, and {resident} are resident");
        }
        Ok(())
    }
}
