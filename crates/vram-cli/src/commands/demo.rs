//! `vram demo`: the project's purpose, shown on a made-up model and two devices of host memory.

mod model_file;

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use vram_model::{ModelOptions, ModelSet};
use vram_residency::device::fault::{FaultDevice, FaultPlan};
use vram_residency::{
    AdmitRequest, ByteLen, CancelToken, DeviceOffset, GpuChoice, GpuIndex, HostDevice, ModelHandle,
    Piece, SealOptions, SealRequest, SealedShard, Verify, VramError, VramManager,
};

use crate::args::DemoArgs;
use crate::commands::operator::written;
use crate::failure::{Failure, Kind};
use crate::model::{Model, ModelFile};
use crate::output::{Output, note};
use crate::progress::Bar;
use crate::steps::{Loaded, name};
use crate::{interrupt, table};

/// With a smaller model, the devices, in whole MiB, would have room for a second copy.
const SIZE_MIN: ByteLen = ByteLen::new(2 << 20);
/// Bytes read in the range step.
const RANGE: usize = 64 << 10;

/// The result of the demonstration, as JSON shows it. Every step passed: else it fails.
#[derive(Debug, Serialize)]
struct Shown {
    tensor_count: usize,
    file_len: u64,
    seal_gb_per_s: f64,
    verify_gb_per_s: f64,
    /// The altered segments that the flipped bit was found by.
    altered: Vec<String>,
    /// What the second copy was refused for.
    refused: String,
    freed_count: u64,
    freed_len: u64,
    seconds: f64,
}

/// Runs all steps.
pub(crate) fn run(args: &DemoArgs, output: &mut Output) -> Result<(), Failure> {
    let token = interrupt::token()?;
    let started = Instant::now();
    output
        .line("vram keeps model weights resident in GPU memory, accounted for, and provably the")?;
    output.line("bytes that were sealed. Here it does so on a made-up model; no GPU is needed.")?;

    let (file, made) = model_file::write(args.size.max(SIZE_MIN), &token, output)?;
    // The way to a file without a name.
    let options = ModelOptions::default();
    let set = ModelSet::find([format!("/dev/fd/{}", file.as_raw_fd())], &options)?;
    let mut model = Model::open(&set, &options)?;
    "llama".clone_into(&mut model.id);
    let (demo, seal_gb_per_s, verify_gb_per_s) = Demo::load(&model, &token, output)?;
    demo.read_a_range(output)?;
    demo.move_a_shard(output)?;
    let altered = demo.flip_a_bit(args.snapshot.as_deref(), output)?;
    let refused = demo.ask_for_too_much(output)?;
    let (freed_count, freed_len) = demo.free_all(output)?;

    drop(demo);
    let seconds = started.elapsed().as_secs_f64();
    output.line("")?;
    output.line(format!("All of that took {seconds:.1} s. Now yours:"))?;
    output.line("  vram load MODEL.safetensors")?;
    output.json(&Shown {
        tensor_count: made.tensor_count(),
        file_len: made.file_len().get(),
        seal_gb_per_s,
        verify_gb_per_s,
        altered,
        refused,
        freed_count,
        freed_len: freed_len.get(),
        seconds,
    })
}

/// Two devices, a manager over them, and the model in their memory.
struct Demo<'a> {
    model: &'a Model,
    token: &'a CancelToken,
    /// The devices. The demonstration changes their memory directly, unseen by the manager.
    devices: [Arc<FaultDevice>; 2],
    manager: VramManager,
    handle: ModelHandle,
}

impl<'a> Demo<'a> {
    /// Step 2: the model is sealed into both devices, all or nothing. Also returns how fast it was
    /// sealed and verified, in GB/s.
    fn load(
        model: &'a Model,
        token: &'a CancelToken,
        output: &mut Output,
    ) -> Result<(Self, f64, f64), Failure> {
        // Each device has room for five eighths of the model: the model needs both, and a second
        // copy finds no room.
        let total = (model.plan.footprint().get() / 8).saturating_mul(5);
        let total = ByteLen::new(total.next_multiple_of(1 << 20));
        let devices = [device(0, total)?, device(1, total)?];
        let [first, second] = &devices;
        let manager =
            VramManager::builder().device(first.clone()).device(second.clone()).build()?;

        let bar = Bar::new("seal", model.plan.total());
        let started = Instant::now();
        let request = AdmitRequest::new(&model.id, GpuChoice::MostRoomFirst)
            .cancel(token.clone())
            .progress(|progress| bar.set(progress.done));
        let sources: Vec<_> = model.files.iter().map(|file| file.source.clone()).collect();
        let handle = manager.admit(request, &model.plan, &sources)?;
        let seal_time = started.elapsed();
        drop(bar);
        let demo = Self { model, token, devices, manager, handle };
        let verify_time = demo.loaded().verify()?;

        output.line("")?;
        output.line(format!(
            "2. Load: encrypted into two devices of {} each, whole or not at all, then verified",
            table::size(total)
        ))?;
        let rate = |time| table::gb_per_s(model.plan.total(), time);
        let (seal, verify) = (rate(seal_time), rate(verify_time));
        output.line(format!("   sealed at {seal:.2} GB/s, verified at {verify:.2} GB/s"))?;
        demo.show_capacity(output)?;
        demo.show_bytes(output)?;
        Ok((demo, seal, verify))
    }

