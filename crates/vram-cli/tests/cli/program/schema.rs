//! A strict reader of the schemas in `docs/schemas`: it knows the keywords that they use, and
//! refuses all others, so that no rule is left out unseen.

use std::fs;

use serde_json::Value;

/// Keywords that say nothing about a value.
const NOTES: [&str; 5] = ["$schema", "title", "description", "$defs", "required"];

/// Reads the schema of this name.
fn read(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schemas");
    let text = fs::read_to_string(format!("{folder}/{name}.json"))
        .unwrap_or_else(|error| panic!("no schema {name}: {error}"));
    serde_json::from_str(&text).unwrap()
}

/// Checks a document of the program against the schema that it names, and returns that name.
#[track_caller]
pub(crate) fn check(text: &str) -> (String, Value) {
    let document: Value = serde_json::from_str(text).unwrap_or_else(|error| {
        panic!("not one JSON object: {error}: {text}");
    });
    let schema = document["schema"].as_str().unwrap_or_else(|| panic!("no schema: {text}"));
    let name = schema.strip_prefix("vram.").unwrap().strip_suffix("/1").unwrap().to_owned();
    let root = read(&name);
    if let Err(why) = fits(&root, &root, &document, "") {
        panic!("{schema}: {why}: {text}");
    }
    (name, document)
}

fn fits(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let rules = schema.as_object().ok_or_else(|| format!("{at}: a schema that is no object"))?;
    for (keyword, rule) in rules {
        let wrong = || format!("{at}: {value} is not {keyword} {rule}");
        let fine = match keyword.as_str() {
            "$ref" => {
                let (file, pointer) = rule.as_str().unwrap().split_once('#').unwrap();
                let other = (!file.is_empty()).then(|| read(file.strip_suffix(".json").unwrap()));
                let root = other.as_ref().unwrap_or(root);
                fits(root, root.pointer(pointer).unwrap(), value, at)?;
                true
            }
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "type" => {
                let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                kinds.iter().any(|kind| is(value, kind.as_str().unwrap()))
            }
            "minimum" => value.is_null() || value.as_f64() >= rule.as_f64(),
            "pattern" => value.as_str().is_none_or(|text| matches(rule.as_str().unwrap(), text)),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    fits(root, rule, item, &format!("{at}[{index}]"))?;
                }
                true
            }
            "properties" => members(root, schema, value, at)?,
            // Of a map: each value. Elsewhere it is read where `properties` is.
            "additionalProperties" if rules.get("properties").is_none() => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    fits(root, rule, member, &format!("{at}.{name}"))?;
                }
                rule.is_object()
            }
            "additionalProperties" => rule == false,
            note if NOTES.contains(&note) => true,
            unknown => return Err(format!("{at}: the keyword {unknown} is not known here")),
        };
        if !fine {
            return Err(wrong());
        }
    }
    Ok(())
}

/// Checks the members of an object: each is known, and none that is required is missing.
fn members(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<bool, String> {
    let Some(members) = value.as_object() else { return Ok(true) };
    let known = schema["properties"].as_object().unwrap();
    if schema["additionalProperties"] != false {
        return Err(format!("{at}: an object that allows unknown members"));
    }
    for (name, member) in members {
        let rule = known.get(name).ok_or_else(|| format!("{at}.{name} is unknown"))?;
        fits(root, rule, member, &format!("{at}.{name}"))?;
    }
    for name in schema["required"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        if !members.contains_key(name) {
            return Err(format!("{at}.{name} is missing"));
        }
    }
    Ok(true)
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        _ => panic!("{kind} is no type"),
    }
}

/// The two forms of pattern that the schemas have: some characters, as often as given.
fn matches(pattern: &str, text: &str) -> bool {
    let hex = |character: char| matches!(character, '0'..='9' | 'a'..='f');
    match pattern {
        "^[0-9a-f]{32}$" => text.len() == 32 && text.chars().all(hex),
        "^[0-9a-f]{64}$" => text.len() == 64 && text.chars().all(hex),
        "^[a-z0-9-]+$" => {
            !text.is_empty() && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='z' | '-'))
        }
        _ => panic!("{pattern} is not known here"),
    }
}

#[test]
fn a_schema_refuses_what_it_does_not_know_and_misses_what_it_requires() {
    let id = "0".repeat(32);
    let good = format!(r#"{{"schema":"vram.keygen/1","file":"f","key_id":"{id}"}}"#);
    let (name, document) = check(&good);
    let root = read(&name);
    for (member, value) in [
        ("more", Value::from(1)),
        ("key_id", Value::from("xyz")),
        ("file", Value::Null),
        ("schema", Value::from("vram.keygen/2")),
    ] {
        let mut changed = document.clone();
        changed[member] = value;
        assert!(fits(&root, &root, &changed, "").is_err(), "{changed}");
    }
    for member in ["schema", "file", "key_id"] {
        let mut changed = document.clone();
        changed.as_object_mut().unwrap().remove(member);
        assert!(fits(&root, &root, &changed, "").is_err(), "{changed}");
    }
    assert!(fits(&root, &serde_json::json!({"maximum": 1}), &document, "").is_err());
}
