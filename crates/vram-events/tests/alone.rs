//! Events without a manager: order, bounds, panics and flushes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is the failure of the test")]

#[macro_use]
extern crate vram_testkit;

use core::time::Duration;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use vram_events::{
    Event, EventKind, EventLevel, EventLog, EventSink, Events, PieceName, Sinks, Whose,
};
use vram_id::{Clock, SystemClock, Timestamp};
use vram_seal::Checked;

fn start(sinks: Sinks) -> (Arc<Events>, vram_events::SinkThreads) {
    Events::start(Arc::new(SystemClock), sinks).unwrap()
}

fn closed(left: u64) -> EventKind {
    EventKind::Closed { left }
}

#[test]
fn numbers_rise_from_zero_though_no_sink_is_there() {
    let (events, _threads) = start(Sinks::new());
    events.emit(closed(0));
    events.emit(closed(1));
    assert_eq!((events.emitted(), events.counts()), (2, Vec::new()));
    assert!(events.flush(Some(Instant::now())), "no sink, nothing to wait for");
}

#[test]
fn every_sink_has_all_events_in_order_from_many_threads() {
    let logs = [EventLog::new(4000), EventLog::new(4000)];
    let mut sinks = Sinks::new();
    for log in &logs {
        sinks.add(log.clone());
    }
    let (events, _threads) = start(sinks);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|at| events.emit(closed(at))));
        }
    });
    assert!(events.flush(None));
    for log in logs {
        let numbers: Vec<u64> = log.take().iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (0..4000).collect::<Vec<_>>());
        assert_eq!(log.missing(), 0);
    }
}

/// Blocks at its first event until the test releases it, and records what it receives.
struct Slow {
    entered: mpsc::Sender<()>,
    released: mpsc::Receiver<()>,
    told: Arc<Mutex<Vec<String>>>,
}

impl EventSink for Slow {
    fn event(&mut self, event: &Event) {
        if event.seq == 0 {
            self.entered.send(()).unwrap();
            self.released.recv().unwrap();
        }
        self.told.lock().unwrap().push(event.seq.to_string());
    }

    fn dropped(&mut self, count: u64) {
        self.told.lock().unwrap().push(format!("{count} missing"));
    }

    fn flush(&mut self) {
        self.told.lock().unwrap().push("flush".to_owned());
    }
}

#[test]
fn a_full_queue_drops_counts_and_tells_in_place_and_no_emitter_waits() {
    let (entered, inside) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let told = Arc::<Mutex<Vec<String>>>::default();
    let mut sinks = Sinks::new();
    sinks.add_with(2, Slow { entered, released, told: Arc::clone(&told) });
    let (events, threads) = start(sinks);
    events.emit(closed(0));
    inside.recv().unwrap();
    for at in 1..6 {
        events.emit(closed(at));
    }
    assert!(!events.flush(Some(Instant::now())), "the sink stands still");
    let counts = events.counts()[0];
    assert_eq!((counts.emitted, counts.delivered, counts.dropped), (6, 0, 3));
    release.send(()).unwrap();
    assert!(events.flush(Some(Instant::now() + Duration::from_mins(1))));
    assert_eq!(events.counts()[0].delivered, 3);
    let mut heard = told.lock().unwrap().clone();
    // The sink may have come to the flush that was given up before the second was asked for.
    heard.dedup();
    assert_eq!(heard, ["0", "1", "2", "3 missing", "flush"]);
    drop(threads);
    assert_eq!(told.lock().unwrap().last().unwrap(), "flush");
    events.emit(closed(6));
    assert_eq!(events.counts()[0].dropped, 4, "after the end all are dropped, and counted");
}

/// A sink of models waits for no place behind thousands of shards, and counts none of them.
#[test]
fn a_sink_of_models_has_a_queue_without_the_steps_of_their_shards() {
    let logs = [EventLog::new(100), EventLog::new(100)];
    let mut sinks = Sinks::new();
    sinks.add(logs[0].clone());
    sinks.add_at(EventLevel::Models, logs[1].clone());
    let (events, _threads) = start(sinks);
    let shard = vram_id::IdSource::Process.next(&SystemClock);
    let single = Arc::new(Whose::new("m".into(), Some("pool".into())));
    let piece = Whose::clone(&single).admitted(7, Some(PieceName::new("head", 0)));
    let model = piece.model();
    assert_eq!((model.admission, &model.piece), (Some(7), &None));
    let freed = || EventKind::Freed {
        shard: shard.clone(),
        gpu: 0,
        bytes: vram_alloc::ByteLen::MIB,
        wiped: true,
    };
    let piece = Some(Arc::new(piece));
    events.emit_step(piece.clone(), freed());
    events.emit_of(
        Some(Arc::new(model)),
        EventKind::ModelFreed { shards: 1, bytes: vram_alloc::ByteLen::MIB },
    );
    events.emit_step(piece.clone(), EventKind::Quarantined { shard: shard.clone(), gpu: 0 });
    // A step about which no event of the model follows.
    events.emit_of(piece.clone(), freed());
    let (gpu, bytes) = (0, vram_alloc::ByteLen::MIB);
    events.emit_of(
        piece,
        EventKind::Verified { shard: shard.clone(), gpu, bytes, by: Checked::BY_HOST },
    );
    events.emit_step(Some(single), freed());
    events.emit(closed(0));
    assert!(events.flush(None));
    let [all, models] = logs.map(|log| {
        log.take().iter().map(|event| (event.seq, event.kind.name())).collect::<Vec<_>>()
    });
    assert_eq!(all.len(), 7);
    let expected =
        [(1, "model_freed"), (2, "quarantined"), (3, "freed"), (5, "freed"), (6, "closed")];
    assert_eq!(models, expected);
    let [_, counts] = events.counts().try_into().unwrap();
    assert_eq!((counts.emitted, counts.delivered, counts.dropped), (5, 5, 0));
}

