//! Reports, snapshots and metrics speak of models: what is there of each, who leases it, how old that
//! is (P48, P47).

use core::time::Duration;

use vram_residency::{
    AdmitRequest, ByteLen, GpuChoice, ModelHandle, ModelPlan, ModelReport, ModelState, Piece,
    SealRequest, SliceSource, VramManager,
};
use vram_test_rigs::{Rig, TestClock, devices};

const MIB: usize = 1 << 20;
/// Plaintext bytes of a piece: three granules.
const LEN: usize = 700;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn rig() -> (std::sync::Arc<TestClock>, VramManager) {
    let clock = TestClock::new();
    let shared: std::sync::Arc<dyn vram_residency::Clock> =
        std::sync::Arc::<TestClock>::clone(&clock);
    let len = ByteLen::from_usize(MIB);
    let builder = VramManager::builder().host_device(len).host_device(len).clock(shared);
    (clock, builder.build().unwrap())
}

/// Admits a model of as many tensors.
fn admit(manager: &VramManager, model_id: &str, owner: &str, pieces: usize) -> ModelHandle {
    let at = |index: usize| u64::try_from(index * LEN).unwrap();
    let piece = |index| Piece::new(format!("t{index}"), 0, at(index), ByteLen::from_usize(LEN));
    let plan = ModelPlan::new((0..pieces).map(piece)).unwrap();
    let request = AdmitRequest::new(model_id, GpuChoice::One(0)).owner(owner);
    manager.admit(request, &plan, &vec![SliceSource::new(&vec![7; pieces * LEN])]).unwrap()
}

fn only(manager: &VramManager) -> ModelReport {
    let [model] = manager.models().try_into().unwrap();
    model
}

#[test]
fn a_model_is_listed_as_whole_partial_or_parked_as_it_is() {
    let (_clock, manager) = rig();
    let model = admit(&manager, "llama", "pool", 3);
    let counts = |manager: &VramManager| {
        let counts = manager.metrics().models;
        [counts.whole, counts.partial, counts.parked, counts.under_way]
    };
    let whole = only(&manager);
    assert_eq!((&*whole.model_id, whole.owner.as_deref()), ("llama", Some("pool")));
    assert_eq!((whole.admission, whole.state), (Some(0), ModelState::Whole));
    assert_eq!((whole.pieces, whole.resident, whole.parked), (3, 3, 0));
    assert_eq!((whole.gpus, whole.bytes.get()), (vec![0], 3 * 768));
    assert_eq!(counts(&manager), [1, 0, 0, 0]);

    // Over two GPUs it is whole, and with a piece in host memory it is not.
    let moved = manager.migrate_shard(&model.pieces[1].shard, 1).unwrap();
    let two = only(&manager);
    assert_eq!((two.gpus, two.state), (vec![0, 1], ModelState::Whole));
    let parked = manager.park(&moved).unwrap();
    let partial = only(&manager);
    assert_eq!((partial.state, partial.resident, partial.parked), (ModelState::Partial, 2, 1));
    assert_eq!(partial.host_bytes, parked.host_len());
    assert_eq!(counts(&manager), [0, 1, 0, 0]);
    manager.wake(parked, 0).unwrap();

    let parked = manager.park_model(&model).unwrap();
    let away = only(&manager);
    assert_eq!((away.state, away.resident, away.parked), (ModelState::Parked, 0, 3));
    assert_eq!((away.bytes.get(), away.host_bytes), (0, parked.host_len()));
    assert_eq!(counts(&manager), [0, 0, 1, 0]);
    let model = manager.wake_model(parked, GpuChoice::One(1)).unwrap();
    assert_eq!(only(&manager).state, ModelState::Whole);

    manager.free_shard(&model.pieces[0].shard).unwrap();
    let partial = only(&manager);
    assert_eq!((partial.state, partial.resident, partial.pieces), (ModelState::Partial, 2, 3));
    manager.free_model(&model).unwrap();
    assert_eq!((manager.models(), counts(&manager)), (Vec::new(), [0; 4]));
}

#[test]
fn shards_sealed_by_themselves_are_one_line_for_owner_and_model() {
    let (_clock, manager) = rig();
    let seal = |model_id: &str, owner: &str| {
        manager.seal(SealRequest::new(model_id, 0).owner(owner), &[1; LEN]).unwrap()
    };
    let _shards = [seal("b", "one"), seal("a", "two"), seal("b", "one"), seal("b", "")];
    let first = admit(&manager, "b", "one", 1);
    let _copy = admit(&manager, "b", "one", 2);
    let listed: Vec<_> = manager
        .models()
        .into_iter()
        .map(|model| {
            let owner = model.owner.as_deref().unwrap_or_default().to_owned();
            (model.model_id.to_string(), owner, model.admission, model.pieces, model.state)
        })
        .collect();
    let line = |model: &str, owner: &str, admission, pieces, state| {
        (model.to_owned(), owner.to_owned(), admission, pieces, state)
    };
    let (single, whole) = (ModelState::Single, ModelState::Whole);
    assert_eq!(
        listed,
        [
            line("a", "two", None, 1, single),
            line("b", "", None, 1, single),
            line("b", "one", None, 2, single),
            line("b", "one", Some(0), 1, whole),
            line("b", "one", Some(1), 2, whole),
        ]
    );
    manager.free_model(&first).unwrap();
    assert_eq!(manager.models().len(), 4);
}

