//! P112: control calls do what they say, one at a time for a model; failures are told and hold up no
//! other model; figures stay quick while a load runs.

use core::time::Duration;
use std::fs;
use std::io::Write as _;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use vram_residency::device::fault::{Action, Hook, Op, When};

use crate::support::{Rig, THREE, folder, read_until, request, wait};

#[test]
fn a_model_is_loaded_checked_moved_and_freed_by_calls() {
    let rig = Rig::three();
    let (a, b, c) = (rig.model("a"), rig.model("b"), rig.model("c"));
    assert_eq!((&a["gpus"], &b["gpus"]), (&serde_json::json!([0]), &serde_json::json!([1])));
    assert!(c["pinned"] == true && a["pinned"] == false);

    let verified = rig.post("/v1/models/a/verify", "{\"level\":\"full\"}").expect(200).json();
    assert_eq!((&verified["sound"], &verified["altered"]), (&true.into(), &serde_json::json!([])));
    assert_eq!(verified["shards"], a["shards"]);

    let parked = rig.post("/v1/models/a/park", "").expect(200).json();
    assert!(parked["state"] == "parked" && parked["bytes"] == 0);
    assert!(parked["host_bytes"].as_u64().unwrap() > 1 << 20);
    rig.post("/v1/models/a/park", "").expect_problem(409, "wrong-state");
    rig.post("/v1/models/a/verify", "").expect_problem(409, "wrong-state");
    rig.post("/v1/leases", "{\"model\":\"a\"}").expect_problem(409, "wrong-state");
    assert_eq!(rig.get("/readyz").expect(503).json()["not_ready"][0]["model"], "a");
    rig.get("/readyz?model=b").expect(200);
    rig.get("/readyz?model=a").expect(503);
    let woken = rig.post("/v1/models/a/wake", "{\"gpu\":1}").expect(200).json();
    assert_eq!((&woken["state"], &woken["gpus"]), (&"resident".into(), &serde_json::json!([1])));
    let moved = rig.post("/v1/models/a/migrate", "{\"gpu\":0}").expect(200).json();
    assert_eq!(moved["gpus"], serde_json::json!([0]));
    rig.post("/v1/models/a/migrate", "{}").expect_problem(400, "bad-request");
    rig.post("/v1/models/a/migrate", "{\"gpu\":7}").expect_problem(422, "unknown-gpu");
    assert_eq!(rig.post("/v1/models/a/pin", "").expect(200).json()["pinned"], true);
    assert_eq!(rig.post("/v1/models/a/unpin", "").expect(200).json()["pinned"], false);

    let freed = rig.post("/v1/models/a/free", "").expect(200).json();
    assert_eq!((&freed["wiped"], &freed["shards"]), (&true.into(), &a["shards"]));
    assert_eq!(rig.post("/v1/models/a/free", "").expect(200).json()["shards"], 0);
    // A configured model keeps its name, and comes back by it.
    assert_eq!(rig.model("a")["state"], "absent");
    assert_eq!(rig.post("/v1/models/a/load", "").expect(200).json()["state"], "resident");
    let again = rig.post("/v1/models/a/load", "").expect_problem(409, "wrong-state");
    assert!(again["next"].as_str().unwrap().contains("it is loaded"), "{again}");
}

#[test]
fn of_models_that_failed_and_that_nothing_configures_the_last_are_kept_and_the_others_told_and_forgotten()
 {
    let rig = Rig::with("[[model]]\nname = \"configured\"\npath = \"none.safetensors\"\n");
    wait(|| rig.model("configured")["failure"]["code"] == "model-file");
    let mut events = rig.connect();
    events.write_all(request("GET", "/events", &[], "").as_bytes()).unwrap();
    read_until(&mut events, ": vram");
    let body = serde_json::json!({"path": rig.path("none.safetensors")}).to_string();
    for number in 0..100 {
        rig.post(&format!("/v1/models/typo-{number}/load"), &body)
            .expect_problem(422, "model-file");
        // It can be read after its call.
        assert_eq!(rig.model(&format!("typo-{number}"))["failure"]["code"], "model-file");
    }
    let models = rig.get_json("/v1/models")["models"].clone();
    assert_eq!(models.as_array().unwrap().len(), 1 + 32);
    rig.get("/v1/models/typo-67").expect_problem(404, "no-such-model");
    for name in ["typo-68", "typo-99", "configured"] {
        assert_eq!(rig.model(name)["failure"]["code"], "model-file", "{name}");
    }
    let told = read_until(&mut events, "\"model\":\"typo-67\",\"kept\":32");
    assert!(told.contains("event: load_forgotten"), "{told}");
}

