//! Steps with one shard: seal, read, verify, move, open, close, free; and the errors for bad
//! handles.

use vram_residency::{
    MemoryMode, OnEviction, Protection, SealRequest, SealedShard, SivScope, Verify, VramError,
};

use crate::reference::{Known, bytes, footprint};
use crate::rig::SEGMENT;

use super::{Checked, Expect, World, alone, fate, reading};

impl World {
    pub(super) fn seal(
        &mut self,
        gpu: u32,
        len: usize,
        seed: u64,
        authenticated: bool,
        segment_scope: bool,
    ) -> Checked<()> {
        let manager = &self.rig.manager;
        let expect = self.placing(gpu, len);
        let data = bytes(len, seed);
        let protection =
            if authenticated { Protection::Authenticated } else { Protection::Encrypted };
        let scope = if segment_scope { SivScope::Segment } else { SivScope::Shard };
        let model = format!("model-{}", seed % 3);
        let fate = fate(seed);
        let request = SealRequest::new(&model, gpu)
            .protection(protection)
            .scope(scope)
            .on_eviction(fate)
            .evicts(false);
        let before = self.picture();
        let sealed = manager.seal(request, &data);
        if let Some(handle) = self.judge(expect, &before, sealed, &[gpu])? {
            ensure!(handle.gpu_index == gpu, "sealed on gpu {}", handle.gpu_index);
            ensure!(*handle.model_id == *model, "sealed as {}", handle.model_id);
            self.remember(handle, data, fate)?;
        }
        Ok(())
    }

    /// The expected result of placing this many bytes on a GPU without an eviction.
    pub(super) fn placing(&self, gpu: u32, len: usize) -> Expect {
        match self.rig.manager.capacity(gpu) {
            Err(_) => Expect::Refused("unknown-gpu"),
            Ok(now) if footprint(len) > now.room.get().min(now.largest_hole.get()) => {
                Expect::Refused("insufficient-vram")
            }
            Ok(_) => Expect::Fine,
        }
    }

    /// Adds a shard that has just been sealed to the model.
    pub(super) fn remember(
        &mut self,
        handle: SealedShard,
        data: Vec<u8>,
        fate: OnEviction,
    ) -> Checked<()> {
        let id = handle.shard_id.clone();
        let last = self.reference.shards.keys().next_back();
        ensure!(last.is_none_or(|last| *last < id), "ids do not rise");
        let known = Known::new(data, handle, fate, self.reference.active_key);
        self.reference.shards.insert(id, known);
        Ok(())
    }

