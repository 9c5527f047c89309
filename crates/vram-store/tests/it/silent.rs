//! Sources that never answer: passed over soon, remembered, and named at the deadline.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use vram_store::object_store::path::Path;
use vram_store::object_store::{Error, GetOptions, GetResult, ObjectStore, Result};
use vram_store::{
    ManifestId, Pull, Store, StoreError, StoreEvent, StoreOptions, Trusted, VerifyMeans, Wanted,
};

use crate::liar::{Liar, Lie};
use crate::support::{MODEL, World, content, load, noting, push, quick, refusal, verify};
use crate::through::{Before, Through};

const LEN: usize = 300_000;

/// What takes requests and answers none.
#[derive(Debug)]
struct Silent(Arc<AtomicU64>);

#[async_trait::async_trait]
impl Before for Silent {
    async fn read(&self, _: &dyn ObjectStore, _: &Path, _: GetOptions) -> Result<GetResult> {
        self.0.fetch_add(1, Ordering::Relaxed);
        core::future::pending().await
    }
}

/// A world with a revision, and a mirror that never answers, with how often it was asked.
fn world() -> (World, Store, Arc<AtomicU64>) {
    let world = World::new();
    world.push(vec![world.file("model", LEN)]);
    let asked = Arc::<AtomicU64>::default();
    let mirror = Through::of(world.objects.clone(), Silent(Arc::clone(&asked)));
    (world, Store::over("mirror", mirror), asked)
}

fn find(
    world: &World,
    mirror: &Store,
    pin: Option<&ManifestId>,
    options: &StoreOptions<'_>,
) -> core::result::Result<Trusted, StoreError> {
    let wanted = Wanted { model: MODEL, revision: 7, pin };
    world.store.manifest_from(
        None,
        core::slice::from_ref(mirror),
        &wanted,
        Some(&world.keys),
        options,
    )
}

#[test]
fn a_silent_mirror_costs_one_try_and_is_not_asked_first_again() {
    for pin in [true, false] {
        let (world, mirror, asked) = world();
        let id = *world.manifest(7).id();
        let pin = pin.then_some(&id);
        let mut events = Vec::new();
        for _ in 0..3 {
            let manifest = find(&world, &mirror, pin, &noting(&mut events)).unwrap();
            let pull = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&mirror);
            let pull = pull.options(noting(&mut events));
            assert_eq!(load(&pull, 0).unwrap(), content("model", LEN));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1, "{pin:?}: {events:?}");
        let told = |event: &&StoreEvent| matches!(event, StoreEvent::GaveUp { source, why } if &**source == "mirror" && why.contains("no answer within"));
        assert_eq!(events.iter().filter(told).count(), 1, "{events:?}");
    }
}

#[test]
fn a_silent_mirror_of_images_costs_as_many_tries_as_ranges_are_under_way() {
    let (world, mirror, asked) = world();
    let manifest = world.manifest(7);
    for _ in 0..2 {
        let options = quick().range_len(64 << 10).in_flight(2);
        let pull = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&mirror);
        assert_eq!(load(&pull.options(options), 0).unwrap(), content("model", LEN));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "its head");
}

/// The last source that is left has all tries, and one that stalled once is asked again if no other serves.
#[test]
fn the_last_source_keeps_its_tries() {
    let (world, mirror, asked) = world();
    let manifest = world.manifest(7);
    let pull = Pull::new(&manifest, &world.keys, b"", &mirror).options(quick());
    let refused = refusal(load(&pull, 0)).to_string();
    assert!(refused.contains("no answer within"), "{refused}");
    assert_eq!(asked.swap(0, Ordering::Relaxed), 3);
    let wanted = Wanted { model: MODEL, revision: 7, pin: Some(manifest.id()) };
    let alone = mirror.manifest(&wanted, &world.keys, &quick()).unwrap_err();
    assert!(alone.to_string().contains("no answer within"), "{alone}");
    assert_eq!(asked.load(Ordering::Relaxed), 3);

    let once = Liar::store("once", &world.objects, Lie::Stall(1));
    let none = Liar::store("none", &world.objects, Lie::Absent);
    let pull = Pull::new(&manifest, &world.keys, b"", &none).mirror(&once);
    let pull = pull.options(quick());
    assert_eq!(load(&pull, 0).unwrap(), content("model", LEN));
}

