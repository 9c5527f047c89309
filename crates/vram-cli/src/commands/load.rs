//! `vram load`: loads a model into device memory, verifies it there, and frees it.

use core::time::Duration;
use std::sync::OnceLock;
use std::time::Instant;

use serde::Serialize;
use vram_model::{ModelSet, shown_whole};
use vram_residency::{
    AdmitRequest, ByteLen, GpuCapacity, GpuChoice, Limits, ModelHandle, ModelSource as _,
    VramManager,
};

use crate::args::{ExpectedMode, ImageArgs, LoadArgs, Mode};
use crate::commands::devices::Devices;
use crate::commands::{keys, load_images};
use crate::failure::{Failure, Kind};
use crate::model::digests::{Expectations, Found};
use crate::model::{Model, not_the_file};
use crate::output::Output;
use crate::progress::Bar;
use crate::steps::Loaded;
use crate::{interrupt, steps, table};

/// Host memory for staging. A load uses less than 100 MiB besides the device's own memory.
pub(super) const STAGING_LEN_MAX: ByteLen = ByteLen::new(32 << 20);
/// Number of ranges that are compared with the files.
const RANGES: u64 = 64;

/// The result of a load, as JSON shows it. Lengths are in bytes, times in seconds.
#[derive(Debug, Serialize)]
struct Report {
    model_id: String,
    protection: &'static str,
    key_id: String,
    /// Why these devices were used, if the user named none.
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<String>,
    files: Vec<FileReport>,
    shard_count: usize,
    content_len: u64,
    gpus: Vec<GpuReport>,
    seal: Phase,
    verify: Phase,
    /// All shards opened from device memory, and hashed meanwhile.
    read: Phase,
    ranges_compared: u64,
    freed_len: u64,
    /// True if every GPU's figures are what they were before the load.
    capacity_restored: bool,
}

