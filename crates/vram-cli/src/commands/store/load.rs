//! `vram load MODEL@REVISION --store`: straight into device memory, verified on the way.

use std::time::Instant;

use serde::Serialize;
use vram_residency::{ByteLen, KeyRing, Limits, Protection, Verify, VramError};
use vram_serve::{import_images, plan_of, request_for};
use vram_store::{LoadError, ParseRevisionError, Revision, ShardEntry, Trusted};

use super::{
    Lied, Telling, WrongManifest, believed, copy_of, open, wanted as named, with_deadline,
};
use crate::args::{ExpectedMode, LoadArgs};
use crate::commands::devices::Devices;
use crate::commands::image::check_context;
use crate::commands::keys;
use crate::commands::load::{
    Phase, STAGING_LEN_MAX, capacities, choose, not_all_came_back, same_room,
};
use crate::failure::Failure;
use crate::output::Output;
use crate::{interrupt, table};

/// The result, as JSON shows it. Lengths are in bytes, times in seconds.
#[derive(Debug, Serialize)]
struct Report {
    store: String,
    model_id: String,
    revision: u64,
    manifest: String,
    pinned: bool,
    protection: &'static str,
    key_id: String,
    /// Why these devices were used, if the user named none.
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<String>,
    shards: Vec<Loaded>,
    content_len: u64,
    lies: Vec<Lied>,
    wrong_manifests: Vec<WrongManifest>,
    load: Phase,
    verify: Phase,
    freed_len: u64,
    capacity_restored: bool,
}

#[derive(Debug, Serialize)]
struct Loaded {
    shard_index: u64,
    gpu: u32,
    content_len: u64,
    image: String,
}

/// Loads, verifies, frees, and reports.
pub(crate) fn run(args: &LoadArgs, store: &str, output: &mut Output) -> Result<(), Failure> {
    let what = revision(args)?;
    let context = args.images.context.as_deref();
    check_context(context)?;
    let Some(given) = keys::load_if_named(&args.key)? else {
        return Err(Failure::input("images in a store need the key that they were sealed with")
            .hint("give --key-file"));
    };
    let token = interrupt::token()?;
    let began = Instant::now();
    let sources = open(store, &args.from, &args.cache)?;
    let telling = Telling::new("load");
    let options = || with_deadline(telling.options(&token), &args.from, began);
    let keys = KeyRing::new(copy_of(&given.key)?);
    let manifest = sources.manifest(&named(&what, &args.from), Some(&keys), &options())?;
    let wanted = shards_of(args, &manifest)?;

    let needed = plan_of(&wanted)?.footprint();
    let mut devices = Devices::open(&args.place.devices, needed)?;
    output.set_cards(devices.infos());
    let manager = devices
        .builder(needed)?
        .key(given.key)
        .limits(Limits::default().staging_bytes(STAGING_LEN_MAX))
        .build()?;
    let before = capacities(&manager)?;
    let choice = choose(args.place.gpu, manager.gpu_count())?;
    let context = context.unwrap_or_default().as_bytes();
    let pull = sources.pull(&manifest, Some((&keys, context)), options());
    let started = Instant::now();
    let request = request_for(&manifest, context, choice)
        .protection(args.protection.into())
        .cancel(token.clone());
    let model = import_images(&manager, &pull, &manifest, &wanted, request).map_err(failed)?;
    let shards: Vec<_> = model.shards().cloned().collect();
    drop(pull);
    let (loaded, started) = (started.elapsed(), Instant::now());
    for shard in &shards {
        interrupt::check(&token)?;
        if !manager.verify(shard, Verify::Full)?.sound {
            return Err(Failure::integrity("a shard was altered in device memory")
                .hint("load it again; if it happens again, the memory is failing"));
        }
    }
    let verified = started.elapsed();
    let mut freed_len = 0_u64;
    let placed = wanted.iter().zip(&shards).map(|(wanted, shard)| Loaded {
        shard_index: wanted.index,
        gpu: shard.gpu_index,
        content_len: shard.plaintext_len,
        image: wanted.image.to_string(),
    });
    let placed = placed.collect();
    for shard in &shards {
        freed_len = freed_len.saturating_add(manager.free_shard(shard)?.bytes.get());
    }
    let after = capacities(&manager)?;
    let total = shards.iter().map(|shard| shard.plaintext_len).fold(0, u64::saturating_add);
    let total = ByteLen::new(total);
    let told = telling.take();
    let report = Report {
        store: sources.store().name().to_string(),
        model_id: what.model,
        revision: what.revision,
        manifest: manifest.id().to_string(),
        pinned: manifest.is_pinned(),
        protection: match Protection::from(args.protection) {
            Protection::Authenticated => "authenticated",
            _ => "encrypted",
        },
        key_id: manifest.manifest().key_id.to_string(),
        devices: devices.why,
        shards: placed,
        content_len: total.get(),
        lies: told.lies,
        wrong_manifests: told.wrong_manifests,
        load: Phase::of(total, loaded),
        verify: Phase::of(total, verified),
        freed_len,
        capacity_restored: same_room(&before, &after),
    };
    output.set_schema("load-store");
    report.print(&manifest, output)?;
    if report.capacity_restored {
        return output.json(&report);
    }
    let failure = not_all_came_back("the shards were freed");
    output.json_failed(&report, &failure)?;
    Err(failure)
}

