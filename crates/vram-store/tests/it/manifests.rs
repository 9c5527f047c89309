//! Which manifest is believed: by key, by pin; the rollback that the pin closes.

use std::fs;
use std::slice;
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_seal::{KeyRing, SealKey};
use vram_store::object_store::ObjectStoreExt as _;
use vram_store::{
    Cache, Manifest, ManifestError, ManifestId, Pull, Push, StoreError, StoreEvent, StoreOptions,
    Wanted, manifest_key,
};

use crate::support::{MODEL, World, content, load, noting, push, put};

fn find(world: &World, pin: Option<&ManifestId>) -> Result<ManifestId, StoreError> {
    let wanted = Wanted { model: MODEL, revision: 7, pin };
    let found = world.store.manifest(&wanted, &world.keys, &StoreOptions::new());
    found.map(|trusted| *trusted.id())
}

/// The same content at another time is the same manifest to a reader.
fn re_signed(manifest: &Manifest, key: &SealKey, change: impl FnOnce(&mut Manifest)) -> Manifest {
    let mut other = manifest.clone();
    change(&mut other);
    other.signed(&key.manifest_key())
}

#[test]
fn two_manifests_of_one_key_are_refused_unless_their_time_alone_differs() {
    let world = World::new();
    let pushed = world.push(vec![world.file("one", 5000)]);
    let later = re_signed(&pushed.manifest, &world.key, |other| {
        other.created = "2027-01-01T00:00:00Z".into();
    });
    put(&world, &manifest_key(MODEL, 7, &later.id()), later.to_bytes());
    let lowest = pushed.id.min(later.id());
    assert_eq!(find(&world, None).unwrap(), lowest);
    assert_eq!(find(&world, Some(&later.id())).unwrap(), later.id());

    let other = re_signed(&pushed.manifest, &world.key, |other| other.fleet = Some("x".into()));
    put(&world, &manifest_key(MODEL, 7, &other.id()), other.to_bytes());
    let refused = find(&world, None).unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, StoreError::Ambiguous { .. }), "{text}");
    for id in [&pushed.id, &other.id()] {
        assert!(text.contains(&id.to_string()), "{text}");
        assert_eq!(find(&world, Some(id)).unwrap(), *id, "a pin leaves nothing to choose");
    }
}

/// Rotation: each reader takes the manifest whose key it has.
#[test]
fn manifests_of_two_keys_do_not_disturb_each_other() {
    let world = World::new();
    let other = SealKey::from_bytes(&[8; 32]);
    let pushed = world.push(vec![world.file("one", 5000)]);
    let file = world.file("one", 5000);
    let by_other = world.store.push(&push(&other, vec![file]), &StoreOptions::new()).unwrap();
    assert_ne!(by_other.manifest.shards[0].image, pushed.manifest.shards[0].image);
    assert_eq!(find(&world, None).unwrap(), pushed.id);
    let keys = KeyRing::new(other);
    let wanted = Wanted { model: MODEL, revision: 7, pin: None };
    let found = world.store.manifest(&wanted, &keys, &StoreOptions::new()).unwrap();
    assert_eq!(*found.id(), by_other.id);
    let neither = KeyRing::new(SealKey::from_bytes(&[9; 32]));
    let refused = world.store.manifest(&wanted, &neither, &StoreOptions::new()).unwrap_err();
    assert!(!refused.is_integrity(), "{refused}");
    assert!(refused.to_string().contains("needs the key"), "{refused}");
}

#[test]
fn a_manifest_under_a_name_that_is_not_its_own_is_refused() {
    let world = World::new();
    let pushed = world.push(vec![world.file("one", 5000)]);
    let key = manifest_key(MODEL, 7, &pushed.id);
    let mut bytes = pushed.manifest.to_bytes();
    bytes[100] ^= 1;
    put(&world, &key, bytes);
    for pin in [None, Some(&pushed.id)] {
        let refused = find(&world, pin).unwrap_err();
        assert!(refused.is_integrity(), "{refused}");
        let StoreError::Manifest { source, .. } = refused else { panic!("{refused}") };
        assert!(matches!(*source, ManifestError::Digest { .. }), "{source}");
    }
    // A good one, in the place of another revision.
    let eight = manifest_key(MODEL, 8, &pushed.id);
    put(&world, &eight, pushed.manifest.to_bytes());
    let wanted = Wanted { model: MODEL, revision: 8, pin: None };
    let refused = world.store.manifest(&wanted, &world.keys, &StoreOptions::new()).unwrap_err();
    assert!(refused.to_string().contains("revision 7"), "{refused}");
}

/// The hole that the seal format admits: an older valid object of the same model and context. Here an
/// attacker brings back the older manifest with its images, under the same revision.
#[test]
fn a_pin_refuses_an_older_manifest_of_the_same_revision_and_key() {
    let world = World::new();
    let old = world.push(vec![world.file("old", 5000)]);
    let aside = old.manifest.to_bytes();
    let (objects, key) = (Arc::clone(&world.objects), manifest_key(MODEL, 7, &old.id));
    let delete = async move { objects.delete(&key.as_str().into()).await.unwrap() };
    futures_util::FutureExt::now_or_never(delete).unwrap();
    let new = world.push(vec![world.file("new", 5000)]);
    let (objects, key) = (Arc::clone(&world.objects), manifest_key(MODEL, 7, &new.id));
    let delete = async move { objects.delete(&key.as_str().into()).await.unwrap() };
    futures_util::FutureExt::now_or_never(delete).unwrap();
    put(&world, &manifest_key(MODEL, 7, &old.id), aside);

    // Without a pin the older one is believed: that is what the pin is for.
    assert_eq!(find(&world, None).unwrap(), old.id);
    let refused = find(&world, Some(&new.id)).unwrap_err();
    assert!(matches!(refused, StoreError::NotFound { .. }), "{refused}");
    let under_its_name = manifest_key(MODEL, 7, &new.id);
    put(&world, &under_its_name, old.manifest.to_bytes());
    let refused = find(&world, Some(&new.id)).unwrap_err();
    assert!(refused.is_integrity(), "{refused}");
}