#[test]
fn a_deadline_names_the_sources_and_what_came_of_each() {
    let (world, mirror, _asked) = world();
    let manifest = world.manifest(7);
    let late = || StoreOptions::new().deadline(Duration::from_millis(150));
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&mirror);
    let said = refusal(load(&pull.options(late()), 0)).to_string();
    assert!(said.contains("within 150ms: mirror: no answer for 1"), "{said}");
    assert!(said.contains("bucket: not asked yet"), "{said}");
    // The next call asks the other one first, though the stall is longer than its time.
    let pull = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&mirror);
    let in_time = StoreOptions::new().deadline(Duration::from_secs(20));
    assert_eq!(load(&pull.options(in_time), 0).unwrap(), content("model", LEN));

    let (world, mirror, _asked) = self::world();
    let id = *world.manifest(7).id();
    let said = find(&world, &mirror, Some(&id), &late()).unwrap_err().to_string();
    assert!(said.contains("mirror: no answer for 1"), "{said}");
    assert!(said.contains("bucket: not asked yet"), "{said}");
    // What a source answered before is said as well.
    let options = StoreOptions::new().stall(Duration::from_millis(50));
    let options = options.attempts(100, Duration::ZERO).deadline(Duration::from_millis(400));
    let said = mirror.manifest(
        &Wanted { model: MODEL, revision: 7, pin: Some(&id) },
        &world.keys,
        &options,
    );
    let said = said.unwrap_err().to_string();
    assert!(said.contains("mirror: no answer within 50ms"), "{said}");
}

/// A person who waits learns for what, once.
#[test]
fn what_is_waited_for_is_told_once() {
    let (world, mirror, _asked) = world();
    let mut events = Vec::new();
    let options =
        noting(&mut events).stall(Duration::from_millis(3500)).attempts(1, Duration::ZERO);
    let refused = mirror.check(&options).unwrap_err().to_string();
    assert!(refused.contains("mirror: ") && refused.contains("no answer within 3.5s"), "{refused}");
    drop((options, world));
    let waits = |event: &&StoreEvent| matches!(event, StoreEvent::Waits { source, .. } if &**source == "mirror");
    assert_eq!(events.iter().filter(waits).count(), 1, "{events:?}");
}

#[test]
fn a_check_of_a_silent_place_ends_with_its_first_request() {
    let (_world, mirror, asked) = world();
    let refused = mirror.check(&quick()).unwrap_err().to_string();
    assert!(refused.contains("no answer within 200ms"), "{refused}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// What fails whatever is asked of its images.
#[derive(Debug)]
struct Failing;

#[async_trait::async_trait]
impl Before for Failing {
    async fn read(
        &self,
        inner: &dyn ObjectStore,
        location: &Path,
        options: GetOptions,
    ) -> Result<GetResult> {
        if location.as_ref().starts_with("v1/images/") {
            let source = "503 Slow Down".into();
            return Err(Error::Generic { store: "failing", source });
        }
        inner.get_opts(location, options).await
    }
}

#[test]
fn an_object_that_cannot_be_read_is_named_once() {
    let world = World::new();
    world.push(vec![world.file("model", LEN)]);
    let failing = Store::over("failing", Through::of(world.objects.clone(), Failing));
    for means in [VerifyMeans::Keys(&world.keys, None), VerifyMeans::Keyless] {
        let verdict = verify(&failing, means);
        let keys: Vec<_> = verdict.findings.iter().map(|one| (&one.key, one.unread)).collect();
        assert_eq!(keys.len(), 1, "{verdict:?}");
        assert!(keys[0].1, "{verdict:?}");
    }
    let pushed = failing.push(&push(&world.key, vec![world.folder.path().join("model")]), &quick());
    let error = pushed.unwrap_err().to_string();
    assert!(error.contains("503 Slow Down"), "{error}");
}