#[test]
fn a_model_that_no_configuration_names_is_loaded_by_path_and_forgotten_when_it_is_freed() {
    let rig = Rig::with("");
    let path = rig.path("b.safetensors");
    let name = "org%2Fmodel%20b";
    let body = serde_json::json!({"path": path, "protection": "authenticated", "priority": 7});
    let view = rig.post(&format!("/v1/models/{name}/load"), &body.to_string()).expect(200).json();
    assert_eq!((&view["name"], &view["priority"]), (&"org/model b".into(), &7.into()));
    assert_eq!(view["configured"], false);
    rig.post(&format!("/v1/models/{name}/free"), "").expect(200);
    rig.get(&format!("/v1/models/{name}")).expect_problem(404, "no-such-model");
    for call in ["load", "verify", "park", "wake", "migrate", "pin", "free", "repair"] {
        let body = if call == "migrate" { "{\"gpu\":0}" } else { "{}" };
        rig.post(&format!("/v1/models/x/{call}"), body).expect_problem(404, "no-such-model");
    }
    // A folder is a model too, and an incomplete path is refused.
    let folder = serde_json::json!({"path": rig.path("state")}).to_string();
    rig.post("/v1/models/x/load", &folder).expect_problem(422, "model-file");
    rig.post("/v1/models/y/load", "{\"path\":\"b.safetensors\"}")
        .expect_problem(400, "bad-request");
    assert!(rig.model("x")["failure"]["message"].as_str().unwrap().contains("state"));
}

#[test]
fn a_model_that_fails_to_load_is_told_everywhere_and_the_others_serve_and_it_can_be_asked_for_again()
 {
    let folder = folder();
    let file = folder.path().join("b.safetensors");
    let sound = fs::read(&file).unwrap();
    fs::write(&file, &sound[..sound.len() - 1]).unwrap();
    let rig = Rig::in_folder(folder, THREE);
    wait(|| rig.model("c")["state"] == "resident");
    assert_eq!(rig.model("a")["state"], "resident");
    let failed = rig.model("b");
    assert_eq!(
        (&failed["state"], &failed["failure"]["code"]),
        (&"absent".into(), &"model-file".into())
    );
    let ready = rig.get("/readyz").expect(503).json();
    assert_eq!(ready["not_ready"].as_array().unwrap().len(), 1);
    assert_eq!(ready["not_ready"][0]["why"]["code"], "model-file");
    let metrics = rig.get("/metrics").body;
    assert!(metrics.contains("vram_serve_model_ready{model=\"b\"} 0\n"), "{metrics}");
    assert!(metrics.contains("vram_serve_model_ready{model=\"a\"} 1\n"), "{metrics}");

    fs::write(&file, &sound).unwrap();
    assert!(rig.post("/v1/models/b/load", "").expect(200).json()["failure"].is_null());
    rig.get("/readyz").expect(200);
}

