//! Repair from a store that is a folder; from S3: `tests/store_engines`.

use vram_store::Store;
use vram_tests::repair::an_alteration_is_found_and_repaired_from;

#[test]
fn an_altered_shard_is_repaired_from_the_folder_that_it_was_loaded_from() {
    let folder = tempfile::tempdir().unwrap();
    an_alteration_is_found_and_repaired_from(&Store::folder(folder.path()).unwrap());
}
