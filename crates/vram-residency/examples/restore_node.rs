//! A node that comes back: after a crash, from the sealed images that it exported; after the loss of
//! a GPU, from backups in host memory and from images. Nothing is trusted before it was verified.
//!
//! `cargo run -p vram-residency --example restore_node`

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use core::error::Error;
use core::fmt::Write as _;
use core::time::Duration;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use vram_residency::device::FaultDevice;
use vram_residency::device::fault::{Action, FaultPlan, Op};
use vram_residency::{
    ByteLen, ExportOptions, GpuIndex, HostDevice, ImportRequest, KeySource, ResetOptions, SealKey,
    SealRequest, Verify, VramError, VramManager, create_key_file,
};

type Outcome = Result<(), Box<dyn Error>>;

/// What the node serves: model, GPU, length.
const MODELS: [(&str, u32, usize); 3] =
    [("llama", 0, 1_500_000), ("mistral", 1, 900_000), ("whisper", 1, 300_000)];
/// Too long to be exported before the crash.
const UNFINISHED: &str = "gemma";

fn main() -> Outcome {
    // The node that crashes is a process of its own: this program once more.
    let mut arguments = std::env::args_os().skip(1);
    if let Some(folder) = arguments.next() {
        return serve_until_killed(Path::new(&folder));
    }
    let folder = tempfile::tempdir()?;
    create_key_file(&folder.path().join("key"), &SealKey::random()?)?;
    crash(folder.path())?;
    restore(folder.path())?;
    lose_a_gpu(folder.path())
}

fn weights(model: &str, len: usize) -> Vec<u8> {
    let seed = model.bytes().fold(7, u8::wrapping_add);
    (0..=250_u8).map(|byte| byte ^ seed).cycle().take(len).collect()
}

fn node(folder: &Path, devices: &[Arc<FaultDevice>]) -> Result<VramManager, VramError> {
    // The key outlives the process, and is no secret of the images.
    let key = KeySource::File(folder.join("key"));
    let mut builder = VramManager::builder().key_source(key);
    for device in devices {
        builder = builder.device(device.clone());
    }
    builder.build()
}

fn gpus() -> Result<Vec<Arc<FaultDevice>>, Box<dyn Error>> {
    let mut gpus = Vec::new();
    for index in 0..2 {
        let host = HostDevice::new(GpuIndex::new(index), ByteLen::from_mib_saturating(8))?;
        gpus.push(FaultDevice::new(Arc::new(host), FaultPlan::new(1)));
    }
    Ok(gpus)
}

