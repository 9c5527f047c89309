//! A collection beside a push, in every order of their calls.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex};

use vram_store::{
    Push, Pushed, Store, StoreError, StoreOptions, VerifyMeans, image_key, manifest_key, parts_key,
};

use crate::support::{MODEL, World, key, push, remove, verify};
use crate::through::{Before, Through};

/// Runs something before the call of this number, from 0.
struct At {
    left: AtomicU64,
    run: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// What runs before a call holds up one of the few threads of all stores: with two at once, none is left on a
/// small machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl core::fmt::Debug for At {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("At").finish_non_exhaustive()
    }
}

impl At {
    fn store(world: &World, call: u64, run: impl FnOnce() + Send + 'static) -> Store {
        let run: Box<dyn FnOnce() + Send> = Box::new(run);
        let at = Self { left: AtomicU64::new(call), run: Mutex::new(Some(run)) };
        Store::over("watched", Through::of(world.objects.clone(), at))
    }
}

#[async_trait::async_trait]
impl Before for At {
    fn call(&self) {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(left.saturating_sub(1))
        });
        if left == Ok(0)
            && let Some(run) = self.run.lock().unwrap().take()
        {
            // Calls on a store are made from threads that are not the store's own.
            std::thread::spawn(run).join().unwrap();
        }
    }
}

/// A store with the images of a push that was cut off before its manifest.
fn begun() -> World {
    let world = World::new();
    let pushed = world.push(vec![world.file("one", 9000), world.file("two", 5000)]);
    remove(&world, &manifest_key(MODEL, 7, &pushed.id));
    world
}

fn push_again(store: &Store, folder: &std::path::Path) -> Result<Pushed, StoreError> {
    let key = key();
    let again = push(&key, vec![folder.join("one"), folder.join("two")]);
    let again = Push { created: "2026-11-27T00:00:00Z".into(), ..again };
    store.push(&again, &StoreOptions::new().deadline(Duration::from_secs(30)))
}

fn collect(store: &Store) {
    // With no grace, everything is old enough: the hardest case.
    let outcome = store.collect(Duration::ZERO, true, &StoreOptions::new());
    assert!(outcome.is_ok(), "{outcome:?}");
}

fn is_whole(world: &World, at: &str) {
    let verdict = verify(&world.store, VerifyMeans::Keyless);
    assert!(verdict.is_sound() && verdict.manifests == 1, "{at}: {verdict:?}");
}

#[test]
fn a_push_beside_a_collection_leaves_no_manifest_without_its_images() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // A whole collection at each moment of a push.
    for call in 0.. {
        let world = begun();
        let (inner, ran) = (world.store.clone(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&ran);
        let store = At::store(&world, call, move || {
            collect(&inner);
            counted.store(1, Ordering::Relaxed);
        });
        push_again(&store, world.folder.path()).unwrap();
        is_whole(&world, &format!("a collection before call {call} of the push"));
        if ran.load(Ordering::Relaxed) == 0 {
            assert!(call > 10, "{call} calls");
            break;
        }
    }
    // A push that begins at each moment of a collection, and waits for it where it must.
    for call in 0.. {
        let world = begun();
        let (inner, folder) = (world.store.clone(), world.folder.path().to_path_buf());
        let pushing = Arc::new(Mutex::new(None));
        let started = Arc::clone(&pushing);
        let store = At::store(&world, call, move || {
            let one = std::thread::spawn(move || push_again(&inner, &folder));
            let began = std::time::Instant::now();
            while !one.is_finished() && began.elapsed() < Duration::from_millis(150) {
                std::thread::sleep(Duration::from_millis(2));
            }
            *started.lock().unwrap() = Some(one);
        });
        collect(&store);
        let Some(push) = pushing.lock().unwrap().take() else {
            assert!(call > 5, "{call} calls");
            break;
        };
        push.join().unwrap().unwrap();
        is_whole(&world, &format!("a push before call {call} of the collection"));
    }
}

/// What a push finds there counts as young from then on; a collection looks again before it deletes.
#[test]
fn a_push_makes_what_it_finds_young_and_a_collection_leaves_no_mark() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::folder(folder.path()).unwrap();
    let files = || vec![world.file("one", 9000)];
    let pushed = store.push(&push(&world.key, files()), &StoreOptions::new()).unwrap();
    let image = pushed.manifest.shards[0].image;
    let objects = [image_key(&image), parts_key(&image)].map(|key| folder.path().join(key));
    let old = std::time::SystemTime::now() - Duration::from_hours(48);
    let age = || {
        for object in &objects {
            std::fs::File::options().append(true).open(object).unwrap().set_modified(old).unwrap();
        }
    };
    age();
    store.push(&push(&world.key, files()), &StoreOptions::new()).unwrap();
    for object in &objects {
        assert!(std::fs::metadata(object).unwrap().modified().unwrap() > old, "{object:?}");
    }
    age();
    std::fs::remove_file(folder.path().join(manifest_key(MODEL, 7, &pushed.id))).unwrap();
    let grace = Duration::from_hours(24);
    let found = store.collect(grace, true, &StoreOptions::new()).unwrap();
    assert_eq!((found.unnamed.len(), found.deleted), (2, true), "{found:?}");
    assert!(objects.iter().all(|object| !object.exists()));
    assert_eq!(std::fs::read_dir(folder.path().join("v1/collecting")).unwrap().count(), 0);
}

/// Each looks after it has written: at least one of the two finds both, and the verdict on the store does.
#[test]
fn two_pushes_of_one_revision_with_other_content_are_told_and_the_store_is_not_sound() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // The other one as a whole at each moment of the first.
    let mut both = 0;
    for call in 0.. {
        let world = World::new();
        let (one, two) = (world.file("one", 5000), world.file("two", 5000));
        let (inner, outcome) = (world.store.clone(), Arc::new(Mutex::new(None)));
        let told = Arc::clone(&outcome);
        let store = At::store(&world, call, move || {
            let options = StoreOptions::new().deadline(Duration::from_secs(30));
            let other = inner.push(&push(&key(), vec![two]), &options);
            *told.lock().unwrap() = Some(other.map(|pushed| pushed.id));
        });
        let first = store.push(&push(&key(), vec![one]), &StoreOptions::new());
        let Some(second) = outcome.lock().unwrap().take() else {
            assert!(call > 10, "{call} calls");
            break;
        };
        let keys = [VerifyMeans::Keyless, VerifyMeans::Keys(&world.keys, None)];
        let manifests = world.store.list_manifests(None, &StoreOptions::new()).unwrap();
        assert!(first.is_err() || second.is_err(), "{call}: {first:?}");
        for means in keys {
            let verdict = verify(&world.store, means);
            assert_eq!(verdict.is_sound(), manifests.len() == 1, "{call}: {verdict:?}");
            if manifests.len() == 2 {
                assert!(verdict.findings[0].what.contains(&manifests[1].key), "{verdict:?}");
                let Err(StoreError::Rivals { keys, .. }) = &first else { panic!("{first:?}") };
                assert!(manifests.iter().all(|one| keys.contains(&one.key)), "{keys:?}");
                both += 1;
            }
        }
    }
    assert!(both > 0, "the pushes did not meet");
}
