//! P119: the description has every route with every answer that it gives, and the server has every
//! route of the description.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::Rig;

fn document() -> Value {
    serde_json::from_str(include_str!("../../openapi.json")).unwrap()
}

/// Every operation: method, path, description.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method != "parameters" {
                all.push((method.to_uppercase(), path.clone(), operation.clone()));
            }
        }
    }
    all
}

/// All references in a value.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(target) if name == "$ref" => found.push(target.clone()),
                    _ => references(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_description_stands_in_docs_and_is_what_the_server_gives() {
    let rig = Rig::with("");
    assert_eq!(rig.get_json("/openapi.json"), document());
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let copy: Value = serde_json::from_str(&std::fs::read_to_string(docs).unwrap()).unwrap();
    assert_eq!(copy, document());
}

#[test]
fn every_operation_is_described_and_every_reference_leads_somewhere() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap().to_owned();
        assert!(ids.insert(id), "{method} {path}: its id stands twice");
        assert!(!operation["summary"].as_str().unwrap().is_empty());
        let security = operation["security"].as_array().unwrap();
        let needs_token = security.iter().all(|way| way.get("token").is_some());
        assert_eq!(needs_token, method == "POST", "{method} {path}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.contains_key("200") && responses.contains_key("401"), "{method} {path}");
        if path.contains("{name}") {
            assert!(responses.contains_key("404"), "{method} {path}");
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    for target in &found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
    }
    for kind in ["schemas", "responses"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            let target = format!("#/components/{kind}/{name}");
            assert!(found.contains(&target), "nothing uses {target}");
        }
    }
}

/// The server answers every operation of the description with a status that it describes, and a body of
/// the described members.
#[test]
fn the_server_has_every_route_of_the_description_and_no_answer_that_it_lacks() {
    let rig = Rig::three();
    let document = document();
    let mut all = operations(&document);
    // The one that ends the server comes last; a free would leave the others nothing.
    all.sort_by_key(|(_, path, _)| (path.ends_with("drain"), path.ends_with("free")));
    for (method, path, operation) in all {
        let path = path.replace("{name}", "b");
        if path == "/events" || (method == "POST" && path == "/v1/leases") {
            continue;
        }
        for good in [true, false] {
            let asked = if good { path.clone() } else { path.replace("/b", "/nowhere") };
            if !good && asked == path {
                continue;
            }
            let body = if path.ends_with("migrate") { "{\"gpu\":0}" } else { "{}" };
            let answer = match method.as_str() {
                "GET" => rig.get(&asked),
                _ => rig.post(&asked, body),
            };
            assert_ne!(answer.status, 405, "{method} {path}");
            let described = &operation["responses"][answer.status.to_string()];
            assert!(!described.is_null(), "{method} {asked}: {answer:?}");
            let schema = &described["content"]["application/json"]["schema"];
            if let Some(target) = schema["$ref"].as_str() {
                let schema = document.pointer(target.strip_prefix('#').unwrap()).unwrap();
                members_fit(schema, &answer.json(), &asked);
            }
        }
    }
}

/// Whether an object has the members of its schema, and no others.
fn members_fit(schema: &Value, value: &Value, at: &str) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for name in schema["required"].as_array().unwrap() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{at}: {name} is missing: {value}");
    }
    for name in value.as_object().unwrap().keys() {
        assert!(properties.contains_key(name), "{at}: {name} is not described");
    }
}
