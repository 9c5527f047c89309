//! Listing, checking, verifying and collecting.

use core::time::Duration;
use std::sync::Arc;

use vram_store::object_store::{ObjectStoreExt as _, PutPayload};
use vram_store::{
    ManifestError, Part, Sample, Store, StoreOptions, VerifyMeans, image_key, manifest_key,
    parts_key,
};

use crate::liar::{Liar, Lie};
use crate::support::{MODEL, World, push, verify};

fn world() -> World {
    let world = World::new();
    world.push(vec![world.file("one", 20_000), world.file("two", 20_000)]);
    world
}

fn put(world: &World, key: &str, bytes: Option<Vec<u8>>) {
    let (objects, key) = (Arc::clone(&world.objects), key.into());
    let put = async move {
        match bytes {
            Some(bytes) => drop(objects.put(&key, PutPayload::from(bytes)).await.unwrap()),
            None => objects.delete(&key).await.unwrap(),
        }
    };
    futures_util::FutureExt::now_or_never(put).unwrap();
}

#[test]
fn a_sound_store_is_found_sound_and_a_flipped_bit_is_named_with_and_without_the_key() {
    let world = world();
    let keyed = VerifyMeans::Keys(&world.keys, None);
    for means in [keyed, VerifyMeans::Keyless] {
        let verdict = verify(&world.store, means);
        assert!(verdict.is_sound(), "{verdict:?}");
        assert_eq!((verdict.manifests, verdict.images), (1, 2));
        let manifest = world.manifest(7);
        let first = &manifest.shards()[0];
        let data = first.image_len - first.plaintext_len;
        for (at, part) in [(0, Part::Record), (data + 4096, Part::Segment(1))] {
            let liar = Liar::store("liar", &world.objects, Lie::Flip(at, 4));
            let verdict = verify(&liar, means);
            assert_eq!(verdict.findings.len(), 2, "{verdict:?}");
            assert_eq!(verdict.findings[0].key, image_key(&first.image));
            let expected = match means {
                VerifyMeans::Keyless => Part::FilePart(0),
                _ => part,
            };
            assert_eq!(verdict.findings[0].part, Some(expected));
        }
    }
}

/// A busy server has no altered object: nothing is known of what it did not give.
#[test]
fn what_a_store_fails_to_give_is_unread_and_not_wrong() {
    let world = world();
    for means in [VerifyMeans::Keys(&world.keys, None), VerifyMeans::Keyless] {
        for lie in [Lie::FailFirst(u64::MAX), Lie::Reset(u64::MAX)] {
            let busy = Liar::store("busy", &world.objects, lie);
            let options = StoreOptions::new().attempts(2, Duration::from_millis(1));
            let verdict = busy.verify(None, means, Sample::All, &options).unwrap();
            assert!(!verdict.is_sound() && !verdict.findings.is_empty());
            let unread = |one: &vram_store::Finding| one.unread && one.part.is_none();
            assert!(verdict.findings.iter().all(unread), "{verdict:?}");
        }
    }
    remove_first(&world);
    let verdict = verify(&world.store, VerifyMeans::Keyless);
    assert!(verdict.findings.iter().all(|one| !one.unread), "{verdict:?}");
}

fn remove_first(world: &World) {
    put(world, &image_key(&world.manifest(7).shards()[0].image), None);
}

#[test]
fn missing_and_wrong_objects_are_findings() {
    let world = world();
    let manifest = world.manifest(7);
    let (one, two) = (manifest.shards()[0].image, manifest.shards()[1].image);
    put(&world, &image_key(&one), None);
    put(&world, &parts_key(&two), Some(vec![1; 32]));
    let verdict = verify(&world.store, VerifyMeans::Keyless);
    let keys: Vec<_> = verdict.findings.iter().map(|finding| finding.key.clone()).collect();
    assert_eq!(keys, [image_key(&one), parts_key(&two)]);
    put(&world, &manifest_key(MODEL, 7, manifest.id()), Some(b"{}".to_vec()));
    let verdict = verify(&world.store, VerifyMeans::Keyless);
    assert_eq!(verdict.findings.len(), 1);
    assert_eq!(verdict.findings[0].part, Some(Part::Manifest));
    let refused = world.store.collect(Duration::ZERO, true, &StoreOptions::new());
    assert!(refused.is_err(), "what a wrong manifest names is not known");
}

/// Whoever has no key needs the digests of the parts, and an image with a finding was not verified.
#[test]
fn digests_of_parts_are_verified_with_the_key_too_and_nothing_missing_counts() {
    let world = world();
    let manifest = world.manifest(7);
    let (one, two) = (manifest.shards()[0].image, manifest.shards()[1].image);
    put(&world, &parts_key(&one), None);
    put(&world, &parts_key(&two), Some(vec![0; 32]));
    for means in [VerifyMeans::Keyless, VerifyMeans::Keys(&world.keys, None)] {
        let verdict = verify(&world.store, means);
        let keys: Vec<_> = verdict.findings.iter().map(|finding| finding.key.clone()).collect();
        assert_eq!(keys, [parts_key(&one), parts_key(&two)]);
        assert_eq!(verdict.images, 0);
    }
    put(&world, &image_key(&one), None);
    let verdict = verify(&world.store, VerifyMeans::Keyless);
    let keys: Vec<_> = verdict.findings.iter().map(|finding| finding.key.clone()).collect();
    assert_eq!(keys, [parts_key(&one), image_key(&one), parts_key(&two)]);
}

