//! Commands on stores: `vram push`, `vram pull`, `vram load --store`, `vram store …`.

mod demo;
mod fetch;
mod load;
mod push;
mod upkeep;
mod verify;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Instant;

use serde::Serialize;
use vram_residency::{ByteLen, CancelToken, SealKey};
use vram_serve::StoreSources;
use vram_store::{Revision, StoreEvent, StoreOptions, Trusted, Wanted};

pub(crate) use self::fetch::pull;
pub(crate) use self::load::run as load;
pub(crate) use self::push::push;
use crate::args::{CacheArgs, FromArgs, LoadArgs, StoreArgs, StoreCommand};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::progress::Bar;

/// `vram store`.
pub(crate) fn run(args: &StoreArgs, output: &mut Output) -> Result<(), Failure> {
    match &args.command {
        StoreCommand::Ls(args) => upkeep::list(args, output),
        StoreCommand::Check(args) => upkeep::check(args, output),
        StoreCommand::Verify(args) => verify::verify(args, output),
        StoreCommand::Gc(args) => upkeep::collect(args, output),
        StoreCommand::Demo(args) => demo::run(args, output),
    }
}

/// Refuses options of a load without a store that only a store gives a meaning, rather than to leave them without effect.
pub(crate) fn is_not_needed(args: &LoadArgs) -> Result<(), Failure> {
    let given = [
        (!args.from.mirrors.is_empty(), "--mirror"),
        (args.from.manifest.is_some(), "--manifest"),
        (args.from.deadline.is_some(), "--deadline"),
        (args.cache.cache.is_some(), "--cache"),
    ];
    match given.into_iter().find(|(given, _)| *given) {
        None => Ok(()),
        Some((_, option)) => Err(Failure::usage(format!("{option} needs --store"))
            .hint(format!("give --store, or leave out {option}"))),
    }
}

/// What a call told on its way, for the report.
#[derive(Debug, Default)]
struct Told {
    lies: Vec<Lied>,
    wrong_manifests: Vec<WrongManifest>,
    dropped: u64,
    retried: u64,
    present: u64,
    /// What people were told, and need not be told by each call of a command.
    once: BTreeSet<String>,
}

impl Told {
    fn note_once(&mut self, text: String) {
        if !self.once.contains(&text) {
            note(&text);
            self.once.insert(text);
        }
    }
}

/// A source that gave wrong bytes.
#[derive(Clone, Debug, Serialize)]
struct Lied {
    source: String,
    image: String,
    what: String,
}

/// A source that has other bytes under the name of a manifest.
#[derive(Clone, Debug, Serialize)]
struct WrongManifest {
    source: String,
    manifest: String,
    what: String,
}

/// Tells what happens: notes for people, and a bar.
struct Telling {
    told: Mutex<Told>,
    bar: Bar,
}

impl Telling {
    fn new(phase: &'static str) -> Self {
        Self { told: Mutex::default(), bar: Bar::new(phase, ByteLen::ZERO) }
    }

    fn take(self) -> Told {
        self.told.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn options(&self, token: &CancelToken) -> StoreOptions<'_> {
        StoreOptions::new().cancel(token.clone()).on_event(|event| self.take_event(event))
    }

    fn take_event(&self, event: &StoreEvent) {
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match event {
            StoreEvent::Progress { done, total, .. } => {
                self.bar.set_total(*total);
                self.bar.set(*done);
            }
            StoreEvent::SourceLied(lie) => {
                note(format!("a source lied, and is left out: {lie}"));
                told.lies.push(Lied {
                    source: lie.source.to_string(),
                    image: lie.image.to_string(),
                    what: lie.part.to_string(),
                });
            }
            StoreEvent::GaveUp { source, why } => {
                note(format!("{source}: {why}; going on without"));
            }
            StoreEvent::ManifestRefused { source, manifest, why } => {
                note(format!("{source}: manifest {manifest} is wrong: {why}"));
                told.wrong_manifests.push(WrongManifest {
                    source: source.to_string(),
                    manifest: manifest.to_string(),
                    what: why.to_string(),
                });
            }
            StoreEvent::ManifestMended { store, manifest } => {
                note(format!("{store}: manifest {manifest} was wrong, and was written again"));
            }
            StoreEvent::Dropped { image, path } => {
                let path = path.display();
                note(format!("{path} was not image {image}, and was removed from the cache"));
                told.dropped = told.dropped.saturating_add(1);
            }
            StoreEvent::ImageMended { store, image } => {
                note(format!("{store}: image {image} was wrong, and was sent again"));
            }
            StoreEvent::WaitsForCollection { store, mark, dead_after } => note(format!(
                "{store}: waits for a collection that another process began ({mark}); if none runs, it \
                 goes on within {} seconds",
                dead_after.as_secs()
            )),
            StoreEvent::DeadMark { store, mark } => {
                note(format!("{store}: {mark} was of a collection that was killed: going on"));
            }
            StoreEvent::NotAborted { key } => note(format!(
                "an upload of {key} could not be aborted: its parts may be stored, and billed"
            )),
            StoreEvent::FollowsLink { store, link } => told.note_once(format!(
                "{store}: {link} is a link to a folder: what lies there is read, and never written or deleted"
            )),
            StoreEvent::Waits { source, .. } => {
                told.note_once(format!("{source}: no answer yet; it is waited for"));
            }
            StoreEvent::Retried { .. } => told.retried = told.retried.saturating_add(1),
            StoreEvent::Present { .. } => told.present = told.present.saturating_add(1),
            _ => {}
        }
    }
}

/// Opens the stores that a command reads, and its cache.
fn open(store: &str, from: &FromArgs, cache: &CacheArgs) -> Result<StoreSources, Failure> {
    let cache = cache.cache.as_deref().map(|folder| (folder, cache.cache_limit));
    Ok(StoreSources::open(store, &from.mirrors, cache)?)
}

/// The revision that a command line names, and its pin.
fn wanted<'a>(what: &'a Revision, from: &'a FromArgs) -> Wanted<'a> {
    Wanted { model: &what.model, revision: what.revision, pin: from.manifest.as_ref() }
}

/// Sets the deadline that the user gave, for all that was fetched since the command began.
fn with_deadline<'a>(
    options: StoreOptions<'a>,
    from: &FromArgs,
    began: Instant,
) -> StoreOptions<'a> {
    match from.deadline {
        Some(within) => options.deadline_since(began, within),
        None => options,
    }
}

/// A second holder of a key: the manager takes one.
fn copy_of(key: &SealKey) -> Result<SealKey, Failure> {
    SealKey::from_hex(&key.expose_hex())
        .map_err(|error| Failure::usage(error.to_string()).code("key-source"))
}

/// How a manifest was believed, in words.
fn believed(manifest: &Trusted) -> &'static str {
    match (manifest.is_keyed(), manifest.is_pinned()) {
        (true, true) => "by its pin and under the key",
        (false, _) => "by its pin",
        (true, false) => "under the key; no pin, so an older one of the same revision would be too",
    }
}
