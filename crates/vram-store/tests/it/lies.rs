//! P75: for any lie of a source, the same bytes, or an error that names source and part.

use vram_seal::{Protection, SealParams};
use vram_store::{Cause, Part, Pull, Push, Store, StoreError, StoreEvent, StoreOptions};

use crate::liar::{Liar, Lie};
use crate::support::{World, content, load, noting, push, refusal};

/// Three segments of 4096 bytes, the last one short.
const LEN: usize = 10_000;
const SEGMENT: u64 = 4096;
/// Record, table and padding of such an image.
const HEAD: u64 = 4096;

fn world() -> World {
    let world = World::new();
    world.push(vec![world.file("model", LEN)]);
    world
}

/// What an altered byte at this position of the image must be found as.
fn part_at(at: u64) -> Part {
    match at {
        0..256 => Part::Record,
        256..400 => Part::Table,
        400..HEAD => Part::Padding,
        _ => Part::Segment((at - HEAD) / SEGMENT),
    }
}

fn lies_of(error: &StoreError) -> Vec<(String, Part)> {
    let StoreError::NoSource { causes, .. } = error else { panic!("{error}") };
    let lie = |cause: &Cause| match cause {
        Cause::Lied(lie) => Some((lie.source.to_string(), lie.part)),
        _ => None,
    };
    causes.iter().filter_map(lie).collect()
}

fn plain_len(world: &World) -> usize {
    usize::try_from(world.manifest(7).shards()[0].plaintext_len).unwrap()
}

/// Loads from a liar alone, and then from a liar before an honest store; by stream and by file.
fn try_lie(world: &World, lie: &Lie, expected: Option<Part>) {
    let manifest = world.manifest(7);
    let liar = Liar::store("liar", &world.objects, lie.clone());
    let expect = |lies: Vec<(String, Part)>| {
        assert_eq!(lies.len(), 1, "{lie:?}: {lies:?}");
        assert_eq!(lies[0].0, "liar");
        match expected {
            Some(part) => assert_eq!(lies[0].1, part, "{lie:?}"),
            None => assert!(matches!(lies[0].1, Part::Length { .. }), "{lie:?}: {lies:?}"),
        }
    };
    let mut events = Vec::new();
    let alone = Pull::new(&manifest, &world.keys, b"", &liar).options(noting(&mut events));
    let refused = refusal(load(&alone, 0));
    assert!(refused.is_integrity(), "{refused}");
    expect(lies_of(&refused));
    drop(alone);

    let told = |events: &[StoreEvent]| {
        let lie = |event: &StoreEvent| match event {
            StoreEvent::SourceLied(lie) => Some((lie.source.to_string(), lie.part)),
            _ => None,
        };
        events.iter().filter_map(lie).collect::<Vec<_>>()
    };
    expect(told(&events));

    let mut events = Vec::new();
    let both = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&liar);
    let both = both.options(noting(&mut events));
    assert_eq!(load(&both, 0).unwrap(), content("model", plain_len(world)), "{lie:?}");
    drop(both);
    expect(told(&events));
}

/// As [`try_lie`], into a folder, which is left without the file.
fn try_lie_to_folder(world: &World, lie: &Lie, expected: Option<Part>) {
    let manifest = world.manifest(7);
    let liar = Liar::store("liar", &world.objects, lie.clone());
    let folder = tempfile::tempdir().unwrap();
    let mut events = Vec::new();
    let alone = Pull::new(&manifest, &world.keys, b"", &liar).options(noting(&mut events));
    let refused = alone.to_folder(folder.path()).unwrap_err();
    let lies = lies_of(&refused);
    assert_eq!(lies.len(), 1, "{lie:?}: {lies:?}");
    assert!(expected.is_none_or(|part| part == lies[0].1), "{lie:?}: {lies:?}");
    assert!(!folder.path().join("00000.vseal").exists());
    drop(alone);

    // Without the key: the same verdict, by parts.
    let by_pin = world.store.pinned_manifest(
        &vram_store::Wanted { model: crate::support::MODEL, revision: 7, pin: Some(manifest.id()) },
        &StoreOptions::new(),
    );
    let by_pin = by_pin.unwrap();
    let alone = Pull::without_key(&by_pin, &liar).options(noting(&mut events));
    let lies = lies_of(&alone.to_folder(folder.path()).unwrap_err());
    assert!(matches!(lies[0].1, Part::FilePart(0) | Part::Length { .. }), "{lie:?}: {lies:?}");
    assert!(!folder.path().join("00000.vseal").exists());
    drop(alone);

    let both = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&liar);
    let images = both.to_folder(folder.path()).unwrap();
    assert_eq!(std::fs::read(images[0].path()).unwrap(), world.image(7), "{lie:?}");
}

