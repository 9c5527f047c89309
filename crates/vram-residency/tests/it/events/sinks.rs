//! Sinks that block, panic, are slow or late: no call waits for them, and missed events are
//! counted.

use core::time::Duration;
use std::sync::{Arc, Mutex, mpsc};

use vram_residency::{
    ByteLen, Event, EventLog, EventSink, Protection, ScrubOptions, ScrubRate, SealKey, SealRequest,
    VramManager,
};

use vram_test_rigs::{SEGMENT, weights};

use super::{LONG, rig, rig_with};

/// Blocks inside each event until the test releases it, and records every event.
struct Gated {
    entered: mpsc::Sender<u64>,
    gate: mpsc::Receiver<()>,
    told: Told,
}

impl EventSink for Gated {
    fn event(&mut self, event: &Event) {
        let _nobody_waits = self.entered.send(event.seq);
        let _open = self.gate.recv();
        self.told.lock().unwrap().push(event.seq.to_string());
    }

    fn dropped(&mut self, count: u64) {
        self.told.lock().unwrap().push(format!("dropped {count}"));
    }

    fn flush(&mut self) {
        self.told.lock().unwrap().push("flush".to_owned());
    }
}

/// The record of a sink, one line for each event.
type Told = Arc<Mutex<Vec<String>>>;

/// A blocking sink, the receiver that reports each entry, the sender that releases it, and its
/// record.
fn gated() -> (Gated, mpsc::Receiver<u64>, mpsc::Sender<()>, Told) {
    let (entered, inside) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    let told = Arc::new(Mutex::new(Vec::new()));
    (Gated { entered, gate, told: Arc::clone(&told) }, inside, open, told)
}

#[test]
fn a_sink_that_stands_still_stops_nobody_and_its_drops_are_counted_and_told_in_place() {
    let (sink, inside, open, told) = gated();
    let (tell, other) = mpsc::channel();
    let rig = rig_with(&[64 * SEGMENT], |builder| {
        builder.event_sink_with(2, sink).event_sink(move |event: &Event| {
            let _nobody_listens = tell.send(event.seq);
        })
    });
    let manager = &rig.manager;
    let refuse = || manager.seal_model("m", 9, b"x").unwrap_err();
    refuse();
    assert_eq!(inside.recv().unwrap(), 0, "it is inside the first event from here on");
    for _ in 0..5 {
        refuse();
    }
    let counts = manager.event_counts()[1];
    assert_eq!((counts.emitted, counts.delivered, counts.dropped), (6, 0, 3));
    assert!(!manager.flush_events(Duration::ZERO), "it stands still");
    for seq in 0..6 {
        assert_eq!(other.recv_timeout(LONG), Ok(seq), "the other sink has all of them");
    }

    // One place in the queue is free again: the next event is delivered after the report of the
    // loss.
    open.send(()).unwrap();
    assert_eq!(inside.recv().unwrap(), 1);
    refuse();
    drop(open);
    assert!(manager.flush_events(LONG));
    let counts = manager.event_counts()[1];
    assert_eq!((counts.emitted, counts.delivered, counts.dropped), (7, 4, 3));
    let told = told.lock().unwrap();
    let told: Vec<_> = told.iter().filter(|line| *line != "flush").collect();
    assert_eq!(told, ["0", "1", "2", "dropped 3", "6"]);
}

#[test]
fn a_queue_of_zero_drops_everything_and_says_so() {
    let (sink, _inside, open, told) = gated();
    drop(open);
    let rig = rig_with(&[64 * SEGMENT], |builder| builder.event_sink_with(0, sink));
    for _ in 0..3 {
        rig.manager.seal_model("m", 9, b"x").unwrap_err();
    }
    assert!(rig.manager.flush_events(LONG));
    let counts = rig.manager.event_counts()[1];
    assert_eq!((counts.emitted, counts.delivered, counts.dropped), (3, 0, 3));
    drop(rig);
    let told = told.lock().unwrap();
    let lost =
        |line: &String| line.strip_prefix("dropped ").map(|count| count.parse::<u64>().unwrap());
    assert_eq!(told.iter().filter_map(lost).sum::<u64>(), 3);
}

