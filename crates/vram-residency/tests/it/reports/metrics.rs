//! Metrics: they agree with a count by hand, and Prometheus can read them.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::collections::BTreeMap;
use std::panic::catch_unwind;

use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    AdmitRequest, ByteLen, Call, CallMetrics, CompactBudget, Event, ExportOptions, GpuChoice,
    ImportRequest, Metrics, ModelPlan, Piece, ReserveRequest, SealOptions, SealRequest,
    SliceSource, Verify, VramManager,
};
use vram_test_rigs::Rig;

const MIB: usize = 1 << 20;

/// Calls, failures and bytes of every call that was made.
fn made(metrics: &Metrics) -> BTreeMap<&'static str, (u64, u64, u64)> {
    let made = metrics.calls.iter().filter(|call| call.count > 0);
    made.map(|call| (call.call.name(), (call.count, call.failure_count(), call.bytes.get())))
        .collect()
}

#[test]
fn calls_are_counted_once_each_with_their_failures_and_bytes() {
    let manager = VramManager::new_mock_multi_gpu(vec![MIB, MIB]).unwrap();
    assert!(made(&manager.metrics()).is_empty());

    let shard = manager.seal_model("m", 0, &[1; 1000]).unwrap();
    let slice = SliceSource::new(&[2; 500]);
    let other = manager.seal_from(SealRequest::new("m", 0), slice, SealOptions::new()).unwrap();
    manager.seal_model("m", 0, &vec![0; 2 * MIB]).unwrap_err();
    manager.seal_model("m", 9, b"x").unwrap_err();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let options = SealOptions::new().progress(|_| panic!("the caller's own"));
        manager.seal_from(SealRequest::new("m", 0), SliceSource::new(b"x"), options)
    }));
    assert!(panicked.is_err());
    manager.unseal_model(&shard).unwrap();
    manager.unseal_into(&shard, &mut [0; 1000]).unwrap();
    manager.unseal_to(&shard, std::io::sink()).unwrap();
    manager.unseal_into(&shard, &mut [0; 999]).unwrap_err();
    manager.read_shard_at_offset(&shard, 10, 20).unwrap();
    assert!(manager.verify_shard_integrity(&shard).unwrap());
    let _verdict = manager.verify(&shard, Verify::Record).unwrap();
    let shard = manager.migrate_shard(&shard, 1).unwrap();
    // These call other public calls internally.
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    manager.export_to(&shard, &image, ExportOptions::new()).unwrap();
    manager.export(&shard, std::io::sink()).unwrap();
    let copy = manager.import_from(ImportRequest::new("m", 1), &image).unwrap();
    manager.import(ImportRequest::new("m", 1), &b"no image"[..]).unwrap_err();
    drop(manager.reserve(0, ByteLen::new(256)).unwrap());
    drop(manager.reserve_with(ReserveRequest::new(0, ByteLen::new(256))).unwrap());
    manager.unseal_and_free(&copy).unwrap();
    manager.free_shard(&other).unwrap();
    let parked = manager.park(&shard).unwrap();
    let (parked, _) = manager.wake(parked, 7).unwrap_err().into_parts();
    let shard = manager.wake(parked, 0).unwrap();
    let plan = ModelPlan::new([Piece::new("a", 0, 0, ByteLen::new(300))]).unwrap();
    let admit = AdmitRequest::new("model", GpuChoice::MostRoomFirst);
    let model = manager.admit(admit, &plan, &vec![SliceSource::new(&[3; 300])]).unwrap();
    assert!(manager.verify_model(&model, Verify::Full).unwrap().sound);
    manager.free_model(&model).unwrap();
    let _report = manager.compact(0, CompactBudget::new()).unwrap();
    drop(manager.lease(&shard).unwrap());
    manager.pin(&shard).unwrap();
    manager.unpin(&shard).unwrap();
    manager.set_headroom(0, ByteLen::new(256)).unwrap();
    manager.set_budget(5, ByteLen::MIB).unwrap_err();

    let metrics = manager.metrics();
    let expected = BTreeMap::from([
        ("seal", (5, 3, 1500)),
        ("unseal", (4, 1, 3000)),
        ("read", (1, 0, 20)),
        ("verify", (2, 0, 1000)),
        ("migrate", (1, 0, 1000)),
        ("export", (2, 0, 2000)),
        ("import", (2, 1, 1000)),
        ("reserve", (2, 0, 512)),
        ("unseal_and_free", (1, 0, 1000)),
        ("free", (1, 0, 512)),
        ("park", (1, 0, 1000)),
        ("wake", (2, 1, 1000)),
        ("admit", (1, 0, 300)),
        ("verify_model", (1, 0, 300)),
        ("free_model", (1, 0, 512)),
        ("compact", (1, 0, 0)),
        ("lease", (1, 0, 1000)),
        ("pin", (2, 0, 0)),
        ("set_budget", (2, 1, 0)),
    ]);
    assert_eq!(made(&metrics), expected);
    let seal = metrics.call(Call::Seal).unwrap();
    let failures: Vec<_> = seal.failures.iter().map(|one| (&*one.code, one.count)).collect();
    assert_eq!(failures, [("insufficient-vram", 1), ("panic", 1), ("unknown-gpu", 1)]);
    for call in &metrics.calls {
        assert_eq!(call.buckets.iter().sum::<u64>(), call.count);
        assert_eq!(call.buckets.len(), CallMetrics::BUCKETS.len() + 1);
        assert!(call.count > 0 || call.time == Duration::ZERO);
    }
    // Sealed three times (one is a copy, one of a model), verified twice, moved, exported twice,
    // freed three times, parked, woken; a model admitted and freed; and seven refusals.
    assert_eq!(metrics.events, 4 + 2 + 1 + 2 + 3 + 2 + 2 + 7);
}