#[test]
fn images_of_another_context_are_refused() {
    let world = World::new();
    let tenant = Push { context: b"tenant-1", ..push(&world.key, vec![world.file("one", 5000)]) };
    world.store.push(&tenant, &StoreOptions::new()).unwrap();
    let manifest = world.manifest(7);
    for wrong in [&b""[..], b"tenant-2"] {
        let pull = Pull::new(&manifest, &world.keys, wrong, &world.store);
        let refused = pull.verify(0).unwrap_err();
        assert!(matches!(refused, StoreError::Seal(_)), "{refused}");
    }
    Pull::new(&manifest, &world.keys, b"tenant-1", &world.store).verify(0).unwrap();
    let pull = Pull::new(&manifest, &world.keys, b"tenant-1", &world.store);
    // The importer of these tests expects no context.
    assert!(load(&pull, 0).is_err());
    assert_eq!(content("one", 3).len(), 3);
}

/// A mirror or a cache with a wrong manifest is named, and so is a wrong one beside the good one.
#[test]
fn a_source_with_a_wrong_manifest_is_named_and_passed_over() {
    let world = World::new();
    let pushed = world.push(vec![world.file("one", 5000)]);
    let key = manifest_key(MODEL, 7, &pushed.id);
    let mut wrong = pushed.manifest.to_bytes();
    wrong[40] ^= 1;
    let mirror = World::new();
    put(&mirror, &key, wrong.clone());
    let mirrors = [mirror.store.clone(), World::new().store];
    let cache = Cache::open(world.folder.path().join("cache"), ByteLen::new(1 << 20)).unwrap();
    let kept = world.folder.path().join("cache").join(&key);
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    fs::write(&kept, &wrong).unwrap();
    let wanted = Wanted { model: MODEL, revision: 7, pin: Some(&pushed.id) };
    let mut events = Vec::new();
    let found = world.store.manifest_from(
        Some(&cache),
        &mirrors,
        &wanted,
        Some(&world.keys),
        &noting(&mut events),
    );
    assert_eq!(*found.unwrap().id(), pushed.id);
    let refused: Vec<_> = events.iter().filter_map(refused_at).collect();
    assert_eq!(refused, [cache_name(&world), "bucket".to_owned()], "{events:?}");
    assert_eq!(fs::read(&kept).unwrap(), pushed.manifest.to_bytes(), "the cache has the right one");
    let gave_up = |event: &StoreEvent| match event {
        StoreEvent::GaveUp { why, .. } => why.contains("is not there"),
        _ => false,
    };
    assert!(events.iter().any(gave_up), "the second mirror has none: {events:?}");

    let later = re_signed(&pushed.manifest, &world.key, |other| {
        other.created = "2027-01-01T00:00:00Z".into();
    });
    put(&world, &manifest_key(MODEL, 7, &later.id()), wrong);
    let mut events = Vec::new();
    let wanted = Wanted { pin: None, ..wanted };
    let found = world.store.manifest(&wanted, &world.keys, &noting(&mut events)).unwrap();
    assert_eq!(*found.id(), pushed.id);
    assert_eq!(events.iter().filter_map(refused_at).count(), 1, "{events:?}");
}

/// Without a pin the store's listing alone says which manifests there are; their bytes may come from elsewhere.
#[test]
fn a_mirror_gives_the_bytes_of_a_manifest_that_the_store_lists_and_no_other() {
    let world = World::new();
    let pushed = world.push(vec![world.file("one", 5000)]);
    let key = manifest_key(MODEL, 7, &pushed.id);
    let (good, bad) = (World::new(), World::new());
    put(&good, &key, pushed.manifest.to_bytes());
    put(&bad, &key, b"{}".to_vec());
    let older = re_signed(&pushed.manifest, &world.key, |other| other.fleet = Some("old".into()));
    put(&good, &manifest_key(MODEL, 7, &older.id()), older.to_bytes());
    let wanted = Wanted { model: MODEL, revision: 7, pin: None };
    let mut events = Vec::new();
    let mut find = |mirrors: &[vram_store::Store]| {
        let options = noting(&mut events);
        world.store.manifest_from(None, mirrors, &wanted, Some(&world.keys), &options)
    };
    assert_eq!(
        *find(slice::from_ref(&bad.store)).unwrap().id(),
        pushed.id,
        "named, and passed over"
    );
    put(&world, &key, b"{}".to_vec());
    let found = find(slice::from_ref(&good.store)).unwrap();
    assert_eq!((*found.id(), found.is_pinned()), (pushed.id, false));
    assert!(find(&[bad.store]).unwrap_err().is_integrity());
    let (objects, gone) = (Arc::clone(&world.objects), key.as_str().into());
    let delete = async move { objects.delete(&gone).await.unwrap() };
    futures_util::FutureExt::now_or_never(delete).unwrap();
    let refused = find(&[good.store]).unwrap_err();
    assert!(matches!(refused, StoreError::NotFound { .. }), "nothing is brought back: {refused}");
    assert_eq!(events.iter().filter_map(refused_at).count(), 2, "{events:?}");
}

fn refused_at(event: &StoreEvent) -> Option<String> {
    match event {
        StoreEvent::ManifestRefused { source, .. } => Some(source.to_string()),
        _ => None,
    }
}

fn cache_name(world: &World) -> String {
    world.folder.path().join("cache").display().to_string()
}
