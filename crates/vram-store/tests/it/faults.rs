//! Sources that fail: tried again by range, given up, timed, cancelled.

use core::time::Duration;
use std::process::Command;
use std::time::Instant;

use vram_files::CancelToken;
use vram_store::{
    Pull, Store, StoreError, StoreEvent, StoreOptions, Wanted, image_key, manifest_key,
};

use crate::liar::{Liar, Lie};
use crate::support::{
    ImportError, MODEL, World, admit, altered, content, load, noting, open, push, refusal,
};

const LEN: usize = 300_000;

fn world() -> World {
    let world = World::new();
    world.push(vec![world.file("model", LEN)]);
    world
}

#[test]
fn a_range_is_tried_again_and_not_the_whole_load() {
    let world = world();
    let manifest = world.manifest(7);
    for lie in [Lie::FailFirst(2), Lie::Reset(2), Lie::Stall(1)] {
        let slow = Liar::store("slow", &world.objects, lie.clone());
        let mut events = Vec::new();
        let pull = Pull::new(&manifest, &world.keys, b"", &slow).options(noting(&mut events));
        assert_eq!(load(&pull, 0).unwrap(), content("model", LEN), "{lie:?}");
        drop(pull);
        let again = events.iter().filter(|event| matches!(event, StoreEvent::Retried { .. }));
        assert!((1..=2).contains(&again.count()), "{lie:?}: {events:?}");
        assert!(!events.iter().any(|event| matches!(event, StoreEvent::SourceLied(_))));
    }
}

/// A file of this machine is asked once more as well before it is out.
#[test]
fn one_wrong_read_of_a_file_does_not_put_its_source_out() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::folder(folder.path()).unwrap();
    let files = vec![world.folder.path().join("model")];
    store.push(&push(&world.key, files), &StoreOptions::new()).unwrap();
    let manifest = world.manifest(7);
    let object = folder.path().join(image_key(&manifest.shards()[0].image));
    let good = std::fs::read(&object).unwrap();
    let mut wrong = good.clone();
    wrong[200_000] ^= 1;
    for times in [1, 2] {
        let mut events = Vec::new();
        let pull = Pull::new(&manifest, &world.keys, b"", &store).options(noting(&mut events));
        let mut calls = 0;
        std::fs::write(&object, &wrong).unwrap();
        let loaded = pull.load(0, altered, |reader| {
            let outcome = admit(reader);
            calls += 1;
            if calls == times {
                std::fs::write(&object, &good).unwrap();
            }
            outcome
        });
        assert_eq!(loaded.is_ok(), times == 1, "{times}");
        assert_eq!(calls, 2);
        drop(pull);
        let lied = events.iter().any(|event| matches!(event, StoreEvent::SourceLied(_)));
        assert_eq!(lied, times == 2, "{events:?}");
    }
}

#[test]
fn a_source_that_goes_on_failing_is_given_up_and_the_next_one_serves() {
    let world = world();
    let manifest = world.manifest(7);
    for (lie, why) in [
        (Lie::FailFirst(u64::MAX), "503 Slow Down"),
        (Lie::Reset(u64::MAX), "503 Slow Down"),
        (Lie::Stall(u64::MAX), "no answer within"),
        (Lie::Absent, " is not there"),
        (Lie::Denied, ""),
    ] {
        let broken = Liar::store("broken", &world.objects, lie.clone());
        let mut events = Vec::new();
        let pull = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&broken);
        let pull = pull.options(noting(&mut events));
        assert_eq!(load(&pull, 0).unwrap(), content("model", LEN), "{lie:?}");
        drop(pull);
        let gave_up = |event: &StoreEvent| match event {
            StoreEvent::GaveUp { source, why: told } => &**source == "broken" && told.contains(why),
            _ => false,
        };
        assert!(events.iter().any(gave_up), "{lie:?}: {events:?}");

        let mut events = Vec::new();
        let alone = Pull::new(&manifest, &world.keys, b"", &broken).options(noting(&mut events));
        let refused = refusal(load(&alone, 0));
        assert!(!refused.is_integrity(), "{refused}");
        assert!(refused.to_string().contains(why), "{refused}");
    }
}

#[test]
fn one_deadline_and_one_token_end_the_whole_call() {
    let world = world();
    let manifest = world.manifest(7);
    let never = Liar::store("never", &world.objects, Lie::Stall(u64::MAX));
    let began = Instant::now();
    let options = StoreOptions::new().deadline(Duration::from_millis(100));
    let pull = Pull::new(&manifest, &world.keys, b"", &never).options(options);
    assert!(matches!(refusal(load(&pull, 0)), StoreError::Deadline { .. }));
    let options = StoreOptions::new().deadline_since(began, Duration::from_millis(100));
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store).options(options);
    let late = refusal(load(&pull, 0));
    assert!(late.to_string().contains("within 100ms"), "the time that was given: {late}");
    let token = CancelToken::new();
    let options = StoreOptions::new().cancel(token.clone());
    let pull = Pull::new(&manifest, &world.keys, b"", &never).options(options);
    let cancelling = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        token.cancel();
    });
    assert!(matches!(refusal(load(&pull, 0)), StoreError::Cancelled));
    cancelling.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// However long the image: so many ranges are in memory, and no more.
