//! A snapshot as it stands in a page.

use serde_json::Value;

/// Why a document cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// It is no JSON.
    #[error("not JSON: {0}; give the JSON of a snapshot")]
    Json(#[from] serde_json::Error),
    /// It is JSON, and no snapshot.
    #[error("no snapshot: {missing} is missing; give what `/snapshot` answers")]
    NotASnapshot {
        /// The member that every snapshot has, and what it must be.
        missing: &'static str,
    },
}

/// A member: where it is, its name in words, and whether a value can be it.
type Member = (&'static str, &'static str, fn(&Value) -> bool);

/// The members that every snapshot has.
const MEMBERS: [Member; 4] = [
    ("/at", "`at`, a time in milliseconds", Value::is_u64),
    ("/state/gpus", "`state.gpus`, a list", Value::is_array),
    ("/state/shards", "`state.shards`, a list", Value::is_array),
    ("/counters", "`counters`, an object", Value::is_object),
];

/// The same JSON in a form that is safe between `<script type="application/json">` and `</script>`: no
/// `<`, so that nothing in it ends the element or begins another one, nor a comment.
///
/// # Errors
///
/// As [`static_page`](crate::static_page).
pub(crate) fn embedded(snapshot: &str) -> Result<String, ViewError> {
    // Editors of some systems begin a file with a byte order mark.
    let value: Value = serde_json::from_str(snapshot.trim_start_matches('\u{feff}'))?;
    for (pointer, missing, is) in MEMBERS {
        if !value.pointer(pointer).is_some_and(is) {
            return Err(ViewError::NotASnapshot { missing });
        }
    }
    Ok(escaped(&value.to_string()))
}

/// These characters stand in strings alone, where an escape means the same.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(name: &str) -> String {
        let name = Value::from(name);
        format!(
            r#"{{"at":1,"state":{{"gpus":[],"shards":[{{"model_id":{name}}}]}},"counters":{{}}}}"#
        )
    }

    /// Property P120, in part: `cargo xtask page` shows the same in a browser.
    #[test]
    fn whatever_a_name_holds_nothing_ends_the_element_and_the_value_is_the_same() {
        for name in [
            "</script><script>alert(1)</script>",
            "<!--<script>",
            "]]>",
            "&lt;",
            "\u{2028}\u{2029}",
            "\"'`\\ \0\u{7f}",
            "\u{202e}dehctaw",
            "${x}",
        ] {
            let text = embedded(&snapshot(name)).unwrap();
            assert!(!text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{text}");
            let back: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(back.pointer("/state/shards/0/model_id").unwrap(), name);
        }
    }

    #[test]
    fn another_document_is_refused_with_the_member_that_it_lacks() {
        for (text, words) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[]", "`at`"),
            ("{\"at\":1}", "`state.gpus`"),
            ("{\"at\":-1}", "`at`"),
            (r#"{"at":1,"state":{"gpus":{}}}"#, "`state.gpus`"),
            (r#"{"at":1,"state":{"gpus":[]}}"#, "`state.shards`"),
            (r#"{"at":1,"state":{"gpus":[],"shards":[]}}"#, "`counters`"),
        ] {
            let error = embedded(text).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("; give "), "{text}: {error}");
        }
        // Nested deeper than any snapshot: refused, and no stack runs out.
        assert!(embedded(&"[".repeat(1_000_000)).is_err());
        assert!(embedded(&format!("\u{feff}{}", snapshot("m"))).is_ok());
    }
}
