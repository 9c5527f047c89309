//! Pushing: what is there is not sent again, and the manifest comes last.

use vram_store::object_store::ObjectStore as _;
use vram_store::{
    Pull, Push, Store, StoreError, StoreEvent, StoreOptions, VerifyMeans, image_key, manifest_key,
    parts_key,
};

use crate::liar::{Liar, Lie, Watched};
use crate::support::{MODEL, World, content, key, load, noting, push, put, verify};

fn keys_of(world: &World) -> Vec<String> {
    let mut listed = Vec::new();
    let mut all = world.objects.list(None);
    while let Some(Some(Ok(meta))) =
        futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(&mut all))
    {
        listed.push(meta.location.to_string());
    }
    listed.sort();
    listed
}

#[test]
fn a_model_is_pushed_once_and_loaded() {
    let world = World::new();
    let files = || vec![world.file("one", 20_000), world.file("two", 0), world.file("three", 1)];
    let pushed = world.push(files());
    assert_eq!((pushed.sent, pushed.present, pushed.manifest_present), (3, 0, false));
    let manifest = world.manifest(7);
    assert_eq!(
        (manifest.id(), manifest.is_pinned(), manifest.is_keyed()),
        (&pushed.id, false, true)
    );
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store);
    for (index, (name, len)) in (0..).zip([("one", 20_000), ("two", 0), ("three", 1)]) {
        assert_eq!(load(&pull, index).unwrap(), content(name, len));
        pull.verify(index).unwrap();
    }
    let mut expected: Vec<_> = pushed
        .manifest
        .shards
        .iter()
        .flat_map(|shard| [image_key(&shard.image), parts_key(&shard.image)])
        .collect();
    expected.push(manifest_key(MODEL, 7, &pushed.id));
    expected.sort();
    assert_eq!(keys_of(&world), expected);

    // Again, at another time: nothing is sent, and the manifest that is there stays the only one.
    let later = Push { created: "2026-11-27T00:00:00Z".into(), ..push(&world.key, files()) };
    let again = world.store.push(&later, &StoreOptions::new()).unwrap();
    assert_eq!((again.sent, again.present, again.manifest_present), (0, 3, true));
    assert_eq!(again.id, pushed.id);
    assert_eq!(keys_of(&world), expected);
}

#[test]
fn a_revision_is_not_pushed_with_other_content() {
    let world = World::new();
    let pushed = world.push(vec![world.file("one", 5000)]);
    let other = push(&world.key, vec![world.file("other", 5000)]);
    let refused = world.store.push(&other, &StoreOptions::new()).unwrap_err();
    let StoreError::Taken { manifest, revision: 7, .. } = refused else { panic!("{refused}") };
    assert_eq!(*manifest, pushed.id);
    let next = Push { revision: 8, ..other };
    assert!(world.store.push(&next, &StoreOptions::new()).is_ok());
}

/// An interrupted push: cut at each of its writes in turn. Nothing names what is not whole, and the
/// next push sends what is missing.
#[test]
fn a_push_that_fails_at_any_write_leaves_nothing_that_is_named() {
    let world = World::new();
    let files = || vec![world.file("one", 20_000), world.file("two", 3000)];
    let mut writes = 0;
    loop {
        let broken = Watched::dropping(&world.objects, writes);
        let outcome = broken.push(&push(&world.key, files()), &StoreOptions::new());
        let listed = world.store.list_manifests(None, &StoreOptions::new()).unwrap();
        if outcome.is_ok() {
            assert_eq!(listed.len(), 1);
            break;
        }
        assert!(listed.is_empty(), "after {writes} writes");
        writes += 1;
    }
    // Five objects in all: each push went on where the one before it stopped.
    assert_eq!(writes, 3);
    assert!(world.manifest(7).shards().len() == 2);
}

#[test]
fn what_a_store_does_not_keep_is_not_named() {
    let world = World::new();
    for lie in [Lie::Flip(0, 1), Lie::Short(1), Lie::Long(1), Lie::Absent] {
        let liar = Liar::store("liar", &world.objects, lie.clone());
        let file = world.file("one", 20_000);
        let refused = liar.push(&push(&world.key, vec![file]), &StoreOptions::new()).unwrap_err();
        assert!(matches!(refused, StoreError::NotKept { .. }), "{lie:?}: {refused}");
        assert!(world.store.list_manifests(None, &StoreOptions::new()).unwrap().is_empty());
    }
}