#[test]
fn a_model_without_room_is_refused_with_what_would_help_or_parks_one_of_lower_priority() {
    let small = "[limits]\ncalls = 1\n";
    let rig = Rig::with(small);
    let load = |rig: &Rig, name: &str, priority: u32| {
        let path = rig.path("a.safetensors");
        let body = serde_json::json!({"path": path, "gpu": 0, "priority": priority});
        rig.post(&format!("/v1/models/{name}/load"), &body.to_string())
    };
    let fill = |rig: &Rig| {
        for number in 0..20 {
            let answer = load(rig, &format!("m{number}"), 1);
            if answer.status != 200 {
                return (number, answer);
            }
        }
        panic!("it never filled");
    };
    let (_, refused) = fill(&rig);
    let problem = refused.expect_problem(507, "insufficient-vram");
    assert!(problem["next"].as_str().unwrap().contains("park"), "{problem}");

    let rig = Rig::with(&format!("eviction = \"priority\"\n{small}"));
    let mut count = 0;
    while rig.get_json("/v1/models")["models"]
        .as_array()
        .unwrap()
        .iter()
        .all(|model| model["state"] == "resident")
    {
        load(&rig, &format!("m{count}"), 1).expect(200);
        count += 1;
        assert!(count < 20);
    }
    // The one that was parked to make room is in its slot, and wakes.
    let models = rig.get_json("/v1/models");
    let parked = models["models"].as_array().unwrap().iter().find(|one| one["state"] == "parked");
    let name = parked.unwrap()["name"].as_str().unwrap().to_owned();
    rig.post(&format!("/v1/models/{name}/wake"), "{\"gpu\":1}").expect(200);
}

#[test]
fn a_flipped_bit_is_found_served_to_nobody_and_repaired_from_the_file() {
    let rig = Rig::three();
    rig.devices[0].flip_bit_at(None, rig.end_of_a(), 3).unwrap();
    let verified = rig.post("/v1/models/a/verify", "").expect(200).json();
    assert_eq!(
        (&verified["sound"], &verified["altered"][0]["segments"]),
        (&false.into(), &1.into())
    );
    assert_eq!(rig.model("a")["quarantined"], 1);
    assert_eq!(rig.get("/readyz").expect(503).json()["not_ready"][0]["state"], "quarantined");
    rig.post("/v1/leases", "{\"model\":\"a\"}").expect_problem(409, "quarantined");
    let repaired = rig.post("/v1/models/a/repair", "").expect(200).json();
    assert_eq!((&repaired["shards"], &repaired["segments"]), (&1.into(), &1.into()));
    assert_eq!(rig.post("/v1/models/a/verify", "").expect(200).json()["sound"], true);
    rig.get("/readyz").expect(200);
    assert_eq!(rig.post("/v1/models/a/repair", "").expect(200).json()["shards"], 0);
}

#[test]
fn while_a_load_hangs_figures_are_quick_calls_queue_within_their_bound_and_a_deadline_ends_it() {
    let rig = Rig::with(
        "[limits]\ncalls = 1\ncalls_waiting = 1\n[[model]]\nname = \"a\"\npath = \"a.safetensors\"",
    );
    rig.wait_ready();
    let (entered, is_there) = mpsc::channel();
    let (go, wait_for) = mpsc::channel::<()>();
    let wait_for = std::sync::Mutex::new(wait_for);
    let hook = Hook::new(move || {
        let _ = entered.send(());
        let _ = wait_for.lock().unwrap().recv_timeout(Duration::from_secs(20));
    });
    rig.devices[0].add(Op::QueueWrite, When::Nth(1), Action::Run(hook)).unwrap();
    let path = rig.path("b.safetensors");
    let body = serde_json::json!({"path": path, "gpu": 0}).to_string();
    thread::scope(|scope| {
        let late = scope.spawn(|| rig.post("/v1/models/b/load?deadline_ms=700", &body));
        is_there.recv_timeout(Duration::from_secs(20)).unwrap();
        let start = Instant::now();
        for path in ["/metrics", "/snapshot", "/healthz", "/v1/models", "/readyz"] {
            rig.get(path).expect(200);
        }
        assert!(start.elapsed() < Duration::from_millis(600), "{:?}", start.elapsed());
        rig.post("/v1/models/b/free", "").expect_problem(409, "in-use");
        // One waits, the next is refused.
        let waits = scope.spawn(|| rig.post("/v1/models/a/verify?deadline_ms=15000", ""));
        wait(|| rig.get("/metrics").body.contains("vram_serve_calls 2\n"));
        let full = rig.post("/v1/models/a/verify", "");
        full.expect_problem(429, "too-many-calls");
        assert!(full.head.contains("retry-after: 1"), "{full:?}");
        late.join().unwrap().expect_problem(503, "deadline");
        go.send(()).unwrap();
        waits.join().unwrap().expect(200);
        // The load was cancelled: nothing of it is left.
        wait(|| rig.model("b")["state"] == "absent");
        assert_eq!(rig.model("b")["failure"]["code"], "cancelled");
    });
}

