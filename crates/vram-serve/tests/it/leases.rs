//! P113: a lease lasts exactly as long as its connection.

use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use vram_residency::device::fault::{Action, Op};
use vram_serve::client::{Client, Server as Address};

use crate::support::{Rig, Wire, read_until, request, wait};

#[test]
fn what_a_connection_leases_goes_nowhere_until_the_connection_ends() {
    let rig = Rig::three();
    let worker = rig.lease("a", "worker-1");
    let also = rig.lease("a", "worker-2");
    let list = rig.get_json("/v1/leases");
    assert_eq!(list["leases"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&list["leases"][0]["model"], &list["leases"][0]["holder"]),
        (&"a".into(), &"worker-1".into())
    );
    for call in ["park", "free"] {
        let refused = rig.post(&format!("/v1/models/a/{call}"), "").expect_problem(409, "in-use");
        let message = refused["message"].as_str().unwrap();
        // The model that was asked for comes before the shard, and who holds it behind.
        assert!(message.starts_with("model \"a\": ") && message.contains("worker-1"), "{message}");
    }
    rig.post("/v1/models/a/migrate", "{\"gpu\":1}").expect_problem(409, "in-use");
    rig.post("/v1/models/a/park", "{\"wait_ms\":50}").expect_problem(409, "in-use");
    // Others go on, and it can be read and checked.
    rig.post("/v1/models/a/verify", "").expect(200);
    rig.post("/v1/models/b/park", "").expect(200);

    drop(worker);
    wait(|| rig.leases() == 1);
    rig.post("/v1/models/a/park", "").expect_problem(409, "in-use");
    // Closing the sending side alone is a goodbye as well.
    also.shutdown(Shutdown::Write).unwrap();
    wait(|| rig.leases() == 0);
    assert_eq!(rig.model("a")["leases"], 0);
    rig.post("/v1/models/a/park", "").expect(200);
}

#[test]
fn a_worker_is_told_by_its_lease_that_what_it_holds_was_altered_or_lost() {
    let rig = Rig::three();
    let (mut worker, mut other) = (rig.lease("a", "w"), rig.lease("b", "other"));
    rig.devices[0].flip_bit_at(None, rig.end_of_a(), 3).unwrap();
    rig.post("/v1/models/a/verify", "").expect(200);
    read_until(&mut worker, "{\"event\":\"altered\",\"count\":1,\"first\":[{\"tensor\":");
    rig.devices[0].next(Op::Read, Action::Driver(214)).unwrap();
    rig.post("/v1/models/a/verify", "").expect_problem(503, "device-lost");
    read_until(&mut worker, "\"lost\"");
    rig.post("/v1/drain", "{\"deadline_ms\":10}");
    let told = read_until(&mut other, "\"cut\"");
    assert!(!told.contains("altered"), "{told}");
}

#[test]
fn a_call_that_waits_for_a_lease_goes_on_when_its_worker_lets_go() {
    let rig = Rig::three();
    let worker = rig.lease("b", "w");
    std::thread::scope(|scope| {
        let parks = scope.spawn(|| rig.post("/v1/models/b/park", "{\"wait_ms\":20000}"));
        std::thread::sleep(Duration::from_millis(100));
        drop(worker);
        assert_eq!(parks.join().unwrap().expect(200).json()["state"], "parked");
    });
}

/// The test whose program is the worker.
const WORKER: &str = "leases::a_worker_that_is_killed_gives_its_leases_back";