#[derive(Debug, Serialize)]
struct FileReport {
    path: String,
    len: u64,
    tensor_count: usize,
    /// The digest of the header in the file and the tensors as opened from device memory.
    blake3: String,
    /// If it was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// The figures of one GPU while the model was resident.
#[derive(Debug, Serialize)]
struct GpuReport {
    gpu: u32,
    name: String,
    uuid: String,
    shard_count: usize,
    content_len: u64,
    total: u64,
    used: u64,
    free: u64,
    largest_hole: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Phase {
    pub(super) seconds: f64,
    pub(super) gb_per_s: f64,
}

/// Loads the model, verifies it, frees it, and reports.
pub(crate) fn run(args: &LoadArgs, output: &mut Output) -> Result<(), Failure> {
    if load_images::are_images(&args.files)? {
        return load_images::run(args, output);
    }
    let options = args.place.limits.options().partial(args.place.partial);
    let set = ModelSet::find(&args.files, &options)?;
    let expected = args.digests.expectations(set.files())?;
    refuse_image_options(args)?;
    let token = interrupt::token()?;
    let given = keys::load_if_named(&args.key)?;
    load_images::refuse_written_inputs(args, set.files(), given.as_ref())?;
    let open = if args.direct { Model::open_direct } else { Model::open };
    let model = open(&set, &options)?;
    model.tell_if_empty();
    let key = match given {
        Some(given) => given.key,
        None => keys::random()?,
    };
    let key_id = key.id();
    let mut devices = Devices::open(&args.place.devices, model.plan.footprint())?;
    output.set_cards(devices.infos());
    let manager = devices
        .builder(model.plan.footprint())?
        .key(key)
        .limits(Limits::default().staging_bytes(STAGING_LEN_MAX))
        .build()?;
    let before = capacities(&manager)?;
    let choice = choose(args.place.gpu, manager.gpu_count())?;
    let placements = manager.placements(&model.plan, choice)?;
    if !placements.fit.is_yes() {
        check_room(&model, &placements.before, &devices)?;
    }

    let bar = Bar::new("seal", model.plan.total());
    let (started, failed) = (Instant::now(), OnceLock::new());
    let request = AdmitRequest::new(&model.id, choice)
        .protection(args.protection.into())
        .cancel(token.clone())
        .failed_at(&failed)
        .progress(|progress| bar.set(progress.done));
    let source = model.source(expected.any());
    let admitted = manager.admit(request, &model.plan, &source);
    let seal_time = started.elapsed();
    drop(bar);
    let handle = admitted.map_err(|error| {
        let no_hole = error.is_capacity();
        let piece = failed.get().and_then(|index| model.plan.pieces().get(*index));
        let failure = Failure::from(error);
        let failure = match piece {
            Some(piece) => failure.at_tensor(&steps::name(piece)),
            None => failure,
        };
        if no_hole { no_room(failure, &model) } else { failure }
    })?;

    let loaded = Loaded { manager: &manager, model: &model, handle: &handle, token: &token };
    let proven = prove(&loaded, &expected);
    // Free the model after a success and after an error alike: no readable byte stays behind.
    let freed = manager.free_model(&handle);
    let Proof { gpus, digests, verify, read, ranges_compared } = proven?;
    let freed_len = freed?.iter().map(|receipt| receipt.bytes.get()).fold(0, u64::saturating_add);
    let after = capacities(&manager)?;

    let total = model.plan.total();
    let report = Report {
        model_id: model.id.clone(),
        protection: match args.protection {
            Mode::Encrypted => "encrypted",
            Mode::Authenticated => "authenticated",
        },
        key_id: key_id.to_string(),
        devices: devices.why,
        files: file_reports(&model, &digests),
        shard_count: model.plan.pieces().len(),
        content_len: total.get(),
        gpus,
        seal: Phase::of(total, seal_time),
        verify: Phase::of(total, verify),
        read: Phase::of(total, read),
        ranges_compared,
        freed_len,
        capacity_restored: same_room(&before, &after),
    };
    report.print(&before, &after, output)?;
    for (file, digest) in model.files.iter().zip(&digests) {
        output.digest(&digest.blake3, &file.path)?;
    }
    if report.capacity_restored {
        return output.json(&report);
    }
    let failure = not_all_came_back("the model was freed");
    output.json_failed(&report, &failure)?;
    Err(failure)
}

/// What was freed is missing in the room there is.
pub(super) fn not_all_came_back(what: &str) -> Failure {
    Failure::new(Kind::Device, format!("{what}, but not all capacity came back"))
        .hint("look for errors of the card in `dmesg`; the driver takes the rest back now")
}

/// Returns true if every GPU's own figures are the same. What other processes hold may change
/// meanwhile.
pub(super) fn same_room(before: &[GpuCapacity], after: &[GpuCapacity]) -> bool {
    let own = |gpu: &GpuCapacity| (gpu.total, gpu.used, gpu.reserved, gpu.free, gpu.largest_hole);
    before.iter().map(own).eq(after.iter().map(own))
}

/// The findings while the model was resident.
struct Proof {
    gpus: Vec<GpuReport>,
    digests: Vec<Found>,
    verify: Duration,
    read: Duration,
    ranges_compared: u64,
}

fn prove(loaded: &Loaded<'_>, expected: &Expectations) -> Result<Proof, Failure> {
    let gpus = gpu_reports(loaded.manager, loaded.handle)?;
    let verify = loaded.verify()?;
    let (digests, read) = loaded.digests(expected)?;
    for ((number, file), found) in (0..).zip(&loaded.model.files).zip(&digests) {
        expected.check(number, &file.path, found, || loaded.sha256(number))?;
    }
    let ranges_compared = loaded.compare_ranges(RANGES)?;
    // The headers were hashed and the ranges compared with the files after the model was sealed.
    let finished = loaded.model.source(expected.any()).finish();
    finished.map_err(|error| not_the_file(&error))?;
    Ok(Proof { gpus, digests, verify, read, ranges_compared })
}

/// Refuses options that only sealed images have, rather than to leave them without effect.
fn refuse_image_options(args: &LoadArgs) -> Result<(), Failure> {
    let ImageArgs { model_id, mode, context, metadata, revision } = &args.images;
    let given = [
        (model_id.is_some(), "--model-id"),
        (*mode != ExpectedMode::Encrypted, "--mode"),
        (context.is_some(), "--context"),
        (metadata.is_some(), "--metadata"),
        (revision.is_some(), "--revision"),
    ];
    match given.into_iter().find(|(given, _)| *given) {
        None => Ok(()),
        Some((_, option)) => Err(Failure::input(format!(
            "{option} says what sealed images must be, and these are none"
        ))
        .hint(format!("leave out {option}"))),
    }
}

pub(super) fn choose(gpu: Option<u32>, count: u32) -> Result<GpuChoice, Failure> {
    match gpu {
        None => Ok(GpuChoice::MostRoomFirst),
        Some(gpu) if gpu < count => Ok(GpuChoice::One(gpu)),
        Some(gpu) => Err(Failure::input(format!("--gpu {gpu}: the number of devices is {count}"))
            .hint("count from 0 in the order of --device")),
    }
}

/// Refuses a model that is larger than the room for it before reading a byte of it. The error says
/// which device would be large enough. Where the holes alone are too small, the admission says so.
pub(super) fn check_room(
    model: &Model,
    chosen: &[GpuCapacity],
    devices: &Devices,
) -> Result<(), Failure> {
    let room = chosen.iter().map(|gpu| gpu.room).fold(ByteLen::ZERO, ByteLen::saturating_add);
    // The last granule of a region may be short, so the sum may be a little less.
    let needed = model.plan.footprint();
    if model.plan.total() <= room && needed.saturating_sub(ByteLen::new(255)) <= room {
        return Ok(());
    }
    let figures = devices.figures();
    let failure = Failure::new(
        Kind::NoRoom,
        format!("no room: the model needs {needed}, and there is room for {room}{figures}"),
    )
    .detail(|details| {
        details.needed = Some(needed.get());
        details.room = Some(room.get());
        details.foreign = devices.foreign();
    });
    Err(no_room(failure, model))
}

/// Adds the hint which device would be large enough for the model.
pub(super) fn no_room(failure: Failure, model: &Model) -> Failure {
    failure.hint(format!("a device that holds it all would do: --device host:{}", {
        model.plan.footprint().get()
    }))
}

pub(super) fn capacities(manager: &VramManager) -> Result<Vec<GpuCapacity>, Failure> {
    (0..manager.gpu_count()).map(|gpu| manager.capacity(gpu).map_err(Failure::from)).collect()
}

/// How many tensors a file has, in words.
pub(super) fn tensors(count: usize) -> String {
    match count {
        0 => "no tensors".to_owned(),
        count => table::count(ByteLen::from_usize(count).get(), "tensor"),
    }
}

fn gpu_reports(manager: &VramManager, handle: &ModelHandle) -> Result<Vec<GpuReport>, Failure> {
    let mut reports = Vec::new();
    for (gpu, info) in (0..).zip(manager.gpus()) {
        let capacity = manager.capacity(gpu)?;
        let here = || handle.shards().filter(|shard| shard.gpu_index == gpu);
        reports.push(GpuReport {
            gpu,
            name: info.name.clone(),
            uuid: info.uuid.to_string(),
            shard_count: here().count(),
            content_len: here().map(|shard| shard.plaintext_len).fold(0, u64::saturating_add),
            total: capacity.total.get(),
            used: capacity.used.get(),
            free: capacity.free.get(),
            largest_hole: capacity.largest_hole.get(),
        });
    }
    Ok(reports)
}

fn file_reports(model: &Model, digests: &[Found]) -> Vec<FileReport> {
    let files = model.files.iter().zip(digests);
    files
        .map(|(file, digest)| FileReport {
            path: file.path.display().to_string(),
            len: file.header.file_len().get(),
            tensor_count: file.header.tensors().len(),
            blake3: digest.blake3.to_string(),
            sha256: digest.sha256.map(|digest| digest.to_string()),
        })
        .collect()
}

impl Phase {
    /// Phases as a table for people.
    pub(super) fn table<const N: usize>(phases: [(&str, Self); N]) -> String {
        let mut table = table::Table::new(1, &["phase", "GB/s", "seconds"]);
        for (name, Self { seconds, gb_per_s }) in phases {
            table.row([name.to_owned(), format!("{gb_per_s:.2}"), format!("{seconds:.3}")]);
        }
        table.render()
    }