#[test]
fn a_sink_that_panics_is_out_of_service_and_the_others_go_on() {
    let log = EventLog::new(10);
    let mut sinks = Sinks::new();
    sinks.add(|_event: &Event| panic!("a sink fails"));
    sinks.add(log.clone());
    let (events, _threads) = start(sinks);
    events.emit(closed(0));
    events.emit(closed(1));
    assert!(events.flush(None));
    let [panicked, sound] = events.counts().try_into().unwrap();
    assert!(panicked.out_of_service && !sound.out_of_service);
    assert_eq!((panicked.delivered, panicked.dropped, panicked.failed), (0, 1, 1));
    assert_eq!(log.events().len(), 2);
}

#[derive(Debug)]
struct Broken;

impl Clock for Broken {
    fn now(&self) -> Timestamp {
        panic!("a clock fails")
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn a_clock_that_panics_costs_the_time_and_not_the_event() {
    let log = EventLog::new(10);
    let mut sinks = Sinks::new();
    sinks.add(log.clone());
    let (events, _threads) = Events::start(Arc::new(Broken), sinks).unwrap();
    events.emit(closed(0));
    assert!(events.flush(None));
    assert_eq!(log.take()[0].at, Timestamp::default());
}

#[test]
fn a_log_keeps_the_last_events_and_counts_the_rest() {
    let log = EventLog::new(2);
    let mut sinks = Sinks::new();
    sinks.add(log.clone());
    let (events, _threads) = start(sinks);
    (0..5).for_each(|at| events.emit(closed(at)));
    assert!(events.flush(None));
    assert_eq!(log.missing(), 3);
    assert_eq!(log.take().iter().map(|event| event.seq).collect::<Vec<_>>(), [3, 4]);
    assert!(log.take().is_empty());
}

#[cfg(feature = "serde")]
#[test]
fn events_travel_as_json_with_their_kind_by_name() {
    use vram_seal::Protection;

    let log = EventLog::new(10);
    let mut sinks = Sinks::new();
    sinks.add(log.clone());
    let (events, _threads) = start(sinks);
    let shard: vram_id::ShardId = "orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    events.emit(EventKind::SealedAnew { shard, gpu: 1, protection: Protection::Authenticated });
    assert!(events.flush(None));
    let event = log.take().pop().unwrap();
    let text = serde_json::to_string(&event.kind).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"event":"sealed_anew","shard":"orch-shard-01ARZ3NDEKTSV4RRFFQ69G5FAV","#,
            r#""gpu":1,"protection":"authenticated"}"#
        )
    );
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
}

#[test]
fn an_event_reaches_its_sink_without_a_flush() {
    let (told, heard) = mpsc::channel();
    let mut sinks = Sinks::new();
    sinks.add(move |event: &Event| told.send(event.seq).unwrap());
    let (events, _threads) = start(sinks);
    for seq in 0..100 {
        events.emit(closed(0));
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(seq));
    }
}

#[test]
fn a_flush_and_the_end_of_a_sink_wake_who_waits_for_them() {
    let mut sinks = Sinks::new();
    sinks.add(|_event: &Event| {});
    let (events, threads) = start(sinks);
    for _ in 0..100 {
        events.emit(closed(0));
        let began = Instant::now();
        assert!(events.flush(Some(began + Duration::from_secs(10))));
        assert!(began.elapsed() < Duration::from_secs(8), "it was not woken");
    }
    drop(threads);
    // Often, because a sink may have ended before anybody waits for it.
    for _ in 0..100 {
        let mut sinks = Sinks::new();
        sinks.add(|_event: &Event| {});
        let (_events, threads) = start(sinks);
        let began = Instant::now();
        drop(threads);
        // A sink that does not come to its end is left behind after five seconds.
        assert!(began.elapsed() < Duration::from_secs(4), "it was not woken");
    }
}