#[test]
fn every_altered_byte_of_an_image_is_found_where_it_is() {
    let small = World::new();
    small.push(vec![small.file("model", 4396)]);
    let len = u64::try_from(small.image(7).len()).unwrap();
    assert_eq!(len, HEAD + 4396);
    for at in 0..len {
        // The table of two segments ends earlier than that of three.
        let part = if (352..400).contains(&at) { Part::Padding } else { part_at(at) };
        try_lie(&small, &Lie::Flip(at, 1 << (at % 8)), Some(part));
    }
    let world = world();
    let len = u64::try_from(world.image(7).len()).unwrap();
    for at in [0, 239, 255, 256, 399, 400, HEAD - 1, HEAD, HEAD + SEGMENT, len - 1] {
        try_lie_to_folder(&world, &Lie::Flip(at, 0x40), Some(part_at(at)));
    }
}

#[test]
fn wrong_lengths_swaps_and_other_images_are_found() {
    let world = world();
    let segment = |n: u64| HEAD + n * SEGMENT..HEAD + (n + 1) * SEGMENT;
    let entry = |n: u64| 256 + n * 48..256 + (n + 1) * 48;
    let mut older = push(&world.key, vec![world.file("older", LEN)]);
    older.revision = 6;
    world.store.push(&older, &StoreOptions::new()).unwrap();
    let older = world.image(6);
    let own = world.image(7);
    let spliced =
        [&own[..usize::try_from(HEAD).unwrap()], &older[usize::try_from(HEAD).unwrap()..]];
    for (lie, part) in [
        (Lie::Short(1), None),
        (Lie::Short(u64::MAX), None),
        (Lie::Long(1), None),
        (Lie::Long(100_000), None),
        (Lie::ShortAnswers, None),
        (Lie::LongAnswers, None),
        (Lie::Swap(segment(0), segment(1)), Some(Part::Segment(0))),
        (Lie::Swap(entry(0), entry(1)), Some(Part::Table)),
        (Lie::Swap(segment(1), segment(0)), Some(Part::Segment(0))),
        (Lie::Instead(vec![0; own.len()]), Some(Part::Record)),
        // The older one is valid under the same key, for the same model and of the same length.
        (Lie::Instead(older.clone()), Some(Part::Record)),
        (Lie::Instead(spliced.concat()), Some(Part::Segment(0))),
    ] {
        try_lie(&world, &lie, part);
        try_lie_to_folder(&world, &lie, part);
    }
}

/// A holder of the key can make a second content for one record's tags; the digest behind the seal
/// shows it. Here: an authenticated image, which holds plaintext.
#[test]
fn an_authenticated_image_is_verified_as_strictly() {
    let world = World::new();
    let params = SealParams::new().with_protection(Protection::Authenticated);
    let params = params.with_segment(push(&world.key, vec![]).params.segment());
    let files = vec![world.file("model", LEN)];
    let plain = Push { params, ..push(&world.key, files.clone()) };
    let refused = world.store.push(&plain, &StoreOptions::new()).unwrap_err();
    assert!(refused.to_string().contains("plaintext"), "{refused}");
    let plain = Push { plaintext: true, ..plain };
    world.store.push(&plain, &StoreOptions::new()).unwrap();
    let manifest = world.manifest(7);
    assert_eq!(
        load(&Pull::new(&manifest, &world.keys, b"", &world.store), 0).unwrap(),
        content("model", LEN)
    );
    for at in [HEAD, HEAD + SEGMENT, HEAD + 9_999] {
        try_lie(&world, &Lie::Flip(at, 1), Some(part_at(at)));
    }
}

/// A source that lied about one image is not asked for the next one.
#[test]
fn a_liar_is_left_out_for_the_whole_call() {
    let world = World::new();
    world.push(vec![world.file("one", LEN), world.file("two", LEN)]);
    let manifest = world.manifest(7);
    let liar = Liar::store("liar", &world.objects, Lie::Flip(HEAD, 1));
    let folder = tempfile::tempdir().unwrap();
    let mut events = Vec::new();
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&liar);
    let pull = pull.options(noting(&mut events));
    assert_eq!(pull.to_folder(folder.path()).unwrap().len(), 2);
    drop(pull);
    let lied = events.iter().filter(|event| matches!(event, StoreEvent::SourceLied(_)));
    assert_eq!(lied.count(), 1);
}

/// Two liars and no honest source: both are named.
#[test]
fn all_liars_are_named_if_no_source_is_left() {
    let world = world();
    let manifest = world.manifest(7);
    let one = Liar::store("one", &world.objects, Lie::Flip(HEAD, 1));
    let two = Liar::store("two", &world.objects, Lie::Flip(HEAD + SEGMENT, 1));
    let absent = Store::folder(world.folder.path()).unwrap();
    let pull = Pull::new(&manifest, &world.keys, b"", &absent).mirror(&one).mirror(&two);
    let error = refusal(load(&pull, 0));
    let lies = lies_of(&error);
    assert_eq!(lies, [("one".into(), Part::Segment(0)), ("two".into(), Part::Segment(1))]);
    assert!(error.to_string().contains("it is not there"), "{error}");
}