#[test]
fn a_sample_reads_a_part_of_the_bytes_with_the_key_too() {
    let world = World::new();
    world.push(vec![world.file("one", 8 << 20)]);
    let options = || StoreOptions::new().range_len(64 << 10);
    let keyed = VerifyMeans::Keys(&world.keys, None);
    let sampled = |percent| {
        let sample = Sample::Percent(percent);
        world.store.verify(None, keyed, sample, &options()).unwrap()
    };
    let (few, all) = (sampled(1), sampled(100));
    assert!(few.is_sound() && all.is_sound());
    assert_eq!(all.bytes, 8 << 20);
    assert!(few.bytes >= 64 << 10 && few.bytes < 4 << 20, "{}", few.bytes);
}

#[test]
fn only_what_no_manifest_names_and_is_old_enough_is_collected() {
    let world = world();
    let other = push(&world.key, vec![world.file("three", 5000)]);
    let pushed =
        world.store.push(&vram_store::Push { revision: 8, ..other }, &StoreOptions::new()).unwrap();
    put(&world, &manifest_key(MODEL, 8, &pushed.id), None);
    put(&world, "v1/images/00/strange", Some(vec![1]));
    let collect = |grace, delete| world.store.collect(grace, delete, &StoreOptions::new()).unwrap();
    let young = collect(Duration::from_hours(1), true);
    assert_eq!((young.named, young.too_young, young.unnamed.len()), (4, 2, 0));
    let dry = collect(Duration::ZERO, false);
    let image = pushed.manifest.shards[0].image;
    assert_eq!(dry.unnamed, [parts_key(&image), image_key(&image)]);
    assert_eq!(dry.strange, ["v1/images/00/strange"]);
    assert!(!dry.deleted);
    assert!(collect(Duration::ZERO, true).deleted);
    assert!(collect(Duration::ZERO, true).unnamed.is_empty());
    assert!(verify(&world.store, VerifyMeans::Keys(&world.keys, None)).is_sound());
}

#[test]
fn a_place_is_tried_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let local = Store::folder(folder.path()).unwrap();
    for store in [local, World::new().store] {
        let check = store.check(&StoreOptions::new()).unwrap();
        assert!(check.is_good(), "{check:?}");
        assert!(check.trials.len() >= 8, "{check:?}");
        for trial in &check.trials {
            let rust =
                ["Some(", "None", "Ok(", "Err("].iter().any(|word| trial.seen.contains(word));
            assert!(!rust, "{trial:?}");
        }
    }
    let left = std::fs::read_dir(folder.path().join("v1/check")).unwrap().count();
    assert_eq!(left, 0);
    std::fs::remove_dir_all(folder.path()).unwrap();
    let gone = folder.path().to_path_buf();
    std::fs::write(&gone, b"a file in its place").unwrap();
    assert!(Store::folder(gone).is_err());
}

/// One bad object is told, and the others are looked at as well.
#[test]
fn one_bad_object_ends_neither_a_listing_nor_a_verification() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let local = Store::folder(folder.path()).unwrap();
    for revision in [7, 8] {
        let files = vec![world.folder.path().join(if revision == 7 { "one" } else { "two" })];
        let push = vram_store::Push { revision, ..push(&world.key, files) };
        local.push(&push, &StoreOptions::new()).unwrap();
    }
    let listed = || local.list_manifests(None, &StoreOptions::new()).unwrap();
    let all = listed();
    let first = folder.path().join(&all[0].key);
    let image = |at: usize| image_key(&all[at].manifest.as_ref().unwrap().shards[0].image);
    let pipe = |path: &std::path::Path| {
        std::fs::remove_file(path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    pipe(&folder.path().join(image(0)));
    for means in [VerifyMeans::Keyless, VerifyMeans::Keys(&world.keys, None)] {
        let verdict = verify(&local, means);
        assert_eq!((verdict.manifests, verdict.findings.len()), (2, 1), "{verdict:?}");
        assert_eq!(verdict.findings[0].key, image(0));
        assert!(verdict.findings[0].what.contains("it is a pipe"), "{verdict:?}");
    }
    pipe(&first);
    let again = listed();
    assert_eq!(again.len(), 2);
    assert!(matches!(again[0].manifest, Err(ManifestError::Unreadable { .. })), "{again:?}");
    std::fs::remove_file(&first).unwrap();
    std::fs::File::create(&first).unwrap().set_len(17 << 20).unwrap();
    assert!(matches!(listed()[0].manifest, Err(ManifestError::TooLong { .. })));
    let verdict = verify(&local, VerifyMeans::Keyless);
    assert_eq!((verdict.manifests, verdict.findings.len()), (1, 1), "{verdict:?}");
}

/// Two tenants in one store: each is verified in its own context, or said to be of another one.
#[test]
fn images_of_several_contexts_are_verified_in_those_that_their_manifests_name() {
    let world = world();
    let tenant = push(&world.key, vec![world.file("three", 5000)]);
    let tenant = vram_store::Push { revision: 8, context: b"tenant", ..tenant };
    world.store.push(&tenant, &StoreOptions::new()).unwrap();
    for (context, manifests, others) in
        [(None, 2, 0), (Some(&b""[..]), 1, 1), (Some(b"tenant"), 1, 1), (Some(b"x"), 0, 2)]
    {
        let verdict = verify(&world.store, VerifyMeans::Keys(&world.keys, context));
        assert!(verdict.is_sound(), "{verdict:?}");
        assert_eq!((verdict.manifests, verdict.other_contexts), (manifests, others));
    }
}