    pub(super) fn unseal(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (expect, gpu) = (reading(known, 0, known.bytes.len()), known.gpu);
        let before = self.picture();
        let answer = self.rig.manager.unseal_model(&known.handle);
        self.note_quarantine(&id, &answer);
        if let Some(out) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(out == self.reference.shards[&id].bytes, "other bytes came out");
        }
        Ok(())
    }

    pub(super) fn unseal_and_free(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (expect, gpu) = (alone(known, reading(known, 0, known.bytes.len())), known.gpu);
        let before = self.picture();
        let answer = self.rig.manager.unseal_and_free(&known.handle);
        self.note_quarantine(&id, &answer);
        if let Some(out) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(out == self.reference.shards[&id].bytes, "other bytes came out");
            self.reference.remove(&id);
        }
        Ok(())
    }

    pub(super) fn free(&mut self, shard: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (gpu, handle) = (known.gpu, known.handle.clone());
        let expect = alone(known, Expect::Fine);
        let bytes = footprint(known.bytes.len());
        // Searching for it reads the shard, which would detect an alteration.
        let readable = known.leases == 0 && !known.quarantined && known.sound();
        let start = readable.then(|| self.rig.position(&handle, gpu)).flatten();
        let before = self.picture();
        let answer = self.rig.manager.free_shard(&handle);
        if matches!(answer, Err(VramError::NotReturned { .. })) {
            ensure!(self.faulty, "the bytes were not returned");
            self.reference.remove(&id);
            return Ok(());
        }
        if let Some(receipt) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(receipt.shard_id == id && receipt.gpu == gpu, "the receipt names another");
            ensure!(receipt.bytes.get() == bytes, "{} given back", receipt.bytes);
            // A device that is lost during the wipe cannot finish it; the receipt says so.
            let excused = self.is_lost(gpu) && !receipt.wiped;
            ensure!(receipt.wiped == (bytes > 0) || excused, "wiped: {}", receipt.wiped);
            self.reference.remove(&id);
            // P18: freed memory no longer holds the old bytes.
            let device = &self.rig.devices[gpu as usize];
            if let Some((allocation, start)) = start.filter(|_| !self.faulty) {
                if self.mode == MemoryMode::Blocks {
                    let freed = device.freed();
                    let freed = freed.iter().find(|freed| freed.allocation == allocation);
                    ensure!(freed.is_some_and(|freed| freed.wiped == Some(true)), "{freed:?}");
                } else {
                    let left = device.inspect(Some(allocation), start, receipt.bytes);
                    let left = left.map_err(|error| error.to_string())?;
                    ensure!(left.iter().all(|byte| *byte == 0), "freed memory was not wiped");
                }
            }
        }
        Ok(())
    }

    pub(super) fn read(&mut self, shard: usize, offset: usize, length: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let inside = offset.checked_add(length).is_some_and(|end| end <= known.bytes.len());
        let expect =
            if inside { reading(known, offset, length) } else { Expect::Refused("out-of-bounds") };
        let gpu = known.gpu;
        let before = self.picture();
        let answer = self.rig.manager.read_shard_at_offset(&known.handle, offset, length);
        self.note_quarantine(&id, &answer);
        if let Some(out) = self.judge(expect, &before, answer, &[gpu])? {
            let wanted = &self.reference.shards[&id].bytes[offset..offset + length];
            ensure!(out == wanted, "other bytes came out");
        }
        Ok(())
    }

    pub(super) fn verify(&mut self, shard: usize, level: u8) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let len = known.bytes.len() as u64;
        let (level, all) = match level {
            0 => (Verify::Record, false),
            1 => (Verify::Sample { segments: 2, seed: 1 }, false),
            2 => (Verify::Range { offset: len / 2, length: len - len / 2 }, false),
            3 => (Verify::Segments, true),
            _ => (Verify::Full, true),
        };
        let (sound, gpu) = (known.sound(), known.gpu);
        let quarantined = known.quarantined;
        let before = self.picture();
        let answer = self.rig.manager.verify(&known.handle, level);
        if let Some(verdict) = self.judge(Expect::Fine, &before, answer, &[gpu])? {
            if all {
                let expected = sound && !quarantined;
                let may_differ = self.faulty && expected;
                ensure!(verdict.sound == expected || may_differ, "verdict: {verdict}");
            } else {
                ensure!(!verdict.sound || !quarantined, "a quarantined shard is called sound");
                ensure!(verdict.sound || !sound || self.faulty, "verdict: {verdict}");
            }
            let known = self.reference.shards.get_mut(&id).expect("it was just there");
            if !verdict.sound {
                known.quarantined = true;
                let flipped = &known.flipped;
                let named = |segment: u64| verdict.altered.iter().any(|s| s.segment == segment);
                let missed = flipped
                    .iter()
                    .filter(|(_, mask)| **mask != 0)
                    .find(|(at, _)| !named((**at / SEGMENT) as u64));
                ensure!(!all || missed.is_none(), "segment of {missed:?} is not named: {verdict}");
            }
        }
        Ok(())
    }

    pub(super) fn migrate(&mut self, shard: usize, gpu: u32) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (source, len, handle) = (known.gpu, known.bytes.len(), known.handle.clone());
        let expect = match self.placing(gpu, len) {
            Expect::Refused("unknown-gpu") => Expect::Refused("unknown-gpu"),
            _ if known.quarantined => Expect::Refused("quarantined"),
            _ if gpu == source => Expect::Fine,
            Expect::Fine => reading(known, 0, len),
            no_room => no_room,
        };
        let expect = alone(known, expect);
        let before = self.picture();
        let answer = self.rig.manager.migrate_shard(&handle, gpu);
        self.note_quarantine(&id, &answer);
        if let Some(moved) = self.judge(expect, &before, answer, &[source, gpu])? {
            ensure!(moved.gpu_index == gpu, "moved to gpu {}", moved.gpu_index);
            ensure!(moved.shard_id == id, "the id changed");
            ensure!(moved.sealed_data == handle.sealed_data, "the record changed");
            let known = self.reference.shards.get_mut(&id).expect("it was just there");
            // Older handles stay valid, so either may be used from now on.
            if moved.plaintext_len.is_multiple_of(2) {
                known.handle = moved;
            }
            known.gpu = gpu;
        }
        Ok(())
    }

    pub(super) fn convert(&mut self, shard: usize, to: Protection) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (gpu, handle) = (known.gpu, known.handle.clone());
        let expect = match reading(known, 0, known.bytes.len()) {
            Expect::Fine if handle.protection != to => Expect::FineOrNoRoom,
            other => other,
        };
        let expect = alone(known, expect);
        if handle.protection == to && !known.quarantined && !known.sound() {
            // Nothing has to be done, so the call need not check the shard.
            return Ok(());
        }
        let before = self.picture();
        let answer = match to {
            Protection::Authenticated => self.rig.manager.open_resident(&handle),
            _ => self.rig.manager.close_resident(&handle),
        };
        self.note_quarantine(&id, &answer);
        if let Some(converted) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(converted.protection == to, "it is {:?}", converted.protection);
            ensure!(converted.shard_id == id, "the id changed");
            let known = self.reference.shards.get_mut(&id).expect("it was just there");
            if handle.protection == to {
                known.handle = converted;
            } else {
                known.seal_anew(converted);
            }
        }
        Ok(())
    }

    pub(super) fn altered_handle(&mut self, shard: usize, byte: usize, bit: u8) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let mut bad = self.reference.shards[&id].handle.clone();
        let at = byte % bad.sealed_data.len();
        bad.sealed_data[at] ^= 1 << bit;
        self.refused(&bad, "handle-altered")?;
        let answer = self.rig.manager.verify_shard_integrity(&bad);
        ensure!(matches!(answer, Ok(false)), "verify answers {answer:?}");
        Ok(())
    }

    pub(super) fn old_handle(&mut self, selector: usize) -> Checked<()> {
        let gone = &self.reference.gone;
        if let Some(freed) = gone.get(selector % gone.len().max(1)) {
            self.refused(freed, "shard-freed")?;
        }
        let Some(id) = self.reference.pick(selector) else { return Ok(()) };
        if let Some(stale) = &self.reference.shards[&id].stale {
            self.refused(stale, "stale-handle")?;
        }
        Ok(())
    }

    /// Checks that every call refuses a bad handle and changes nothing.
    pub(super) fn refused(&self, bad: &SealedShard, code: &str) -> Checked<()> {
        let manager = &self.rig.manager;
        let before = self.picture();
        for (call, answer) in [
            ("unseal", manager.unseal_model(bad).map(drop)),
            ("unseal and free", manager.unseal_and_free(bad).map(drop)),
            ("free", manager.free_shard(bad).map(drop)),
            ("read", manager.read_shard_at_offset(bad, 0, 0).map(drop)),
            ("migrate", manager.migrate_shard(bad, 1).map(drop)),
            ("open", manager.open_resident(bad).map(drop)),
            ("close", manager.close_resident(bad).map(drop)),
            ("park", manager.park(bad).map(drop)),
            ("reseal", manager.reseal_shard(bad, &manager.active_key()).map(drop)),
            ("export", manager.export(bad, std::io::sink()).map(drop)),
            ("lease", manager.lease(bad).map(drop)),
            ("pin", manager.pin(bad)),
        ] {
            let found = answer.as_ref().err().map(VramError::code);
            ensure!(found == Some(code), "{call} answers {answer:?}, not {code}");
        }
        ensure!(self.picture() == before, "a bad handle changed something");
        Ok(())
    }

    pub(super) fn flip(&mut self, shard: usize, byte: usize, bit: u8) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = self.reference.shards.get_mut(&id).expect("it was just picked");
        let readable = !known.quarantined && known.sound() && !known.bytes.is_empty();
        if !readable || self.faulty {
            return Ok(());
        }
        let at = byte % known.bytes.len();
        ensure!(self.rig.flip(&known.handle, known.gpu, at, bit), "the bit could not be flipped");
        *known.flipped.entry(at).or_default() ^= 1 << bit;
        Ok(())
    }
}