    pub(super) fn of(len: ByteLen, time: Duration) -> Self {
        Self { seconds: time.as_secs_f64(), gb_per_s: table::gb_per_s(len, time) }
    }
}

impl Report {
    fn print(
        &self,
        before: &[GpuCapacity],
        after: &[GpuCapacity],
        output: &mut Output,
    ) -> Result<(), Failure> {
        let size = |len| table::size(ByteLen::new(len));
        for file in &self.files {
            output.line(format!(
                "{}: {}, {}",
                shown_whole(&file.path),
                size(file.len),
                tensors(file.tensor_count)
            ))?;
        }
        output.line(format!("protection {}, key {}", self.protection, self.key_id))?;
        if let Some(why) = &self.devices {
            output.line(why)?;
        }

        output.line("")?;
        let mut gpus = table::Table::new(
            1,
            &["gpu", "shards", "bytes", "total", "used", "free", "largest hole"],
        );
        for gpu in &self.gpus {
            gpus.row([
                format!("{} {}", gpu.gpu, gpu.name),
                gpu.shard_count.to_string(),
                gpu.content_len.to_string(),
                size(gpu.total),
                size(gpu.used),
                size(gpu.free),
                size(gpu.largest_hole),
            ]);
        }
        output.write(&gpus.render())?;

        output.line("")?;
        let phases = [("seal", self.seal), ("verify", self.verify), ("read, hash", self.read)];
        output.write(&Phase::table(phases))?;

        output.line("")?;
        output.line(format!(
            "sound: all {} shards verified, {} random ranges equal the file",
            self.shard_count, self.ranges_compared
        ))?;
        for (before, after) in before.iter().zip(after) {
            output.line(format!(
                "freed: gpu {} has {} free again, of {} before the load",
                after.gpu,
                table::size(after.free),
                table::size(before.free)
            ))?;
        }
        Ok(())
    }
}