#[test]
fn a_loss_that_nothing_follows_is_told_without_a_flush() {
    struct Tells(mpsc::Sender<u64>);
    impl EventSink for Tells {
        fn event(&mut self, _event: &Event) {}
        fn dropped(&mut self, count: u64) {
            self.0.send(count).unwrap();
        }
    }
    let (tell, told) = mpsc::channel();
    let rig = rig_with(&[64 * SEGMENT], |builder| builder.event_sink_with(0, Tells(tell)));
    rig.manager.seal_model("m", 9, b"x").unwrap_err();
    assert_eq!(told.recv_timeout(LONG), Ok(1));
}

#[test]
fn what_was_dropped_before_a_flush_is_told_before_it() {
    let (sink, inside, open, told) = gated();
    let rig = rig_with(&[64 * SEGMENT], |builder| builder.event_sink_with(1, sink));
    let refuse = || rig.manager.seal_model("m", 9, b"x").unwrap_err();
    refuse();
    assert_eq!(inside.recv().unwrap(), 0);
    for _ in 0..2 {
        refuse();
    }
    assert!(!rig.manager.flush_events(Duration::ZERO));
    refuse();
    // As good as the one before: it includes the drops since then.
    assert!(!rig.manager.flush_events(Duration::ZERO));
    open.send(()).unwrap();
    assert_eq!(inside.recv().unwrap(), 1);
    refuse();
    drop(open);
    assert!(rig.manager.flush_events(LONG));
    let told = told.lock().unwrap();
    assert_eq!(told[..5], ["0", "1", "dropped 2", "flush", "4"]);
}

#[test]
fn what_a_sink_says_that_it_could_not_keep_never_goes_down() {
    struct Forgetful(u64);
    impl EventSink for Forgetful {
        fn event(&mut self, event: &Event) {
            self.0 = if event.seq == 0 { 5 } else { 0 };
        }
        fn failed(&self) -> u64 {
            self.0
        }
    }
    let rig = rig_with(&[64 * SEGMENT], |builder| builder.event_sink(Forgetful(0)));
    for _ in 0..2 {
        rig.manager.seal_model("m", 9, b"x").unwrap_err();
        assert!(rig.manager.flush_events(LONG));
        assert_eq!(rig.manager.event_counts()[1].failed, 5);
    }
}

#[test]
fn the_last_manager_may_be_dropped_by_a_sink_on_its_own_thread() {
    let slot = Arc::new(Mutex::new(None::<Arc<VramManager>>));
    let (tell, told) = mpsc::channel();
    let held = Arc::clone(&slot);
    let rig = rig_with(&[64 * SEGMENT], |builder| {
        builder.event_sink(move |event: &Event| {
            let manager = held.lock().unwrap().take();
            // On the sink's own thread the call returns at once.
            let flushed = manager.as_ref().map(|manager| manager.flush_events(LONG));
            drop(manager);
            let _nobody_listens = tell.send((event.seq, flushed));
        })
    });
    let scrub = ScrubOptions::new(ScrubRate::Within(LONG));
    let scrubber = rig.manager.start_scrubber(scrub).unwrap();
    let manager = Arc::new(rig.rig.manager);
    let mut place = slot.lock().unwrap();
    manager.seal_model("m", 9, b"x").unwrap_err();
    *place = Some(manager);
    drop(place);
    assert_eq!(told.recv_timeout(LONG), Ok((0, Some(false))));
    // The thread ends, and nothing of the manager is left.
    assert_eq!(told.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));
    assert!(!scrubber.status().running);
    assert!(rig.rig.devices[0].live().is_empty());
}

#[test]
fn a_sink_that_panics_is_taken_out_of_service_and_the_others_go_on() {
    struct Faulty;
    impl EventSink for Faulty {
        fn event(&mut self, event: &Event) {
            assert_ne!(event.seq, 1, "the sink's own fault");
        }
    }
    impl Drop for Faulty {
        fn drop(&mut self) {
            panic!("and once more on the way out");
        }
    }
    let rig = rig_with(&[64 * SEGMENT], |builder| builder.event_sink(Faulty));
    for _ in 0..3 {
        rig.manager.seal_model("m", 9, b"x").unwrap_err();
    }
    assert!(rig.manager.flush_events(LONG), "nobody waits for the one that is gone");
    let shard = rig.manager.seal_model("m", 0, b"x").unwrap();
    assert_eq!(rig.manager.unseal_model(&shard).unwrap(), b"x");
    assert!(rig.manager.flush_events(LONG));
    let [log, faulty] = rig.manager.event_counts().try_into().unwrap();
    assert_eq!((log.delivered, log.dropped, log.out_of_service), (4, 0, false));
    assert_eq!((faulty.emitted, faulty.delivered), (4, 1));
    assert_eq!((faulty.dropped, faulty.failed, faulty.out_of_service), (2, 1, true));
}