/// A call from inside a callback is counted as a call of its own.
#[test]
fn a_call_from_a_callback_is_counted_for_itself() {
    let manager = VramManager::new_mock(MIB).unwrap();
    let shard = manager.seal_model("m", 0, b"first").unwrap();
    let options = SealOptions::new().progress(|progress| {
        if progress.done == progress.total {
            manager.unseal_model(&shard).unwrap();
        }
    });
    manager.seal_from(SealRequest::new("m", 0), SliceSource::new(b"second"), options).unwrap();
    let made = made(&manager.metrics());
    assert_eq!(made["seal"], (2, 0, 11));
    assert!(made["unseal"].0 >= 1 && made["unseal"].1 == 0);
}

#[test]
fn figures_of_gpus_parked_shards_and_reservations_are_those_of_the_manager() {
    let manager = VramManager::builder()
        .host_device(ByteLen::MIB)
        .host_device(ByteLen::MIB)
        .park_limit(ByteLen::new(5000))
        .event_sink(|_event: &Event| {})
        .build()
        .unwrap();
    let shard = manager.seal_model("m", 1, &[1; 1000]).unwrap();
    let _there = manager.seal_model("m", 1, &[1; 10]).unwrap();
    let parked = manager.park(&shard).unwrap();
    let room = manager.reserve(0, ByteLen::new(1024)).unwrap();
    assert!(manager.flush_events(Duration::from_mins(1)));
    let metrics = manager.metrics();
    for gpu in &metrics.gpus {
        assert_eq!(gpu.capacity, manager.capacity(gpu.capacity.gpu).unwrap());
        assert_eq!((gpu.quarantined, gpu.lost), (0, false));
    }
    assert_eq!(metrics.gpus.iter().map(|gpu| gpu.shard_count).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(metrics.park, manager.park_capacity());
    assert_eq!((metrics.reservations, metrics.reserved.get()), (1, 1024));
    assert_eq!(metrics.sinks, manager.event_counts());
    assert_eq!((metrics.events, metrics.sinks[0].delivered), (3, 3));
    let text = metrics.to_prometheus();
    for line in [
        "vram_parked_bytes 1000",
        "vram_parked_limit_bytes 5000",
        "vram_parked_shards 1",
        "vram_reservations_bytes 1024",
        "vram_events_delivered_total{sink=\"0\"} 3",
        "vram_calls_total{call=\"reset\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    drop((parked, room));
}

#[test]
fn a_sink_that_is_out_of_service_shows() {
    let manager = VramManager::builder()
        .host_device(ByteLen::from_usize(MIB))
        .event_sink(|_event: &Event| panic!("the sink's own fault"))
        .event_sink(|_event: &Event| {})
        .build()
        .unwrap();
    manager.seal_model("m", 7, b"x").unwrap_err();
    assert!(manager.flush_events(Duration::from_mins(1)));
    let text = manager.metrics().to_prometheus();
    assert!(text.contains("\nvram_sink_out_of_service{sink=\"0\"} 1\n"), "{text}");
    assert!(text.contains("\nvram_sink_out_of_service{sink=\"1\"} 0\n"), "{text}");
}

#[test]
fn a_lost_device_and_a_quarantine_show() {
    let Rig { manager, devices, .. } = Rig::new(&[MIB]);
    let shard = manager.seal_model("m", 0, &[1; 5000]).unwrap();
    devices[0].add(Op::Read, When::Nth(1), Action::FlipBit { byte: 0, bit: 0 }).unwrap();
    manager.unseal_model(&shard).unwrap_err();
    assert_eq!((manager.metrics().gpus[0].quarantined, manager.metrics().gpus[0].lost), (1, false));
    devices[0].add(Op::Read, When::Nth(1), Action::Driver(700)).unwrap();
    manager.verify(&shard, Verify::Full).unwrap_err();
    assert!(manager.metrics().gpus[0].lost);
    assert!(manager.metrics().to_prometheus().contains("vram_gpu_lost{gpu=\"0\",uuid=\"GPU-"));
}

#[cfg(feature = "serde")]
#[test]
fn metrics_survive_json_and_calls_are_named_alike_everywhere() {
    let manager = VramManager::new_mock(MIB).unwrap();
    manager.seal_model("m", 0, b"x").unwrap();
    manager.seal_model("m", 7, b"x").unwrap_err();
    let metrics = manager.metrics();
    let json = serde_json::to_string(&metrics).unwrap();
    assert_eq!(serde_json::from_str::<Metrics>(&json).unwrap(), metrics);
    for call in Call::ALL {
        assert_eq!(serde_json::to_value(call).unwrap(), call.name());
    }
}