#[test]
fn a_lost_device_is_an_incident_of_its_own_models_alone() {
    let rig = Rig::three();
    // An uncorrectable error of its memory.
    for op in [Op::Read, Op::QueueRead] {
        rig.devices[0].next(op, Action::Driver(214)).unwrap();
    }
    let lost = rig.post("/v1/models/a/verify", "");
    lost.expect_problem(503, "device-lost");
    assert!(rig.model("a")["lost"].as_u64().unwrap() > 0);
    assert_eq!(rig.get("/readyz").expect(503).json()["not_ready"][0]["state"], "lost");
    assert_eq!(rig.post("/v1/models/b/verify", "").expect(200).json()["sound"], true);
    rig.get("/readyz?model=b").expect(200);
}

/// A typed path must not take away a model that the configuration names.
#[test]
fn files_that_a_call_names_hold_for_that_load_alone() {
    let rig = Rig::three();
    let call = |call: &str, body: &str| rig.post(&format!("/v1/models/a/{call}"), body);
    call("free", "").expect(200);
    assert_eq!(call("load", "{\"path\":\"/nowhere\"}").status, 422);
    call("load", "").expect(200);
    call("free", "").expect(200);
    let other = format!("{{\"path\":\"{}\"}}", rig.path("b.safetensors").display());
    call("load", &other).expect(200);
    // Here the files of the call are what a reset brings back.
    let done = rig.post("/v1/gpus/0/reset", "{\"force\":true}").expect(200).json();
    assert_eq!(
        (&done["changed"], &done["failed"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
    call("free", "").expect(200);
    call("load", "").expect(200);
    call("repair", "").expect(200);
    rig.get("/readyz").expect(200);
}

#[test]
fn a_tensor_without_bytes_is_no_reason_to_say_that_a_model_was_not_wiped() {
    let rig = Rig::three();
    let header = r#"{"e":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"u":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    let mut bytes = u64::try_from(header.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(b"abcd");
    fs::write(rig.path("e.safetensors"), bytes).unwrap();
    let body = format!("{{\"path\":\"{}\"}}", rig.path("e.safetensors").display());
    rig.post("/v1/models/e/load", &body).expect(200);
    assert_eq!(rig.post("/v1/models/e/free", "").expect(200).json()["wiped"], true);
}

/// The figures are those of the model, not of one of its tensors.
#[test]
fn a_move_that_finds_no_room_says_what_the_whole_model_needs() {
    let rig = Rig::three();
    let body = format!("{{\"path\":\"{}\",\"gpu\":1}}", rig.path("b.safetensors").display());
    let mut count = 0;
    while rig.post(&format!("/v1/models/m{count}/load"), &body).status == 200 {
        count += 1;
        assert!(count < 20);
    }
    let needs = rig.model("a")["bytes"].as_f64().unwrap() / f64::from(1 << 20);
    let refused = rig.post("/v1/models/a/migrate", "{\"gpu\":1}");
    assert_eq!(refused.status, 507, "{refused:?}");
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    let said = message.split("no room for ").nth(1).and_then(|rest| rest.split_once(" MiB"));
    let said: f64 = said.unwrap().0.parse().unwrap();
    assert!(said > needs - 0.1, "{needs}: {message}");
}
