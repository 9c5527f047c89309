//! `vram load` of sealed images: each image is one shard of a model.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use vram_residency::{
    ByteLen, CancelToken, GpuChoice, ImportRequest, Limits, Protection, SealedShard, Verify,
    VramManager, inspect_image,
};

use super::image::{check_context, read_metadata};
use super::load::{Phase, STAGING_LEN_MAX, capacities, choose, not_all_came_back, same_room};
use crate::args::{ExpectedMode, LoadArgs};
use crate::commands::devices::Devices;
use crate::commands::keys;
use crate::failure::Failure;
use crate::model::digests::{Expectations, Found, Hashers};
use crate::model::is_sealed_image;
use crate::output::Output;
use crate::progress::Bar;
use crate::steps::Hashing;
use crate::{interrupt, streams, table};

/// Bytes of which a shard takes a whole number in device memory.
const GRANULE: u64 = 256;

/// The result, as JSON shows it. Lengths are in bytes, times in seconds.
#[derive(Debug, Serialize)]
struct Report {
    model_id: String,
    protection: &'static str,
    key_id: String,
    /// Why these devices were used, if the user named none.
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<String>,
    images: Vec<ImageReport>,
    content_len: u64,
    import: Phase,
    verify: Phase,
    read: Phase,
    freed_len: u64,
    capacity_restored: bool,
}

#[derive(Debug, Serialize)]
struct ImageReport {
    path: String,
    gpu: u32,
    content_len: u64,
    shard_index: u64,
    /// The digest of the content as opened from device memory.
    blake3: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// Whether the files are sealed images. Images and model files in one call are refused.
pub(super) fn are_images(files: &[PathBuf]) -> Result<bool, Failure> {
    let image = files.iter().find(|path| is_sealed_image(path));
    let other = files.iter().find(|path| !is_sealed_image(path));
    // A file that cannot be read is told as that.
    if let (Some(_), Some(other)) = (image, other)
        && let Err(error) = fs::metadata(other)
    {
        return Err(Failure::file("open", other, &error).hint("check the path"));
    }
    match (image, other) {
        (Some(image), Some(other)) => Err(Failure::input(format!(
            "{} is a sealed image, and {} is none",
            image.display(),
            other.display()
        ))
        .hint(
            "load images and model files by two commands: an image is one shard as it was sealed, \
               and a model file is sealed tensor by tensor",
        )),
        (Some(_), None) => refuse_twice(files).map(|()| true),
        (None, _) => Ok(false),
    }
}

/// Refuses a call whose result would be written over a file that it reads.
pub(super) fn refuse_written_inputs(
    args: &LoadArgs,
    files: &[PathBuf],
    key: Option<&keys::Given>,
) -> Result<(), Failure> {
    let files = args.files.iter().chain(files).map(PathBuf::as_path);
    let key = key.and_then(|given| given.file.as_deref());
    let others = [key, args.digests.digests.as_deref(), args.images.metadata.as_deref()];
    let inputs: Vec<&Path> = files.chain(others.into_iter().flatten()).collect();
    streams::output_is_none_of(&inputs)
}

/// Refuses a file that is given twice, by whatever name.
fn refuse_twice(files: &[PathBuf]) -> Result<(), Failure> {
    let mut seen = HashMap::new();
    for path in files {
        let Ok(found) = fs::metadata(path) else { continue };
        if let Some(first) = seen.insert((found.dev(), found.ino()), path) {
            let (first, path) = (first.display(), path.display());
            return Err(Failure::input(format!("{first} and {path} are the same file"))
                .hint("give each file once"));
        }
    }
    Ok(())
}

/// Imports the images, verifies them, frees them, and reports.
pub(super) fn run(args: &LoadArgs, output: &mut Output) -> Result<(), Failure> {
    if args.direct {
        return Err(Failure::input("--direct is for model files, and these are sealed images")
            .hint("leave out --direct"));
    }
    if args.digests.digests.is_some() {
        // The digest under the name of an image would be that of the image.
        return Err(Failure::input(
            "--digests lists files, and the content of an image has no name",
        )
        .hint("give --expect-digest, the digest of the content, for each image"));
    }
    let Some(model_id) = &args.images.model_id else {
        return Err(Failure::input("which model the images must be of is not given")
            .hint("give the --model-id that they were sealed with"));
    };
    let given = keys::load_if_named(&args.key)?;
    refuse_written_inputs(args, &[], given.as_ref())?;
    let Some(keys::Given { key, .. }) = given else {
        return Err(Failure::input("sealed images need the key that they were sealed with")
            .hint("give --key-file"));
    };
    let expected = args.digests.expectations(&args.files)?;
    check_context(args.images.context.as_deref())?;
    let metadata = args.images.metadata.as_deref().map(read_metadata).transpose()?;
    let token = interrupt::token()?;
    let key_id = key.id();
    let needed = footprint(&args.files)?;
    let mut devices = Devices::open(&args.place.devices, needed)?;
    output.set_cards(devices.infos());
    let manager = devices
        .builder(needed)?
        .key(key)
        .limits(Limits::default().staging_bytes(STAGING_LEN_MAX))
        .build()?;
    let before = capacities(&manager)?;
    let choice = choose(args.place.gpu, manager.gpu_count())?;

    let mut job = Job { args, manager: &manager, token: &token, shards: Vec::new() };
    let started = Instant::now();
    for path in &args.files {
        let request = request(args, model_id, metadata.as_deref(), gpu(choice, &manager)?);
        job.import(request, path, needed)?;
    }
    let total = job.shards.iter().map(|shard| shard.plaintext_len).fold(0, u64::saturating_add);
    let total = ByteLen::new(total);
    let import = Phase::of(total, started.elapsed());
    let started = Instant::now();
    job.verify()?;
    let (verify, started) = (started.elapsed(), Instant::now());
    let found = job.compare(&expected, total)?;
    let (read, shards) = (started.elapsed(), job.shards);

    let images = args.files.iter().zip(&shards).zip(&found);
    let images = images.map(|((path, shard), found)| ImageReport::of(path, shard, found)).collect();
    let mut freed_len = 0_u64;
    for shard in &shards {
        freed_len = freed_len.saturating_add(manager.free_shard(shard)?.bytes.get());
    }
    let after = capacities(&manager)?;
    let report = Report {
        model_id: model_id.clone(),
        protection: match Protection::from(args.protection) {
            Protection::Authenticated => "authenticated",
            _ => "encrypted",
        },
        key_id: key_id.to_string(),
        devices: devices.why,
        images,
        content_len: total.get(),
        import,
        verify: Phase::of(total, verify),
        read: Phase::of(total, read),
        freed_len,
        capacity_restored: same_room(&before, &after),
    };
    output.set_schema("load-images");
    report.print(output)?;
    for (path, found) in args.files.iter().zip(&found) {
        output.digest(&found.blake3, path)?;
    }
    if report.capacity_restored {
        return output.json(&report);
    }
    let failure = not_all_came_back("the images were freed");
    output.json_failed(&report, &failure)?;
    Err(failure)
}

/// The images of one command, and the shards that they became.
struct Job<'a> {
    args: &'a LoadArgs,
    manager: &'a VramManager,
    token: &'a CancelToken,
    shards: Vec<SealedShard>,
}

