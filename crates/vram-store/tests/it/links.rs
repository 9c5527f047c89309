//! Links and other odd things in a store or a cache: read, told, and never a way to files of others.

use core::time::Duration;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use vram_alloc::ByteLen;
use vram_store::{
    Cache, Pull, Push, Pushed, Store, StoreError, StoreEvent, StoreOptions, VerifyMeans, image_key,
    manifest_key, model_folder, parts_key,
};

use crate::support::{MODEL, World, load, noting, push, verify};

/// A store in a folder, with one image under revision 7.
struct Local {
    world: World,
    store: Store,
    pushed: Pushed,
}

impl Local {
    fn new() -> Self {
        let world = World::new();
        let root = world.folder.path().join("store");
        let store = Store::open_or_create(root.to_str().unwrap()).unwrap();
        let files = vec![world.file("one", 9000)];
        let pushed = store.push(&push(&world.key, files), &StoreOptions::new()).unwrap();
        Self { world, store, pushed }
    }

    fn at(&self, key: &str) -> PathBuf {
        self.world.folder.path().join("store").join(key)
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.world.folder.path().join(name)
    }

    /// The keys of the image and its parts.
    fn objects(&self) -> [String; 2] {
        let image = self.pushed.manifest.shards[0].image;
        [image_key(&image), parts_key(&image)]
    }

    fn whole(&self) -> bool {
        self.objects().iter().all(|key| self.at(key).is_file())
    }

    fn push_again(&self, options: &StoreOptions<'_>) -> Result<Pushed, StoreError> {
        let again = push(&self.world.key, vec![self.beside("one")]);
        self.store.push(&Push { created: "2026-11-27T00:00:00Z".into(), ..again }, options)
    }

    fn collect(&self) -> Result<vram_store::Collected, StoreError> {
        self.store.collect(Duration::ZERO, true, &StoreOptions::new())
    }
}

fn move_behind_link(folder: &Path, to: &Path) {
    fs::rename(folder, to).unwrap();
    symlink(to, folder).unwrap();
}

fn age(path: &Path, age: Duration) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

/// Only a mark is waited for, and only a mark is ever removed.
#[test]
fn what_is_no_mark_is_neither_waited_for_nor_deleted() {
    let local = Local::new();
    let collecting = local.at("v1/collecting");
    fs::create_dir_all(collecting.join("dir/sub")).unwrap();
    fs::create_dir_all(local.beside("victim/deep")).unwrap();
    let long_ago = Duration::from_hours(2);
    let mark = "0123456789abcdef";
    let mut files = vec![local.beside("victim/deep/thesis"), local.beside("victim").join(mark)];
    for name in ["notes.txt", "dir/sub/f", "0123456789ABCDEF", "0123456789abcdef0"] {
        files.push(collecting.join(name));
    }
    files.push(collecting.join("dir").join(mark));
    for file in &files {
        fs::write(file, b"important").unwrap();
        age(file, long_ago);
    }
    symlink(local.beside("victim"), collecting.join("x")).unwrap();
    symlink(local.beside("victim").join(mark), collecting.join(mark)).unwrap();
    fs::create_dir(collecting.join("00000000000000aa")).unwrap();
    let in_time = || StoreOptions::new().deadline(Duration::from_secs(20));
    local.push_again(&in_time()).unwrap();
    let found = local.collect().unwrap();
    assert_eq!(found.strange.len(), 7, "{found:?}");
    assert!(found.marks.is_empty() && found.dead_marks.is_empty(), "{found:?}");

    // The folder itself is a link.
    let moved = local.beside("moved");
    move_behind_link(&collecting, &moved);
    fs::write(moved.join("00000000000000bb"), b"collecting").unwrap();
    local.push_again(&in_time()).unwrap();
    assert_eq!(local.collect().unwrap().strange, ["v1/collecting"]);
    fs::remove_file(local.at(&manifest_key(MODEL, 7, &local.pushed.id))).unwrap();
    let refused = local.collect().unwrap_err().to_string();
    assert!(refused.contains("v1/collecting is a link"), "{refused}");
    assert!(local.whole());
    fs::remove_file(&collecting).unwrap();
    fs::rename(&moved, &collecting).unwrap();
    assert!(files.iter().all(|file| file.exists()), "{files:?}");
}

