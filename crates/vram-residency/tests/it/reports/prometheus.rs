//! Metrics as Prometheus reads them.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vram_residency::{
    ByteLen, Call, Device, Event, GpuIndex, HostDevice, ReserveRequest, SealRequest, ShardId,
    VramError, VramManager,
};

/// One sample of a scrape: its name, its labels, its value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads the text format 0.0.4 and accepts nothing beyond it.
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
        // The samples of a metric are adjacent, after its type.
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

const MIB: usize = 1 << 20;

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

    // Each histogram rises to its count, and its bounds rise to infinity.
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

/// Labels name no shard, and no more models than the largest: the number of time series is bounded.
#[test]
fn however_many_shards_and_models_there_are_labels_do_not_grow() {
    let manager = VramManager::new_mock(MIB).unwrap();
    let lines = || manager.metrics().to_prometheus().lines().count();
    let seal = |n: u32| {
        let request = SealRequest::new(&format!("model-{n}"), 0).owner(&format!("owner-{n}"));
        manager.seal(request, b"x").unwrap()
    };
    let first = seal(0);
    for n in 1..20 {
        seal(n);
    }
    let before = lines();
    for n in 20..70 {
        seal(n);
    }
    assert_eq!(lines(), before);
    let text = manager.metrics().to_prometheus();
    assert!(!text.contains(first.shard_id.as_str()) && !text.contains(ShardId::PREFIX));
    assert!(!parse(&text).is_empty());
}

#[test]
fn names_without_and_with_a_million_bytes_are_shown_or_refused_and_stop_nothing() {
    let log = vram_residency::EventLog::new(100);
    let builder = VramManager::builder().host_device(ByteLen::from_usize(MIB));
    let manager = builder.event_sink(log.clone()).node("node").build().unwrap();
    let endless = "\u{1F600}\"\n\0".repeat(MIB / 7);
    for name in ["", "x", &endless] {
        let request = SealRequest::new("m", 0).owner(name);
        let sealed = manager.seal(request, b"content");
        let reserve = ReserveRequest::new(0, ByteLen::new(256)).owner(name).purpose(name);
        let reserved = manager.reserve_with(reserve);
        if name.len() > 1024 {
            assert!(matches!(sealed, Err(VramError::LimitExceeded { limit: 1024, .. })));
            assert!(matches!(reserved, Err(VramError::LimitExceeded { limit: 1024, .. })));
        } else {
            let (shard, _reservation) = (sealed.unwrap(), reserved.unwrap());
            let (snapshot, shown) =
                (manager.snapshot(), Some(name).filter(|name| !name.is_empty()));
            assert_eq!(snapshot.state.shards[0].owner.as_deref(), shown);
            assert_eq!(snapshot.state.reservations[0].purpose.as_deref(), shown);
            assert!(manager.ticket(&shard, [0; 32]).is_ok());
            manager.free_shard(&shard).unwrap();
        }

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
