//! `vram pull`: fetches the images of a revision into a folder or the cache.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use vram_residency::{ByteLen, KeyRing};
use vram_store::VerifiedImage;

use super::{Lied, Telling, WrongManifest, believed, open, wanted, with_deadline};
use crate::args::PullArgs;
use crate::commands::image::check_context;
use crate::commands::keys;
use crate::failure::{Failure, Kind};
use crate::output::Output;
use crate::{interrupt, streams, table};

/// The result, as JSON shows it. Lengths are in bytes.
#[derive(Debug, Serialize)]
struct Report {
    store: String,
    model_id: String,
    revision: u64,
    manifest: String,
    /// Whether the manifest was compared with a pin, and whether it was proven under the key.
    pinned: bool,
    keyed: bool,
    images: Vec<Fetched>,
    image_len: u64,
    /// Images that were there already, and verified.
    present_count: u64,
    /// Files in the cache that were wrong, and were fetched again.
    dropped_count: u64,
    lies: Vec<Lied>,
    wrong_manifests: Vec<WrongManifest>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Fetched {
    path: String,
    shard_index: u64,
    image: String,
    image_len: u64,
}

/// `vram pull`.
pub(crate) fn pull(args: &PullArgs, output: &mut Output) -> Result<(), Failure> {
    check_context(args.context.as_deref())?;
    let given = keys::load_if_named(&args.key)?;
    let keys = match (given, args.keyless) {
        (Some(given), _) => {
            let key_file: Vec<&Path> = given.file.as_deref().into_iter().collect();
            streams::output_is_none_of(&key_file)?;
            Some(KeyRing::new(given.key))
        }
        (None, true) => None,
        (None, false) => {
            return Err(Failure::usage("no key was given")
                .hint("give --key-file, or --keyless and --manifest"));
        }
    };
    let token = interrupt::token()?;
    let started = Instant::now();
    let sources = open(&args.store, &args.from, &args.cache)?;
    let telling = Telling::new("pull");
    let options = || with_deadline(telling.options(&token), &args.from, started);
    let manifest = sources.manifest(&wanted(&args.what, &args.from), keys.as_ref(), &options())?;
    let context = args.context.as_deref().unwrap_or_default().as_bytes();
    let pull = sources.pull(&manifest, keys.as_ref().map(|keys| (keys, context)), options());
    let images = match &args.output {
        Some(folder) => pull.to_folder(folder)?,
        None => pull.to_cache()?,
    };
    // The cache holds its limit from here on, also for commands that ran meanwhile.
    drop(pull);
    if let Some(gone) = images.iter().find(|image| !image.path().exists()) {
        let what = format!("{} was fetched, and is gone again", gone.path().display());
        return Err(Failure::new(Kind::NoRoom, what).code("no-room-on-disk").hint(
            "another command needed its room: give a larger --cache-limit, or run one at a time",
        ));
    }
    let told = telling.take();
    let named = manifest.manifest();
    let report = Report {
        store: sources.store().name().to_string(),
        model_id: named.model.clone(),
        revision: named.revision,
        manifest: manifest.id().to_string(),
        pinned: manifest.is_pinned(),
        keyed: manifest.is_keyed(),
        images: images.iter().map(Fetched::of).collect(),
        image_len: named.image_len(),
        present_count: told.present,
        dropped_count: told.dropped,
        lies: told.lies,
        wrong_manifests: told.wrong_manifests,
        seconds: started.elapsed().as_secs_f64(),
    };
    for image in &report.images {
        let size = table::size(ByteLen::new(image.image_len));
        output.line(format!("{}: {size}, image {}", image.path, image.image))?;
    }
    output.line(format!(
        "{} revision {}: {}, {}; every byte verified",
        report.model_id,
        report.revision,
        table::count(ByteLen::from_usize(images.len()).get(), "image"),
        table::size(ByteLen::new(report.image_len)),
    ))?;
    output.line(format!("manifest {}, believed {}", report.manifest, believed(&manifest)))?;
    output.json(&report)
}

impl Fetched {
    fn of(image: &VerifiedImage) -> Self {
        Self {
            path: image.path().display().to_string(),
            shard_index: image.shard().index,
            image: image.shard().image.to_string(),
            image_len: image.shard().image_len,
        }
    }
}