/// The wait is told at once, and the next collection removes what a killed one left.
#[test]
fn a_push_tells_that_it_waits_and_the_next_collection_removes_a_dead_mark() {
    let local = Local::new();
    fs::create_dir_all(local.at("v1/collecting")).unwrap();
    let key = "v1/collecting/0123456789abcdef";
    fs::write(local.at(key), b"collecting").unwrap();
    let mut events = Vec::new();
    let options = noting(&mut events).deadline(Duration::from_secs(1));
    let late = local.push_again(&options).unwrap_err();
    drop(options);
    assert!(matches!(late, StoreError::Deadline { .. }), "{late}");
    let told = events.iter().filter_map(|event| match event {
        StoreEvent::WaitsForCollection { mark, dead_after, .. } => Some((&**mark, *dead_after)),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert!(matches!(told[..], [(mark, after)] if mark == key && after < Duration::from_mins(1)));
    let looked = local.store.collect(Duration::ZERO, false, &StoreOptions::new()).unwrap();
    assert_eq!(looked.marks, [key]);
    // One that may be alive stays.
    assert_eq!(local.collect().unwrap().marks, [key]);
    age(&local.at(key), Duration::from_mins(10));
    assert_eq!(local.collect().unwrap().dead_marks, [key]);
    local.push_again(&StoreOptions::new().deadline(Duration::from_secs(20))).unwrap();
}

/// What cannot be looked into could name images.
#[test]
fn a_folder_of_manifests_that_leads_nowhere_is_found_and_nothing_is_deleted() {
    let local = Local::new();
    let folder = local.at(&model_folder(MODEL));
    let refused = |what: &str| {
        let error = local.collect().unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        assert!(local.whole());
    };
    let nowhere = |folder: &Path| {
        move_behind_link(folder, &local.beside("external"));
        assert!(verify(&local.store, VerifyMeans::Keyless).is_sound());
        fs::rename(local.beside("external"), local.beside("unmounted")).unwrap();
    };
    let back = |folder: &Path| {
        fs::remove_file(folder).unwrap();
        fs::rename(local.beside("unmounted"), folder).unwrap();
        assert!(verify(&local.store, VerifyMeans::Keyless).is_sound());
    };
    nowhere(&folder);
    refused("a link that leads nowhere");
    let verdict = verify(&local.store, VerifyMeans::Keyless);
    assert_eq!(verdict.findings[0].key, model_folder(MODEL), "{verdict:?}");
    back(&folder);
    for above in ["v1/models", "v1"] {
        nowhere(&local.at(above));
        let error = local.collect().unwrap_err().to_string();
        assert!(error.contains("is a link that leads nowhere"), "{error}");
        let all = vram_store::Sample::All;
        let verdict = local.store.verify(None, VerifyMeans::Keyless, all, &StoreOptions::new());
        assert!(verdict.is_err(), "{verdict:?}");
        back(&local.at(above));
    }
    // A folder in place of a manifest, and what is neither file nor folder.
    let manifest = local.at(&manifest_key(MODEL, 7, &local.pushed.id));
    fs::rename(&manifest, local.beside("kept")).unwrap();
    fs::create_dir(&manifest).unwrap();
    refused("a folder");
    assert!(!verify(&local.store, VerifyMeans::Keyless).is_sound());
    fs::remove_dir(&manifest).unwrap();
    fs::rename(local.beside("kept"), &manifest).unwrap();
    let pipe = local.at("v1/models/pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    refused("a pipe");
    assert!(!verify(&local.store, VerifyMeans::Keyless).is_sound());
    fs::remove_file(&pipe).unwrap();
    assert!(local.collect().is_ok() && local.whole());
}

/// Behind a link to a folder lies what is of somebody else.
#[test]
fn a_collection_and_a_push_change_nothing_behind_a_link_to_a_folder() {
    let local = Local::new();
    let [image, parts] = local.objects();
    let folder = local.at(&image).parent().unwrap().to_path_buf();
    for (turn, linked) in [folder, local.at("v1/images"), local.at("v1")].iter().enumerate() {
        let other = local.beside("other");
        move_behind_link(linked, &other);
        assert!(verify(&local.store, VerifyMeans::Keyless).is_sound(), "it is read");
        let manifest = local.at(&manifest_key(MODEL, 7, &local.pushed.id));
        let bytes = fs::read(&manifest).unwrap();
        fs::remove_file(&manifest).unwrap();
        if turn < 2 {
            let found = local.collect().unwrap();
            assert_eq!(found.behind_links, [parts.clone(), image.clone()], "{found:?}");
            assert!(found.unnamed.is_empty(), "{found:?}");
        } else {
            let _refused = local.collect();
        }
        assert!(local.whole());
        fs::write(&manifest, bytes).unwrap();
        // Wrong bytes there are not written over.
        let good = fs::read(local.at(&image)).unwrap();
        fs::write(local.at(&image), b"of somebody else").unwrap();
        age(&local.at(&image), Duration::from_hours(2));
        let before = fs::metadata(local.at(&image)).unwrap().modified().unwrap();
        let refused = local.push_again(&StoreOptions::new()).unwrap_err().to_string();
        assert!(refused.contains("is a link, and nothing is written"), "{refused}");
        assert_eq!(fs::read(local.at(&image)).unwrap(), b"of somebody else");
        assert_eq!(fs::metadata(local.at(&image)).unwrap().modified().unwrap(), before);
        fs::write(local.at(&image), good).unwrap();
        fs::remove_file(linked).unwrap();
        fs::rename(other, linked).unwrap();
    }
}

#[test]
fn a_cache_changes_nothing_behind_a_link_to_a_folder() {
    let local = Local::new();
    let [image, _] = local.objects();
    let other = local.store.push(
        &Push { revision: 8, ..push(&local.world.key, vec![local.world.file("two", 9000)]) },
        &StoreOptions::new(),
    );
    let wanted = vram_store::Wanted { model: MODEL, revision: 8, pin: None };
    let found = local.store.manifest(&wanted, &local.world.keys, &StoreOptions::new());
    let (manifest, second) = (found.unwrap(), other.unwrap().manifest.shards[0].image);
    let first_folder = Path::new(&image).parent().unwrap().to_path_buf();
    for linked in [Path::new("v1/images"), &first_folder] {
        let folder = local.beside("cache");
        let cache = Cache::open(&folder, ByteLen::new(15_000)).unwrap();
        fs::create_dir_all(folder.join(linked).parent().unwrap()).unwrap();
        symlink(local.beside("store").join(linked), folder.join(linked)).unwrap();
        assert_eq!(cache.used(), ByteLen::ZERO, "what lies there is not the cache's");
        let pull = Pull::new(&manifest, &local.world.keys, b"", &local.store).cache(&cache);
        let fetched = pull.to_cache();
        let is_linked = linked == Path::new("v1/images");
        assert_eq!(fetched.is_err(), is_linked, "{fetched:?}");
        load(&pull, 0).unwrap();
        drop(pull);
        assert!(local.whole() && local.at(&image_key(&second)).is_file());
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// The name of a manifest without its bytes is told, and mended where the bytes can be had.
#[test]
fn a_push_tells_of_a_manifest_that_is_a_link_to_nothing() {
    let local = Local::new();
    let key = manifest_key(MODEL, 7, &local.pushed.id);
    fs::remove_file(local.at(&key)).unwrap();
    symlink("/nonexistent/q", local.at(&key)).unwrap();
    let pushed = local.push_again(&StoreOptions::new()).unwrap();
    assert_eq!(pushed.wrong.len(), 1, "{pushed:?}");
    assert_eq!(pushed.wrong[0].key, key);
    assert!(pushed.wrong[0].why.to_string().contains("leads nowhere"), "{pushed:?}");
    // In the same second it has the same bytes.
    let again = push(&local.world.key, vec![local.beside("one")]);
    let again = local.store.push(&again, &StoreOptions::new()).unwrap();
    assert_eq!(again.mended, [local.pushed.id]);
    assert!(verify(&local.store, VerifyMeans::Keyless).is_sound());
}

/// A pipe and a socket cannot be read, and are replaced; a folder is told.
#[test]
fn a_push_replaces_what_is_no_file() {
    let local = Local::new();
    for key in local.objects() {
        fs::remove_file(local.at(&key)).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(local.at(&key)).status().unwrap();
        assert!(pipe.success());
        local.push_again(&StoreOptions::new()).unwrap();
        assert!(verify(&local.store, VerifyMeans::Keyless).is_sound(), "{key}");
        fs::remove_file(local.at(&key)).unwrap();
        drop(std::os::unix::net::UnixListener::bind(local.at(&key)).unwrap());
        local.push_again(&StoreOptions::new()).unwrap();
        assert!(verify(&local.store, VerifyMeans::Keyless).is_sound(), "{key}");
        fs::remove_file(local.at(&key)).unwrap();
        fs::create_dir(local.at(&key)).unwrap();
        assert!(local.push_again(&StoreOptions::new()).is_err());
        fs::remove_dir(local.at(&key)).unwrap();
    }
}

/// What lies under the name of an unfinished pull is taken over if a pull can have left it there.
#[test]
fn a_pull_goes_on_in_no_file_of_others() {
    let local = Local::new();
    let wanted = vram_store::Wanted { model: MODEL, revision: 7, pin: None };
    let found = local.store.manifest(&wanted, &local.world.keys, &StoreOptions::new());
    let manifest = found.unwrap();
    let pull = Pull::new(&manifest, &local.world.keys, b"", &local.store);
    let out = local.beside("out");
    fs::create_dir(&out).unwrap();
    let partial = out.join(format!(".vram-{}.pull", manifest.shards()[0].image));
    fs::write(local.beside("mine"), b"mine").unwrap();
    fs::hard_link(local.beside("mine"), &partial).unwrap();
    let refused = pull.to_folder(&out).unwrap_err().to_string();
    assert!(refused.contains("another name"), "{refused}");
    assert_eq!(fs::read(local.beside("mine")).unwrap(), b"mine");
    fs::remove_file(&partial).unwrap();
    fs::write(&partial, b"begun").unwrap();
    fs::set_permissions(&partial, PermissionsExt::from_mode(0o644)).unwrap();
    let images = pull.to_folder(&out).unwrap();
    let mode = fs::metadata(images[0].path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Files beside the objects of a store are no business of it; among them, images would be strangers.
#[test]
fn a_pull_writes_into_no_store_and_a_store_is_made_in_none() {
    let local = Local::new();
    let wanted = vram_store::Wanted { model: MODEL, revision: 7, pin: None };
    let found = local.store.manifest(&wanted, &local.world.keys, &StoreOptions::new());
    let manifest = found.unwrap();
    let pull = Pull::new(&manifest, &local.world.keys, b"", &local.store);
    for among in ["", "v1", "v1/models", "v1/new/deep"] {
        let refused = pull.to_folder(&local.at(among)).unwrap_err();
        assert!(matches!(refused, StoreError::Config { .. }), "{among}: {refused}");
    }
    for among in ["v1", "v1/models/new"] {
        let refused = Store::open_or_create(local.at(among).to_str().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("among the objects"), "{refused}");
        assert!(!local.at("v1/models/new").exists());
    }
    pull.to_folder(&local.at("beside")).unwrap();
    assert!(!local.at("00000.vseal").exists() && !local.at("v1/new").exists());
}

/// A folder of manifests may be of somebody else: it is read, and said.
#[test]
fn a_link_to_a_folder_of_manifests_is_named() {
    let local = Local::new();
    let told = |events: &[StoreEvent]| {
        let link = |event: &StoreEvent| match event {
            StoreEvent::FollowsLink { link, .. } => Some(link.to_string()),
            _ => None,
        };
        events.iter().filter_map(link).collect::<Vec<_>>()
    };
    let list = |local: &Local| {
        let mut events = Vec::new();
        let listed = local.store.list_manifests(None, &noting(&mut events)).unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
        told(&events)
    };
    assert!(list(&local).is_empty());
    for linked in [model_folder(MODEL), "v1/models".to_owned()] {
        move_behind_link(&local.at(&linked), &local.beside("other"));
        assert_eq!(list(&local), [&*linked]);
        let mut events = Vec::new();
        local.store.collect(Duration::ZERO, false, &noting(&mut events)).unwrap();
        assert_eq!(told(&events), [&*linked]);
        fs::remove_file(local.at(&linked)).unwrap();
        fs::rename(local.beside("other"), local.at(&linked)).unwrap();
    }
}
