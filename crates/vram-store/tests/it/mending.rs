//! What is wrong in a store, or lies where an object belongs, and a push that finds it.

use std::os::unix::fs::{PermissionsExt, symlink};

use vram_store::{
    Push, Store, StoreError, StoreEvent, StoreOptions, VerifyMeans, image_key, parts_key,
};

use crate::support::{MODEL, World, noting, push, put, remove, verify};

/// Three parts, so that the middle one is neither the first nor the last.
const LEN: usize = (16 << 20) + 5000;

fn sound(world: &World, store: &Store) -> bool {
    verify(store, VerifyMeans::Keys(&world.keys, None)).is_sound()
}

#[test]
fn a_push_mends_the_images_that_are_wrong_in_a_store() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::folder(folder.path()).unwrap();
    let files = || vec![world.file("big", LEN)];
    let pushed = store.push(&push(&world.key, files()), &StoreOptions::new()).unwrap();
    let image = pushed.manifest.shards[0].image;
    let object = folder.path().join(image_key(&image));
    let good = std::fs::read(&object).unwrap();
    let mut flipped = good.clone();
    flipped[9 << 20] ^= 1;
    for wrong in [&flipped[..], &good[1..], b""] {
        std::fs::write(&object, wrong).unwrap();
        assert!(!sound(&world, &store));
        let mut events = Vec::new();
        let again = store.push(&push(&world.key, files()), &noting(&mut events)).unwrap();
        assert_eq!((again.sent, again.present, again.mended_images), (0, 0, 1));
        let told = |event: &StoreEvent| matches!(event, StoreEvent::ImageMended { image: it, .. } if *it == image);
        assert!(events.iter().any(told), "{events:?}");
        assert!(sound(&world, &store));
    }
    std::fs::write(folder.path().join(parts_key(&image)), b"other").unwrap();
    let again = store.push(&push(&world.key, files()), &StoreOptions::new()).unwrap();
    assert_eq!((again.sent, again.present, again.mended_images), (0, 0, 1));

    // Of a bucket, the ends alone are read unless more is asked for.
    world.push(files());
    put(&world, &image_key(&image), flipped);
    assert_eq!(world.push(files()).present, 1);
    let whole = StoreOptions::new().read_present(true);
    assert_eq!(world.store.push(&push(&world.key, files()), &whole).unwrap().mended_images, 1);
    assert!(sound(&world, &world.store));
}

/// What a link leads to is of somebody else: it is neither written nor made readable.
#[test]
fn a_push_writes_through_no_link() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::folder(folder.path()).unwrap();
    let files = || vec![world.file("one", 9000)];
    let pushed = store.push(&push(&world.key, files()), &StoreOptions::new()).unwrap();
    let image = pushed.manifest.shards[0].image;
    let manifest = vram_store::manifest_key(MODEL, 7, &pushed.id);
    let target = folder.path().join("mine");
    for key in [image_key(&image), parts_key(&image), manifest] {
        let object = folder.path().join(&key);
        for leads in ["mine", "nowhere"] {
            std::fs::write(&target, b"mine").unwrap();
            std::fs::set_permissions(&target, PermissionsExt::from_mode(0o600)).unwrap();
            std::fs::remove_file(&object).unwrap();
            symlink(folder.path().join(leads), &object).unwrap();
            store.push(&push(&world.key, files()), &StoreOptions::new()).unwrap();
            assert!(std::fs::symlink_metadata(&object).unwrap().is_file(), "{key}");
            assert_eq!(std::fs::read(&target).unwrap(), b"mine", "{key}");
            let mode = std::fs::metadata(&target).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
            assert!(!folder.path().join("nowhere").exists(), "{key}");
            assert!(sound(&world, &store));
        }
    }
}

/// A revision that has other content is refused before the first image is sent.
#[test]
fn a_revision_that_is_taken_costs_no_upload() {
    let world = World::new();
    world.push(vec![world.file("one", 5000), world.file("two", 5000)]);
    let files = |names: &[&str]| names.iter().map(|name| world.file(name, 5000)).collect();
    for other in [
        push(&world.key, files(&["three", "two"])),
        push(&world.key, files(&["one", "three"])),
        push(&world.key, files(&["one"])),
        Push { ranks: vec![vec![0]], ..push(&world.key, files(&["one", "two"])) },
        Push { fleet: Some("other"), ..push(&world.key, files(&["one", "two"])) },
    ] {
        let refused = world.store.push(&other, &StoreOptions::new()).unwrap_err();
        assert!(matches!(refused, StoreError::Taken { .. }), "{refused}");
        let text = refused.to_string();
        assert_eq!(text.matches("revision").count(), 1, "{text}");
        let collected =
            world.store.collect(core::time::Duration::ZERO, false, &StoreOptions::new()).unwrap();
        assert!(collected.unnamed.is_empty(), "{collected:?}");
    }
    // What is missing of the right content is sent all the same.
    let one = world.manifest(7).shards()[0].image;
    remove(&world, &image_key(&one));
    assert_eq!(world.push(files(&["one", "two"])).sent, 1);
}
