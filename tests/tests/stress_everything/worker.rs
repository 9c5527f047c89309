//! One thread that draws operations, and tells the journal of each call what it touches.

use core::time::Duration;
use std::sync::{MutexGuard, PoisonError};

use proptest::prelude::*;
use vram_gpu::fault::{Action, Op};
use vram_residency::{
    Account, ByteLen, CompactBudget, Device as _, ImportRequest, OnEviction, ParkedShard,
    Protection, RepairOptions, ResetOptions, ScrubCursor, SealOptions, SealRequest, SealedShard,
    SliceSource, Verify, VramError, VramManager,
};
use vram_test_rigs::oracle::{Doing, Hand};
use vram_test_rigs::{ActingSource, ActingWriter};
use vram_tests::budget::Draw;
use vram_tests::reference::bytes;
use vram_tests::rig::Rig;

use super::{LEN_MAX, Yard, content, key, named, total};

/// The driver's code of an uncorrectable ECC error.
const ECC: u32 = 214;

pub(crate) struct Worker<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) yard: &'a Yard,
    pub(crate) hand: Hand<'a>,
    pub(crate) draw: Draw,
    /// The step at which this thread closes the manager.
    pub(crate) closes_at: Option<u32>,
}

/// A drawn step, with the tick at which its handles were asked for.
struct Step {
    action: u8,
    origin: u64,
    gpu: u32,
    len: usize,
    seed: u64,
}

