//! `vram store ls | check | gc`.

use core::time::Duration;

use serde::Serialize;
use vram_residency::ByteLen;
use vram_store::{ManifestError, Store, StoreOptions};

use super::Telling;
use crate::args::store::{CheckArgs, CollectArgs, ListArgs};
use crate::failure::Failure;
use crate::interrupt;
use crate::output::Output;
use crate::table::{self, Table};

/// The result of `vram store ls`.
#[derive(Debug, Serialize)]
struct Listing {
    store: String,
    manifests: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    key: String,
    manifest: String,
    revision: u64,
    /// Null if it is not the manifest of its name: `wrong` says why.
    model_id: Option<String>,
    shard_count: Option<usize>,
    image_len: Option<u64>,
    key_id: Option<String>,
    created: Option<String>,
    wrong: Option<String>,
}

/// `vram store ls`.
pub(super) fn list(args: &ListArgs, output: &mut Output) -> Result<(), Failure> {
    let token = interrupt::token()?;
    let telling = Telling::new("list");
    let store = opened(&args.store, &telling.options(&token))?;
    let listed = store.list_manifests(args.model_id.as_deref(), &telling.options(&token))?;
    let mut bad = Bad::default();
    let entry = |listed: vram_store::Listed| {
        let (stated, wrong) = match listed.manifest {
            Ok(stated) => (Some(stated), None),
            Err(why) => {
                bad.note(&why);
                (None, Some(why.to_string()))
            }
        };
        Entry {
            key: listed.key,
            manifest: listed.id.to_string(),
            revision: listed.revision,
            model_id: stated.as_ref().map(|stated| stated.model.clone()),
            shard_count: stated.as_ref().map(|stated| stated.shards.len()),
            image_len: stated.as_ref().map(vram_store::Manifest::image_len),
            key_id: stated.as_ref().map(|stated| stated.key_id.to_string()),
            created: stated.map(|stated| stated.created),
            wrong,
        }
    };
    let manifests: Vec<_> = listed.into_iter().map(entry).collect();
    let mut rows = Table::new(2, &["model", "manifest", "revision", "shards", "size", "created"]);
    for entry in &manifests {
        let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        rows.row([
            text(entry.model_id.as_deref().map(beginning)),
            entry.manifest.clone(),
            entry.revision.to_string(),
            text(entry.shard_count.map(|count| count.to_string())),
            text(entry.image_len.map(|len| table::size(ByteLen::new(len)))),
            text(entry.created.clone()),
        ]);
    }
    output.write(&rows.render())?;
    // A column would be as wide as the longest of these.
    for (key, wrong) in manifests.iter().filter_map(|one| Some((&one.key, one.wrong.as_ref()?))) {
        output.line(format!("WRONG {key}: {wrong}"))?;
    }
    output.line("nothing of this is proven: `vram store verify` does that")?;
    let listing = Listing { store: store.name().to_string(), manifests };
    let Some(failure) = bad.failure(&listing.store) else { return output.json(&listing) };
    output.json_failed(&listing, &failure)?;
    Err(failure)
}

/// Opens a store to look after it: not any other folder.
fn opened(address: &str, options: &StoreOptions<'_>) -> Result<Store, Failure> {
    let store = Store::open(address)?;
    if store.is_laid_out(options)? {
        return Ok(store);
    }
    Err(Failure::input(format!("{} is no store: it has no folder v1", store.name()))
        .code("no-store")
        .hint("check the address; `vram push` makes a store, and `vram store check` does"))
}

