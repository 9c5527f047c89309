//! P75 over a network: whatever a server answers, the same bytes, or an error that names it.

use core::sync::atomic::Ordering;
use core::time::Duration;

use vram_store::{LoadError, Pull, Store, StoreEvent, StoreOptions};

use crate::http::{ENDLESS, Lie, Server};
use crate::model::{World, load, manager};

const LEN: usize = 3_000_000;

fn options(events: &mut Vec<StoreEvent>) -> StoreOptions<'_> {
    StoreOptions::new()
        .attempts(3, Duration::from_millis(5))
        .stall(Duration::from_millis(500))
        .range_len(1 << 20)
        .on_event(|event| events.push(event.clone()))
}

#[test]
fn a_server_may_lie_in_any_way_and_no_wrong_byte_is_admitted() {
    let world = World::new(LEN);
    let at = world.folder.path().join("store");
    let store = Store::open_or_create(at.to_str().unwrap()).unwrap();
    let pushed = world.push(&store);
    let manifest = world.manifest(&store, &pushed);
    let image_len = usize::try_from(pushed.manifest.shards[0].image_len).unwrap();
    let content = std::fs::read(&world.file).unwrap();
    // What is expected of the server alone: served or not; called a liar or not. The HTTP client itself
    // refuses some answers, which is then a failure and no lie.
    for (lie, served, lied) in [
        (Lie::None, true, false),
        (Lie::Flip(0), false, true),
        (Lie::Flip(300), false, true),
        (Lie::Flip(image_len - 1), false, true),
        (Lie::Stale(image_len - 1), true, false),
        (Lie::Stale(10), true, false),
        (Lie::Cut(2), true, false),
        (Lie::Cut(u64::MAX), false, false),
        // It says a length of its own as well.
        (Lie::Short, false, true),
        (Lie::Elsewhere, false, true),
        (Lie::OtherTotal, false, true),
        (Lie::Status(503, 2), true, false),
        (Lie::Status(429, 2), true, false),
        (Lie::Status(500, u64::MAX), false, false),
        (Lie::Status(403, u64::MAX), false, false),
        (Lie::Status(404, u64::MAX), false, false),
        (Lie::Silent(1), true, false),
        (Lie::Whole, false, false),
        (Lie::Long, false, true),
        (Lie::EndlessError, false, false),
        (Lie::Trickle, false, false),
    ] {
        let server = Server::start(&at, lie);
        let http = Store::open(&server.address).unwrap();
        let mut events = Vec::new();
        let alone = Pull::new(&manifest, &world.keys, b"", &http).options(options(&mut events));
        let device = manager(LEN as u64);
        let outcome = load(&alone, &device);
        drop(alone);
        match outcome {
            Ok(shard) => {
                assert!(served, "{lie:?}: served");
                assert_eq!(device.unseal_model(&shard).unwrap(), content, "{lie:?}");
            }
            Err(LoadError::Store(error)) => {
                assert!(!served, "{lie:?}: {error}");
                assert!(error.to_string().contains(&server.address), "{lie:?}: {error}");
                assert_eq!(error.is_integrity(), lied, "{lie:?}: {error}");
            }
            Err(other) => panic!("{lie:?}: {other}"),
        }
        let told = events.iter().any(|event| matches!(event, StoreEvent::SourceLied(_)));
        assert_eq!(told, lied, "{lie:?}: {events:?}");

        // With an honest store after it, every lie ends in the same bytes.
        let mut events = Vec::new();
        let both = Pull::new(&manifest, &world.keys, b"", &store).mirror(&http);
        let both = both.options(options(&mut events));
        let device = manager(LEN as u64);
        let shard = load(&both, &device).unwrap();
        assert_eq!(device.unseal_model(&shard).unwrap(), content, "{lie:?}");
    }
    // What follows the beginning of an error is not read: there is more in buffers of the kernel.
    assert!(ENDLESS.load(Ordering::Relaxed) < 100 << 20);
}

/// What cannot be read is not called altered: nothing is known of it.
#[test]
fn a_server_that_fails_has_no_altered_object() {
    let world = World::new(LEN);
    let at = world.folder.path().join("store");
    let store = Store::open_or_create(at.to_str().unwrap()).unwrap();
    let manifest = world.manifest(&store, &world.push(&store));
    for lie in [Lie::Status(503, u64::MAX), Lie::Cut(u64::MAX), Lie::EndlessError] {
        let http = Store::open(&Server::start(&at, lie).address).unwrap();
        let mut events = Vec::new();
        let pull = Pull::new(&manifest, &world.keys, b"", &http).options(options(&mut events));
        let error = pull.verify(0).unwrap_err();
        assert!(!error.is_integrity(), "{lie:?}: {error}");
    }
}
