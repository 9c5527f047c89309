//! P117: a server that is stopped waits for its leases until the deadline, wipes and gives back, says
//! so, and brings its models back when it is started again.

use core::time::Duration;
use std::time::Instant;

use crate::support::{Rig, THREE, folder, read_until, wait};

#[test]
fn a_drain_waits_for_leases_tells_their_workers_and_answers_with_the_report() {
    let rig = Rig::three();
    let mut worker = rig.lease("a", "w");
    let (status, began) = std::thread::scope(|scope| {
        let drains = scope.spawn(|| {
            let began = Instant::now();
            (rig.post("/v1/drain", "{\"deadline_ms\":20000}"), began.elapsed())
        });
        let told = read_until(&mut worker, "\"draining\"");
        assert!(told.contains("20000"), "{told}");
        // Reads go on, so that an operator sees who is waited for; control does not.
        let ready = rig.get("/readyz").expect(503).json();
        assert_eq!(ready["draining"], true);
        assert_eq!(rig.get_json("/v1/leases")["leases"][0]["holder"], "w");
        rig.post("/v1/leases", "{\"model\":\"b\"}").expect_problem(503, "draining");
        rig.post("/v1/models/b/park", "").expect_problem(503, "draining");
        std::thread::sleep(Duration::from_millis(200));
        drop(worker);
        drains.join().unwrap()
    });
    let report = status.expect(200).json();
    assert_eq!((&report["complete"], &report["leases_cut"]), (&true.into(), &0.into()));
    assert!(report["freed"].as_u64().unwrap() > 3, "{report}");
    assert!(began < Duration::from_secs(15), "{began:?}");
    let (tcp, unix) = (rig.tcp, rig.unix.clone());
    assert!(rig.ended().complete);
    assert!(std::net::TcpStream::connect(tcp).is_err() && !unix.exists());
}

#[test]
fn at_the_deadline_leases_are_cut_and_their_workers_told() {
    let rig = Rig::with(&format!("drain = \"150ms\"\n{THREE}"));
    rig.wait_ready();
    let mut worker = rig.lease("a", "stubborn");
    let also = rig.lease("b", "dead");
    let began = Instant::now();
    rig.stopper.drain();
    let said = read_until(&mut worker, "\"cut\"");
    assert!(said.contains("\"draining\""), "{said}");
    drop(also);
    let devices = rig.devices.clone();
    let report = rig.ended();
    assert!(report.complete && report.leases_cut >= 1, "{report:?}");
    assert!(report.to_string().contains("cut at the deadline"), "{report}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(devices.iter().all(|device| device.live().is_empty()), "device memory is left");
}

#[test]
fn a_second_request_to_stop_waits_no_longer() {
    let rig = Rig::with(&format!("drain = \"1h\"\n{THREE}"));
    rig.wait_ready();
    let _worker = rig.lease("a", "stubborn");
    rig.stopper.drain();
    wait(|| rig.get("/readyz").status == 503);
    rig.stopper.now();
    assert!(rig.ended().complete);
}

#[test]
fn a_server_that_is_stopped_while_it_loads_ends_and_leaves_nothing() {
    for wait_for in [0, 5, 40] {
        let rig = Rig::with(THREE);
        std::thread::sleep(Duration::from_millis(wait_for));
        rig.stopper.now();
        let devices = rig.devices.clone();
        assert!(rig.ended().complete);
        assert!(devices.iter().all(|device| device.live().is_empty()));
    }
}

#[test]
fn a_restart_brings_the_models_back_as_configured_also_those_that_were_parked() {
    let rig = Rig::in_folder(folder(), THREE);
    rig.wait_ready();
    rig.post("/v1/models/a/park", "").expect(200);
    rig.post("/v1/models/c/free", "").expect(200);
    let token = rig.token.clone();
    rig.stopper.drain();
    let folder = rig.give_folder();
    let again = Rig::in_folder(folder, THREE);
    again.wait_ready();
    assert_eq!(again.token, token);
    for name in ["a", "b", "c"] {
        assert_eq!(again.model(name)["state"], "resident");
    }
    assert_eq!(again.model("c")["pinned"], true);
}
