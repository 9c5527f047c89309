//! Metrics: they agree with a count by hand, and Prometheus can read them.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_residency::{
    AdmitRequest, ByteLen, Call, CallMetrics, CompactBudget, Device, Event, ExportOptions,
    GpuChoice, GpuIndex, HostDevice, ImportRequest, Metrics, ModelPlan, Piece, ReserveRequest,
    SealOptions, SealRequest, SliceSource, Verify, VramManager,
};

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
    // These call others of the same on their way.
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
    // Sealed thrice (one is a copy, one of a model), verified twice, moved, exported twice, freed
    // thrice, parked, woken; and seven refusals.
    assert_eq!(metrics.events, 4 + 2 + 1 + 2 + 3 + 2 + 7);
}

/// A call from inside a callback is a call of its own.
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

/// One sample of a scrape: its name, its labels, its value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads the text format 0.0.4 and accepts nothing that it does not allow.
fn parse(text: &str) -> Vec<Sample> {
    let is_name = |name: &str| {
        let mut letters = name.chars();
        letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    assert!(text.ends_with('\n') && !text.contains('\r'));
    let (mut kinds, mut helped) = (BTreeMap::new(), BTreeSet::new());
    let mut current = String::new();
    let mut samples: Vec<Sample> = Vec::new();
    for line in text.strip_suffix('\n').unwrap().split('\n') {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty() && helped.insert(name.to_owned()), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(helped.contains(name), "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            name.clone_into(&mut current);
            continue;
        }
        let (name, mut rest) = line.split_at(line.find(['{', ' ']).unwrap());
        assert!(is_name(name), "{line}");
        let mut labels = BTreeMap::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                let (label, after) = rest.split_once("=\"").unwrap();
                assert!(is_name(label), "{line}");
                let mut value = String::new();
                let mut letters = after.char_indices();
                let end = loop {
                    match letters.next().unwrap() {
                        (at, '"') => break at,
                        (_, '\\') => value.push(match letters.next().unwrap().1 {
                            'n' => '\n',
                            escaped @ ('\\' | '"') => escaped,
                            other => panic!("\\{other} in {line}"),
                        }),
                        (_, letter) => value.push(letter),
                    }
                };
                assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
                rest = &after[end + 1..];
                match rest.strip_prefix(',') {
                    Some(next) => rest = next,
                    None => break,
                }
            }
            rest = rest.strip_prefix('}').unwrap();
        }
        let value = rest.strip_prefix(' ').unwrap();
        assert!(value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{line}");
        // A metric's samples stand together, behind its type.
        let of = match kinds[&current].as_str() {
            "histogram" => ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| name.strip_suffix(part))
                .unwrap(),
            _ => name,
        };
        assert_eq!(of, current, "{line}");
        samples.push((name.to_owned(), labels, value.parse().unwrap()));
    }
    let mut seen = BTreeSet::new();
    for (name, labels, _) in &samples {
        assert!(seen.insert((name, labels)), "{name} {labels:?} twice");
    }
    samples
}

#[test]
fn prometheus_can_read_it_whatever_a_device_is_called() {
    let names = ["NVIDIA H200", "a\"b\\c\nd", "\\n\\", "{}=,\"} 1\n# TYPE x y\n", "ü€\u{0}\t", ""];
    let devices = (0..).zip(names).map(|(index, name)| {
        let host = HostDevice::builder(GpuIndex::new(index), ByteLen::MIB).name(name);
        Arc::new(host.build().unwrap()) as Arc<dyn Device>
    });
    let manager = VramManager::builder()
        .devices(devices)
        .event_sink(|_event: &Event| {})
        .event_sink(|_event: &Event| {})
        .build()
        .unwrap();
    for len in [0, 1, 1000, 100_000] {
        let shard = manager.seal_model("m", 0, &vec![0; len]).unwrap();
        manager.unseal_and_free(&shard).unwrap();
    }
    manager.seal_model("m", 77, b"").unwrap_err();
    assert!(manager.flush_events(Duration::from_mins(1)));
    let metrics = manager.metrics();
    let samples = parse(&metrics.to_prometheus());
    assert_eq!(metrics.to_string(), metrics.to_prometheus());

    let found: Vec<_> = samples
        .iter()
        .filter(|(name, ..)| name == "vram_gpu_info")
        .map(|(_, labels, value)| {
            assert_eq!(*value, 1.0);
            labels["name"].as_str()
        })
        .collect();
    assert_eq!(found, names);
    let value = |name: &str, label: &str, wanted: &str| {
        let mut hits = samples.iter().filter(|(sample, labels, _)| {
            sample == name && labels.get(label).is_some_and(|found| found == wanted)
        });
        let hit = hits.next().unwrap().2;
        assert!(hits.next().is_none());
        hit
    };
    assert_eq!(value("vram_gpu_total_bytes", "gpu", "5"), 1_048_576.0);
    assert_eq!(value("vram_calls_total", "call", "seal"), 5.0);
    assert_eq!(value("vram_call_failures_total", "code", "unknown-gpu"), 1.0);
    assert_eq!(value("vram_call_bytes_total", "call", "seal"), 101_001.0);
    assert_eq!(value("vram_events_delivered_total", "sink", "1"), 9.0);
    let calls: BTreeSet<_> =
        samples.iter().filter_map(|(_, labels, _)| labels.get("call")).cloned().collect();
    assert_eq!(calls, Call::ALL.iter().map(|call| call.name().to_owned()).collect());

    // Each histogram rises to its count, and its ends rise to infinity.
    for call in ["seal", "unseal_and_free"] {
        let buckets: Vec<_> = samples
            .iter()
            .filter(|(name, labels, _)| {
                name == "vram_call_duration_seconds_bucket" && labels["call"] == call
            })
            .map(|(_, labels, count)| (labels["le"].as_str(), *count))
            .collect();
        assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1));
        let ends =
            buckets.iter().map(|(end, _)| end.replace("+Inf", "inf").parse::<f64>().unwrap());
        assert!(ends.is_sorted_by(|a, b| a < b));
        let (last, count) = buckets[buckets.len() - 1];
        assert_eq!(
            (last, count),
            ("+Inf", value("vram_call_duration_seconds_count", "call", call))
        );
        let sum = value("vram_call_duration_seconds_sum", "call", call);
        assert_eq!(
            sum,
            metrics.calls.iter().find(|one| one.call.name() == call).unwrap().time.as_secs_f64()
        );
    }
}

