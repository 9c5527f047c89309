//! The contract of every device, each check on its own, so that a report names the broken promise.

use vram_gpu::contract;

use crate::machine;

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                contract::$name(&machine::any_devices);
            }
        )*

        /// Every check of the contract is listed here.
        #[test]
        fn every_check_of_the_contract_is_here() {
            let all: Vec<_> = contract::CHECKS.iter().map(|(name, _)| *name).collect();
            assert_eq!(all, [$(stringify!($name)),*]);
        }
    };
}

checks! {
    identities_are_plausible_and_distinct,
    memory_figures_follow_allocations,
    what_cannot_be_allocated_is_refused_and_changes_nothing,
    addresses_of_live_allocations_are_apart,
    bytes_come_back_as_written,
    ranges_outside_are_refused_and_nothing_is_touched,
    unequal_lengths_are_refused_and_nothing_is_touched,
    empty_copies_are_fine_everywhere,
    fill_sets_its_range_and_no_other_byte,
    copies_inside_a_device_move_exact_bytes,
    copies_between_devices_are_exact_or_refused,
    staging_starts_as_zeros_and_has_its_length,
    queued_copies_are_there_after_the_wait,
    queued_copies_refuse_bad_arguments_at_the_wait,
    a_dropped_copy_is_finished_first,
    memory_may_be_freed_under_a_queued_copy,
    freeing_gives_the_bytes_back,
    many_threads_may_call_at_once,
    memory_outlives_the_thread_and_the_handle_it_came_from,
    memory_is_shared_in_whole_units_or_not_at_all,
    nothing_shows_addresses_or_content,
    kernels_hash_as_the_host_does,
    kernels_fingerprint_as_the_host_does,
    kernels_seal_and_open_as_the_host_does,
    kernels_refuse_what_does_not_fit_and_change_nothing,
    kernels_refuse_memory_of_other_devices,
    kernels_serve_many_threads_at_once,
    kernels_end_with_the_life_of_their_memory,
    a_reset_empties_the_device_and_strands_what_was_before,
}