    /// Step 3: part of a tensor, without opening the rest.
    fn read_a_range(&self, output: &mut Output) -> Result<(), Failure> {
        let (piece, shard) = self.pick(|piece| piece.name.contains("mlp.up_proj"))?;
        let len = piece.len.to_usize().unwrap_or(RANGE).min(RANGE);
        let offset = piece.len.get() / 2;
        let offset = offset.min(piece.len.get().saturating_sub(ByteLen::from_usize(len).get()));
        let start = usize::try_from(offset).unwrap_or_default();
        let read = self.manager.read_shard_at_offset(shard, start, len)?;
        let mut original = vec![0; len];
        self.file()?.read(piece.source_offset.saturating_add(offset), &mut original)?;
        if read != original {
            return Err(Failure::integrity("the range read differs from the file"));
        }
        output.line("")?;
        output.line(format!(
            "3. Read: {} from the middle of {}",
            table::size(ByteLen::from_usize(len)),
            name(piece)
        ))?;
        output.line("   only the segments it touches were opened; it equals the file")
    }

    /// Step 4: a shard moves to the other device, and is verified there before the source is freed.
    fn move_a_shard(&self, output: &mut Output) -> Result<(), Failure> {
        interrupt::check(self.token)?;
        let (piece, shard) = self.pick(|piece| piece.name.contains("mlp.gate_proj"))?;
        let target = u32::from(shard.gpu_index == 0);
        let moved = self.manager.migrate_shard(shard, target)?;
        let same = self.manager.verify(shard, Verify::Full)?.sound;
        if !same {
            return Err(Failure::integrity("the moved shard does not verify"));
        }
        output.line("")?;
        output.line(format!(
            "4. Move: {} from gpu {} to gpu {}, verified there before the source was wiped",
            name(piece),
            shard.gpu_index,
            moved.gpu_index
        ))?;
        output.line("   the old handle still opens it: handles name shards, not places")
    }

    /// Step 5: one bit of device memory changes, and no byte of that shard is served. Returns the
    /// altered segments.
    fn flip_a_bit(
        &self,
        snapshot: Option<&Path>,
        output: &mut Output,
    ) -> Result<Vec<String>, Failure> {
        interrupt::check(self.token)?;
        let (piece, altered) = self.flip_until_it_hits()?;
        let verdict = self.manager.verify(&altered, Verify::Full)?;
        let segments: Vec<String> = verdict.altered.iter().map(ToString::to_string).collect();
        output.line("")?;
        output.line(format!(
            "5. Tamper: one bit in the memory of gpu {} is flipped, as a failing cell or an",
            altered.gpu_index
        ))?;
        output.line("   intruder would do; the program is not notified")?;
        output.line(format!("   verify: {}: {}", name(piece), segments.join(", ")))?;
        match self.manager.unseal_model(&altered) {
            Err(error) => output.line(format!("   read:   refused: {error}"))?,
            Ok(_) => return Err(Failure::integrity("altered bytes were served")),
        }
        if let Some(path) = snapshot {
            written::write(path, &snapshot_of(&self.manager)?, &[])?;
            note(format!("snapshot: {0}; see it with: vram view {0} -o view.html", path.display()));
        }
        self.manager.free_shard(&altered)?;
        let source = self.file()?.source.range(piece.source_offset, piece.len.get());
        let source = source.map_err(|error| Failure::input(error.to_string()))?;
        let request = SealRequest::new(&self.model.id, altered.gpu_index);
        let repaired = self.manager.seal_from(request, &source, SealOptions::new())?;
        let sound = self.manager.verify(&repaired, Verify::Full)?.sound;
        if !sound {
            return Err(Failure::integrity("the repaired shard does not verify"));
        }
        output.line("   repair: freed, and sealed again from the file: sound")?;
        Ok(segments)
    }

    /// Flips bits until one lies in a shard and not in a hole, and returns that shard.
    fn flip_until_it_hits(&self) -> Result<(&Piece, SealedShard), Failure> {
        const TRIES: u64 = 64;

        let used = self.manager.capacity(0)?.used.get();
        for turn in 0..TRIES {
            // From two fifths upwards, away from the memory that an earlier step freed.
            let offset = (used / 5).saturating_mul(2).saturating_add(turn.saturating_mul(99_991));
            let offset = DeviceOffset::new(offset);
            self.devices[0].flip_bit_at(None, offset, 3).map_err(|error| {
                Failure::new(Kind::Device, format!("cannot flip a bit: {error}"))
            })?;
            for (piece, shard) in self.pieces() {
                // Ask where the shard is now: it may have moved since its handle was made.
                let now = self.manager.shard(&shard.shard_id);
                let Some(now) = now.filter(|now| now.gpu_index == 0) else { continue };
                if !self.manager.verify(&now, Verify::Segments)?.sound {
                    return Ok((piece, now));
                }
            }
        }
        Err(Failure::integrity("flipped bits were not found"))
    }

