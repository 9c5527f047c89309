//! The cache folder: bounded, filled by the pass that loads, verified on every use; interrupted pulls.

use std::fs;

use vram_alloc::ByteLen;
use vram_store::{
    Cache, ImageId, ManifestId, Pull, Push, Store, StoreError, StoreEvent, StoreOptions,
    VerifyMeans, Wanted, image_key, manifest_key,
};

use crate::liar::{Liar, Lie};
use crate::support::{MODEL, World, content, load, noting, push, verify};

const LEN: usize = 20_000;

fn world() -> World {
    let world = World::new();
    world.push(vec![world.file("one", LEN), world.file("two", LEN)]);
    world
}

fn cache(world: &World, limit: u64) -> Cache {
    Cache::open(world.folder.path().join("cache"), ByteLen::new(limit)).unwrap()
}

fn path(world: &World, image: &ImageId) -> std::path::PathBuf {
    world.folder.path().join("cache").join(image_key(image))
}

#[test]
fn what_is_loaded_is_cached_by_the_same_pass_and_used_without_the_store() {
    let world = world();
    let (manifest, cache) = (world.manifest(7), cache(&world, 1 << 20));
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store).cache(&cache);
    assert_eq!(load(&pull, 0).unwrap(), content("one", LEN));
    let first = &manifest.shards()[0];
    assert_eq!(ImageId::of(&fs::read(path(&world, &first.image)).unwrap()), first.image);
    assert_eq!(cache.used().get(), first.image_len);
    let gone = Liar::store("gone", &world.objects, Lie::Absent);
    let pull = Pull::new(&manifest, &world.keys, b"", &gone).cache(&cache);
    assert_eq!(load(&pull, 0).unwrap(), content("one", LEN));
    assert!(load(&pull, 1).is_err(), "the second one is not in the cache");
}

/// Wrong bytes in a cache are not used, do not stay, and cost nothing but the way to the next source.
#[test]
fn a_wrong_file_in_the_cache_is_dropped_named_and_replaced() {
    let world = world();
    let (manifest, cache) = (world.manifest(7), cache(&world, 1 << 20));
    let image = manifest.shards()[0].image;
    let fill = Pull::new(&manifest, &world.keys, b"", &world.store).cache(&cache);
    assert_eq!(fill.to_cache().unwrap().len(), 2);
    let good = fs::read(path(&world, &image)).unwrap();
    for at in [0, 240, 300, 3000, 4096, 9000, good.len() - 1, usize::MAX] {
        for by_stream in [true, false] {
            let mut wrong = good.clone();
            match wrong.get_mut(at) {
                Some(byte) => *byte ^= 1,
                None => wrong.truncate(10_000),
            }
            fs::write(path(&world, &image), &wrong).unwrap();
            let mut events = Vec::new();
            let pull = Pull::new(&manifest, &world.keys, b"", &world.store).cache(&cache);
            let pull = pull.options(noting(&mut events));
            if by_stream {
                assert_eq!(load(&pull, 0).unwrap(), content("one", LEN), "{at}");
            } else {
                assert_eq!(pull.to_cache().unwrap().len(), 2);
            }
            drop(pull);
            assert_eq!(fs::read(path(&world, &image)).unwrap(), good, "{at}, {by_stream}");
            let dropped = |event: &StoreEvent| match event {
                StoreEvent::Dropped { path: at, .. } => *at == path(&world, &image),
                _ => false,
            };
            let told = events.iter().any(dropped);
            assert!(told || at == usize::MAX, "{at}, {by_stream}: {events:?}");
        }
    }
}

#[test]
fn a_cache_without_room_is_told_before_the_first_byte_and_stops_no_load() {
    let world = world();
    let manifest = world.manifest(7);
    let small = cache(&world, manifest.shards()[0].image_len + 10);
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store).cache(&small);
    let refused = pull.to_cache().unwrap_err();
    assert!(matches!(refused, StoreError::NoRoom { .. }), "{refused}");
    assert_eq!(small.used(), ByteLen::ZERO);
    assert_eq!(load(&pull, 0).unwrap(), content("one", LEN));
    assert_eq!(small.used().get(), manifest.shards()[0].image_len);
    // The second one has no room beside the first, which belongs to the same model.
    assert_eq!(load(&pull, 1).unwrap(), content("two", LEN));
    assert_eq!(small.used().get(), manifest.shards()[0].image_len);
}

