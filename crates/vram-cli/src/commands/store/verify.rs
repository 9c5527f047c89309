//! `vram store verify`.

use serde::Serialize;
use vram_residency::{ByteLen, KeyRing};
use vram_store::{Sample, Store, StoreVerdict, VerifyMeans};

use super::Telling;
use crate::args::VerifyStoreArgs;
use crate::commands::image::check_context;
use crate::commands::keys;
use crate::failure::Failure;
use crate::output::Output;
use crate::{interrupt, table};

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
    /// Images that a manifest names and a cache does not have. 0 for a store.
    absent_image_count: u64,
    verified_len: u64,
    findings: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    key: String,
    what: String,
    /// It could not be read: nothing is known of its bytes.
    unread: bool,
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
        let mark = if found.unread { "UNREAD" } else { "WRONG" };
        output.line(format!("{mark} {}: {}", found.key, found.what))?;
    }
    output.line(format!(
        "{}, {}, {} verified{}{}{}{}{}",
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
        match report.absent_image_count {
            0 => String::new(),
            count => format!("; {} not in the cache", table::count(count, "image")),
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
    let wrong = report.findings.iter().filter(|found| !found.unread).count();
    if wrong == 0 {
        let count = ByteLen::from_usize(report.findings.len()).get();
        let what = format!("{} could not be read", table::count(count, "object"));
        let failure = Failure::input(what)
            .code("store")
            .hint("nothing is known of them: look after the store, and verify again");
        output.json_failed(&report, &failure)?;
        return Err(failure);
    }
    let count = ByteLen::from_usize(wrong).get();
    let failure = Failure::integrity(format!(
        "{} wrong in the store",
        table::count(count, "object")
    ))
    .code("store-altered")
    .hint(if verdict.findings.iter().filter(|found| !found.unread).all(is_for_people) {
        "look at these keys: delete a manifest that is not wanted, and what is neither file nor folder; \
         of a link, bring back what it leads to, or remove the link alone; then verify again"
    } else if verdict.cache {
        "remove these files: the next command with this cache fetches them again"
    } else {
        "push the model again from its source (to a bucket with --verify): that replaces images and parts; \
         or copy the objects from a good mirror; what is no file, or of another model, is to be removed"
    });
    output.json_failed(&report, &failure)?;
    Err(failure)
}

/// Whether no push mends this: it is among the manifests, and no wrong one.
fn is_for_people(finding: &vram_store::Finding) -> bool {
    finding.part.is_none() && finding.key.starts_with("v1/models/")
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
            unread: finding.unread,
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
            absent_image_count: verdict.absent,
            verified_len: verdict.bytes,
            findings: verdict.findings.iter().map(found).collect(),
        }
    }
}