impl Job<'_> {
    fn import(
        &mut self,
        request: ImportRequest<'_>,
        path: &Path,
        needed: ByteLen,
    ) -> Result<(), Failure> {
        let bar = Bar::new("import", ByteLen::ZERO);
        let request = request.cancel(self.token.clone()).progress(|progress| {
            bar.set_total(progress.total);
            bar.set(progress.done);
        });
        // If this fails, the manager wipes and frees the other shards when it is dropped.
        let shard = self.manager.import_from(request, path).map_err(|error| {
            let no_room = error.is_capacity();
            let failure = Failure::image(error);
            let device = format!("give a larger --device, such as host:{}", needed.get());
            if no_room { failure.hint(device) } else { failure }
        })?;
        self.shards.push(shard);
        Ok(())
    }

    /// Checks every byte in device memory against its seal.
    fn verify(&self) -> Result<(), Failure> {
        for (path, shard) in self.args.files.iter().zip(&self.shards) {
            interrupt::check(self.token)?;
            if !self.manager.verify(shard, Verify::Full)?.sound {
                return Err(Failure::integrity(format!(
                    "{} was altered in device memory",
                    path.display()
                ))
                .hint("load it again; if it happens again, the memory is failing"));
            }
        }
        Ok(())
    }

    /// Opens every shard in device memory, and compares its digest with the one that is expected.
    fn compare(&self, expected: &Expectations, total: ByteLen) -> Result<Vec<Found>, Failure> {
        let bar = Bar::new("read", total);
        let hash = |shard: &SealedShard, sha256: bool| -> Result<Found, Failure> {
            let mut target =
                Hashing { hashers: Hashers::new(sha256), bar: &bar, token: self.token };
            let written = self.manager.unseal_to(shard, &mut target);
            interrupt::check(self.token)?;
            written?;
            Ok(target.hashers.finalize())
        };
        let mut found = Vec::with_capacity(self.shards.len());
        for ((number, path), shard) in (0..).zip(&self.args.files).zip(&self.shards) {
            let one = hash(shard, expected.needs_sha256(number))?;
            expected.check(number, path, &one, || {
                Ok(hash(shard, true)?.sha256.unwrap_or(one.blake3))
            })?;
            found.push(one);
        }
        Ok(found)
    }
}

