//! Listing, checking, verifying and collecting.

use core::time::Duration;
use std::sync::Arc;

use vram_store::object_store::{ObjectStoreExt as _, PutPayload};
use vram_store::{
    Part, Sample, Store, StoreOptions, VerifyMeans, image_key, manifest_key, parts_key,
};

use crate::liar::{Liar, Lie};
use crate::support::{MODEL, World, push};

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

fn verify(store: &Store, means: VerifyMeans<'_>) -> vram_store::StoreVerdict {
    store.verify(None, means, Sample::All, &StoreOptions::new()).unwrap()
}

#[test]
fn a_sound_store_is_found_sound_and_a_flipped_bit_is_named_with_and_without_the_key() {
    let world = world();
    let keyed = VerifyMeans::Keys(&world.keys, b"");
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
    assert!(verify(&world.store, VerifyMeans::Keys(&world.keys, b"")).is_sound());
}

#[test]
fn a_place_is_tried_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let local = Store::folder(folder.path()).unwrap();
    for store in [local, World::new().store] {
        let check = store.check(&StoreOptions::new()).unwrap();
        assert!(check.is_good(), "{check:?}");
        assert!(check.trials.len() >= 8, "{check:?}");
    }
    let left = std::fs::read_dir(folder.path().join("v1/check")).unwrap().count();
    assert_eq!(left, 0);
    std::fs::remove_dir_all(folder.path()).unwrap();
    let gone = folder.path().to_path_buf();
    std::fs::write(&gone, b"a file in its place").unwrap();
    assert!(Store::folder(gone).is_err());
}
