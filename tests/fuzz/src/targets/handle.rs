//! Handles and all else that is read from JSON: what a manager did not make changes nothing, and
//! what is read is written again as the same.

use std::sync::OnceLock;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vram_residency::{
    AlteredSegments, ByteLen, DeviceUuid, Event, EvictionPlan, GpuChoice, KeyId, Lru, Metrics,
    ModelPlan, OnEviction, Piece, Protection, Reconciliation, SealRecord, SealRequest, SealedShard,
    SegmentSize, ShardId, Snapshot, Threads, Timestamp, Verdict, Verify, VramError, VramManager,
};

use crate::Target;
use crate::choices::Choices;
use crate::edits::edit;
use crate::specimens as made;

/// The target.
pub const TARGET: Target = Target {
    name: "handle",
    promise: "a handle that the manager did not make changes nothing, and JSON reads back the same",
    run,
    seeds,
    len_max: 500,
    cases: 10_000,
};

struct World {
    manager: VramManager,
    shards: Vec<SealedShard>,
    content: Vec<u8>,
    /// Texts of one value of each type.
    texts: Vec<(Kind, String)>,
}

/// The types that are read.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Handle,
    Eviction,
    Plan,
    Snapshot,
    Metrics,
    Verdict,
    Reconciliation,
    Event,
    Record,
    Small,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let builder = VramManager::builder().host_device(ByteLen::new(64 << 10)).key(made::key());
        let builder = builder.segment_size(SegmentSize::MIN).threads(Threads::exactly(1));
        let manager = builder.eviction(Lru).on_eviction(OnEviction::Never).build().unwrap();
        let content = vec![7; 5000];
        let shards: Vec<_> = [Protection::Encrypted, Protection::Authenticated]
            .map(|protection| {
                let request = SealRequest::new("model", 0).owner("me").protection(protection);
                manager.seal(request, &content).unwrap()
            })
            .into();
        let reservation = manager.reserve(0, ByteLen::new(4096)).unwrap();
        let snapshot = manager.snapshot();
        drop(reservation);
        let piece = |name: &str| Piece::new(name, 0, 0, ByteLen::new(5000));
        let plan = ModelPlan::new([piece("a"), piece("b")]).unwrap();
        let mut texts: Vec<_> = shards.iter().map(|one| (Kind::Handle, text(one))).collect();
        texts.push((Kind::Eviction, text(&manager.plan_eviction(0, ByteLen::new(100)).unwrap())));
        texts.push((Kind::Plan, text(&plan)));
        texts.push((Kind::Snapshot, text(&snapshot)));
        texts.push((Kind::Metrics, text(&manager.metrics())));
        texts.push((Kind::Verdict, text(&manager.verify(&shards[0], Verify::Full).unwrap())));
        texts.push((Kind::Reconciliation, text(&manager.reconcile(0).unwrap())));
        let event = r#"{"seq":3,"at":9,"kind":{"event":"freed","shard":"orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV","gpu":0,"bytes":8}}"#;
        texts.push((Kind::Event, event.to_owned()));
        texts.push((Kind::Record, text(&shards[0].sealed_data)));
        texts.push((Kind::Small, text(&shards[0].shard_id)));
        texts.push((Kind::Small, text(&made::key().id())));
        texts.push((Kind::Small, r#"{"first":[3,7],"count":2}"#.to_owned()));
        World { manager, shards, content, texts }
    })
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

fn run(input: &[u8]) {
    let world = world();
    let mut choices = Choices::new(input);
    let (kind, text) = choices.of(&world.texts);
    let how = choices.byte();
    let text = match how % 3 {
        0 => {
            let mut value: Value = serde_json::from_str(text).unwrap();
            for _ in 0..=how / 3 % 4 {
                change(&mut choices, &mut value);
            }
            value.to_string().into_bytes()
        }
        1 => {
            let mut text = text.clone().into_bytes();
            edit(&mut choices, &mut text, &[], 4);
            text
        }
        _ => choices.rest().to_vec(),
    };
    match kind {
        Kind::Handle => handle(world, &text),
        Kind::Eviction => {
            if let Some(plan) = again::<EvictionPlan>(&text) {
                let before = world.manager.capacity(0).unwrap();
                // No shard here may be evicted, whatever a plan says.
                let report = world.manager.evict(&plan);
                assert_eq!(world.manager.capacity(0).unwrap(), before, "{report:?}");
                assert_eq!(world.manager.shards().len(), world.shards.len());
            }
        }
        Kind::Plan => {
            if let Some(plan) = again::<ModelPlan>(&text) {
                let sum = plan.pieces().iter().map(|piece| u128::from(piece.len.get()));
                assert_eq!(sum.sum::<u128>(), u128::from(plan.total().get()), "checked when read");
                drop(world.manager.fits(&plan, GpuChoice::MostRoomFirst));
            }
        }
        Kind::Snapshot => _ = again::<Snapshot>(&text),
        Kind::Metrics => _ = again::<Metrics>(&text),
        Kind::Verdict => _ = again::<Verdict>(&text),
        Kind::Reconciliation => _ = again::<Reconciliation>(&text),
        Kind::Event => _ = again::<Event>(&text),
        Kind::Record => _ = again::<SealRecord>(&text),
        Kind::Small => {
            _ = again::<ShardId>(&text);
            _ = again::<KeyId>(&text);
            _ = again::<DeviceUuid>(&text);
            _ = again::<Timestamp>(&text);
            _ = again::<AlteredSegments>(&text);
        }
    }
}