fn request<'a>(
    args: &LoadArgs,
    model_id: &str,
    metadata: Option<&[u8]>,
    gpu: u32,
) -> ImportRequest<'a> {
    let wanted = &args.images;
    let mut request = ImportRequest::new(model_id, gpu).convert_to(args.protection.into());
    request = match wanted.mode {
        ExpectedMode::Encrypted => request.protection(Protection::Encrypted),
        ExpectedMode::Authenticated => request.protection(Protection::Authenticated),
        ExpectedMode::Any => request.any_protection(),
    };
    if let Some(context) = &wanted.context {
        request = request.context(context.as_bytes());
    }
    if let Some(metadata) = metadata {
        request = request.metadata(metadata);
    }
    if let Some(revision) = wanted.revision {
        request = request.revision(revision);
    }
    request
}

/// Device memory that the images take. The figures of a record are not proven yet, but a file as
/// long as its record says bounds them.
fn footprint(files: &[PathBuf]) -> Result<ByteLen, Failure> {
    let mut sum = 0_u64;
    for path in files {
        let info = inspect_image(path).map_err(Failure::image)?;
        if info.file_len != info.image_len {
            let path = path.display();
            let (found, wanted) = (table::size(info.file_len), table::size(info.image_len));
            let what = format!("sealed image {path} has {found}, and its record says {wanted}");
            return Err(Failure::integrity(what)
                .code("wrong-length")
                .detail(|details| details.file = Some(path.to_string()))
                .hint("it was cut short or added to: fetch it again"));
        }
        let len = info.fields.plaintext_len().min(info.file_len).get();
        sum = sum.saturating_add(len.div_ceil(GRANULE).saturating_mul(GRANULE));
    }
    Ok(ByteLen::new(sum))
}

/// The GPU for the next image: the one with most room, the lowest index on a tie.
fn gpu(choice: GpuChoice, manager: &VramManager) -> Result<u32, Failure> {
    if let GpuChoice::One(gpu) = choice {
        return Ok(gpu);
    }
    let most = capacities(manager)?.iter().map(|gpu| (gpu.room, core::cmp::Reverse(gpu.gpu))).max();
    Ok(most.map_or(0, |(_, gpu)| gpu.0))
}

impl ImageReport {
    fn of(path: &Path, shard: &SealedShard, found: &Found) -> Self {
        Self {
            path: path.display().to_string(),
            gpu: shard.gpu_index,
            content_len: shard.plaintext_len,
            shard_index: shard
                .sealed_data
                .parse_unauthenticated()
                .map_or(0, |fields| fields.shard_index()),
            blake3: found.blake3.to_string(),
            sha256: found.sha256.map(|digest| digest.to_string()),
        }
    }
}

impl Report {
    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        let size = |len| table::size(ByteLen::new(len));
        for image in &self.images {
            output.line(format!(
                "{}: {} on gpu {}, shard {} of {}",
                image.path,
                size(image.content_len),
                image.gpu,
                image.shard_index,
                self.model_id
            ))?;
        }
        output.line(format!("protection {}, key {}", self.protection, self.key_id))?;
        if let Some(why) = &self.devices {
            output.line(why)?;
        }
        output.line("")?;
        let phases = [("import", self.import), ("verify", self.verify), ("read, hash", self.read)];
        output.write(&Phase::table(phases))?;
        output.line("")?;
        let count = self.images.len();
        let images = if count == 1 { "the image is" } else { "all images are" };
        output.line(format!("sound: {images} what was sealed, in device memory too"))?;
        output.line(format!("freed: {}", size(self.freed_len)))
    }
}
