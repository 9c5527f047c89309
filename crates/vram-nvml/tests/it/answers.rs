//! What a card says arrives as it was said; what it does not say is told apart, and never as zero.

use core::time::Duration;

use vram_alloc::ByteLen;
use vram_nvml::{
    Answer, CardHealth, CardScope, Figure, Monitor, MonitorOptions, NamedCard, NoLibrary,
    to_prometheus,
};

use crate::sim::{LONG, Sim, health, uuid};

fn card(rest: &str) -> String {
    format!("card {} {rest}", uuid(1))
}

#[test]
fn every_figure_arrives_in_its_own_place() {
    let own = std::process::id();
    let health = health(&card(&format!(
        "volatile=1/2 aggregate=30/40 remapped=5/6/pending retired=no \
         process=71:1024:/usr/bin/python3 process={own}:4096:/me process=72:-:Xorg"
    )));
    assert_eq!(health.scope, CardScope::Card);
    let counts = [
        (&health.ecc_volatile.corrected, 1),
        (&health.ecc_volatile.uncorrected, 2),
        (&health.ecc_aggregate.corrected, 30),
        (&health.ecc_aggregate.uncorrected, 40),
        (&health.remapped.corrected, 5),
        (&health.remapped.uncorrected, 6),
    ];
    for (figure, wanted) in counts {
        assert_eq!(figure, &Figure::Known(wanted));
    }
    assert_eq!(health.remapped.pending, Figure::Known(true));
    assert_eq!(health.remapped.failed, Figure::Known(false));
    assert_eq!(health.retired_pending, Figure::Known(false));
    let holders = health.holders.known().unwrap();
    let told: Vec<_> = holders
        .first
        .iter()
        .map(|one| (one.pid, one.bytes.known().map(|bytes| bytes.get()), one.this_process))
        .collect();
    assert_eq!(told, [(own, Some(4096), true), (71, Some(1024), false), (72, None, false)]);
    assert_eq!(holders.first[1].name, Figure::Known("python3".to_owned()));
    assert_eq!(holders.first[2].bytes, Figure::<ByteLen>::Unsupported);
    let others = health.others_in_words().unwrap();
    assert!(others.contains("python3 (pid 71) holds 1") && others.contains("Xorg"), "{others}");
}

/// P154.
#[test]
fn what_a_card_does_not_tell_is_never_told_as_zero() {
    fn figures(health: &CardHealth) -> Vec<String> {
        let number = |figure: &Figure<u64>| format!("{figure:?}");
        let flag = |figure: &Figure<bool>| format!("{figure:?}");
        vec![
            number(&health.ecc_volatile.corrected),
            number(&health.ecc_volatile.uncorrected),
            number(&health.ecc_aggregate.corrected),
            number(&health.ecc_aggregate.uncorrected),
            number(&health.remapped.corrected),
            number(&health.remapped.uncorrected),
            flag(&health.remapped.pending),
            flag(&health.remapped.failed),
            flag(&health.retired_pending),
        ]
    }
    // Not supported, no permission, no such function, an argument of another version, unknown.
    for (code, wanted) in
        [(3, "Unsupported"), (4, "NoPermission"), (13, "TooOld"), (25, "TooOld"), (999, "Unknown(")]
    {
        let refused = format!("={code}");
        let text = ["volatile", "aggregate", "remapped", "retired", "holders"]
            .map(|name| format!("{name}{refused}"));
        let sim = Sim::new(&card(&text.join(" ")));
        let monitor = sim.monitor();
        let answer = monitor.card(uuid(1), LONG);
        let health = answer.health().unwrap();
        for figure in figures(health) {
            assert!(figure.starts_with(wanted), "{code}: {figure}");
        }
        assert!(health.holders.known().is_none() && health.others_in_words().is_none());
        assert!(health.trouble().is_empty(), "{:?}", health.trouble());
        let named = [NamedCard { gpu: 0, uuid: uuid(1) }];
        let text = to_prometheus(&monitor, &named);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        for sample in samples {
            let name = sample.split(['{', ' ']).next().unwrap();
            let about = ["vram_card_told", "vram_card_answer_age_seconds", "vram_card_xid_watched"];
            assert!(about.contains(&name), "{code}: {sample}");
        }
        assert!(answer.lines().iter().all(|line| !line.contains('0')), "{:?}", answer.lines());
    }
}