#[test]
fn a_listing_says_who_leases_a_model_since_when_and_what_waits_to_be_verified() {
    let (clock, manager) = rig();
    let model = admit(&manager, "llama", "pool", 3);
    let _single = manager.seal_model("other", 0, &[1; LEN]).unwrap();
    clock.advance(seconds(100));
    let lease = manager.lease_as(&model.pieces[1].shard, "worker 7").unwrap();
    clock.advance(seconds(10));
    let later = manager.lease(&model.pieces[0].shard).unwrap();
    manager.pin(&model.pieces[2].shard).unwrap();
    let _verdict = manager.verify_model(&model, vram_residency::Verify::Full).unwrap();
    clock.advance(seconds(5));

    let [llama, other] = manager.models().try_into().unwrap();
    assert_eq!((llama.lease_count, llama.pinned), (2, 1));
    assert_eq!(
        (llama.oldest_unverified, other.oldest_unverified),
        (Some(seconds(5)), Some(seconds(115)))
    );
    let oldest = llama.oldest_lease.unwrap();
    assert_eq!((oldest.holder.as_deref(), oldest.age), (Some("worker 7"), seconds(15)));
    assert_eq!(oldest.shard_id, model.pieces[1].shard.shard_id);
    let piece = oldest.piece.clone().unwrap();
    assert_eq!((&*piece.tensor, piece.part), ("t1", 0));
    assert_eq!((other.lease_count, other.oldest_lease), (0, None));

    let (report, snapshot, metrics) = (manager.report(), manager.snapshot(), manager.metrics());
    assert_eq!(report.oldest_lease(), Some(&oldest));
    assert_eq!(snapshot.counters.oldest_leases.as_slice(), core::slice::from_ref(&oldest));
    assert_eq!((metrics.lease_count, metrics.oldest_lease.as_ref()), (2, Some(&oldest)));
    let shown = report.to_string();
    assert!(shown.contains("2, 15s worker 7"), "{shown}");
    let text = metrics.to_prometheus();
    for sample in [
        "vram_leases 2\n",
        "vram_oldest_lease_seconds 15\n",
        "vram_models{state=\"whole\"} 1\n",
        "vram_model_leased_shards{model=\"llama\",owner=\"pool\"} 2\n",
        "vram_model_oldest_lease_seconds{model=\"llama\",owner=\"pool\"} 15\n",
        "vram_model_oldest_unverified_seconds{model=\"llama\",owner=\"pool\"} 5\n",
        "vram_model_oldest_unverified_seconds{model=\"other\",owner=\"\"} 115\n",
        "vram_model_bytes{model=\"llama\",owner=\"pool\"} 2304\n",
        "vram_model_bytes{others=\"true\"} 0\n",
    ] {
        assert!(text.contains(sample), "{sample} in {text}");
    }
    assert!(!text.contains("worker 7"), "a holder is no label");

    // The ages are no part of a snapshot's state; the number of leases is.
    clock.advance(seconds(1));
    assert_eq!(manager.snapshot().state, snapshot.state);
    drop(lease);
    assert_ne!(manager.snapshot().state, snapshot.state);
    let oldest = manager.metrics().oldest_lease.unwrap();
    assert_eq!((oldest.holder, oldest.age), (None, seconds(6)));
    drop(later);
    let metrics = manager.metrics();
    assert_eq!((metrics.lease_count, metrics.oldest_lease.clone()), (0, None));
    assert!(metrics.to_prometheus().contains("vram_oldest_lease_seconds 0\n"));
}

/// Of a lost GPU no age counts, and what was found altered is counted as that.
#[test]
fn what_is_lost_or_altered_is_counted_in_its_model() {
    use vram_residency::device::fault::FaultPlan;
    let rig = Rig::over(
        devices(&[MIB, MIB], &FaultPlan::new(1)),
        vram_residency::MemoryMode::Region,
        |builder| builder,
    );
    let manager = &rig.manager;
    let model = admit(manager, "llama", "", 2);
    let moved = manager.migrate_shard(&model.pieces[0].shard, 1).unwrap();
    rig.flip(1, rig.written_at(1), 3);
    manager.unseal_model(&moved).unwrap_err();
    let altered = only(manager);
    assert_eq!((altered.quarantined, altered.lost, altered.state), (1, 0, ModelState::Whole));
    rig.lose(&model.pieces[1].shard);
    let lost = only(manager);
    assert_eq!((lost.quarantined, lost.lost, lost.resident), (1, 1, 2));
    assert_eq!(lost.oldest_unverified, None);
    let shown = manager.report().to_string();
    assert!(shown.contains("whole, 1 lost, 1 altered"), "{shown}");
    let metrics = manager.metrics();
    assert_eq!(metrics.by_model[0].figures.oldest_unverified, None);
    rig.clear();
}

