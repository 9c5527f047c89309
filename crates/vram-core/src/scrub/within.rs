//! Tests that a set time holds: a scrubber in simulated time, which passes only during the
//! scrubber's own pauses, with shards that are sealed and freed.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use vram_alloc::ByteLen;
use vram_id::{Clock, Timestamp};

use crate::parts::core::Core;
use crate::parts::core::testing;
use crate::room::free;
use crate::scrub::cursor::{Over, ScrubCursor};
use crate::scrub::pace::{Pace, ScrubOptions, ScrubRate};
use crate::scrub::part::Part;
use crate::scrub::status::{Facts, Moment, Tally};
use crate::scrub::step::{ScrubStep, scrub_step};
use crate::scrub::totals::Totals;
use crate::sealing::SealRequest;
use crate::sealing::seal;
use crate::shard::SealedShard;
use crate::transfer::ReadBack;

const HOUR: Duration = Duration::from_hours(1);

#[derive(Debug, Default)]
struct Told(AtomicU64);

impl Clock for Told {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

struct Simulation {
    clock: Arc<Told>,
    core: Arc<Core>,
    totals: Totals,
    pace: Pace,
    cursor: ScrubCursor,
    shards: Vec<SealedShard>,
}

impl Simulation {
    fn new() -> Self {
        let clock = Arc::<Told>::default();
        let core = testing::core(Arc::<Told>::clone(&clock));
        let pace =
            Pace::new(ScrubOptions::new(ScrubRate::Within(HOUR)), Over::AllGpus, Part::WHOLE);
        Self {
            clock,
            core,
            totals: Totals::default(),
            pace,
            cursor: ScrubCursor::new(),
            shards: Vec::new(),
        }
    }

    fn seal(&mut self, len: usize) {
        let request = SealRequest::new("model", 0).read_back(ReadBack::None);
        self.shards.extend(seal::seal_slice(&self.core, &request, &vec![1; len]));
    }

    /// Runs one step and the pause after it. Returns how many bytes were checked.
    fn step(&mut self) -> u64 {
        self.pace.look_now(&self.core);
        let step = scrub_step(&self.core, &self.totals, &mut self.cursor, self.pace.step_len());
        let pause = self.pace.ideal_pause(&step);
        let nanos = u64::try_from(pause.as_nanos()).unwrap();
        self.clock.0.fetch_add(nanos, Ordering::SeqCst);
        step.bytes.get()
    }

    fn oldest(&self) -> Duration {
        let now = self.core.clock.monotonic();
        let ages = self.core.registry.sorted().into_iter();
        ages.map(|entry| entry.state().ages.unverified_for(now)).max().unwrap_or_default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_is_ever_unverified_for_longer_than_the_time_that_was_set(
        steps in proptest::collection::vec(
            prop_oneof![
                6 => (1..60_usize).prop_map(|count| (count, None, None)),
                2 => (1..60_000_usize).prop_map(|len| (0, Some(len), None)),
                1 => any::<Index>().prop_map(|which| (0, None, Some(which))),
            ],
            1..60,
        ),
    ) {
        let mut simulation = Simulation::new();
        for (count, seal, free) in steps {
            for _ in 0..count {
                simulation.step();
                prop_assert!(simulation.oldest() <= HOUR, "{:?}", simulation.oldest());
            }
            if let Some(len) = seal {
                simulation.seal(len);
            }
            if let Some(which) = free
                && !simulation.shards.is_empty()
            {
                let at = which.index(simulation.shards.len());
                let shard = simulation.shards.swap_remove(at);
                free::free(&simulation.core, &shard).unwrap();
            }
        }
    }
}

#[test]
fn it_goes_no_faster_than_it_has_to() {
    let mut simulation = Simulation::new();
    for len in [100_000, 50_000, 200_000, 10] {
        simulation.seal(len);
    }
    let (mut looked_at, mut passed) = (0_u64, Duration::ZERO);
    while passed < HOUR * 10 {
        looked_at += simulation.step();
        assert!(simulation.oldest() <= HOUR);
        passed = simulation.core.clock.monotonic();
    }
    let rounds = looked_at / 350_010;
    // The longest shard has more than half of all bytes, and is checked once more before it is too
    // old.
    assert!((10..=20).contains(&rounds), "{rounds} passes in ten hours");
}

#[test]
fn what_one_thread_cannot_do_is_said_with_the_time_that_it_takes_instead() {
    let mut simulation = Simulation::new();
    simulation.seal(900_000);
    let second = ScrubOptions::new(ScrubRate::Within(Duration::from_secs(1)));
    simulation.pace = Pace::new(second, Over::AllGpus, Part::WHOLE);
    simulation.pace.look_now(&simulation.core);
    let status = |pace: &Pace, step: &ScrubStep, cursor: &ScrubCursor| {
        let mut tally = Tally::new(pace);
        tally.add(step, cursor.round(), pace);
        let facts = Facts::of(&simulation.core, Over::AllGpus);
        let rate = ScrubRate::Within(Duration::from_secs(1));
        let moment = Moment { facts: Some(facts), rate, paused: false, step_for: None };
        tally.status(0, moment)
    };
    // A step of 100 000 bytes that takes a millisecond: a hundred times what is needed.
    let step = ScrubStep { charged: ByteLen::new(100_000), ..ScrubStep::default() };
    let _pause = simulation.pace.pause(&step, Duration::from_millis(1));
    let quick = status(&simulation.pace, &step, &simulation.cursor);
    assert_eq!((quick.worst_case, quick.kept), (Some(Duration::from_secs(1)), true));

    // The device has become slow: each step takes ten seconds.
    for _ in 0..40 {
        let _pause = simulation.pace.pause(&step, Duration::from_secs(10));
    }
    let slow = status(&simulation.pace, &step, &simulation.cursor);
    assert!(slow.worst_case > Some(Duration::from_secs(90)) && !slow.kept, "{slow:?}");
}
