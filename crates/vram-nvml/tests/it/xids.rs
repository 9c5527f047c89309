//! XIDs: each is seen once, counted, and told with its card.

use std::sync::mpsc;

use vram_nvml::{Monitor, NamedCard, XidCount, XidWatch, meaning, to_prometheus};

use crate::sim::{LONG, Sim, until, uuid};

#[test]
fn an_xid_is_told_once_with_its_card_and_counted() {
    let cards = |first: &str| format!("card {} {first} card {} volatile=0/0", uuid(1), uuid(2));
    let sim = Sim::new(&cards("xid=31@2 xid=94@3"));
    let (seen, told) = mpsc::channel();
    let options = sim.options(&[uuid(1), uuid(2)]);
    let monitor = Monitor::start(options.on_xid(move |event| {
        seen.send((event.card, event.xid, event.number)).unwrap();
    }));
    assert_eq!(told.recv_timeout(LONG).unwrap(), (uuid(1), 31, 0));
    assert_eq!(told.recv_timeout(LONG).unwrap(), (uuid(1), 94, 1));
    assert_eq!(monitor.xid_watch(uuid(1)), XidWatch::Watching);
    // Later ones, on a card whose other figures nobody gets: it fell off the bus.
    sim.say(&format!("{} xid=79@0", cards("lost=1 xid=31@2 xid=94@3")));
    assert_eq!(told.recv_timeout(LONG).unwrap(), (uuid(2), 79, 2));
    let of = |xid, count| XidCountOf(xid, count);
    assert_eq!(counts(&monitor.xids(uuid(1))), [of(31, 1), of(94, 1)]);
    assert_eq!(counts(&monitor.xids(uuid(2))), [of(79, 1)]);
    assert_eq!(monitor.recent_xids().len(), 3);

    let named = [NamedCard { gpu: 0, uuid: uuid(1) }, NamedCard { gpu: 1, uuid: uuid(2) }];
    let text = to_prometheus(&monitor, &named);
    let line = format!("vram_card_xids_total{{gpu=\"1\",uuid=\"{}\",xid=\"79\"}} 1\n", uuid(2));
    assert!(text.contains(&line), "{text}");

    until("the loss shows", || monitor.fresh(uuid(1), LONG).health().is_none());
    let words = monitor.loss_in_words(uuid(1), &monitor.card(uuid(1), LONG)).unwrap();
    let means = meaning(94);
    for said in ["XID 94", means.what, means.next, "fell off the bus"] {
        assert!(words.contains(said), "{said}: {words}");
    }
}

#[derive(Debug, PartialEq, Eq)]
struct XidCountOf(u64, u64);

fn counts(counts: &[XidCount]) -> Vec<XidCountOf> {
    counts.iter().map(|one| XidCountOf(one.xid.unwrap(), one.count)).collect()
}

#[test]
fn a_receiver_that_panics_ends_no_watch_and_a_card_that_offers_none_says_why() {
    let sim = Sim::new(&format!("card {} xid=48@1 xid=63@2", uuid(1)));
    let panics = sim.options(&[uuid(1), uuid(3)]).on_xid(|event| panic!("XID {}", event.xid));
    let monitor = Monitor::start(panics);
    until("both are counted", || monitor.xids(uuid(1)).len() == 2);
    match monitor.xid_watch(uuid(3)) {
        XidWatch::NotOffered(why) => assert!(why.contains("unsuccessful"), "{why}"),
        other => panic!("{other:?}"),
    }
    let unasked = sim.monitor();
    assert_eq!(unasked.xid_watch(uuid(1)), XidWatch::NotAsked);
}