#[test]
fn a_report_prints_a_line_a_model_and_counts_what_is_too_much() {
    let (_clock, manager) = rig();
    assert!(manager.report().to_string().ends_with("no shard is resident or parked\n"));
    let heads = manager.report().to_string().lines().count();
    let hostile = "a\nb\u{1b}[31m".repeat(60);
    admit(&manager, &hostile, &hostile, 3);
    let report = manager.report();
    assert_eq!(report.to_string().lines().count(), heads + 1, "a head and a line");
    assert!(!report.to_string().contains('\u{1b}'));
    assert_eq!(report.with_shards().to_string().lines().count(), heads + 1 + 1 + 3);

    for number in 0..1100 {
        manager.seal_model(&format!("m{number}"), 0, &[1; 100]).unwrap();
    }
    let report = manager.report();
    let text = report.to_string();
    assert_eq!(text.lines().count(), heads + 1 + 100);
    assert!(text.ends_with("… and 1001 more, with 250.2 KiB on GPUs\n"), "{text}");
    let text = report.with_shards().to_string();
    assert_eq!(text.lines().count(), heads + 1 + 100 + 1 + 1000 + 1);
    assert!(text.ends_with("… and 103 more\n"));
    assert_eq!((report.models.len(), report.shards.len()), (1101, 1103), "the data is whole");
}

/// However many models there are, a scrape lists the largest of each GPU and sums up the rest.
#[test]
fn the_labels_of_models_are_bounded_and_their_sums_exact() {
    let (clock, manager) = rig();
    for number in 0..100_usize {
        let gpu = u32::from(number % 2 == 1);
        let request = SealRequest::new(&format!("model-{number}"), gpu).owner("pool");
        let shard = manager.seal(request, &vec![1; 256 * (number + 1)]).unwrap();
        if number == 3 {
            core::mem::forget(manager.lease_as(&shard, "forgotten").unwrap());
        }
        clock.advance(seconds(1));
    }
    let metrics = manager.metrics();
    let mut listed: Vec<_> =
        metrics.by_model.iter().map(|model| model.figures.bytes.get() / 256).collect();
    listed.sort_unstable();
    assert_eq!(listed, (69..=100).collect::<Vec<_>>(), "16 of each of two GPUs");
    let others = metrics.other_models;
    assert_eq!((others.shard_count, others.leased_count), (68, 1));
    assert_eq!(others.bytes.get() / 256, (1..=68).sum::<u64>());
    assert_eq!(
        (others.oldest_lease, others.oldest_unverified),
        (Some(seconds(97)), Some(seconds(100)))
    );
    let last = metrics.by_model.iter().find(|model| &*model.model_id == "model-99").unwrap();
    assert_eq!(last.figures.oldest_unverified, Some(seconds(1)));
    let text = metrics.to_prometheus();
    let labelled = text.lines().filter(|line| line.contains("model=\"")).count();
    assert_eq!(labelled, 32 * 4, "no model of them is leased");
    assert!(text.contains("vram_model_shards{others=\"true\"} 68\n"));
    assert_eq!(metrics.lease_count, 1);
}

/// A snapshot and metrics of an earlier version, which knew no models, are still read.
#[cfg(feature = "serde")]
#[test]
fn json_without_models_is_read() {
    let (_clock, manager) = rig();
    admit(&manager, "llama", "pool", 2);
    let mut metrics = serde_json::to_value(manager.metrics()).unwrap();
    let back: vram_residency::Metrics = serde_json::from_value(metrics.clone()).unwrap();
    assert_eq!(serde_json::to_value(back).unwrap(), metrics);
    for field in ["models", "by_model", "other_models", "lease_count", "oldest_lease"] {
        metrics.as_object_mut().unwrap().remove(field).unwrap();
    }
    assert!(
        serde_json::from_value::<vram_residency::Metrics>(metrics).unwrap().by_model.is_empty()
    );

    let mut snapshot = serde_json::to_value(manager.snapshot()).unwrap();
    assert_eq!(snapshot["state"]["models"][0]["state"], "whole");
    assert_eq!(snapshot["state"]["shards"][1]["piece"]["tensor"], "t1");
    snapshot["state"].as_object_mut().unwrap().remove("models").unwrap();
    snapshot["counters"].as_object_mut().unwrap().remove("oldest_leases").unwrap();
    let read: vram_residency::Snapshot = serde_json::from_value(snapshot).unwrap();
    assert!(read.state.models.is_empty() && read.state.shards.len() == 2);
}
