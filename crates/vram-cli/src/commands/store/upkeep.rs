//! `vram store ls | check | verify | gc`.

use core::time::Duration;

use serde::Serialize;
use vram_residency::{ByteLen, KeyRing};
use vram_store::{ManifestError, Sample, Store, StoreVerdict, VerifyMeans};

use super::Telling;
use crate::args::VerifyStoreArgs;
use crate::args::store::{CheckArgs, CollectArgs, ListArgs};
use crate::commands::image::check_context;
use crate::commands::keys;
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
    let store = Store::open(&args.store)?;
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
            text(entry.model_id.clone()),
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

/// The result of `vram store verify`.
#[derive(Debug, Serialize)]
struct VerifyReport {
    store: String,
    sound: bool,
    keyed: bool,
    manifest_count: u64,
    /// Manifests of keys that were not given.
    other_key_count: u64,
    /// Manifests of another context than the one that was given.
    other_context_count: u64,
    image_count: u64,
    /// Images that no manifest names: not verified.
    unnamed_image_count: u64,
    verified_len: u64,
    findings: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    key: String,
    what: String,
}

/// `vram store verify`.
pub(super) fn verify(args: &VerifyStoreArgs, output: &mut Output) -> Result<(), Failure> {
    check_context(args.context.as_deref())?;
    let keys = keys::load_if_named(&args.key)?.map(|given| KeyRing::new(given.key));
    let context = args.context.as_deref().map(str::as_bytes);
    let means = match (&keys, args.keyless) {
        (Some(keys), _) => VerifyMeans::Keys(keys, context),
        (None, true) => VerifyMeans::Keyless,
        (None, false) => {
            return Err(Failure::usage("no key was given").hint("give --key-file, or --keyless"));
        }
    };
    let token = interrupt::token()?;
    let telling = Telling::new("verify");
    let store = Store::open(&args.store)?;
    let sample = args.sample.map_or(Sample::All, Sample::Percent);
    let verdict =
        store.verify(args.model_id.as_deref(), means, sample, &telling.options(&token))?;
    drop(telling.take());
    let report = VerifyReport::of(&store, keys.is_some(), &verdict);
    for found in &report.findings {
        output.line(format!("WRONG {}: {}", found.key, found.what))?;
    }
    output.line(format!(
        "{}, {}, {} verified{}{}{}{}",
        table::count(report.manifest_count, "manifest"),
        table::count(report.image_count, "image"),
        table::size(ByteLen::new(report.verified_len)),
        if report.keyed { " under the key" } else { " without a key" },
        match report.other_key_count {
            0 => String::new(),
            count => format!("; {} of other keys not verified", table::count(count, "manifest")),
        },
        match report.other_context_count {
            0 => String::new(),
            count => {
                let count = table::count(count, "manifest");
                format!("; {count} of another context not verified: leave out --context")
            }
        },
        match report.unnamed_image_count {
            0 => String::new(),
            count => {
                let count = table::count(count, "image");
                format!("; {count} that no manifest names not verified")
            }
        },
    ))?;
    if report.manifest_count == 0 && report.findings.is_empty() {
        let failure = report.nothing(args);
        output.json_failed(&report, &failure)?;
        return Err(failure);
    }
    if report.sound {
        let drawn = args.sample.filter(|percent| *percent < 100);
        let of = drawn.map(|percent| format!(" in a sample of {percent} % of the parts"));
        output.line(format!("sound{}", of.unwrap_or_default()))?;
        return output.json(&report);
    }
    let count = ByteLen::from_usize(report.findings.len()).get();
    let failure = Failure::integrity(format!(
        "{} wrong in the store",
        table::count(count, "object")
    ))
    .code("store-altered")
    .hint(
        "push the model again from its source (to a bucket with --verify): that replaces them; or \
                 copy the objects from a good mirror",
    );
    output.json_failed(&report, &failure)?;
    Err(failure)
}

impl VerifyReport {
    /// Why there was nothing to verify: that is not a sound store.
    fn nothing(&self, args: &VerifyStoreArgs) -> Failure {
        let others = self.other_key_count > 0 || self.other_context_count > 0;
        let (what, hint) = if others || args.model_id.is_some() {
            (
                "no manifest is of this key, model and context".to_owned(),
                "`vram store ls` lists what is there; give its key, or --keyless",
            )
        } else if self.unnamed_image_count > 0 {
            let images = table::count(self.unnamed_image_count, "image");
            (
                format!("{} has {images} and no manifest", self.store),
                "push the model again: the images that are there are not sent again",
            )
        } else {
            (format!("{} has no manifest", self.store), "check the address of the store")
        };
        Failure::input(format!("nothing was verified: {what}")).code("nothing-verified").hint(hint)
    }

    fn of(store: &Store, keyed: bool, verdict: &StoreVerdict) -> Self {
        let found = |finding: &vram_store::Finding| Found {
            key: finding.key.clone(),
            what: finding.what.clone(),
        };
        Self {
            store: store.name().to_string(),
            sound: verdict.is_sound() && verdict.manifests > 0,
            keyed,
            manifest_count: verdict.manifests,
            other_key_count: verdict.other_keys,
            other_context_count: verdict.other_contexts,
            image_count: verdict.images,
            unnamed_image_count: verdict.unnamed,
            verified_len: verdict.bytes,
            findings: verdict.findings.iter().map(found).collect(),
        }
    }
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
}

/// `vram store gc`.
pub(super) fn collect(args: &CollectArgs, output: &mut Output) -> Result<(), Failure> {
    let token = interrupt::token()?;
    let telling = Telling::new("gc");
    let store = Store::open(&args.store)?;
    let grace = Duration::from_secs(u64::from(args.grace).saturating_mul(3600));
    let found = store.collect(grace, args.delete, &telling.options(&token))?;
    let verb = if found.deleted { "deleted" } else { "named by no manifest" };
    for key in &found.unnamed {
        output.line(format!("{verb}: {key}"))?;
    }
    for key in &found.strange {
        output.line(format!("left, as no image has such a key: {key}"))?;
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
    })
}