fn revision(args: &LoadArgs) -> Result<Revision, Failure> {
    let [one] = &args.files[..] else {
        return Err(Failure::usage("--store takes one MODEL@REVISION")
            .hint("as in: vram load llama-3-70b@7 --store STORE"));
    };
    let others = [
        (args.place.partial, "--partial"),
        (args.digests.digests.is_some(), "--digests"),
        (!args.digests.expect_digests.is_empty(), "--expect-digest"),
        (args.images.mode != ExpectedMode::Encrypted, "--mode"),
        (!args.place.limits.limits.is_empty(), "--limit"),
        (args.images.model_id.is_some(), "--model-id"),
        (args.images.revision.is_some(), "--revision"),
        (args.images.metadata.is_some(), "--metadata"),
    ];
    if let Some((_, option)) = others.into_iter().find(|(given, _)| *given) {
        return Err(Failure::usage(format!("{option} has no meaning with --store"))
            .hint(format!("leave out {option}")));
    }
    one.to_string_lossy().parse().map_err(|why: ParseRevisionError| {
        Failure::usage(why.to_string()).hint("as in: vram load llama-3-70b@7 --store STORE")
    })
}

/// The shards of a rank, or all of them.
fn shards_of(args: &LoadArgs, manifest: &Trusted) -> Result<Vec<ShardEntry>, Failure> {
    let Some(rank) = args.rank else { return Ok(manifest.shards().to_vec()) };
    let ranks = &manifest.manifest().ranks;
    let numbers = ranks.get(rank).ok_or_else(|| {
        let count = table::count(ByteLen::from_usize(ranks.len()).get(), "rank");
        Failure::input(format!("--rank {rank}: the model has {count}")).hint("count from 0")
    })?;
    let wanted = |shard: &&ShardEntry| numbers.contains(&shard.index);
    Ok(manifest.shards().iter().filter(wanted).cloned().collect())
}

fn failed(error: LoadError<VramError>) -> Failure {
    match error {
        LoadError::Store(error) => error.into(),
        LoadError::Admit(error) => Failure::image(error),
        _ => Failure::usage("the images could not be loaded"),
    }
}

impl Report {
    fn print(&self, manifest: &Trusted, output: &mut Output) -> Result<(), Failure> {
        let size = |len| table::size(ByteLen::new(len));
        for shard in &self.shards {
            output.line(format!(
                "shard {}: {} on gpu {}",
                shard.shard_index,
                size(shard.content_len),
                shard.gpu
            ))?;
        }
        output.line(format!("protection {}, key {}", self.protection, self.key_id))?;
        if let Some(why) = &self.devices {
            output.line(why)?;
        }
        output.line(format!("manifest {}, believed {}", self.manifest, believed(manifest)))?;
        output.line("")?;
        output.write(&Phase::table([("load", self.load), ("verify", self.verify)]))?;
        output.line("")?;
        output.line("sound: every segment was verified on its way, and in device memory too")?;
        output.line(format!("freed: {}", size(self.freed_len)))
    }
}
