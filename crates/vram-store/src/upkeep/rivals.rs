//! Manifests of one revision and one key that state other content: readers without a pin take none of them.

use std::collections::BTreeMap;

use super::verify::Finding;
use crate::manifest::Trusted;

/// The manifests of a store, by what a reader asks for.
#[derive(Default)]
pub(super) struct Rivals(BTreeMap<(String, u64, String), Vec<(String, Trusted)>>);

impl Rivals {
    /// Notes a manifest under its key in the store. Of those that differ in their time alone, one is kept.
    pub(super) fn note(&mut self, key: String, trusted: Trusted) {
        let stated = trusted.manifest();
        let asked = (stated.model.clone(), stated.revision, stated.key_id.to_string());
        let others = self.0.entry(asked).or_default();
        if !others.iter().any(|(_, other)| other.manifest().same_content(stated)) {
            others.push((key, trusted));
        }
    }

    /// What is wrong: one finding for each revision that has several.
    pub(super) fn findings(self) -> impl Iterator<Item = Finding> {
        let several = self.0.into_iter().filter(|(_, found)| found.len() > 1);
        several.map(|((model, revision, _), found)| {
            let keys: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
            let what = format!(
                "revision {revision} of {model} has several manifests of one key and other content, of which \
                 readers without a pin take none: delete all but the right one of {}",
                keys.join(", ")
            );
            let key = keys.into_iter().next().unwrap_or_default();
            Finding { key, part: None, what, unread: false }
        })
    }
}
