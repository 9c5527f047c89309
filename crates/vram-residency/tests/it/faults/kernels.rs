//! The same sweeps over devices with kernels, which fail and lie as well.

use vram_residency::Compute;
use vram_test_rigs::with_kernels;

use super::{images, moving, repair, sealing, single};

const EACH: [Compute; 2] = [Compute::Checks, Compute::Card];

#[test]
fn single_shards_keep_their_promises() {
    for compute in EACH {
        with_kernels(compute, || {
            single::a_seal_that_fails_anywhere_leaves_nothing_and_one_that_does_not_is_right();
            single::an_unseal_that_fails_anywhere_changes_nothing_and_gives_no_byte();
            single::a_verification_that_fails_anywhere_changes_nothing_but_a_quarantine();
        });
    }
}

#[test]
fn shards_that_move_keep_their_promises() {
    for compute in EACH {
        with_kernels(compute, || {
            moving::a_park_that_fails_leaves_the_shard_where_it_was();
            moving::a_wake_that_fails_hands_the_parked_shard_back();
            moving::a_model_is_parked_and_woken_as_a_whole_or_not_at_all();
        });
    }
}

#[test]
fn shards_that_arrive_keep_their_promises() {
    for compute in EACH {
        with_kernels(compute, || {
            sealing::a_fault_at_any_call_while_sealing_from_a_source_leaves_nothing();
            sealing::a_fault_at_any_call_of_an_admission_leaves_nothing();
            images::a_failing_device_leaves_nothing_of_an_import_and_a_shard_as_it_was();
        });
    }
}

#[test]
fn shards_that_are_sealed_anew_keep_their_promises() {
    for compute in EACH {
        with_kernels(compute, || {
            sealing::a_fault_at_any_call_of_a_transition_leaves_the_old_shard_or_the_new_one();
            sealing::a_reseal_that_fails_leaves_the_shard_under_its_key();
        });
    }
}

#[test]
fn repairs_keep_their_promises() {
    for compute in EACH {
        with_kernels(compute, || {
            repair::whatever_fails_at_whatever_call_the_shard_is_whole_or_in_quarantine();
        });
    }
}