/// For repairs: any range of the content, opened, and a source that lies about it is left out.
#[test]
fn the_content_can_be_read_at_any_position_around_a_liar() {
    use vram_files::Source as _;

    let world = world();
    let manifest = world.manifest(7);
    let expected = content("two", LEN);
    let liar = Liar::store("liar", &world.objects, Lie::Flip(9000, 1));
    let mut events = Vec::new();
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&liar);
    let pull = pull.options(noting(&mut events).range_len(64 << 10));
    let source = pull.content(1).unwrap();
    assert_eq!(source.len(), 20_000);
    for (offset, len) in [(0, 20_000), (0, 0), (20_000, 0), (4095, 2), (8192, 4096), (19_999, 1)] {
        let mut found = vec![0; len];
        source.read_at(offset, &mut found).unwrap();
        let from = usize::try_from(offset).unwrap();
        assert_eq!(found, expected[from..from + len], "{offset}, {len}");
    }
    assert!(source.read_at(19_999, &mut [0; 2]).is_err());
    assert!(source.read_at(u64::MAX, &mut [0; 2]).is_err());
    drop(source);
    drop(pull);
    assert!(events.iter().any(|event| matches!(event, StoreEvent::SourceLied(_))));
}

/// What lies there is proven again, and only what is missing is fetched.
#[test]
fn an_interrupted_pull_goes_on_from_what_is_proven() {
    let world = World::new();
    world.push(vec![world.file("model", 1 << 20)]);
    let manifest = world.manifest(7);
    let shard = &manifest.shards()[0];
    let whole = tempfile::tempdir().unwrap();
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store);
    let images = pull.to_folder(whole.path()).unwrap();
    assert_eq!(images[0].shard(), shard);
    let good = fs::read(images[0].path()).unwrap();
    let end = good.len() - 1;
    for (there, wrong) in
        [(0, None), (100, None), (300_000, None), (300_000, Some(250_000)), (end, Some(3))]
    {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join(format!(".vram-{}.pull", shard.image));
        let mut left = good[..there].to_vec();
        if let Some(at) = wrong {
            left[at] ^= 1;
        }
        fs::write(&partial, &left).unwrap();
        let mut events = Vec::new();
        let options = noting(&mut events).range_len(64 << 10);
        let pull = Pull::new(&manifest, &world.keys, b"", &world.store).options(options);
        let images = pull.to_folder(folder.path()).unwrap();
        drop(pull);
        assert_eq!(fs::read(images[0].path()).unwrap(), good, "{there}, {wrong:?}");
        assert!(!partial.exists());
        let resumed = events.iter().find_map(|event| match event {
            StoreEvent::Progress { done, source, .. } if &**source == "resumed" => Some(*done),
            _ => None,
        });
        let proven = usize::try_from(resumed.unwrap()).unwrap();
        let first_wrong = wrong.unwrap_or(there);
        assert!(proven <= first_wrong, "{proven} of {first_wrong}");
        assert!(
            proven == 0 || proven + (64 << 10) + 4096 > first_wrong,
            "{proven} of {first_wrong}"
        );
    }
}

/// What makes room in a cache would remove the store's own images.
#[test]
fn a_store_is_no_cache_of_itself() {
    let world = world();
    let manifest = world.manifest(7);
    let at = |name: &str| world.folder.path().join(name);
    let store = Store::open_or_create(at("store").to_str().unwrap()).unwrap();
    let local = push(&world.key, vec![at("one"), at("two")]);
    store.push(&local, &StoreOptions::new()).unwrap();
    std::os::unix::fs::symlink(at("store"), at("link")).unwrap();
    for place in ["store", "link", "link/v1"] {
        assert!(Cache::check_apart(at(place), [&store]).is_err(), "{place}");
        // Whatever the caller names as its stores.
        let refused = Cache::open(at(place), ByteLen::new(1)).unwrap_err();
        assert!(refused.to_string().contains("a folder of its own"), "{refused}");
    }
    for place in ["store/new", "link/new2"] {
        assert!(Cache::check_apart(at(place), [&store]).is_err(), "{place}");
        let cache = Cache::open(at(place), ByteLen::new(1)).unwrap();
        let pull = Pull::new(&manifest, &world.keys, b"", &store).cache(&cache);
        let refused = pull.to_cache().unwrap_err();
        assert!(refused.to_string().contains("a folder of its own"), "{refused}");
        assert_eq!(load(&pull, 0).unwrap(), content("one", LEN));
    }
    assert!(Cache::check_apart(at("apart"), [&store]).is_ok() && !at("apart").exists());
    assert!(verify(&store, VerifyMeans::Keyless).is_sound());
}

