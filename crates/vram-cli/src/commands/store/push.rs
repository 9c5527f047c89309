//! `vram push`: seals files and sends them as a revision of a model.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use serde::Serialize;
use vram_model::{ModelOptions, ModelSet};
use vram_residency::{ByteLen, Protection, SealParams};
use vram_store::{Push, Pushed, Store, WrongManifest, created_at};

use super::Telling;
use crate::args::PushArgs;
use crate::commands::image::check_context;
use crate::commands::keys;
use crate::failure::Failure;
use crate::model::Model;
use crate::output::Output;
use crate::{interrupt, streams, table};

/// The result, as JSON shows it. Lengths are in bytes.
#[derive(Debug, Serialize)]
struct Report<'a> {
    store: &'a str,
    model_id: &'a str,
    revision: u64,
    /// The digest of the manifest: the pin.
    manifest: String,
    /// Whether the same content was pushed before.
    manifest_present: bool,
    key_id: String,
    shards: Vec<Shard>,
    sent_count: u64,
    present_count: u64,
    /// Images that were wrong in the store, and were sent again.
    mended_image_count: u64,
    sent_len: u64,
    /// Manifests of this revision that were wrong in the store, and were written again.
    mended_manifests: Vec<String>,
    /// Those that are wrong still.
    wrong_manifests: Vec<Wrong>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Wrong {
    manifest: String,
    key: String,
    what: String,
}

#[derive(Debug, Serialize)]
struct Shard {
    file: String,
    content_len: u64,
    image: String,
    image_len: u64,
}

/// `vram push`.
pub(crate) fn push(args: &PushArgs, output: &mut Output) -> Result<(), Failure> {
    check_context(args.context.as_deref())?;
    let ranks = args.ranks.iter().map(|rank| numbers(rank)).collect::<Result<Vec<_>, _>>()?;
    let given = keys::load(&args.key, false)?;
    let files = files(args)?;
    let inputs = args.files.iter().chain(&files).map(PathBuf::as_path);
    let inputs: Vec<&Path> = inputs.chain(given.file.as_deref()).collect();
    streams::output_is_none_of(&inputs)?;
    for file in &files {
        let found = std::fs::metadata(file).map_err(|error| Failure::file("open", file, &error))?;
        if !found.is_file() {
            return Err(Failure::input(format!("{} is not a regular file", file.display()))
                .hint("give the files of the model themselves"));
        }
    }
    let token = interrupt::token()?;
    let mirrors = args.mirrors.iter().map(|mirror| Store::open(mirror));
    let mirrors = mirrors.collect::<Result<Vec<_>, _>>()?;
    let store = Store::open_or_create(&args.store)?;
    let params = if args.plaintext {
        SealParams::new().with_protection(Protection::Authenticated)
    } else {
        SealParams::new()
    };
    let model = files.iter().all(|file| file.extension().is_some_and(|it| it == "safetensors"));
    let push = Push {
        key: &given.key,
        model: &args.model_id,
        revision: args.revision,
        context: args.context.as_deref().unwrap_or_default().as_bytes(),
        files: files.clone(),
        format: if model { "safetensors" } else { "bytes" },
        ranks,
        fleet: args.fleet.as_deref(),
        params,
        plaintext: args.plaintext,
        created: created_at(SystemTime::now()),
        mirrors,
    };
    let telling = Telling::new("push");
    let started = Instant::now();
    let options = telling.options(&token);
    let options = if args.verify { options.read_present(true) } else { options };
    let pushed = store.push(&push, &options);
    drop(options);
    drop(telling.take());
    let report = Report::of(args, &files, &store, &pushed?, started.elapsed().as_secs_f64());
    report.print(output)?;
    output.json(&report)
}

impl Wrong {
    fn of(wrong: &WrongManifest) -> Self {
        Self { manifest: wrong.id.to_string(), key: wrong.key.clone(), what: wrong.why.to_string() }
    }
}

impl<'a> Report<'a> {
    fn of(
        args: &'a PushArgs,
        files: &[PathBuf],
        store: &'a Store,
        pushed: &Pushed,
        seconds: f64,
    ) -> Self {
        let shards = files.iter().zip(&pushed.manifest.shards);
        let shards = shards.map(|(file, shard)| Shard {
            file: file.display().to_string(),
            content_len: shard.plaintext_len,
            image: shard.image.to_string(),
            image_len: shard.image_len,
        });
        Self {
            store: store.name(),
            model_id: &args.model_id,
            revision: args.revision,
            manifest: pushed.id.to_string(),
            manifest_present: pushed.manifest_present,
            key_id: pushed.manifest.key_id.to_string(),
            shards: shards.collect(),
            sent_count: pushed.sent,
            present_count: pushed.present,
            mended_image_count: pushed.mended_images,
            sent_len: pushed.sent_bytes,
            mended_manifests: pushed.mended.iter().map(ToString::to_string).collect(),
            wrong_manifests: pushed.wrong.iter().map(Wrong::of).collect(),
            seconds,
        }
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        for shard in &self.shards {
            let size = table::size(ByteLen::new(shard.content_len));
            output.line(format!("{}: {size}, image {}", shard.file, shard.image))?;
        }
        output.line(format!(
            "{} revision {}: {} sent ({}), {}{} there already",
            self.model_id,
            self.revision,
            table::count(self.sent_count, "image"),
            table::size(ByteLen::new(self.sent_len)),
            match self.mended_image_count {
                0 => String::new(),
                count => format!("{} mended, ", table::count(count, "image")),
            },
            self.present_count
        ))?;
        if self.manifest_present {
            output.line("the manifest was there already")?;
        }
        for id in &self.mended_manifests {
            output.line(format!("manifest {id} of this revision was wrong: written again"))?;
        }
        for wrong in &self.wrong_manifests {
            output.line(format!(
                "WRONG {}: {}; push again with a --mirror that has manifest {}, or delete this object",
                wrong.key, wrong.what, wrong.manifest
            ))?;
        }
        output.line(format!("manifest {}", self.manifest))?;
        output.line("give it to those who load, as --manifest: then no older one is accepted")
    }
}

/// The files to push: those that were named, and those that folders and indexes lead to, whose
/// headers are checked.
fn files(args: &PushArgs) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in &args.files {
        if path.is_dir() || path.to_string_lossy().ends_with(".index.json") {
            let options = ModelOptions::default();
            let set = ModelSet::find([path], &options).map_err(Failure::of_whole)?;
            Model::open_or(&set, &options, Failure::of_whole)?;
            files.extend_from_slice(set.files());
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn numbers(text: &str) -> Result<Vec<u64>, Failure> {
    let number = |word: &str| word.trim().parse::<u64>();
    text.split(',').map(number).collect::<Result<_, _>>().map_err(|_not_numbers| {
        Failure::usage(format!("--rank {text} is no list of shard numbers"))
            .hint("write it as in --rank 0,1,2")
    })
}
