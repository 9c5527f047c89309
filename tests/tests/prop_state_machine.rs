//! Property: after any sequence of operations the facade is in the same state as a plain map and a
//! sum.
//!
//! Method: proptest-state-machine draws the sequences. `World` drives the facade and the reference
//! model through each and predicts every answer exactly, since the devices have no faults (except
//! bits that flip in device memory, which is a step like any other).

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use vram_residency::MemoryMode;
use vram_tests::step::{self, Step};
use vram_tests::world::World;

/// Steps name shards by selectors that are resolved when they run, so the sequence itself has no
/// state. The reference model is in the world, beside the facade that it is compared with.
#[derive(Debug)]
struct Sequence;

impl ReferenceStateMachine for Sequence {
    type State = ();
    type Transition = Step;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Step> {
        step::sound().boxed()
    }

    fn apply((): (), _step: &Step) {}
}

#[derive(Debug)]
struct Facade;

impl StateMachineTest for Facade {
    type SystemUnderTest = World;
    type Reference = Sequence;

    fn init_test((): &()) -> World {
        World::new(1).expect("a world can be made")
    }

    fn apply(mut world: World, (): &(), step: Step) -> World {
        if let Err(why) = world.step(&step) {
            panic!("{why}");
        }
        world
    }

    fn teardown(mut world: World, (): ()) {
        if let Err(why) = world.recover() {
            panic!("{why}");
        }
    }
}

prop_state_machine! {
    #[test]
    fn the_facade_agrees_with_a_map_and_a_sum(sequential 1..60 => Facade);
}

/// The same in mode `Blocks`.
#[derive(Debug)]
struct ByBlocks;

impl StateMachineTest for ByBlocks {
    type SystemUnderTest = World;
    type Reference = Sequence;

    fn init_test((): &()) -> World {
        World::with_memory(1, MemoryMode::Blocks).expect("a world can be made")
    }

    fn apply(world: World, (): &(), step: Step) -> World {
        Facade::apply(world, &(), step)
    }

    fn teardown(world: World, (): ()) {
        Facade::teardown(world, ());
    }
}

prop_state_machine! {
    #[test]
    fn the_facade_agrees_with_a_map_and_a_sum_block_by_block(sequential 1..60 => ByBlocks);
}
