//! Every target keeps its promise on its seeds and on some thousands of changes of them. The inputs
//! are the same in each run; under `cargo xtask stress` more follow, for as long as it says.
//! `cargo xtask fuzz` looks further, guided by what its inputs reach.

#[macro_use]
extern crate vram_testkit;

use vram_fuzz::mutate::{Dice, mutated};
use vram_fuzz::{TARGETS, Target, seeds, targets};

fn keeps(target: &Target) {
    let inputs: Vec<Vec<u8>> = (target.seeds)().into_iter().map(|(_, bytes)| bytes).collect();
    for input in &inputs {
        (target.run)(input);
    }
    (target.run)(&[]);
    let seed = vram_testkit::setting("VRAM_STRESS_SEED").unwrap_or(1);
    let mut dice = Dice::new(seed);
    // A first round of so many in every run of the tests, then short ones.
    let mut cases = target.cases;
    vram_testkit::for_a_while(|| {
        for _ in 0..core::mem::replace(&mut cases, 100) {
            let input = mutated(&inputs, target.len_max, &mut dice);
            let outcome = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(outcome.is_ok(), "{}, seed {seed}: {input:?}", target.name);
        }
    });
}

#[test]
fn records_are_answered_as_the_format_says() {
    keeps(&targets::record::TARGET);
}

#[test]
fn segments_open_exactly_if_entry_and_bytes_are_those_that_were_sealed() {
    keeps(&targets::table::TARGET);
}

#[test]
fn only_images_that_were_made_are_accepted_by_every_way_in() {
    keeps(&targets::image::TARGET);
}

#[test]
fn reads_are_exact_or_refused_beyond_the_data() {
    keeps(&targets::ranges::TARGET);
}

#[test]
fn tickets_have_one_spelling_and_are_accepted_only_as_signed() {
    keeps(&targets::ticket::TARGET);
}

#[test]
fn tickets_of_models_have_one_spelling_and_are_accepted_only_as_signed() {
    keeps(&targets::model_ticket::TARGET);
}

#[test]
fn of_a_changed_audit_only_its_own_first_lines_are_accepted() {
    keeps(&targets::audit::TARGET);
}

#[test]
fn handles_that_the_manager_did_not_make_change_nothing() {
    keeps(&targets::handle::TARGET);
}

#[test]
fn exactly_the_documented_forms_of_a_key_are_read() {
    keeps(&targets::key::TARGET);
}

#[test]
fn accepted_headers_of_models_cover_their_files_exactly() {
    keeps(&targets::model::TARGET);
}

#[test]
fn gguf_files_are_accepted_exactly_if_a_plain_reader_accepts_them() {
    keeps(&targets::gguf::TARGET);
}

/// A fuzzer starts from the files; they are the seeds above, and nothing else.
#[test]
fn the_files_are_the_seeds_of_their_targets() {
    for target in TARGETS {
        let mut made = (target.seeds)();
        made.sort();
        let names: Vec<_> = made.iter().map(|(name, _)| *name).collect();
        let bytes: Vec<_> = made.iter().map(|(_, bytes)| bytes.clone()).collect();
        let found = seeds::read(&seeds::folder(target)).unwrap();
        assert!(found == bytes, "{} {names:?}: `fuzz-plain seeds` writes them", target.name);
        assert!(found.iter().all(|bytes| bytes.len() < 8192));
    }
}