/// A process that leases model `a` until it is killed.
pub(crate) fn worker(rig: &Rig) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", WORKER, "--nocapture"])
        .env("VRAM_TEST_WORKER", &rig.unix)
        .env("VRAM_TEST_TOKEN", rig.path("state/token"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    read_until(child.stdout.as_mut().unwrap(), "leased");
    child
}

/// The worker is a process of its own: this test's program, told by a variable to be one.
#[test]
fn a_worker_that_is_killed_gives_its_leases_back() {
    if let Ok(socket) = std::env::var("VRAM_TEST_WORKER") {
        let address: Address = format!("unix:{socket}").parse().unwrap();
        let token = std::env::var("VRAM_TEST_TOKEN").unwrap().into();
        let client = Client::new(address).unwrap().token_file(token).unwrap();
        let mut leased = client.lease("a", "child").unwrap();
        println!("leased");
        while leased.line().unwrap().is_some() {}
        return;
    }
    let rig = Rig::three();
    let mut child = worker(&rig);
    assert_eq!(rig.get_json("/v1/leases")["leases"][0]["holder"], "child");
    rig.post("/v1/models/a/free", "").expect_problem(409, "in-use");
    // SIGKILL: nothing of it runs any more, no goodbye is said.
    child.kill().unwrap();
    child.wait().unwrap();
    wait(|| rig.leases() == 0);
    rig.post("/v1/models/a/free", "").expect(200);
}

#[test]
fn a_lease_lists_its_shards_if_asked_and_a_stranger_to_the_protocol_holds_nothing() {
    let rig = Rig::three();
    let token = format!("Authorization: Bearer {}", rig.token);
    let headers = [&*token, "Content-Type: application/json"];
    let mut stream = rig.connect();
    let text = request("POST", "/v1/leases", &headers, "{\"model\":\"a\",\"shards\":true}");
    stream.write_all(text.as_bytes()).unwrap();
    let first = read_until(&mut stream, "]}\n");
    let count = first.matches("\"tensor\":").count();
    assert_eq!(u64::try_from(count).unwrap(), rig.model("a")["shards"].as_u64().unwrap());
    // A line comes by itself, so that a dead end is noticed.
    read_until(&mut stream, "\"alive\"");
    drop(stream);

    // More requests behind the lease on one connection wait for its end; closing ends it all the same.
    let mut stream = rig.connect();
    let two = format!(
        "{}{}",
        text.replace("Connection: close\r\n", ""),
        request("GET", "/healthz", &[], "")
    );
    stream.write_all(two.as_bytes()).unwrap();
    read_until(&mut stream, "\"leased\"");
    drop(stream);
    wait(|| rig.leases() == 0);
    refused_bodies(&rig);
}

#[test]
fn a_holder_that_dies_is_noticed_within_a_second_whatever_it_had_sent_behind_its_request() {
    let rig = Rig::three();
    let token = format!("Authorization: Bearer {}", rig.token);
    let headers = [&*token, "Content-Type: application/json"];
    let text = request("POST", "/v1/leases", &headers, "{\"model\":\"a\"}");
    for behind in ["", "x", "\r\n", &"x".repeat(100_000)] {
        let bytes = [&*text, behind].concat();
        let streams: [Box<dyn Wire>; 2] = [Box::new(rig.connect()), Box::new(rig.connect_unix())];
        for mut stream in streams {
            stream.write_all(bytes.as_bytes()).unwrap();
            read_until(&mut stream, "\"leased\"");
            assert_eq!(rig.leases(), 1);
            let began = Instant::now();
            drop(stream);
            wait(|| rig.leases() == 0);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(1), "{} bytes behind: {took:?}", behind.len());
        }
    }
}

/// Requests for leases that hold nothing.
fn refused_bodies(rig: &Rig) {
    for body in [
        "",
        "{}",
        "{\"model\":1}",
        "{\"model\":\"a\",\"x\":1}",
        "[]",
        "{\"model\":\"a\",\"holder\":\"\\u0007\"}",
    ] {
        rig.post("/v1/leases", body).expect_problem(400, "bad-request");
    }
    rig.post("/v1/leases", "{\"model\":\"nowhere\"}").expect_problem(404, "no-such-model");
    assert_eq!(rig.leases(), 0);
}

#[test]
fn leases_beyond_the_bound_are_refused_and_one_that_ends_makes_place() {
    let rig = Rig::with(&format!("{}[limits]\nleases = 3\n", crate::support::THREE));
    rig.wait_ready();
    let mut held: Vec<_> = (0..3).map(|_| rig.lease("c", "w")).collect();
    rig.post("/v1/leases", "{\"model\":\"c\"}").expect_problem(429, "too-many-leases");
    held.pop();
    wait(|| rig.leases() == 2);
    held.push(rig.lease("c", "w"));
    let mut rest = [0; 16];
    held[0].set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(held[0].read(&mut rest).is_err(), "a lease that is held is quiet");
}
