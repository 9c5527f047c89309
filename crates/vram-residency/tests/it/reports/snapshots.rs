//! Snapshots: the whole state of a manager at one moment. The compared part contains nothing that
//! changes on its own.

use core::time::Duration;

use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    ByteLen, OnEviction, Protection, ReserveRequest, SealKey, SealRequest, Verify,
};
use vram_test_rigs::Rig;

fn rig() -> Rig {
    Rig::new(&[1 << 20; 2])
}

#[test]
fn a_snapshot_shows_shards_parked_ones_reservations_links_and_keys() {
    let Rig { manager, devices, .. } = rig();
    let request = SealRequest::new("model", 1).owner("pool").priority(3);
    let shard = manager.seal(request.on_eviction(OnEviction::Park), &[1; 1000]).unwrap();
    let shard = manager.open_resident(&shard).unwrap();
    let lease = manager.lease(&shard).unwrap();
    let request = SealRequest::new("idle", 0).owner("pool").protection(Protection::Authenticated);
    let idle = manager.seal(request, &[2; 700]).unwrap();
    let parked = manager.park(&idle).unwrap();
    let terms = ReserveRequest::new(0, ByteLen::new(512)).owner("pool").purpose("later");
    let room = manager.reserve_with(terms.expires_in(Duration::from_hours(1))).unwrap();
    let key = SealKey::from_bytes(&[1; 32]);
    let key_id = key.id();
    manager.add_key(key).unwrap();
    devices[1].add(Op::PeerCopy, When::From(1), Action::DropCopy).unwrap();
    let _reports = manager.probe_links();

    let snapshot = manager.snapshot();
    let state = &snapshot.state;
    assert_eq!(state.shards, manager.report().shards);
    let [resident] = state.shards.as_slice() else { unreachable!("{:?}", state.shards) };
    assert_eq!((&resident.shard_id, resident.gpu, resident.generation), (&shard.shard_id, 1, 1));
    assert_eq!((resident.leases, resident.priority), (1, 3));
    // It lies where the report says, as plaintext since it was opened.
    let there = devices[1].inspect(None, resident.offset.unwrap(), ByteLen::new(1000)).unwrap();
    assert_eq!((there, resident.footprint), (vec![1; 1000], ByteLen::new(1024)));
    let [waiting] = state.parked.as_slice() else { unreachable!("{:?}", state.parked) };
    assert_eq!((&waiting.shard_id, &*waiting.model_id), (&idle.shard_id, "idle"));
    assert_eq!((waiting.host_len, waiting.plaintext_len.get()), (parked.host_len(), 700));
    assert_eq!(waiting.protection, Protection::Authenticated);
    assert_eq!(state.park, manager.park_capacity());
    let [promise] = state.reservations.as_slice() else { unreachable!() };
    assert_eq!((promise.id, promise.len, promise.expires), (room.id(), room.len(), true));
    assert_eq!(promise.remaining, [(0, ByteLen::new(512))]);
    assert_eq!(snapshot.counters.expires_in[0].0, room.id());
    assert_eq!(state.distrusted_links, [(0, 1)]);
    assert_eq!((state.keys.active, state.keys.all.len()), (manager.active_key(), 2));
    assert!(state.keys.all.contains(&key_id));
    for gpu in &state.gpus {
        assert_eq!(gpu.capacity, manager.capacity(gpu.capacity.gpu).unwrap());
    }
    let text = format!("{snapshot:?}");
    assert!(!text.contains("1, 1, 1, 1, 1, 1, 1, 1"), "{text}");

    let handle = manager.wake(parked, 0).unwrap();
    let state = manager.snapshot().state;
    assert_eq!((state.parked.len(), state.shards.len()), (0, 2));
    drop((lease, handle));
}

#[test]
fn the_state_is_equal_unless_something_changed() {
    let Rig { manager, devices, .. } = rig();
    let shard = manager.seal_model("m", 0, &[1; 1000]).unwrap();
    let request = ReserveRequest::new(1, ByteLen::new(256)).expires_in(Duration::from_hours(1));
    let room = manager.reserve_with(request).unwrap();
    let before = manager.snapshot();

    // Failures and reads: only the clock and the counters change.
    manager.seal_model("m", 0, &vec![0; 2 << 20]).unwrap_err();
    manager.migrate_shard(&shard, 9).unwrap_err();
    devices[1].add(Op::Allocate, When::Nth(1), Action::OutOfMemory).unwrap();
    devices[1].add(Op::PeerCopy, When::Nth(1), Action::Driver(1)).unwrap();
    manager.migrate_shard(&shard, 1).unwrap_err();
    manager.unseal_model(&shard).unwrap();
    let after = manager.snapshot();
    assert_eq!(after.state, before.state);
    assert_eq!(after.counters.events, before.counters.events + 3);

    let _verdict = manager.verify(&shard, Verify::Full).unwrap();
    assert_ne!(manager.snapshot().state, before.state, "when it was verified is of the state");
    let before = manager.snapshot();
    drop(room);
    assert_ne!(manager.snapshot().state, before.state);
    let before = manager.snapshot();
    manager.pin(&shard).unwrap();
    assert_ne!(manager.snapshot().state, before.state);
}

#[cfg(feature = "serde")]
#[test]
fn a_snapshot_survives_json_with_lost_devices_in_words() {
    let Rig { manager, devices, .. } = rig();
    let shard = manager.seal_model("m", 0, &[1; 1000]).unwrap();
    let parked = manager.park(&manager.seal_model("n", 1, b"x").unwrap()).unwrap();
    let _room = manager.reserve(1, ByteLen::new(256)).unwrap();
    devices[0].add(Op::Read, When::Nth(1), Action::Driver(700)).unwrap();
    manager.unseal_model(&shard).unwrap_err();
    let snapshot = manager.snapshot();
    let lost = snapshot.state.gpus[0].lost.as_deref().unwrap();
    assert!(lost.contains("700"), "{lost}");
    let json = serde_json::to_string(&snapshot).unwrap();
    let back: vram_residency::Snapshot = serde_json::from_str(&json).unwrap();
    assert_eq!(back, snapshot);
    assert!(json.contains("\"uuid\":\"GPU-"));
    let spoilt = json.replacen("\"uuid\":\"GPU-", "\"uuid\":\"GPU-0", 1);
    assert!(serde_json::from_str::<vram_residency::Snapshot>(&spoilt).is_err());
    drop(parked);
}