    /// Step 6: a second copy finds no room, and the error says what would fit. Returns that error.
    fn ask_for_too_much(&self, output: &mut Output) -> Result<String, Failure> {
        interrupt::check(self.token)?;
        let used = self.used()?;
        let sources: Vec<_> = self.model.files.iter().map(|file| file.source.clone()).collect();
        let request = AdmitRequest::new("second-copy", GpuChoice::One(1));
        let refused = match self.manager.admit(request, &self.model.plan, &sources) {
            Err(VramError::InsufficientVram(shortfall)) => shortfall,
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(Failure::integrity("more was admitted than there is room for")),
        };
        output.line("")?;
        output.line("6. Too much: a second copy of the model is asked for, on gpu 1")?;
        output.line(format!("   refused: {refused}"))?;
        for gpu in 0..self.manager.gpu_count() {
            let capacity = self.manager.capacity(gpu)?;
            output.line(format!(
                "   would fit on gpu {gpu}: {} in all, in shards of up to {}",
                table::size(capacity.room),
                table::size(capacity.largest_hole)
            ))?;
        }
        if self.used()? != used {
            return Err(Failure::integrity("a refused load left something behind"));
        }
        output.line("   nothing was taken: the figures are as before")?;
        Ok(refused.to_string())
    }

    /// Step 7: every shard is wiped and freed, and the capacity is as before, to the byte. Returns
    /// the number of shards, and their bytes.
    fn free_all(&self, output: &mut Output) -> Result<(u64, ByteLen), Failure> {
        let mut freed = ByteLen::ZERO;
        let mut count = 0_u64;
        for shard in self.manager.shards() {
            freed = freed.saturating_add(self.manager.free_shard(&shard)?.bytes);
            count = count.saturating_add(1);
        }
        if !self.used()?.is_zero() {
            return Err(Failure::new(Kind::Device, "not all capacity came back"));
        }
        output.line("")?;
        output.line(format!(
            "7. Free: {count} shards, {}, overwritten before they were given back",
            table::size(freed)
        ))?;
        self.show_capacity(output)?;
        Ok((count, freed))
    }

    fn loaded(&self) -> Loaded<'_> {
        Loaded {
            manager: &self.manager,
            model: self.model,
            handle: &self.handle,
            token: self.token,
        }
    }

    fn pieces(&self) -> impl Iterator<Item = (&Piece, &SealedShard)> {
        self.handle.pieces.iter().map(|one| (&one.piece, &one.shard))
    }

    /// A piece on the first device, or any if there is none.
    fn pick(&self, wanted: impl Fn(&Piece) -> bool) -> Result<(&Piece, &SealedShard), Failure> {
        let mut found: Vec<_> = self.pieces().filter(|(piece, _)| wanted(piece)).collect();
        found.sort_by_key(|(_, shard)| shard.gpu_index);
        found.first().copied().ok_or_else(|| Failure::input("the model has no such tensor"))
    }

    fn file(&self) -> Result<&'a ModelFile, Failure> {
        self.model.files.first().ok_or_else(|| Failure::input("the model has no file"))
    }

    fn used(&self) -> Result<ByteLen, Failure> {
        let mut used = ByteLen::ZERO;
        for gpu in 0..self.manager.gpu_count() {
            used = used.saturating_add(self.manager.capacity(gpu)?.used);
        }
        Ok(used)
    }

    fn show_capacity(&self, output: &mut Output) -> Result<(), Failure> {
        for gpu in 0..self.manager.gpu_count() {
            let capacity = self.manager.capacity(gpu)?;
            output.line(format!(
                "   gpu {gpu}: used {}, free {}, together {}",
                table::size(capacity.used),
                table::size(capacity.free),
                table::size(capacity.total)
            ))?;
        }
        Ok(())
    }

    /// The first bytes of the file's tensors, and of the device's memory.
    fn show_bytes(&self, output: &mut Output) -> Result<(), Failure> {
        const SHOWN: usize = 12;

        let file = self.file()?;
        let mut plain = [0; SHOWN];
        file.read(file.header.data_offset(), &mut plain)?;
        let shown = ByteLen::from_usize(SHOWN);
        let resident = self.devices[0]
            .inspect(None, DeviceOffset::START, shown)
            .map_err(|error| Failure::new(Kind::Device, error.to_string()))?;
        output.line(format!("   weights in the file:     {}", hex(&plain)))?;
        output.line(format!("   bytes in device memory:  {}", hex(&resident)))
    }
}

fn device(index: u32, total: ByteLen) -> Result<Arc<FaultDevice>, Failure> {
    let device = HostDevice::new(GpuIndex::new(index), total)
        .map_err(|error| Failure::new(Kind::Device, error.to_string()))?;
    Ok(FaultDevice::new(Arc::new(device), FaultPlan::default()))
}

/// A snapshot as JSON.
fn snapshot_of(manager: &VramManager) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(&manager.snapshot())
        .map_err(|error| Failure::input(format!("cannot write the snapshot as JSON: {error}")))
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}