#[test]
fn no_more_ranges_are_asked_for_than_the_window_has_room_for() {
    let world = World::new();
    world.push(vec![world.file("model", 3_000_000)]);
    let manifest = world.manifest(7);
    let (counting, most) = crate::liar::Watched::counting(&world.objects);
    let options = StoreOptions::new().range_len(64 << 10).in_flight(3);
    let pull = Pull::new(&manifest, &world.keys, b"", &counting).options(options);
    assert_eq!(load(&pull, 0).unwrap().len(), 3_000_000);
    let most = most.load(core::sync::atomic::Ordering::Relaxed);
    assert!((1..=3).contains(&most), "{most}");
}

/// A mirror of this machine is read as a file; what happens to that file meanwhile ends no load.
#[test]
fn a_file_that_ends_or_goes_while_it_is_read_is_asked_for_again_and_then_the_next_source() {
    for lost in [Some(0), Some(50_000), Some(150_000), None] {
        let world = World::new();
        world.push(vec![world.file("model", 300_000)]);
        let manifest = world.manifest(7);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(image_key(&manifest.shards()[0].image));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, world.image(7)).unwrap();
        let mirror = Store::folder(folder.path()).unwrap();
        let mut events = Vec::new();
        let mut calls = 0;
        let pull = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&mirror);
        let loaded = pull.options(noting(&mut events)).load(0, altered, |reader| {
            calls += 1;
            if calls == 1 {
                let mut first = vec![0; 100_000];
                std::io::Read::read_exact(reader, &mut first).map_err(|_| ImportError::Read)?;
                match lost {
                    Some(len) => {
                        let file = std::fs::File::options().write(true).open(&file).unwrap();
                        file.set_len(len).unwrap();
                    }
                    // The open file stays readable: no loss at all.
                    None => std::fs::remove_file(&file).unwrap(),
                }
                let mut rest = Vec::new();
                std::io::Read::read_to_end(reader, &mut rest).map_err(|_| ImportError::Read)?;
                return open(&[first, rest].concat()).map_err(ImportError::Seal);
            }
            admit(reader)
        });
        assert_eq!(loaded.unwrap(), content("model", 300_000), "{lost:?}");
        assert_eq!(calls, if lost.is_some() { 2 } else { 1 });
        let lied = events.iter().any(|event| matches!(event, StoreEvent::SourceLied(_)));
        assert_eq!(lied, lost.is_some(), "a file of another length is a wrong one: {events:?}");
    }
}

/// What is no regular file is refused at once: a pipe would keep its reader for ever.
#[test]
fn a_pipe_in_the_place_of_an_image_or_a_manifest_is_no_source() {
    let world = World::new();
    world.push(vec![world.file("model", LEN)]);
    let manifest = world.manifest(7);
    let folder = tempfile::tempdir().unwrap();
    let pipe = |key: &str| {
        let path = folder.path().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    pipe(&image_key(&manifest.shards()[0].image));
    pipe(&manifest_key(MODEL, 7, manifest.id()));
    let pipes = Store::folder(folder.path()).unwrap();
    let began = Instant::now();
    let mut events = Vec::new();
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&pipes);
    let pull = pull.options(noting(&mut events));
    assert_eq!(load(&pull, 0).unwrap(), content("model", LEN));
    drop(pull);
    let told = |event: &StoreEvent| match event {
        StoreEvent::GaveUp { why, .. } => why.contains("it is a pipe"),
        _ => false,
    };
    assert!(events.iter().any(told), "{events:?}");
    let wanted = Wanted { model: MODEL, revision: 7, pin: Some(manifest.id()) };
    let refused = pipes.manifest(&wanted, &world.keys, &StoreOptions::new()).unwrap_err();
    assert!(refused.to_string().contains("it is a pipe"), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// A range beyond the end is known by the length of the object, not by words of its store.
#[test]
fn an_object_that_is_too_short_is_a_wrong_one_whatever_its_store_says() {
    let world = world();
    let manifest = world.manifest(7);
    for by in [0, 1000] {
        let short = Liar::store("short", &world.objects, Lie::NoRange(by));
        let mut events = Vec::new();
        let alone = Pull::new(&manifest, &world.keys, b"", &short).options(noting(&mut events));
        let refused = refusal(load(&alone, 0));
        assert_eq!(refused.is_integrity(), by > 0, "{refused}");
        assert!(by > 0 || refused.to_string().contains("lengthy trouble"), "{refused}");
    }
}