#[test]
fn figures_of_a_card_are_written_for_prometheus_with_its_labels() {
    let sim = Sim::new(&card("volatile=1/2 remapped=0/7/failed process=71:1:a retired=pending"));
    let monitor = sim.monitor();
    assert!(monitor.card(uuid(1), LONG).health().is_some());
    let named = [NamedCard { gpu: 3, uuid: uuid(1) }, NamedCard { gpu: 4, uuid: uuid(9) }];
    let text = to_prometheus(&monitor, &named);
    let labels = format!("gpu=\"3\",uuid=\"{}\"", uuid(1));
    for (name, own, value) in [
        ("vram_card_told", "", 1),
        ("vram_card_ecc_errors_total", ",life=\"volatile\",kind=\"corrected\"", 1),
        ("vram_card_ecc_errors_total", ",life=\"volatile\",kind=\"uncorrected\"", 2),
        ("vram_card_remapped_rows", ",kind=\"corrected\"", 0),
        ("vram_card_remapped_rows", ",kind=\"uncorrected\"", 7),
        ("vram_card_remap_pending", "", 0),
        ("vram_card_remap_failed", "", 1),
        ("vram_card_retired_pages_pending", "", 1),
        ("vram_card_other_processes", "", 1),
        ("vram_card_xid_watched", "", 0),
    ] {
        let line = format!("{name}{{{labels}{own}}} {value}\n");
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert!(!text.contains("life=\"aggregate\""), "the card does not tell it: {text}");
    assert!(!text.contains("gpu=\"4\""), "nobody asks about it: {text}");
    for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
        assert_eq!(text.matches(line).count(), 1, "{line}");
    }
}

#[test]
fn a_partition_has_the_errors_of_its_card_and_says_so() {
    let text = format!("card {} volatile=0/9 mig={} process=71:5:a", uuid(7), uuid(1));
    let health = health(&text);
    assert_eq!(health.scope, CardScope::WholeCardOfPartition);
    assert_eq!(health.ecc_volatile.uncorrected, Figure::Known(9));
    assert!(health.trouble()[0].ends_with("(of the whole card)"), "{:?}", health.trouble());
    assert_eq!(health.holders.known().unwrap().first[0].pid, 71);
}

#[test]
fn a_library_that_is_not_there_or_does_not_start_is_an_answer() {
    let sim = Sim::new("init=9");
    let nowhere = MonitorOptions::new([uuid(1)]).library("/nowhere/libnvidia-ml.so.1");
    match Monitor::start(nowhere).card(uuid(1), LONG) {
        Answer::NoLibrary { why: NoLibrary::NotInstalled(why) } => {
            assert!(why.contains("/nowhere/libnvidia-ml.so.1") && why.contains("cannot"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    match sim.monitor().card(uuid(1), LONG) {
        Answer::NoLibrary { why: NoLibrary::NotStarted(why) } => {
            assert!(why.contains("driver is not loaded"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    // Some other library: loaded, and none of the functions is there.
    let other = MonitorOptions::new([uuid(1)]).library("libm.so.6");
    match Monitor::start(other).card(uuid(1), LONG) {
        Answer::NoLibrary { why: NoLibrary::NotInstalled(why) } => {
            assert!(why.contains("nvmlInit_v2"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    // It starts later.
    let monitor = sim.monitor();
    assert!(monitor.card(uuid(1), LONG).health().is_none());
    sim.say(&card("volatile=0/0"));
    crate::sim::until("it starts", || monitor.fresh(uuid(1), LONG).health().is_some());
    assert_eq!(monitor.driver().unwrap().unwrap(), "570.86.15");
}

#[test]
fn a_card_that_the_library_does_not_know_or_has_lost_is_told_with_its_reason() {
    for (text, said) in [
        ("", "unsuccessful"),
        (&*card("lost=1"), "fell off the bus"),
        (&*format!("card {} volatile=1/1", uuid(2)), "unsuccessful"),
    ] {
        let sim = Sim::new(text);
        match sim.monitor().card(uuid(1), LONG) {
            Answer::NoCard { why, .. } => {
                assert!(why.contains(said) && why.contains(&uuid(1).to_string()), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    let sim = Sim::new("");
    assert_eq!(sim.monitor().card(uuid(5), Duration::ZERO), Answer::NotWatched);
    let none = Monitor::start(MonitorOptions::new([]));
    assert_eq!(none.card(uuid(5), LONG), Answer::NotWatched);
}

#[test]
fn a_fresh_answer_is_of_after_the_call_unless_the_last_is_of_this_second() {
    let sim = Sim::new(&card("volatile=0/0"));
    let options = MonitorOptions::new([uuid(1)]).library(sim.library());
    let monitor = Monitor::start(options);
    assert!(monitor.card(uuid(1), LONG).health().is_some());
    sim.say(&card("volatile=0/1"));
    std::thread::sleep(Duration::from_millis(1100));
    let answer = monitor.fresh(uuid(1), LONG);
    assert_eq!(answer.health().unwrap().ecc_volatile.uncorrected, Figure::Known(1));
    // Many at once cost one question.
    sim.say(&card("volatile=0/2"));
    for _ in 0..1000 {
        let answer = monitor.fresh(uuid(1), Duration::ZERO);
        assert_eq!(answer.health().unwrap().ecc_volatile.uncorrected, Figure::Known(1));
    }
}
