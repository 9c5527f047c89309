//! The scrubber: every age stays within the stated time, for any sequence of changes, and an
//! altered bit is found within it.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;
use vram_alloc::DeviceOffset;
use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op};
use vram_residency::{
    ByteLen, GpuIndex, Protection, ReadBack, ScrubCursor, SealRequest, SealedShard, ShardId,
    Verify, VramError,
};

use super::hands::{SEGMENT, Timed, seconds};

const RATE: u64 = 1 << 20;
pub(super) const BUDGET: ByteLen = ByteLen::new(2 * SEGMENT);

/// The longest time of one step: its budget, plus one minimal read.
fn step_time() -> Duration {
    time(2 * BUDGET.get())
}

/// The time for this many bytes at the rate.
fn time(bytes: u64) -> Duration {
    Duration::from_nanos(bytes * 1_000_000_000 / RATE)
}

pub(super) fn unread(gpu: u32, open: bool) -> SealRequest {
    let protection = if open { Protection::Authenticated } else { Protection::Encrypted };
    SealRequest::new("model", gpu).protection(protection).read_back(ReadBack::None)
}

/// A scrubber that the test drives by hand; its time advances at its rate.
struct Simulation {
    rig: Timed,
    cursor: ScrubCursor,
    shards: Vec<SealedShard>,
}

#[derive(Clone, Debug)]
enum Step {
    Scrub(u8),
    Seal(usize, u32, bool),
    Free(Index),
    Migrate(Index, u32),
    Verify(Index),
    Turn(Index),
    Park(Index, u32),
}

fn steps() -> impl Strategy<Value = Step> {
    let which = any::<Index>;
    prop_oneof![
        8 => (1..12_u8).prop_map(Step::Scrub),
        4 => (prop_oneof![Just(0), 1..200_usize, 1..40_000_usize], 0..2_u32, any::<bool>())
            .prop_map(|(len, gpu, open)| Step::Seal(len, gpu, open)),
        2 => which().prop_map(Step::Free),
        1 => (which(), 0..2_u32).prop_map(|(which, gpu)| Step::Migrate(which, gpu)),
        1 => which().prop_map(Step::Verify),
        1 => which().prop_map(Step::Turn),
        1 => (which(), 0..2_u32).prop_map(|(which, gpu)| Step::Park(which, gpu)),
    ]
}

impl Simulation {
    fn new() -> Self {
        let rig = Timed::new(&[512 << 10, 512 << 10]);
        Self { rig, cursor: ScrubCursor::new(), shards: Vec::new() }
    }

    fn take(&mut self, which: Index) -> Option<SealedShard> {
        let len = self.shards.len();
        (len > 0).then(|| self.shards.swap_remove(which.index(len)))
    }

    fn bound(&self) -> Duration {
        self.rig.manager.scrub_bound(&self.cursor, RATE)
    }

    fn ages(&self) -> BTreeMap<ShardId, Duration> {
        let snapshot = self.rig.manager.snapshot();
        let sound = snapshot.state.shards.iter().filter(|shard| shard.quarantine.is_none());
        let sound: BTreeSet<_> = sound.map(|shard| &shard.shard_id).collect();
        let ages = snapshot.counters.unverified_for.iter().cloned();
        ages.filter(|(shard, _)| sound.contains(shard)).collect()
    }

    /// One step of the scrubber, and its time.
    fn scrub(&mut self) -> vram_residency::ScrubStep {
        let step = self.rig.manager.scrub_step(&mut self.cursor, BUDGET);
        assert_eq!(step.errors, 0, "{:?}", step.error);
        assert!(step.charged.get() <= 2 * BUDGET.get(), "{step:?}");
        self.rig.clock.advance(time(step.charged.get()));
        step
    }