/// The cache is a source as well: with a key by its segments, without one by the digest of the whole file.
#[test]
fn what_a_cache_has_is_pulled_into_it_without_another_source() {
    let world = world();
    let (manifest, cache) = (world.manifest(7), cache(&world, 1 << 20));
    Pull::new(&manifest, &world.keys, b"", &world.store).cache(&cache).to_cache().unwrap();
    let gone = Liar::store("gone", &world.objects, Lie::Absent);
    let image = manifest.shards()[1].image;
    for keyed in [true, false] {
        let keys = &world.keys;
        let pull = || {
            let by_key = keyed.then(|| Pull::new(&manifest, keys, b"", &gone));
            by_key.unwrap_or_else(|| Pull::without_key(&manifest, &gone)).cache(&cache)
        };
        assert_eq!(pull().to_cache().unwrap().len(), 2, "{keyed}");
        let good = fs::read(path(&world, &image)).unwrap();
        let mut wrong = good.clone();
        wrong[9000] ^= 1;
        fs::write(path(&world, &image), wrong).unwrap();
        let refused = pull().to_cache().unwrap_err();
        assert!(matches!(refused, StoreError::NoSource { .. }), "{refused}");
        fs::write(path(&world, &image), good).unwrap();
    }
    // The pin alone proves the manifest that was kept.
    cache.keep_manifest(&manifest);
    let wanted = Wanted { model: MODEL, revision: 7, pin: Some(manifest.id()) };
    let found = gone.manifest_from(Some(&cache), &[], &wanted, None, &StoreOptions::new());
    assert_eq!(found.unwrap().id(), manifest.id());
}

/// A repair that meets a wrong file in the cache leaves it there no more than a load does.
#[test]
fn a_wrong_file_of_the_cache_is_dropped_by_whoever_reads_the_content() {
    use vram_files::Source as _;

    let world = world();
    let (manifest, cache) = (world.manifest(7), cache(&world, 1 << 20));
    let image = manifest.shards()[0].image;
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store).cache(&cache);
    pull.to_cache().unwrap();
    for at in [0, 9000] {
        let mut wrong = fs::read(path(&world, &image)).unwrap();
        wrong[at] ^= 1;
        fs::write(path(&world, &image), wrong).unwrap();
        let mut found = vec![0; LEN];
        pull.content(0).unwrap().read_at(0, &mut found).unwrap();
        assert_eq!(found, content("one", LEN));
        assert!(!path(&world, &image).exists(), "{at}");
        pull.to_cache().unwrap();
    }
}

/// A share that is not mounted is no store that has nothing, and what a source lacks is named, once.
#[test]
fn a_folder_that_is_not_there_and_an_image_that_is_not_there_are_told() {
    let world = world();
    let manifest = world.manifest(7);
    let at = world.folder.path().join("share");
    let share = Store::open_or_absent(at.to_str().unwrap()).unwrap();
    let wanted = Wanted { model: MODEL, revision: 7, pin: None };
    for pin in [None, Some(manifest.id())] {
        let refused = share.manifest(&Wanted { pin, ..wanted }, &world.keys, &StoreOptions::new());
        let refused = refused.unwrap_err();
        assert!(
            matches!(&refused, StoreError::Failed { why, .. }
            if why.contains("the folder of the store is not there")),
            "{refused}"
        );
    }
    fs::create_dir(&at).unwrap();
    let absent = share.manifest(&wanted, &world.keys, &StoreOptions::new()).unwrap_err();
    assert!(matches!(absent, StoreError::NotFound { .. }), "it was mounted: {absent}");

    let mut events = Vec::new();
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&share);
    let pull = pull.options(noting(&mut events));
    for shard in [0, 1] {
        load(&pull, shard).unwrap();
    }
    drop(pull);
    let lacks: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            StoreEvent::GaveUp { why, .. } => Some(why.clone()),
            _ => None,
        })
        .collect();
    let name = manifest.shards()[0].image.to_string();
    assert!(lacks.len() == 1 && lacks[0].contains(&name[..8]), "{lacks:?}");
}

