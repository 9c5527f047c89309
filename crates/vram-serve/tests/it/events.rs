//! P115: a reader of events gets each event once and in order, also over a break, and is told when some
//! are missing; no event waits for a reader.

use core::time::Duration;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::{Rig, read_until, wait};

/// Connects to `/events`, and returns the connection with what came after its head.
fn listen(rig: &Rig, last_id: Option<&str>) -> (TcpStream, String) {
    let mut stream = rig.connect();
    let last = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
    let text = format!("GET /events HTTP/1.1\r\nHost: localhost\r\n{last}\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    let came = read_until(&mut stream, ": vram\n\n");
    (stream, came.split_once(": vram\n\n").unwrap().1.to_owned())
}

/// Waits until every event has reached the readers' feed.
fn settled(rig: &Rig) {
    wait(|| {
        let metrics = rig.get("/metrics").body;
        let value = |name: &str| {
            metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned()
        };
        value("vram_events_total ") == value("vram_events_delivered_total{sink=\"0\"} ")
    });
}

/// The frames in what was read: id, name and data.
fn frames(text: &str) -> Vec<(String, String, Value)> {
    let fields = |frame: &str| {
        let field = |name: &str| {
            let line = frame.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim_start().to_owned())
        };
        Some((field("id:")?, field("event:")?, serde_json::from_str(&field("data:")?).ok()?))
    };
    text.split("\n\n").filter_map(fields).collect()
}

#[test]
fn a_reader_sees_what_happens_and_goes_on_after_a_break_without_a_gap() {
    let rig = Rig::three();
    settled(&rig);
    let (mut stream, _) = listen(&rig, None);
    rig.post("/v1/models/b/park", "").expect(200);
    let first = read_until(&mut stream, "event: model_parked");
    let seen = frames(&first);
    assert!(
        seen.iter().any(|(_, name, data)| name == "parked" && data["kind"]["event"] == "parked")
    );
    let last = seen.last().unwrap().0.clone();
    drop(stream);

    rig.post("/v1/models/b/wake", "").expect(200);
    drop(rig.lease("b", "w"));
    wait(|| rig.leases() == 0);
    let (mut stream, began) = listen(&rig, Some(&last));
    let rest = frames(&(began + &read_until(&mut stream, "event: lease_ended")));
    let number = |id: &str| id.rsplit('-').next().unwrap().parse::<u64>().unwrap();
    assert_eq!(number(&rest[0].0), number(&last) + 1);
    for pair in rest.windows(2) {
        assert_eq!(number(&pair[1].0), number(&pair[0].0) + 1);
    }
    let names: BTreeSet<_> = rest.iter().map(|(_, name, _)| name.as_str()).collect();
    assert!(names.contains("model_woken") && names.contains("lease_began"), "{names:?}");
    // The numbers of the manager's own events have no gap either.
    let own: Vec<u64> = rest.iter().filter_map(|(_, _, data)| data["seq"].as_u64()).collect();
    assert!(own.windows(2).all(|pair| pair[1] == pair[0] + 1), "{own:?}");
}

#[test]
fn a_reader_whose_id_is_too_old_or_of_another_run_is_told_that_it_missed_some() {
    let rig =
        Rig::with("[limits]\nevents_kept = 10\n[[model]]\nname = \"a\"\npath = \"a.safetensors\"");
    rig.wait_ready();
    let (mut stream, _) = listen(&rig, None);
    rig.post("/v1/models/a/park", "").expect(200);
    let first = read_until(&mut stream, "event: ");
    let first = frames(&format!("{first}\n\n")).first().map(|frame| frame.0.clone());
    let first = first.unwrap_or_default();
    for _ in 0..3 {
        rig.post("/v1/models/a/wake", "").expect(200);
        rig.post("/v1/models/a/park", "").expect(200);
    }
    settled(&rig);
    for id in [&*first, "abc-1", "x"] {
        let (mut late, mut told) = listen(&rig, Some(id));
        if !told.contains("event: model_parked") {
            told += &read_until(&mut late, "event: model_parked");
        }
        let told = frames(&told);
        assert_eq!(told[0].1, "lagged", "{told:?}");
        assert!(told.len() <= 11, "{}", told.len());
    }
}

#[test]
fn a_reader_that_takes_nothing_holds_nothing_up_and_is_let_go() {
    let rig = Rig::with(
        "[limits]\nsend = \"500ms\"\nevents_kept = 2000\n[[model]]\nname = \"a\"\npath = \"a.safetensors\"",
    );
    rig.wait_ready();
    let (mut slow, _) = listen(&rig, None);
    let (mut quick, _) = listen(&rig, None);
    quick.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut taken = 0_u64;
    let mut buffer = vec![0; 65536];
    let mut ended = false;
    // More than the system's buffers hold.
    for _ in 0..400 {
        rig.post("/v1/models/a/park", "").expect(200);
        rig.post("/v1/models/a/wake", "").expect(200);
        while let Ok(count) = quick.read(&mut buffer) {
            taken += u64::try_from(count).unwrap();
            if count < buffer.len() {
                break;
            }
        }
        let metrics = rig.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("vram_serve_open_connections "));
        if line.unwrap().ends_with(" 2") {
            ended = true;
            break;
        }
    }
    assert!(ended, "{taken} bytes were sent to the quick one, and the slow one is still there");
    // What the system kept for it is the beginning; its end is not there.
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    settled(&rig);
    rig.post("/v1/models/a/park", "").expect(200);
    read_until(&mut quick, "event: model_parked");
}

#[test]
fn readers_beyond_the_bound_are_refused() {
    let rig = Rig::with("[limits]\nevent_readers = 2\n");
    let held = [listen(&rig, None).0, listen(&rig, None).0];
    rig.get("/events").expect_problem(503, "too-many-readers");
    drop(held);
    wait(|| {
        let mut stream = rig.connect();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut first = [0; 15];
        stream.read_exact(&mut first).unwrap();
        &first == b"HTTP/1.1 200 OK"
    });
}
