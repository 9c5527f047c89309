//! A device is reset by a call, and the models that lay there are loaded again from their files.

use serde_json::json;
use vram_residency::device::fault::{Action, Op};

use crate::support::{Rig, wait};

#[test]
fn a_lost_device_is_reset_by_a_call_and_its_models_are_loaded_again() {
    let rig = Rig::three();
    let gpus = || rig.get_json("/v1/gpus")["gpus"].clone();
    assert_eq!((&gpus()[0]["state"], &gpus()[1]["state"]), (&"serving".into(), &"serving".into()));
    assert_eq!(gpus()[0]["card"], json!({"state": "not_watched"}));
    let before = rig.model("b");
    // An uncorrectable memory error: sticky.
    rig.devices[0].next(Op::Read, Action::Driver(214)).unwrap();
    let lost = rig.post("/v1/models/a/verify", "").expect_problem(503, "device-lost");
    assert!(lost["next"].as_str().unwrap().contains("/v1/gpus/N/reset"), "{lost}");
    assert_eq!(gpus()[0]["state"], "lost");
    rig.get("/readyz?model=a").expect(503);

    let done = rig.post("/v1/gpus/0/reset", "").expect(200).json();
    assert_eq!((&done["gpu"], &done["failed"]), (&0.into(), &json!([])), "{done}");
    assert!(done["lost"].as_u64() > Some(0), "{done}");
    assert_eq!(done["loaded"][0], "a", "{done}");
    assert_eq!(gpus()[0]["state"], "serving");
    assert_eq!(rig.model("a")["gpus"], json!([0]));
    let after = rig.model("b");
    for member in ["state", "gpus", "shards", "failure"] {
        assert_eq!(after[member], before[member], "what lay elsewhere stays as it was");
    }
    wait(|| rig.get("/readyz").status == 200);
    for name in ["a", "b", "c"] {
        let path = format!("/v1/models/{name}/verify");
        assert_eq!(rig.post(&path, "").expect(200).json()["sound"], true, "{name}");
    }
}

#[test]
fn a_device_that_works_is_reset_only_by_force_and_never_under_a_lease() {
    let rig = Rig::three();
    let reset = |gpu: &str, body: &str| rig.post(&format!("/v1/gpus/{gpu}/reset"), body);
    reset("7", "").expect_problem(422, "unknown-gpu");
    reset("x", "").expect_problem(400, "bad-request");
    reset("0", "{\"much\":1}").expect_problem(400, "bad-request");
    let refused = reset("0", "").expect_problem(409, "not-lost");
    assert!(refused["next"].as_str().unwrap().contains("force"), "{refused}");
    let worker = rig.lease("a", "worker");
    reset("0", "{\"force\":true}").expect_problem(409, "in-use");
    // Refused: everything is as it was.
    assert_eq!(
        (&rig.model("a")["state"], &rig.model("a")["leases"].as_u64().map(|n| n > 0)),
        (&"resident".into(), &Some(true))
    );
    rig.get("/readyz").expect(200);
    drop(worker);
    wait(|| rig.leases() == 0);
    let done = reset("0", "{\"force\":true}").expect(200).json();
    assert!(done["loaded"].as_array().unwrap().contains(&"a".into()), "{done}");
    assert_eq!(rig.post("/v1/models/a/verify", "").expect(200).json()["sound"], true);
}

#[test]
fn a_model_whose_files_are_gone_is_named_and_the_others_come_back() {
    let rig = Rig::three();
    rig.post("/v1/models/b/pin", "").expect(200);
    rig.post("/v1/models/b/migrate", "{\"gpu\":0}").expect(200);
    std::fs::remove_file(rig.path("a.safetensors")).unwrap();
    let done = rig.post("/v1/gpus/0/reset", "{\"force\":true}").expect(200).json();
    assert_eq!(done["failed"][0]["model"], "a", "{done}");
    assert_eq!(done["failed"][0]["why"]["code"], "model-file", "{done}");
    assert!(done["loaded"].as_array().unwrap().contains(&"b".into()), "{done}");
    assert_eq!(
        (&rig.model("a")["state"], &rig.model("b")["state"]),
        (&"absent".into(), &"resident".into())
    );
    assert_eq!(rig.model("b")["pinned"], true, "what an operator set is still set");
}

#[test]
fn a_reset_keeps_the_place_that_a_call_chose_and_says_which_content_is_another_one() {
    let rig = Rig::three();
    rig.post("/v1/models/a/migrate", "{\"gpu\":1}").expect(200);
    let reset = || rig.post("/v1/gpus/1/reset", "{\"force\":true}").expect(200).json();
    let done = reset();
    assert_eq!((&done["loaded"][0], &done["changed"]), (&"a".into(), &json!([])), "{done}");
    assert_eq!(
        rig.model("a")["gpus"],
        json!([1]),
        "where it lay, not where its configuration has it"
    );
    assert_eq!(rig.model("b")["gpus"], json!([1]));
    // A load after a free goes by the configuration.
    rig.post("/v1/models/a/free", "").expect(200);
    assert_eq!(rig.post("/v1/models/a/load", "").expect(200).json()["gpus"], json!([0]));

    std::fs::copy(rig.path("a.safetensors"), rig.path("b.safetensors")).unwrap();
    let done = reset();
    assert_eq!((&done["changed"], &done["failed"]), (&json!(["b"]), &json!([])), "{done}");
}

/// Each way in which a model can come to a device beside a reset of it.
#[test]
fn a_model_that_comes_to_a_device_while_it_is_reset_is_there_or_nowhere() {
    let rig = Rig::three();
    let calls: [(&str, &str, [&str; 2]); 3] = [
        ("free", "load", ["{}", "{\"gpu\":0}"]),
        ("park", "wake", ["{}", "{\"gpu\":0}"]),
        ("migrate", "migrate", ["{\"gpu\":1}", "{\"gpu\":0}"]),
    ];
    for (away, back, [away_to, to]) in calls.into_iter().cycle().take(18) {
        let call = |call: &str, body: &str| rig.post(&format!("/v1/models/a/{call}"), body);
        call(away, away_to);
        std::thread::scope(|scope| {
            scope.spawn(|| call(back, to));
            scope.spawn(|| rig.post("/v1/gpus/0/reset", "{\"force\":true}"));
        });
        let model = rig.model("a");
        match model["state"].as_str().unwrap() {
            "resident" => {
                assert!(model["shards"].as_u64() > Some(0), "{back}: {model}");
                assert_eq!(call("verify", "").expect(200).json()["sound"], true);
            }
            "parked" => drop(call("wake", "").expect(200)),
            state => {
                assert_eq!(state, "absent", "{back}: {model}");
                assert!(!model["failure"].is_null(), "it is not said why: {model}");
                rig.get("/readyz?model=a").expect(503);
                call("load", "").expect(200);
            }
        }
    }
    rig.wait_ready();
}