/// The beginning of a text: a column would be as wide as the longest.
fn beginning(text: &str) -> String {
    /// Letters that are shown.
    const SHOWN_MAX: usize = 64;

    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Manifests of a listing that are not what their names say.
#[derive(Clone, Copy, Debug, Default)]
struct Bad {
    wrong: u64,
    unreadable: u64,
}

impl Bad {
    fn note(&mut self, why: &ManifestError) {
        let count = if why.is_wrong() { &mut self.wrong } else { &mut self.unreadable };
        *count = count.saturating_add(1);
    }

    fn failure(self, store: &str) -> Option<Failure> {
        match self {
            Self { wrong: 0, unreadable: 0 } => None,
            Self { wrong: 0, unreadable } => Some(
                Failure::input(format!(
                    "{store}: {} cannot be read",
                    table::count(unreadable, "manifest")
                ))
                .code("store")
                .hint("check the objects that are listed as WRONG, and their permissions"),
            ),
            Self { wrong, .. } => Some(
                Failure::integrity(format!(
                    "{store}: {} wrong in the store",
                    table::count(wrong, "manifest")
                ))
                .code("store-altered")
                .hint("push the revision again: that mends its manifest, or says what to do"),
            ),
        }
    }
}

/// The result of `vram store check`.
#[derive(Debug, Serialize)]
struct Checked {
    store: String,
    good: bool,
    trials: Vec<Tried>,
}

#[derive(Debug, Serialize)]
struct Tried {
    what: &'static str,
    required: bool,
    good: Option<bool>,
    seen: String,
}

/// `vram store check`.
pub(super) fn check(args: &CheckArgs, output: &mut Output) -> Result<(), Failure> {
    let token = interrupt::token()?;
    let telling = Telling::new("check");
    let store = Store::open_or_create(&args.store)?;
    let found = store.check(&telling.options(&token))?;
    let mut rows = Table::new(3, &["", "tried", "seen"]);
    for trial in &found.trials {
        let mark = match (trial.good, trial.required) {
            (Some(true), _) => "good",
            (Some(false), true) => "WRONG",
            _ => "note",
        };
        rows.row([mark.to_owned(), trial.what.to_owned(), trial.seen.clone()]);
    }
    output.write(&rows.render())?;
    let good = found.is_good();
    let tried = |trial: vram_store::Trial| Tried {
        what: trial.what,
        required: trial.required,
        good: trial.good,
        seen: trial.seen,
    };
    let trials = found.trials.into_iter().map(tried).collect();
    let report = Checked { store: store.name().to_string(), good, trials };
    if good {
        output.line("this place can be a store")?;
        return output.json(&report);
    }
    let failure = Failure::input(format!("{} cannot be a store", report.store))
        .code("store")
        .hint("check its address, its permissions and the credentials in the environment");
    output.json_failed(&report, &failure)?;
    Err(failure)
}

/// The result of `vram store gc`.
#[derive(Debug, Serialize)]
struct Collection {
    store: String,
    deleted: bool,
    unnamed: Vec<String>,
    unnamed_len: u64,
    too_young_count: u64,
    named_count: u64,
    strange: Vec<String>,
    /// Objects that no manifest names behind a link to a folder: never deleted.
    behind_links: Vec<String>,
    /// Marks of collections that delete there, or were killed.
    marks: Vec<String>,
    /// Marks of killed collections that were removed.
    dead_marks: Vec<String>,
}

/// `vram store gc`.
pub(super) fn collect(args: &CollectArgs, output: &mut Output) -> Result<(), Failure> {
    let token = interrupt::token()?;
    let telling = Telling::new("gc");
    let store = opened(&args.store, &telling.options(&token))?;
    let grace = Duration::from_secs(u64::from(args.grace).saturating_mul(3600));
    let found = store.collect(grace, args.delete, &telling.options(&token))?;
    let verb = if found.deleted { "deleted" } else { "named by no manifest" };
    for key in &found.unnamed {
        output.line(format!("{verb}: {key}"))?;
    }
    for key in &found.strange {
        output.line(format!("left, as no image and no mark has such a key: {key}"))?;
    }
    for key in &found.behind_links {
        output.line(format!("not deleted, as it lies behind a link to a folder: {key}"))?;
    }
    for key in &found.dead_marks {
        output.line(format!("removed, as its collection was killed: {key}"))?;
    }
    for key in &found.marks {
        output.line(format!(
            "the mark of a collection that deletes or was killed: {key}; --delete removes one that is \
             five minutes old"
        ))?;
    }
    let unnamed = ByteLen::from_usize(found.unnamed.len()).get();
    output.line(format!(
        "{} {verb} ({}), {} younger than {} hours, {} in use",
        table::count(unnamed, "object"),
        table::size(ByteLen::new(found.unnamed_bytes)),
        found.too_young,
        args.grace,
        found.named
    ))?;
    if !found.deleted && !found.unnamed.is_empty() {
        output.line("--delete deletes them")?;
    }
    output.json(&Collection {
        store: store.name().to_string(),
        deleted: found.deleted,
        unnamed: found.unnamed,
        unnamed_len: found.unnamed_bytes,
        too_young_count: found.too_young,
        named_count: found.named,
        strange: found.strange,
        behind_links: found.behind_links,
        marks: found.marks,
        dead_marks: found.dead_marks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_makes_no_wide_column() {
        assert_eq!(beginning("llama-3-8b"), "llama-3-8b");
        let long = "é".repeat(1024);
        assert_eq!(beginning(&long).chars().count(), 65);
    }
}