#[test]
fn a_manager_that_is_dropped_lets_its_sinks_finish() {
    let (sink, inside, open, told) = gated();
    let rig = rig_with(&[64 * SEGMENT], |builder| builder.event_sink_with(100, sink));
    for _ in 0..10 {
        rig.manager.seal_model("m", 9, b"x").unwrap_err();
    }
    inside.recv().unwrap();
    drop(open);
    drop(rig.rig.manager);
    let told = told.lock().unwrap();
    let expected: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(told[..10], expected);
    assert_eq!(told[10..], ["flush"]);
}

#[test]
fn events_after_the_manager_is_gone_reach_nobody_and_stop_nobody() {
    let rig = rig(&[64 * SEGMENT]);
    let request = SealRequest::new("m", 0).protection(Protection::Authenticated);
    let shard = rig.manager.seal(request, &weights(SEGMENT)).unwrap();
    let lease = rig.manager.lease(&shard).unwrap();
    let fault = vram_residency::device::fault::Action::Driver(1);
    rig.rig.devices[0]
        .add(
            vram_residency::device::fault::Op::Fill,
            vram_residency::device::fault::When::From(1),
            fault,
        )
        .unwrap();
    drop(rig.rig.manager);
    // Its memory is freed only now, and the device refuses.
    drop(lease);
    assert_eq!(rig.log.events().len(), 1);
}

#[test]
fn a_manager_that_cannot_be_built_leaves_no_thread_behind() {
    let (sink, inside, _open, told) = gated();
    let refused = VramManager::builder()
        .host_device(ByteLen::MIB)
        .headroom(0, ByteLen::MIB)
        .event_sink(sink)
        .budget(0, vram_residency::Budget::Bytes(ByteLen::from_mib_saturating(2)))
        .build();
    assert!(refused.is_err());
    assert!(inside.recv().is_err(), "the sink is gone");
    assert_eq!(*told.lock().unwrap(), ["flush"]);
}

#[test]
fn a_log_keeps_the_last_events_and_counts_the_others() {
    let log = EventLog::new(3);
    let rig = rig_with(&[64 * SEGMENT], |builder| builder.event_sink(log.clone()));
    for _ in 0..5 {
        rig.manager.seal_model("m", 9, b"x").unwrap_err();
    }
    assert!(rig.manager.flush_events(LONG));
    let numbers: Vec<_> = log.events().iter().map(|event| event.seq).collect();
    assert_eq!((numbers.as_slice(), log.missing()), ([2, 3, 4].as_slice(), 2));
    assert_eq!(log.take().len(), 3);
    assert!(log.events().is_empty());
}

#[test]
fn events_show_neither_content_nor_keys_nor_digests() {
    let rig = rig(&[64 * SEGMENT, 64 * SEGMENT]);
    let (key, bytes) = ([0xA7; 32], vec![0xA7; 2 * SEGMENT]);
    let key = SealKey::from_bytes(&key);
    let key_id = key.id();
    rig.manager.add_key(key).unwrap();
    let shard = rig.manager.seal_model("model", 0, &bytes).unwrap();
    let shard = rig.manager.reseal_shard(&shard, &key_id).unwrap();
    let shard = rig.manager.open_resident(&shard).unwrap();
    let shard = rig.manager.migrate_shard(&shard, 1).unwrap();
    let _verdict = rig.manager.verify(&shard, vram_residency::Verify::Full).unwrap();
    let digest = rig.manager.content_digest(&shard).unwrap();
    rig.manager.seal_model("model", 9, &bytes).unwrap_err();
    rig.manager.free_shard(&shard).unwrap();
    let told = rig.told();
    assert_eq!(told.len(), 7);
    let text = format!("{told:?}").to_lowercase();
    let digest = digest.as_bytes();
    for secret in [&[0xA7_u8; 8][..], &digest[..8], &digest[24..]] {
        let hex: Vec<_> = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex = hex.concat();
        let list = format!("{secret:?}");
        let list = list.trim_matches(['[', ']']);
        assert!(!text.contains(&hex) && !text.contains(list), "{text}");
    }
}