    fn carry_out(&mut self, step: &Step) {
        let manager = &self.rig.manager;
        match *step {
            Step::Scrub(times) => {
                for _ in 0..times {
                    self.scrub();
                    self.check();
                }
            }
            Step::Seal(len, gpu, open) => {
                let shard = manager.seal(unread(gpu, open), &vec![7; len]);
                self.shards.extend(shard);
            }
            Step::Free(which) => {
                if let Some(shard) = self.take(which) {
                    self.rig.manager.free_shard(&shard).unwrap();
                }
            }
            Step::Migrate(which, gpu) => {
                if let Some(shard) = self.take(which) {
                    let moved = self.rig.manager.migrate_shard(&shard, gpu);
                    self.shards.push(moved.unwrap_or(shard));
                }
            }
            Step::Verify(which) => {
                if !self.shards.is_empty() {
                    let shard = &self.shards[which.index(self.shards.len())];
                    assert!(manager.verify(shard, Verify::Full).unwrap().sound);
                }
            }
            Step::Turn(which) => {
                if let Some(shard) = self.take(which) {
                    let turned = match shard.protection {
                        Protection::Encrypted => self.rig.manager.open_resident(&shard),
                        _ => self.rig.manager.close_resident(&shard),
                    };
                    self.shards.push(turned.unwrap());
                }
            }
            Step::Park(which, gpu) => {
                if let Some(shard) = self.take(which) {
                    let parked = self.rig.manager.park(&shard).unwrap();
                    self.shards.extend(self.rig.manager.wake(parked, gpu));
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let bound = self.bound() + step_time();
        for (shard, age) in self.ages() {
            assert!(age <= bound, "{shard} is {age:?} old, and {bound:?} was stated");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn at_every_moment_every_age_is_within_the_stated_bound(
        steps in proptest::collection::vec(steps(), 1..80),
    ) {
        let mut simulation = Simulation::new();
        for step in &steps {
            simulation.carry_out(step);
        }
        // Without changes, the stated time is at most one pass over the resident bytes.
        for _ in 0..3 {
            while !simulation.scrub().pass_ended && !simulation.shards.is_empty() {
                simulation.check();
            }
        }
        let cost = |shard: &SealedShard| shard.plaintext_len.max(4096);
        let pass: u64 = simulation.shards.iter().map(cost).sum();
        let longest = simulation.shards.iter().map(cost).max().unwrap_or(0);
        let exact = time(pass + longest);
        prop_assert!(simulation.bound() <= exact + Duration::from_micros(1));
    }

    #[test]
    fn a_flipped_bit_is_found_within_what_was_stated_when_it_flipped(
        before in proptest::collection::vec(steps(), 1..30),
        lens in proptest::collection::vec(1..30_000_usize, 1..6),
        (which, byte, bit) in (any::<Index>(), any::<Index>(), 0..8_u8),
    ) {
        let mut simulation = Simulation::new();
        for step in &before {
            simulation.carry_out(step);
        }
        for shard in simulation.shards.drain(..) {
            simulation.rig.manager.free_shard(&shard).unwrap();
        }
        // The first of them lies at a known place: the end of the largest hole, or its beginning.
        let manager = &simulation.rig.manager;
        for len in lens {
            simulation.shards.push(manager.seal(unread(0, true), &vec![0xA5; len]).unwrap());
        }
        for _ in 0..which.index(40) {
            simulation.scrub();
        }
        let device = &simulation.rig.devices[0];
        let region = device.inspect(None, DeviceOffset::START, ByteLen::new(512 << 10)).unwrap();
        let written: Vec<usize> = (0..region.len()).filter(|at| region[*at] == 0xA5).collect();
        let at = u64::try_from(written[byte.index(written.len())]).unwrap();
        let stated = simulation.bound() + step_time();
        device.flip_bit_at(None, DeviceOffset::new(at), bit).unwrap();
        let mut passed = Duration::ZERO;
        loop {
            let step = simulation.scrub();
            passed += time(step.charged.get());
            prop_assert!(passed <= stated, "not found after {passed:?} of {stated:?}");
            if !step.altered.is_empty() {
                prop_assert_eq!(simulation.rig.manager.report().gpus[0].quarantined, 1);
                break;
            }
        }
    }
}

pub(super) fn whole_pass(rig: &Timed, cursor: &mut ScrubCursor) -> Vec<vram_residency::ScrubStep> {
    let mut steps = Vec::new();
    loop {
        let step = rig.manager.scrub_step(cursor, BUDGET);
        let ended = step.pass_ended || step.idle;
        steps.push(step);
        if ended {
            return steps;
        }
    }
}

#[test]
fn a_run_counts_from_its_first_segment_and_the_oldest_comes_first() {
    let rig = Timed::new(&[1 << 20]);
    let manager = &rig.manager;
    let long = manager.seal(unread(0, false), &vec![1; 10 * 4096]).unwrap();
    rig.clock.advance(seconds(1));
    let short = manager.seal(unread(0, false), &[1; 100]).unwrap();
    rig.clock.advance(seconds(1));
    let _sound = manager.verify(&long, Verify::Segments).unwrap();
    rig.clock.advance(seconds(1));
    let (mut cursor, age) =
        (ScrubCursor::new(), |shard: &SealedShard| manager.unverified_age(shard).unwrap());

    let one = ByteLen::new(SEGMENT);
    let step = manager.scrub_step(&mut cursor, one);
    assert_eq!((step.verified, step.bytes.get()), (1, 100), "the short one is older");
    assert_eq!((age(&short), age(&long)), (Duration::ZERO, seconds(1)));
    for segment in 0..10_u64 {
        rig.clock.advance(seconds(1));
        assert_eq!(age(&long), seconds(2 + segment));
        let step = manager.scrub_step(&mut cursor, one);
        assert_eq!((step.bytes, step.verified), (one, u64::from(segment == 9)));
    }
    assert_eq!(age(&long), seconds(9), "its first segment was looked at nine seconds ago");
    assert!(manager.scrub_step(&mut cursor, one).pass_ended);
    assert_eq!(cursor.passes(), 1);
}

#[test]
fn a_shard_that_moved_or_was_sealed_anew_between_two_steps_starts_again() {
    type Change = fn(&Timed, SealedShard) -> SealedShard;
    let changes: [Change; 4] = [
        |rig, shard| rig.manager.migrate_shard(&shard, 1).unwrap(),
        |rig, shard| {
            // There and back: it lies in its old place.
            let away = rig.manager.migrate_shard(&shard, 1).unwrap();
            rig.manager.migrate_shard(&away, 0).unwrap()
        },
        |rig, shard| rig.manager.open_resident(&shard).unwrap(),
        |rig, shard| rig.manager.wake(rig.manager.park(&shard).unwrap(), 0).unwrap(),
    ];
    for change in changes {
        let rig = Timed::new(&[1 << 16, 1 << 16]);
        let shard = rig.manager.seal(unread(0, false), &vec![1; 8 * 4096]).unwrap();
        rig.clock.advance(seconds(1));
        let mut cursor = ScrubCursor::new();
        let step = rig.manager.scrub_step(&mut cursor, BUDGET);
        assert_eq!((step.bytes, step.verified), (BUDGET, 0));
        rig.clock.advance(seconds(1));
        let shard = change(&rig, shard);
        rig.clock.advance(seconds(1));
        let rest = whole_pass(&rig, &mut cursor);
        let looked_at: u64 = rest.iter().map(|step| step.bytes.get() + step.verified).sum();
        assert_eq!(looked_at, 0, "what was looked at before counts for nothing");
        assert_eq!(rig.manager.unverified_age(&shard).unwrap(), seconds(1));
        let steps = whole_pass(&rig, &mut cursor);
        assert_eq!(steps.iter().map(|step| step.bytes.get()).sum::<u64>(), 8 * 4096);
        assert_eq!(rig.manager.unverified_age(&shard).unwrap(), Duration::ZERO);
    }
}

#[test]
fn what_is_parked_in_quarantine_or_on_a_lost_gpu_is_left_alone() {
    let rig = Timed::new(&[1 << 16, 1 << 16]);
    let manager = &rig.manager;
    let parked = manager.seal(unread(0, false), &[1; 100]).unwrap();
    let _parked = manager.park(&parked).unwrap();
    let altered = manager.seal(unread(0, true), &[2; 100]).unwrap();
    let _lost = manager.seal(unread(1, true), &[3; 100]).unwrap();
    for at in (0..1_u64 << 16).step_by(256) {
        rig.flip(0, at, 0);
    }
    rig.devices[1].next(Op::Read, Action::Driver(700)).unwrap();
    let mut cursor = ScrubCursor::new();
    let steps = whole_pass(&rig, &mut cursor);
    let found: Vec<_> = steps.iter().flat_map(|step| step.altered.clone()).collect();
    assert_eq!(found, [altered.shard_id]);
    let errors: Vec<_> = steps.iter().filter_map(|step| step.error.clone()).collect();
    assert!(matches!(errors[..], [VramError::DeviceLost { gpu: 1, .. }]), "{errors:?}");
    rig.devices.iter().for_each(|device| device.clear_log());
    assert!(manager.scrub_step(&mut cursor, BUDGET).idle);
    assert!(rig.devices.iter().all(|device| device.call_count(Op::Read) == 0));
}

#[test]
fn a_device_error_that_is_not_sticky_is_counted_and_the_shard_comes_again() {
    let rig = Timed::new(&[1 << 16]);
    let shards = [1, 2].map(|fill| rig.manager.seal(unread(0, true), &[fill; 9000]).unwrap());
    let error = GpuError::driver(GpuIndex::new(0), 1);
    rig.devices[0].next(Op::Read, Action::Fail(error)).unwrap();
    let mut cursor = ScrubCursor::new();
    let first = whole_pass(&rig, &mut cursor);
    assert_eq!(first.iter().map(|step| step.errors).sum::<u64>(), 1);
    assert_eq!(first.iter().map(|step| step.verified).sum::<u64>(), 1);
    assert_eq!(rig.manager.report().shards[0].last_verified, None);
    let second = whole_pass(&rig, &mut cursor);
    assert_eq!(second.iter().map(|step| step.verified).sum::<u64>(), 2);
    assert!(shards.iter().all(|shard| rig.manager.verify_shard_integrity(shard).unwrap()));
}
