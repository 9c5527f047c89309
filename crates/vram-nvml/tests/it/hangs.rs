//! A library that hangs delays nobody beyond the bound that the caller names.

use core::time::Duration;
use std::time::Instant;

use vram_nvml::{Answer, Figure, NamedCard, XidWatch, to_prometheus};

use crate::sim::{LONG, Sim, until, uuid};

/// What a call that waits for nothing may take on a busy machine.
const SOON: Duration = Duration::from_secs(5);

fn card(rest: &str) -> String {
    format!("card {} {rest}", uuid(1))
}

/// P154.
#[test]
fn a_library_that_hangs_delays_no_call_beyond_its_bound() {
    let functions = [
        "nvmlInit_v2",
        "nvmlDeviceGetHandleByUUID",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlEventSetWait_v2",
    ];
    let bound = Duration::from_millis(50);
    for function in functions {
        let fit = card("volatile=0/4 process=71:5:a");
        let hangs = format!("hang={function} {fit}");
        let sim = Sim::new(&hangs);
        let began = Instant::now();
        let monitor = vram_nvml::Monitor::start(sim.options(&[uuid(1)]).xids());
        let figures = function != "nvmlEventSetWait_v2";
        if figures {
            match monitor.card(uuid(1), bound) {
                Answer::Late { waited } => assert!(waited >= bound, "{function}: {waited:?}"),
                other => panic!("{function}: {other:?}"),
            }
            // It has had the question for longer than the bound by now: nobody waits again.
            let again = monitor.fresh(uuid(1), bound);
            assert!(matches!(again, Answer::Late { .. }), "{function}: {again:?}");
        }
        let text = to_prometheus(&monitor, &[NamedCard { gpu: 0, uuid: uuid(1) }]);
        assert!(text.contains("vram_card_told{"), "{text}");
        assert!(!figures || !text.contains("ecc_errors_total{"), "{text}");
        assert_ne!(monitor.xid_watch(uuid(1)), XidWatch::NotAsked);
        // Whoever drops it does not wait either.
        drop(monitor.clone());
        assert!(began.elapsed() < SOON, "{function}: {:?}", began.elapsed());
        // It comes back, and so do its answers.
        sim.say(&fit);
        let answer = monitor.card(uuid(1), LONG);
        let health = answer.health().unwrap_or_else(|| panic!("{function}: {answer:?}"));
        assert_eq!(health.ecc_volatile.uncorrected, Figure::Known(4));
        let began = Instant::now();
        sim.say(&hangs);
        std::thread::sleep(Duration::from_millis(10));
        drop(monitor);
        assert!(began.elapsed() < SOON, "{function}: {:?}", began.elapsed());
        sim.say(&fit);
    }
}

#[test]
fn while_the_library_hangs_readers_have_its_last_answer_and_how_old_it_is() {
    let fit = card("volatile=0/4");
    let sim = Sim::new(&fit);
    let monitor = sim.monitor();
    assert!(monitor.card(uuid(1), LONG).health().is_some());
    sim.say(&format!("hang=nvmlDeviceGetTotalEccErrors {fit}"));
    let age = || match monitor.card(uuid(1), LONG) {
        Answer::Told(reading) => {
            assert_eq!(reading.health.ecc_volatile.uncorrected, Figure::Known(4));
            reading.age
        }
        other => panic!("{other:?}"),
    };
    until("the answer grows old", || age() > Duration::from_millis(1500));
    // One who asks for a new answer waits for his bound, or not at all, and has the old one.
    let began = Instant::now();
    let answer = monitor.fresh(uuid(1), Duration::from_millis(50));
    assert!(answer.health().is_some() && began.elapsed() < SOON);
    sim.say(&fit);
    until("the answer is young again", || age() < Duration::from_millis(500));
}
