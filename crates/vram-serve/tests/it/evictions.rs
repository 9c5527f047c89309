//! A model that had to make room for another one is told: by the call that needed the room, by listings, by
//! `/readyz` and by a figure. A load that its caller gave up leaves nothing.

use std::fs;

use serde_json::{Value, json};
use vram_residency::ByteLen;
use vram_residency::model::synth::{LlamaShape, SynthModel};

use crate::support::{Rig, THREE, wait};

/// A server that evicts, and a model file that fills a device.
fn rig() -> (Rig, String) {
    let rig = Rig::with(&format!("eviction = \"lru\"\n{THREE}"));
    rig.wait_ready();
    let big = rig.path("big.safetensors");
    let shape = LlamaShape::about(ByteLen::new(29 << 19));
    SynthModel::llama(&shape, 9).unwrap().write_file(&big).unwrap();
    let body = json!({"path": big, "gpu": 1});
    (rig, body.to_string())
}

fn evictions(rig: &Rig) -> Vec<String> {
    let text = rig.get("/metrics").expect(200).body;
    let lines = text.lines().filter(|line| line.starts_with("vram_serve_evictions_total"));
    lines.map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn a_model_that_made_room_is_told_by_the_load_by_listings_and_by_a_figure() {
    let (rig, body) = rig();
    assert_eq!(evictions(&rig), ["0", "0"]);
    let loaded = rig.post("/v1/models/big/load", &body).expect(200).json();
    assert_eq!((&loaded["state"], &loaded["made_room"]), (&"resident".into(), &json!(["b"])));
    let b = rig.model("b");
    assert_eq!((&b["state"], &b["made_room_for"]), (&"parked".into(), &"big".into()));
    let ready = rig.get("/readyz").expect(503).json();
    let why = &ready["not_ready"][0]["why"];
    assert_eq!((&ready["not_ready"][0]["model"], &why["code"]), (&"b".into(), &"evicted".into()));
    assert!(why["message"].as_str().unwrap().contains("\"big\""), "{why}");
    assert_eq!(evictions(&rig), ["0", "1"]);

    // The other way round: what is said is of this call alone.
    let woken = rig.post("/v1/models/b/wake", "{\"gpu\":1}").expect(200).json();
    assert_eq!((&woken["made_room"], &woken["made_room_for"]), (&json!(["big"]), &Value::Null));
    assert_eq!(evictions(&rig), ["0", "2"]);
    rig.get("/readyz").expect(200);
    // What was parked by a call says so.
    let parked = rig.post("/v1/models/b/park", "").expect(200).json();
    assert_eq!((&parked["made_room"], &parked["made_room_for"]), (&json!([]), &Value::Null));
    let ready = rig.get("/readyz?model=b").expect(503).json();
    assert_eq!(ready["not_ready"][0]["why"]["code"], "parked", "{ready}");
}

#[test]
fn a_load_whose_caller_has_given_up_leaves_nothing() {
    let rig = Rig::three();
    fs::copy(rig.path("a.safetensors"), rig.path("d.safetensors")).unwrap();
    let body = json!({"path": rig.path("d.safetensors")}).to_string();
    for (ms, times) in [(0, 20), (1, 20), (3, 10), (6, 10)] {
        for _ in 0..times {
            let answer = rig.post(&format!("/v1/models/d/load?deadline_ms={ms}"), &body);
            if answer.status == 200 {
                assert!(ms > 0, "it had no time");
                rig.post("/v1/models/d/free", "").expect(200);
                continue;
            }
            answer.expect_problem(503, "deadline");
            // One that had begun ends by itself, with nothing.
            let view = || rig.get("/v1/models/d");
            wait(|| view().status == 404 || view().body.contains("\"loading\":null"));
            let left = view();
            assert!(left.status == 404 || left.json()["state"] == "absent", "{ms}: {left:?}");
        }
    }
}