/// Changes one value somewhere in a tree.
fn change(choices: &mut Choices<'_>, value: &mut Value) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let name = fields.keys().nth(choices.below(fields.len())).cloned().unwrap();
            match choices.byte() % 8 {
                0 => drop(fields.remove(&name)),
                1 => drop(fields.insert("more".to_owned(), Value::from(1))),
                _ => change(choices, &mut fields[&name]),
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let at = choices.below(items.len());
            match choices.byte() % 8 {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => change(choices, &mut items[at]),
            }
        }
        Value::String(text) if choices.byte() & 1 == 0 => {
            let mut bytes = core::mem::take(text).into_bytes();
            edit(choices, &mut bytes, &[], 1);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        leaf => {
            *leaf = match choices.byte() % 6 {
                0 => Value::Null,
                1 => Value::from(choices.byte() & 1 == 0),
                2 => Value::from("text"),
                3 => Value::from(-1),
                _ => Value::from(choices.number()),
            };
        }
    }
}

/// The value of a text, if it has one: written and read again it is the same.
fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let written = text(&value);
    let read: T = serde_json::from_str(&written).unwrap();
    assert_eq!(text(&read), written);
    Some(value)
}

fn handle(world: &World, bytes: &[u8]) {
    let Some(shard) = again::<SealedShard>(bytes) else { return };
    let manager = &world.manager;
    if world.shards.contains(&shard) {
        assert_eq!(manager.unseal_model(&shard).unwrap(), world.content);
        return;
    }
    let before = manager.capacity(0).unwrap();
    let refused = |error: VramError| {
        let known =
            matches!(error, VramError::ForeignHandle { .. } | VramError::HandleAltered { .. });
        assert!(known, "{error:?}");
    };
    refused(manager.unseal_model(&shard).unwrap_err());
    refused(manager.read_shard_at_offset(&shard, 0, 0).unwrap_err());
    refused(manager.verify(&shard, Verify::Full).unwrap_err());
    refused(manager.lease(&shard).unwrap_err());
    refused(manager.pin(&shard).unwrap_err());
    refused(manager.park(&shard).unwrap_err());
    refused(manager.free_shard(&shard).unwrap_err());
    assert_eq!(manager.capacity(0).unwrap(), before);
    assert_eq!(manager.shards().len(), world.shards.len());
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("genuine", vec![0, 1]),
        ("gpu", vec![1, 0, 1, 0, 7, 5, 1]),
        ("record", vec![0, 0, 6, 0, 7, 40, 0, 7, 5, 9]),
        ("field-gone", vec![0, 0, 3, 0, 0]),
        ("generation", vec![0, 0, 0, 0, 7, 5, 25]),
        ("text", vec![0, 1, 1, 90, 0, b'9']),
        ("eviction", vec![2, 0, 2, 0, 7, 0, 0, 1]),
        ("plan-length", vec![3, 0, 2, 0, 7, 1, 0, 7, 2, 0, 7, 5, 25]),
        ("snapshot", vec![4, 0, 2, 0, 7, 0, 0, 7]),
        ("metrics", vec![5, 0, 1, 0, 7]),
        ("verdict", vec![6, 1]),
        ("event", vec![8, 0, 1, 0, 7, 0, 0, 7, 5, 3]),
        ("record-json", vec![9, 1]),
        ("key-id", vec![11, 1, 1, 4, 0, b'F']),
        ("segments", vec![12, 1, 1, 10, 0, b'9']),
        ("raw-segments", [&[12, 2], &br#"{"first":[3,3,1],"count":1}"#[..]].concat()),
    ]
}
