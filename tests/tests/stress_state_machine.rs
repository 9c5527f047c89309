//! Long seeded runs of the facade against the reference model: on devices without faults, on
//! devices that fail and stay usable, and on devices that become lost; then faults stop and
//! everything must work again.
//!
//! `VRAM_STRESS_SECONDS` and `VRAM_STRESS_SEED` set the duration and the first seed. A failure
//! prints the seed of its round, which repeats that round alone with `VRAM_STRESS_SECONDS=0`.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use proptest::prelude::*;
use vram_gpu::fault::{Action, Op, When};
use vram_residency::MemoryMode;
use vram_tests::budget::{Budget, Draw};
use vram_tests::step::{self, Step};
use vram_tests::world::World;

/// One round: `steps` steps drawn from `strategy`, then recovery.
fn round(seed: u64, steps: usize, strategy: &BoxedStrategy<Step>) {
    round_with(MemoryMode::Region, seed, steps, strategy);
}

fn round_with(mode: MemoryMode, seed: u64, steps: usize, strategy: &BoxedStrategy<Step>) {
    let mut world = World::with_memory(seed, mode).expect("a world can be made");
    let mut draw = Draw::new(seed);
    let mut trace = Vec::new();
    let mut run = || -> Result<(), String> {
        for _ in 0..steps {
            let step = draw.one(strategy);
            trace.push(format!("{step:?}"));
            world.step(&step)?;
        }
        world.recover()
    };
    if let Err(why) = run() {
        let tail = trace.iter().rev().take(20).rev().cloned().collect::<Vec<_>>().join("\n  ");
        panic!("VRAM_STRESS_SEED={seed}: {why}\nafter {} steps, the last:\n  {tail}", trace.len());
    }
}

/// The model knows of a shard that a failing read put in quarantine while room was made.
#[test]
fn a_shard_that_an_eviction_found_altered_is_in_quarantine_for_the_model_too() {
    // All of the first GPU's 128 KiB; and a shard that leaves no room for another.
    let evictions = [
        Step::Evict { gpu: 0, bytes: 128 * 1024 },
        Step::SealEvicting { gpu: 0, len: 120 * 1024, seed: 0 },
    ];
    for eviction in evictions {
        let mut found = 0;
        for (op, nth) in [Op::Read, Op::QueueRead].into_iter().flat_map(|op| [(op, 1), (op, 2)]) {
            let mut world = World::with_memory(0, MemoryMode::Region).expect("a world can be made");
            // The seed makes it a shard that may be parked.
            let seal = Step::Seal {
                gpu: 0,
                len: 16_998,
                seed: 2,
                authenticated: true,
                segment_scope: true,
            };
            let fault =
                Step::Fault { gpu: 0, op, when: When::Nth(nth), action: Action::FlipAnyBit };
            for step in [seal, fault, eviction.clone()] {
                world.step(&step).expect("the model agrees");
            }
            found += world.quarantined().len();
        }
        assert!(found > 0, "no read of {eviction:?} failed");
    }
}

#[test]
fn working_devices_agree_with_the_model() {
    let mut budget = Budget::start("working devices");
    while let Some(seed) = budget.next_round() {
        round(seed, 300, &step::sound().boxed());
    }
}

#[test]
fn failing_devices_never_serve_a_wrong_byte_and_recover() {
    let mut budget = Budget::start("failing devices");
    let steps = prop_oneof![4 => step::sound(), 1 => step::fault(false)].boxed();
    while let Some(seed) = budget.next_round() {
        round(seed, 200, &steps);
    }
}

#[test]
fn a_lost_device_takes_only_its_own_shards() {
    let mut budget = Budget::start("lost devices");
    let steps = prop_oneof![20 => step::sound(), 1 => step::fault(true)].boxed();
    while let Some(seed) = budget.next_round() {
        round(seed, 200, &steps);
    }
}

#[test]
fn block_by_block_everything_holds_on_working_failing_and_lost_devices() {
    let mut budget = Budget::start("block by block");
    let failing = prop_oneof![4 => step::sound(), 1 => step::fault(false), 1 => step::driver()];
    let strategies = [
        step::sound().boxed(),
        failing.boxed(),
        prop_oneof![20 => step::sound(), 1 => step::fault(true)].boxed(),
    ];
    while let Some(seed) = budget.next_round() {
        for steps in &strategies {
            round_with(MemoryMode::Blocks, seed, 200, steps);
        }
    }
}