/// What a pull did not write is not its own, whatever its name and length.
#[test]
fn a_pull_removes_no_file_and_replaces_none() {
    let world = world();
    let manifest = world.manifest(7);
    let out = world.folder.path().join("out");
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store);
    pull.to_folder(&out).unwrap();
    let other = world.store.push(
        &Push { revision: 8, ..push(&world.key, vec![world.file("else", LEN)]) },
        &StoreOptions::new(),
    );
    let other = other.unwrap().manifest.shards[0].image;
    let mine = fs::read(out.join("00000.vseal")).unwrap();
    let next = world.manifest(8);
    for foreign in [&mine[..], &mine[1..], b"notes"] {
        fs::write(out.join("00000.vseal"), foreign).unwrap();
        let refused = Pull::new(&next, &world.keys, b"", &world.store).to_folder(&out).unwrap_err();
        assert!(
            matches!(&refused, StoreError::InTheWay { path, image }
                if *path == out.join("00000.vseal") && *image == other),
            "{refused}"
        );
        assert_eq!(fs::read(out.join("00000.vseal")).unwrap(), foreign);
    }
    assert!(!out.join(format!(".vram-{other}.pull")).exists(), "nothing is left");
    fs::remove_file(out.join("00000.vseal")).unwrap();
    pull.to_folder(&out).unwrap();
    assert_eq!(fs::read(out.join("00000.vseal")).unwrap(), mine);
}

/// A name that is taken by a link to nothing is told at once: no file can be given that name.
#[test]
fn a_link_that_leads_nowhere_is_in_the_way_of_a_pull() {
    let world = world();
    let manifest = world.manifest(7);
    let out = world.folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let link = out.join("00000.vseal");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for keyed in [true, false] {
        let pull = if keyed {
            Pull::new(&manifest, &world.keys, b"", &world.store)
        } else {
            Pull::without_key(&manifest, &world.store)
        };
        let options = StoreOptions::new().deadline(core::time::Duration::from_secs(5));
        let refused = pull.options(options).to_folder(&out).unwrap_err();
        assert!(
            matches!(&refused, StoreError::InTheWay { path, .. } if *path == link),
            "{refused}"
        );
    }
    assert_eq!(fs::read_link(&link).unwrap(), std::path::Path::new("nowhere"));
    assert!(!out.join("nowhere").exists());
}

/// A manifest that is kept is found by its pin alone, believed no more than that of a store, and one of few.
#[test]
fn a_cache_gives_the_manifest_that_is_pinned_and_no_other() {
    let world = World::new();
    let cache = cache(&world, 1 << 20);
    let file = world.file("one", 100);
    let mut kept = Vec::new();
    for revision in 1..=20 {
        let push = Push { revision, ..push(&world.key, vec![file.clone()]) };
        drop(world.store.push(&push, &StoreOptions::new()).unwrap());
        let manifest = world.manifest(revision);
        cache.keep_manifest(&manifest);
        kept.push(*manifest.id());
    }
    let find = |revision: u64, pin: Option<&ManifestId>| {
        let wanted = Wanted { model: MODEL, revision, pin };
        cache.manifest(&wanted, &world.keys, &StoreOptions::new())
    };
    assert_eq!(*find(20, Some(&kept[19])).unwrap().id(), kept[19]);
    assert!(find(20, Some(&kept[19])).unwrap().is_pinned());
    assert!(matches!(find(20, None), Err(StoreError::Config { .. })));
    assert!(matches!(find(20, Some(&kept[18])), Err(StoreError::NotFound { .. })));
    let there = (1..=20).filter(|revision| {
        let pin = &kept[usize::try_from(*revision).unwrap() - 1];
        find(*revision, Some(pin)).is_ok()
    });
    assert_eq!(there.count(), 16, "the last ones");

    let path = world.folder.path().join("cache").join(manifest_key(MODEL, 20, &kept[19]));
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(find(20, Some(&kept[19])), Err(StoreError::Manifest { .. })));
    cache.keep_manifest(&world.manifest(20));
    find(20, Some(&kept[19])).unwrap();
}