/// No label takes its values from what the manager holds: the number of time series is bounded.
#[test]
fn shards_models_and_owners_are_no_labels() {
    let manager = VramManager::new_mock(MIB).unwrap();
    let lines = || manager.metrics().to_prometheus().lines().count();
    let seal = |n: u32| {
        let request = SealRequest::new(&format!("model-{n}"), 0).owner(&format!("owner-{n}"));
        manager.seal(request, b"x").unwrap()
    };
    let first = seal(0);
    let before = lines();
    for n in 1..50 {
        seal(n);
    }
    assert_eq!(lines(), before);
    let text = manager.metrics().to_prometheus();
    for unbounded in [first.shard_id.as_str(), "model-", "owner-"] {
        assert!(!text.contains(unbounded));
    }
}

#[test]
fn names_without_and_with_a_million_bytes_are_shown_or_refused_and_stop_nothing() {
    let log = vram_residency::EventLog::new(100);
    let builder = VramManager::builder().host_device(ByteLen::from_usize(MIB));
    let manager = builder.event_sink(log.clone()).node("node").build().unwrap();
    let endless = "\u{1F600}\"\n\0".repeat(MIB / 7);
    for name in ["", "x", &endless] {
        let request = SealRequest::new("m", 0).owner(name);
        let shard = manager.seal(request, b"content").unwrap();
        let reserve = ReserveRequest::new(0, ByteLen::new(256)).owner(name).purpose(name);
        let reservation = manager.reserve_with(reserve).unwrap();
        let snapshot = manager.snapshot();
        assert_eq!(snapshot.state.shards[0].owner.as_deref(), Some(name));
        assert_eq!(snapshot.state.reservations[0].purpose.as_deref(), Some(name));
        assert_eq!(manager.ticket(&shard, [0; 32]).is_ok(), name.len() < 1025);
        drop(reservation);
        manager.free_shard(&shard).unwrap();

        let sealed = manager.seal_model(name, 0, b"content");
        assert_eq!(sealed.is_ok(), name == "x", "{}", name.len());
        if let Ok(shard) = sealed {
            manager.free_shard(&shard).unwrap();
        }
    }
    assert!(manager.flush_events(Duration::from_mins(1)));
    assert_eq!(log.missing(), 0);
    let metrics = manager.metrics().to_prometheus();
    assert!(metrics.len() < 100_000 && !parse(&metrics).is_empty());
    assert_eq!(manager.get_used_vram(0).unwrap(), 0);
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
    use vram_residency::device::FaultDevice;
    use vram_residency::device::fault::{Action, FaultPlan, Op, When};
    let host = HostDevice::new(GpuIndex::new(0), ByteLen::MIB).unwrap();
    let device = FaultDevice::new(Arc::new(host), FaultPlan::new(1));
    let manager =
        VramManager::builder().device(Arc::clone(&device) as Arc<dyn Device>).build().unwrap();
    let shard = manager.seal_model("m", 0, &[1; 5000]).unwrap();
    device.add(Op::Read, When::Nth(1), Action::FlipBit { byte: 0, bit: 0 }).unwrap();
    manager.unseal_model(&shard).unwrap_err();
    assert_eq!((manager.metrics().gpus[0].quarantined, manager.metrics().gpus[0].lost), (1, false));
    device.add(Op::Read, When::Nth(1), Action::Driver(700)).unwrap();
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