/// The life of the node: seals its models, exports them, lists the images in a manifest.
fn serve_until_killed(folder: &Path) -> Outcome {
    let manager = node(folder, &gpus()?)?;
    let mut manifest = String::new();
    for (model, gpu, len) in MODELS {
        let shard = manager.seal_model(model, gpu, &weights(model, len))?;
        let file = format!("{model}.sealed");
        manager.export_to(&shard, folder.join(&file), ExportOptions::new())?;
        writeln!(manifest, "{file} {model} {gpu}")?;
        fs::write(folder.join("manifest"), &manifest)?;
        println!("node: {model} is resident on gpu {gpu}, and exported");
    }
    let shard = manager.seal_model(UNFINISHED, 0, &weights(UNFINISHED, 4_000_000))?;
    writeln!(manifest, "{UNFINISHED}.sealed {UNFINISHED} 0")?;
    fs::write(folder.join("manifest"), &manifest)?;
    let halfway = ExportOptions::new().progress(|_| {
        println!("node: exporting {UNFINISHED} ...");
        let _flushed = std::io::stdout().flush();
        // As far as it comes: the parent kills this process now.
        let _end = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    manager.export_to(&shard, folder.join(format!("{UNFINISHED}.sealed")), halfway)?;
    Ok(())
}

/// Starts the node, and kills it in the middle of an export.
fn crash(folder: &Path) -> Outcome {
    println!("--- a node at work");
    let mut child = Command::new(std::env::current_exe()?)
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("the node has no output")?;
    let mut halfway = false;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        if line.contains("exporting") {
            halfway = true;
            child.kill()?;
            break;
        }
    }
    let status = child.wait()?;
    if !halfway || status.success() {
        return Err(format!("the node ended by itself: {status}").into());
    }
    println!("the node is gone: {status}\n");
    Ok(())
}

/// A new process with the same key: what is sound comes back, and nothing else.
fn restore(folder: &Path) -> Outcome {
    println!("--- the node comes back");
    // Meanwhile a bit of one image has rotted on disk.
    let rotten = folder.join("mistral.sealed");
    let mut bytes = fs::read(&rotten)?;
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 4;
    }
    fs::write(&rotten, bytes)?;

    let manager = node(folder, &gpus()?)?;
    let manifest = fs::read_to_string(folder.join("manifest"))?;
    for line in manifest.lines() {
        let mut words = line.split(' ');
        let (Some(file), Some(model), Some(gpu)) = (words.next(), words.next(), words.next())
        else {
            return Err(format!("not a line of a manifest: {line}").into());
        };
        // The manifest is only a list: what an image is, its seal says.
        let request = ImportRequest::new(model, gpu.parse()?);
        match manager.import_from(request, folder.join(file)) {
            Ok(shard) => {
                let verdict = manager.verify(&shard, Verify::Full)?;
                println!("{model}: back on gpu {}, sound: {}", shard.gpu_index, verdict.sound);
            }
            Err(VramError::Image { source, .. }) => println!("{model}: refused, {source}"),
            Err(VramError::Io { source, .. }) => println!("{model}: no image, {}", source.kind()),
            Err(error) => return Err(error.into()),
        }
    }
    // An image under another name is still what it was sealed as.
    let posing = ImportRequest::new("mistral", 0);
    if let Err(VramError::Image { source, .. }) =
        manager.import_from(posing, folder.join("llama.sealed"))
    {
        println!("llama posing as mistral: refused, {source}");
    }
    let mut back: Vec<_> =
        manager.shards().iter().map(|shard| shard.model_id.to_string()).collect();
    back.sort();
    if back != ["llama", "whisper"] {
        return Err(format!("other models came back: {back:?}").into());
    }
    for (model, _, len) in MODELS {
        for shard in manager.shards_of(model) {
            assert!(manager.unseal_model(&shard)? == weights(model, len), "{model}");
        }
    }
    let report = manager.close(Duration::from_secs(1));
    println!("closed: {} shards freed, complete: {}\n", report.freed, report.complete);
    Ok(())
}

/// One GPU of a running node is lost to a memory error, and taken into use again.
fn lose_a_gpu(folder: &Path) -> Outcome {
    println!("--- a gpu is lost");
    let devices = gpus()?;
    let manager = node(folder, &devices)?;
    let seal = |model, gpu| {
        let request = SealRequest::new(model, gpu).owner("pool-1");
        manager.seal(request, &weights(model, 500_000))
    };
    let saved = seal("saved in host memory", 0)?;
    let exported = seal("exported", 0)?;
    let unsaved = seal("saved nowhere", 0)?;
    let elsewhere = seal("on the other gpu", 1)?;
    let backup = manager.back_up(&saved)?;
    println!("backed up: {}", backup.host_len);
    manager.export_to(&exported, folder.join("exported.sealed"), ExportOptions::new())?;

    if let Some(device) = devices.first() {
        device.next(Op::Read, Action::Driver(214))?;
    }
    for shard in [&saved, &exported, &unsaved, &elsewhere] {
        match manager.unseal_model(shard) {
            Ok(_) => println!("{}: served", shard.model_id),
            Err(error) => println!("{}: {}", shard.model_id, error.code()),
        }
    }

    let report = manager.reset_gpu(0, ResetOptions::new())?;
    println!("gpu {} was reset", report.gpu);
    for shard in &report.restored {
        assert!(manager.unseal_model(shard)? == weights(&shard.model_id, 500_000));
        println!("{}: back, verified, under its old id", shard.model_id);
    }
    for lost in &report.lost {
        println!("{}: gone, {}", lost.model_id, lost.why);
    }
    if let Err(error) = manager.unseal_model(&saved) {
        println!("a handle from before: {}", error.code());
    }
    if report.restored.len() != 2 || report.lost.len() != 1 {
        return Err("two of three were to come back".into());
    }
    let report = manager.close(Duration::from_secs(1));
    println!("closed: {} shards freed, complete: {}", report.freed, report.complete);
    if report.complete { Ok(()) } else { Err("something was left".into()) }
}