/// A folder on a disk, with an image of several parts.
#[test]
fn a_folder_is_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let len = (8 << 20) + 12_345;
    let address = format!("file://{}/new/store", folder.path().display());
    assert!(Store::open(&address).is_err(), "it is not there");
    let store = Store::open_or_create(&address).unwrap();
    let pushed =
        store.push(&push(&key(), vec![world.file("big", len)]), &StoreOptions::new()).unwrap();
    let wanted = vram_store::Wanted { model: MODEL, revision: 7, pin: Some(&pushed.id) };
    let manifest = store.manifest(&wanted, &world.keys, &StoreOptions::new()).unwrap();
    assert!(manifest.is_pinned());
    let pull = Pull::new(&manifest, &world.keys, b"", &store);
    assert_eq!(load(&pull, 0).unwrap(), content("big", len));
    let by_pin = store.pinned_manifest(&wanted, &StoreOptions::new()).unwrap();
    assert!(!by_pin.is_keyed());
    let images = Pull::without_key(&by_pin, &store).to_folder(&folder.path().join("out")).unwrap();
    let image = std::fs::read(images[0].path()).unwrap();
    assert_eq!(vram_store::ImageId::of(&image), pushed.manifest.shards[0].image);
}

/// A wrong manifest is found by the next push, and mended by what that push knows, or by a mirror.
#[test]
fn a_manifest_that_is_wrong_in_the_store_is_mended_or_named() {
    let world = World::new();
    let files = || vec![world.file("one", 5000)];
    let pushed = world.push(files());
    let key = manifest_key(MODEL, 7, &pushed.id);
    let good = pushed.manifest.to_bytes();
    let mirror = World::new();
    put(&mirror, &key, good.clone());
    let created = good.windows(7).position(|here| here == b"created").unwrap() + 10;
    let mut flipped = good.clone();
    flipped[created + 3] ^= 1;
    for (wrong, mirrors, mended) in [
        (flipped, vec![], true),
        (b"{}".to_vec(), vec![mirror.store.clone()], true),
        (vec![b'x'; 17 << 20], vec![mirror.store.clone()], true),
        (b"{}".to_vec(), vec![World::new().store], false),
    ] {
        put(&world, &key, wrong);
        let later =
            Push { created: "2026-11-27T00:00:00Z".into(), mirrors, ..push(&world.key, files()) };
        let mut events = Vec::new();
        let again = world.store.push(&later, &noting(&mut events)).unwrap();
        assert_eq!(again.mended.contains(&pushed.id), mended);
        let told = |event: &StoreEvent| match event {
            StoreEvent::ManifestMended { manifest, .. } => mended && *manifest == pushed.id,
            StoreEvent::ManifestRefused { manifest, .. } => !mended && *manifest == pushed.id,
            _ => false,
        };
        assert!(events.iter().any(told), "{events:?}");
        let sound = verify(&world.store, VerifyMeans::Keyless);
        assert_eq!(sound.is_sound(), mended, "{sound:?}");
        if mended {
            assert!(again.manifest_present && again.id == pushed.id, "no second one is written");
        } else {
            assert_eq!(again.wrong[0].key, key);
            assert!(again.id != pushed.id && sound.manifests == 1);
        }
    }
}

/// Nothing is sealed or sent for what no manifest can name.
#[test]
fn what_no_manifest_can_name_is_refused_before_anything_is_sent() {
    let world = World::new();
    let files = || vec![world.file("one", 5000)];
    let long = "x".repeat(300);
    for wrong in [
        Push { ranks: vec![vec![1]], ..push(&world.key, files()) },
        Push { ranks: vec![vec![0, 0]], ..push(&world.key, files()) },
        Push { fleet: Some(&long), ..push(&world.key, files()) },
        Push { created: "now".into(), ..push(&world.key, files()) },
        Push { model: "", ..push(&world.key, files()) },
    ] {
        let refused = world.store.push(&wrong, &StoreOptions::new()).unwrap_err();
        assert!(matches!(refused, StoreError::Config { .. }), "{refused}");
    }
    assert!(keys_of(&world).is_empty());
}