/// Lower than what is there: applied by a call that fetches nothing, whatever it is.
#[test]
fn a_limit_holds_after_a_call_that_fetched_nothing() {
    let world = world();
    let manifest = world.manifest(7);
    let (first, second) = (&manifest.shards()[0], &manifest.shards()[1]);
    for turn in 0..3 {
        let large = cache(&world, 1 << 20);
        let fill = Pull::new(&manifest, &world.keys, b"", &world.store).cache(&large);
        fill.to_cache().unwrap();
        drop(fill);
        let small = cache(&world, second.image_len);
        let pull = Pull::new(&manifest, &world.keys, b"", &world.store).cache(&small);
        match turn {
            0 => drop(load(&pull, 1).unwrap()),
            1 => drop(pull.to_folder(&world.folder.path().join("out")).unwrap()),
            // Of a model that is larger than the limit, no image would stay.
            _ => {
                let refused = pull.to_cache().unwrap_err();
                assert!(matches!(refused, StoreError::NoRoom { .. }), "{refused}");
            }
        }
        drop(pull);
        assert!(small.used().get() <= second.image_len, "{turn}: {}", small.used());
        // The one that was used last stays.
        assert!(turn != 0 || path(&world, &second.image).exists());
        assert!(turn != 0 || !path(&world, &first.image).exists());
    }
}

/// A cache has images without digests of parts, and not all of them.
#[test]
fn a_cache_is_verified_as_what_it_is() {
    let world = world();
    let (manifest, cache) = (world.manifest(7), cache(&world, 1 << 20));
    Pull::new(&manifest, &world.keys, b"", &world.store).cache(&cache).to_cache().unwrap();
    cache.keep_manifest(&manifest);
    let folder = Store::folder(world.folder.path().join("cache")).unwrap();
    let (first, second) = (manifest.shards()[0].image, manifest.shards()[1].image);
    for means in [VerifyMeans::Keyless, VerifyMeans::Keys(&world.keys, None)] {
        let verdict = verify(&folder, means);
        assert!(verdict.is_sound() && verdict.cache, "{verdict:?}");
        assert_eq!((verdict.images, verdict.absent), (2, 0));
    }
    fs::remove_file(path(&world, &first)).unwrap();
    let mut wrong = fs::read(path(&world, &second)).unwrap();
    wrong[9000] ^= 1;
    fs::write(path(&world, &second), wrong).unwrap();
    for means in [VerifyMeans::Keyless, VerifyMeans::Keys(&world.keys, None)] {
        let verdict = verify(&folder, means);
        assert_eq!((verdict.images, verdict.absent), (0, 1), "{verdict:?}");
        assert_eq!(verdict.findings.len(), 1, "{verdict:?}");
        assert_eq!(verdict.findings[0].key, image_key(&second));
    }
    // As a mirror, it lacks what proves an image without the key, and that is said.
    let wanted = Wanted { model: MODEL, revision: 7, pin: Some(manifest.id()) };
    let pinned = folder.pinned_manifest(&wanted, &StoreOptions::new()).unwrap();
    let mut events = Vec::new();
    let gone = Liar::store("gone", &world.objects, Lie::Absent);
    let pull = Pull::without_key(&pinned, &gone).mirror(&folder).options(noting(&mut events));
    let refused = pull.verify(1).unwrap_err().to_string();
    drop(pull);
    assert!(refused.contains("the digests of its parts are not there"), "{refused}");
    let told = |event: &StoreEvent| match event {
        StoreEvent::GaveUp { why, .. } => why.contains("the digests of the parts of image"),
        _ => false,
    };
    assert!(events.iter().any(told), "{events:?}");
}

#[test]
fn a_cache_that_is_not_made_yet_is_no_mirror_of_itself() {
    let world = World::new();
    let at = world.folder.path().join("new");
    let mirror = Store::open_or_absent(at.to_str().unwrap()).unwrap();
    assert!(Cache::check_apart(&at, [&mirror]).is_err());
    assert!(!at.exists());
    // Nor is a cache made under the name of an address, or a link taken for its mark.
    for address in ["s3://bucket/x", "s3:/bucket", "~/cache"] {
        let refused = Cache::open(address, ByteLen::new(1)).unwrap_err().to_string();
        assert!(refused.contains("looks like an address"), "{refused}");
    }
    fs::create_dir(&at).unwrap();
    std::os::unix::fs::symlink("mark", at.join(".vram-cache")).unwrap();
    let refused = Cache::open(&at, ByteLen::new(1)).unwrap_err().to_string();
    assert!(refused.contains("is no regular file"), "{refused}");
}