impl Worker<'_> {
    pub(crate) fn run(mut self, steps: u32) -> Result<(), String> {
        for number in 0..steps {
            if self.closes_at == Some(number) {
                let _closing = self.hand.begin(Doing::of("close").closes());
                let report = self.manager().close(Duration::from_secs(20));
                return if report.complete { Ok(()) } else { Err(format!("{report:?}")) };
            }
            let origin = self.hand.oracle().now();
            let shards = self.manager().shards();
            let (action, pick, gpu, len, seed) = self.draw.one(&(
                0..=31_u8,
                any::<usize>(),
                0..=1_u32,
                prop_oneof![0..=300_usize, 0..=LEN_MAX],
                0..1_000_000_u64,
            ));
            let shard = (!shards.is_empty()).then(|| shards[pick % shards.len()].clone());
            let step = Step { action, origin, gpu, len, seed };
            // Each refusal is in the journal, and judged at the end of the round.
            let _judged = match (action, shard) {
                (0..=3, _) | (_, None) => self.seal(&step),
                (4..=12 | 29..=31, Some(shard)) => self.with_shard(&step, &shard),
                (20..=24, Some(shard)) => self.look_after(&step, &shard),
                (_, Some(_)) => self.with_gpu(&step),
            };
            self.books(gpu)?;
        }
        Ok(())
    }

    fn manager(&self) -> &VramManager {
        &self.rig.manager
    }

    fn made<T>(
        &self,
        doing: Doing,
        call: impl FnOnce(&VramManager) -> Result<T, VramError>,
    ) -> Result<T, VramError> {
        let manager = self.manager();
        self.hand.made_on(manager, doing, || call(manager))
    }

    fn request(step: &Step) -> SealRequest {
        let fate = if step.seed.is_multiple_of(2) { OnEviction::Park } else { OnEviction::Free };
        let protection = if step.seed.is_multiple_of(3) {
            Protection::Authenticated
        } else {
            Protection::Encrypted
        };
        SealRequest::new(&named(step.seed), step.gpu)
            .protection(protection)
            .on_eviction(fate)
            .evicts(step.seed.is_multiple_of(5))
    }

    /// Must answer though readers of other shards stand still: not marked as a call that waits.
    fn seal(&self, step: &Step) -> Result<(), VramError> {
        let &Step { gpu, len, seed, .. } = step;
        let evicts = seed.is_multiple_of(5);
        let doing = Doing::of("seal").takes(gpu, as_u64(len)).evicts(evicts);
        let request = Self::request(step);
        self.made(doing, |manager| manager.seal(request, &bytes(len, seed))).map(drop)
    }

    fn with_shard(&self, step: &Step, shard: &SealedShard) -> Result<(), VramError> {
        let &Step { origin, gpu, .. } = step;
        let on = |name| Doing::of(name).shard(shard, origin).waits();
        let lies = shard.gpu_index;
        let anew = |name| on(name).takes(lies, shard.plaintext_len);
        match step.action {
            4 => self.read(shard, origin),
            5 => {
                let content = content(shard);
                let len = content.len();
                let (start, end) = (len / 3, len - len / 4);
                let part = self.made(on("read"), |manager| {
                    manager.read_shard_at_offset(shard, start, end - start)
                })?;
                assert!(part == content[start..end], "other bytes came out of a range");
                Ok(())
            }
            6 => {
                let out =
                    self.made(on("unseal and free"), |manager| manager.unseal_and_free(shard))?;
                assert_eq!(out, content(shard));
                Ok(())
            }
            7 => {
                let doing = on("migrate").takes(gpu, shard.plaintext_len);
                self.made(doing, |manager| manager.migrate_shard(shard, gpu)).map(drop)
            }
            8 => {
                self.made(on("park"), |manager| manager.park(shard)).map(|parked| self.keep(parked))
            }
            9 if shard.protection == Protection::Encrypted => {
                self.made(anew("open"), |manager| manager.open_resident(shard)).map(drop)
            }
            9 => self.made(anew("close"), |manager| manager.close_resident(shard)).map(drop),
            10 => self
                .made(anew("reseal"), |manager| manager.reseal_shard(shard, &key(gpu)))
                .map(drop),
            11 => self.lease(shard, origin),
            12 => self.copy(shard, step),
            29 => self.made(on("free"), |manager| manager.free_shard(shard)).map(drop),
            30 => self.read_slowly(shard, origin),
            _ => self.seal_while_reading(shard, step),
        }
    }

    fn read(&self, shard: &SealedShard, origin: u64) -> Result<(), VramError> {
        let doing = Doing::of("unseal").shard(shard, origin).waits();
        let out = self.made(doing, |manager| manager.unseal_model(shard))?;
        assert_eq!(out, content(shard));
        Ok(())
    }

    /// Takes each part of the shard only after another thread has made progress.
    fn read_slowly(&self, shard: &SealedShard, origin: u64) -> Result<(), VramError> {
        let doing = Doing::of("unseal to a slow sink").shard(shard, origin).waits();
        let mut out = Vec::new();
        let sink = ActingWriter(|part: &[u8]| {
            self.hand.oracle().wait_for_progress();
            out.extend_from_slice(part);
            Ok(part.len())
        });
        self.made(doing, |manager| manager.unseal_to(shard, sink))?;
        assert_eq!(out, content(shard));
        Ok(())
    }

    /// Seals from a source that reads another shard of this manager each time it is read.
    fn seal_while_reading(&self, other: &SealedShard, step: &Step) -> Result<(), VramError> {
        let &Step { origin, gpu, len, seed, .. } = step;
        let evicts = seed.is_multiple_of(5);
        let source = ActingSource::new(bytes(len, seed), |_offset, _target: &mut [u8]| {
            let _judged = self.read(other, origin);
            Ok(())
        });
        let request = Self::request(step);
        let doing = Doing::of("seal from a source that reads").takes(gpu, as_u64(len));
        let doing = doing.evicts(evicts);
        let options = SealOptions::new();
        self.made(doing, |manager| manager.seal_from(request, source, options)).map(drop)
    }

    fn lease(&self, shard: &SealedShard, origin: u64) -> Result<(), VramError> {
        let held = self.hand.begin(Doing::of("lease").shard(shard, origin).waits().leases());
        let lease = held.met_or(self.manager().lease(shard))?;
        // While it is leased it stays resident, independent of the other threads, unless its GPU is
        // lost.
        let handle = lease.shard();
        self.read(handle, origin)?;
        let doing = Doing::of("verify").shard(handle, origin).waits();
        let verdict = self.made(doing, |manager| manager.verify(handle, Verify::Full))?;
        assert!(verdict.sound, "a leased shard was altered");
        let plain = handle.protection == Protection::Authenticated;
        // There is none for an empty shard, and none while another thread resets the GPU.
        assert!(lease.device_pointer().is_none() || plain);
        drop(lease);
        drop(held);
        Ok(())
    }

    fn copy(&self, shard: &SealedShard, step: &Step) -> Result<(), VramError> {
        let &Step { origin, gpu, .. } = step;
        let mut image = Vec::new();
        let doing = Doing::of("export").shard(shard, origin).waits();
        self.made(doing, |manager| manager.export(shard, &mut image).map(drop))?;
        let request = ImportRequest::new(&shard.model_id, gpu).evicts(false);
        let doing = Doing::of("import").takes(gpu, shard.plaintext_len);
        let origin = self.hand.oracle().now();
        let copy = self.made(doing, |manager| manager.import(request, image.as_slice()))?;
        let doing = Doing::of("unseal and free").shard(&copy, origin).waits();
        let out = self.made(doing, |manager| manager.unseal_and_free(&copy))?;
        assert_eq!(out, content(shard));
        Ok(())
    }

    fn look_after(&self, step: &Step, shard: &SealedShard) -> Result<(), VramError> {
        let on = |name| Doing::of(name).shard(shard, step.origin).waits();
        match step.action {
            20 | 21 => self.made(on("back up"), |manager| manager.back_up(shard)).map(drop),
            22 => {
                let content = content(shard);
                let source = SliceSource::new(&content);
                let report = self.made(on("repair"), |manager| {
                    manager.repair_from(shard, source, RepairOptions::new())
                })?;
                assert!(!report.was_altered, "{report:?}");
                Ok(())
            }
            23 => self.made(on("ticket"), |manager| manager.ticket(shard, [7; 32])).map(drop),
            _ => self.made(on("drop the backup"), |manager| manager.drop_backup(shard)).map(drop),
        }
    }

    fn with_gpu(&self, step: &Step) -> Result<(), VramError> {
        let &Step { action, gpu, len, seed, .. } = step;
        match action {
            13 | 14 => self.wake(gpu),
            15 => {
                let doing = Doing::of("reserve").takes(gpu, 20_000);
                let mut room =
                    self.made(doing, |manager| manager.reserve(gpu, ByteLen::new(20_000)))?;
                let request = SealRequest::new(&named(seed), gpu).evicts(false);
                let data = bytes(len / 2, seed);
                let doing = Doing::of("seal reserved");
                let sealed =
                    self.made(doing, |manager| manager.seal_reserved(&mut room, request, &data));
                sealed.map(drop)
            }
            16 => self.evict(gpu),
            17 => {
                let running = self.hand.begin(Doing::of("compact").anything().waits());
                let report = running.met_or(self.manager().compact(gpu, CompactBudget::new()))?;
                report.skipped.iter().for_each(|(_, error)| running.met(error));
                // If the GPU was reset during the call.
                report.stranded.into_iter().for_each(|stranded| self.keep(stranded));
                Ok(())
            }
            25 => {
                let accounts =
                    self.made(Doing::of("reconcile"), |manager| manager.reconcile(gpu))?;
                // A reservation that begins or ends enters the ledger before or after the list.
                // While its thread is between the two, only one of the two accounts contains it.
                let stands = accounts.differences.iter().all(|difference| {
                    difference.account == Account::InFlight
                        && difference.found < difference.expected
                });
                assert!(stands, "{accounts}");
                Ok(())
            }
            26 => {
                let running = self.hand.begin(Doing::of("scrub").anything().waits());
                let len = ByteLen::new(50_000);
                let step = self.manager().scrub_step(&mut ScrubCursor::new(), len);
                if let Some(altered) = step.altered.first() {
                    let _flushed = self.manager().flush_events(Duration::from_secs(20));
                    panic!("{step:?}: {}", self.hand.oracle().about(altered));
                }
                running.met_or(step.error.map_or(Ok(()), Err))
            }
            27 => self.reset(gpu, len),
            28 => {
                // Rarely: a loss takes every shard without a copy at the next reset.
                if seed.is_multiple_of(4) {
                    self.lose(gpu);
                }
                Ok(())
            }
            18 => {
                let doing = Doing::of("set the budget").anything();
                let half = ByteLen::new(total(gpu) / 2);
                let doing_again = doing.clone();
                self.made(doing, |manager| manager.set_budget(gpu, half))?;
                let whole = ByteLen::new(total(gpu));
                self.made(doing_again, |manager| manager.set_budget(gpu, whole))
            }
            _ => {
                for parked in self.manager().take_evicted() {
                    self.keep(parked);
                }
                let key = key(gpu);
                self.made(Doing::of("set the key"), |manager| manager.set_active_key(&key))
            }
        }
    }

    fn wake(&self, gpu: u32) -> Result<(), VramError> {
        let parked = self.yard().pop();
        let Some(parked) = parked else { return Ok(()) };
        let doing = Doing::of("wake").named(parked.shard_id()).takes(gpu, as_u64(LEN_MAX));
        self.made(doing, |manager| {
            manager.wake(parked, gpu).map(drop).map_err(|failed| {
                let (parked, error) = failed.into_parts();
                self.keep(parked);
                error
            })
        })
    }

    fn evict(&self, gpu: u32) -> Result<(), VramError> {
        // One entry for both: a plan is outdated by what happened since it was made.
        let running = self.hand.begin(Doing::of("plan and evict").anything().waits());
        let manager = self.manager();
        let plan = running.met_or(manager.plan_eviction(gpu, ByteLen::new(40_000)))?;
        let report = running.met_or(manager.evict(&plan))?;
        report.kept.iter().for_each(|(_, error)| running.met(error));
        report.parked.into_iter().for_each(|parked| self.keep(parked));
        Ok(())
    }

    fn reset(&self, gpu: u32, len: usize) -> Result<(), VramError> {
        // Rarely: a reset removes every shard without a copy.
        let options = ResetOptions::new().within(Duration::from_millis(20));
        let forced = len < 100;
        let options = if forced { options.force().elsewhere() } else { options };
        let doing = Doing::of("reset").resets(gpu, forced);
        let report = self.made(doing, |manager| manager.reset_gpu(gpu, options))?;
        for failed in report.parked {
            self.keep(failed.into_parked());
        }
        for failed in report.parked_models {
            failed.into_parked().pieces.into_iter().for_each(|piece| self.keep(piece.parked));
        }
        Ok(())
    }

    /// Loses the GPU from outside of the manager.
    fn lose(&self, gpu: u32) {
        let device = &self.rig.devices[usize::try_from(gpu).expect("one of two")];
        let losing = self.hand.oracle().loses(gpu);
        device.next(Op::Memory, Action::Driver(ECC)).expect("it can fail");
        // Another thread may meet it first.
        let _lost = device.memory();
        // Where the device was lost already, the fault was not met.
        device.clear();
        drop(losing);
    }

    fn yard(&self) -> MutexGuard<'_, Vec<ParkedShard>> {
        self.yard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, parked: ParkedShard) {
        self.yard().push(parked);
    }

    /// Checks that one snapshot adds up, while the other threads work.
    fn books(&self, gpu: u32) -> Result<(), String> {
        let now = self.manager().capacity(gpu).map_err(|error| error.to_string())?;
        let taken = now.used.get() + now.reserved.get();
        if taken + now.free.get() != now.total.get()
            && !(now.free.is_zero() && taken > now.total.get())
        {
            return Err(format!("{now:?} does not add up"));
        }
        if taken > total(gpu) {
            return Err(format!("{now:?}: more is taken than there is"));
        }
        Ok(())
    }
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a length of this test")
}
