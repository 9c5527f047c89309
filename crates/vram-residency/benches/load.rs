//! `vram load` of a file that is in the page cache, beside the two things that it must do: seal the
//! same bytes, and read the file. All take turns in one process; medians and the best of all turns.
//!
//! ```text
//! cargo bench -p vram-residency --features models --bench load -- [--quick]
//! ```
//!
//! A safetensors file of 1 GiB, 64 tensors; with `--quick`, of 32 MiB. The device is in host memory,
//! its pages touched before. All threads. Takes four times the length of the file in host memory.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and may panic"
)]

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::thread;

use turns::{Turn, compare, content, timed};
use vram_residency::{
    AdmitRequest, ByteLen, CancelToken, GpuChoice, Limits, ModelFiles, ModelHandle, SealContext,
    SealKey, SealParams, Threads, Verify, VramManager,
};

mod turns;

const MIB: usize = 1 << 20;
const TENSORS: usize = 64;
/// As the program has them: the longest piece, and the memory for staging.
const PIECE_LEN_MAX: ByteLen = ByteLen::new(64 << 20);
const STAGING_LEN_MAX: ByteLen = ByteLen::new(32 << 20);

/// Writes the bytes as tensors of one length.
fn write_model(path: &Path, data: &[u8]) {
    let len = data.len() / TENSORS;
    let tensor = |at: usize| {
        let (from, to) = (at * len, (at + 1) * len);
        format!(r#""t{at}":{{"dtype":"U8","shape":[{len}],"data_offsets":[{from},{to}]}}"#)
    };
    let tensors: Vec<_> = (0..TENSORS).map(tensor).collect();
    let header = format!("{{{}}}", tensors.join(","));
    let mut file = File::create(path).unwrap();
    file.write_all(&ByteLen::from_usize(header.len()).get().to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(data).unwrap();
}

/// Reads the whole file, a part in each thread.
fn read(path: &Path, buffers: &mut [Vec<u8>]) {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let part = len.div_ceil(ByteLen::from_usize(buffers.len()).get());
    thread::scope(|scope| {
        for (at, buffer) in (0..).zip(buffers) {
            let file = &file;
            scope.spawn(move || {
                let (mut from, end) = (at * part, len.min((at + 1) * part));
                while from < end {
                    let most = usize::try_from(end - from).unwrap().min(buffer.len());
                    file.read_exact_at(&mut buffer[..most], from).unwrap();
                    black_box(&buffer);
                    from += ByteLen::from_usize(most).get();
                }
            });
        }
    });
}

/// Loads the file as the command does: from its path to a resident model.
fn load(manager: &VramManager, path: &Path) -> (ModelFiles, ModelHandle) {
    let files = ModelFiles::open([path]).unwrap().split(PIECE_LEN_MAX).unwrap();
    let (done, failed) = (AtomicU64::new(0), OnceLock::new());
    let request = AdmitRequest::new("model", GpuChoice::MostRoomFirst)
        .cancel(CancelToken::new())
        .failed_at(&failed)
        .progress(|progress| done.store(progress.done, Ordering::Relaxed));
    let model = manager.admit(request, files.plan(), &files).unwrap();
    (files, model)
}

/// Proves the model as the command does after that: verifies every shard, opens it, and hashes it.
fn prove(manager: &VramManager, model: &ModelHandle) {
    for shard in model.shards() {
        assert!(manager.verify(shard, Verify::Full).unwrap().sound);
    }
    let mut hasher = blake3::Hasher::new();
    for shard in model.shards() {
        manager.unseal_to(shard, &mut hasher).unwrap();
    }
    black_box(hasher.finalize());
}

fn main() {
    let (mib, rounds) = if turns::is_quick() { (32, 1) } else { (1024, 7) };
    let data = content(mib * MIB, 7);
    let mut sealed = data.clone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_model(&path, &data);
    let all = thread::available_parallelism().unwrap().get();
    let mut buffers = vec![vec![1; MIB]; all];
    let manager = VramManager::builder()
        .host_device(ByteLen::from_usize(data.len()))
        .limits(Limits::default().staging_bytes(STAGING_LEN_MAX))
        .build()
        .unwrap();
    let whole = |then: fn(&VramManager, &ModelHandle)| -> Duration {
        let ((_, model), took) = timed(|| {
            let loaded = load(&manager, &path);
            then(&manager, &loaded.1);
            loaded
        });
        manager.free_model(&model).unwrap();
        took
    };
    // The pages of the device are touched before anything is timed.
    let _touched = whole(|_, _| ());
    let key = SealKey::random().unwrap();
    let context = SealContext::new("model").unwrap();
    let mut turns: Vec<Turn<'_>> = vec![
        (
            "bare seal",
            Box::new(|| {
                let (params, threads) = (SealParams::default(), Threads::AUTO);
                let out = &mut sealed[..];
                timed(|| vram_seal::seal(&key, &context, params, threads, &data, out).unwrap()).1
            }),
        ),
        ("reading the file", Box::new(|| timed(|| read(&path, &mut buffers)).1)),
        ("vram load, until resident", Box::new(|| whole(|_, _| ()))),
        ("vram load, verified and read back", Box::new(|| whole(prove))),
    ];
    let what = format!("{mib} MiB from the page cache, all threads");
    compare(&what, rounds, &["bare seal", "reading the file"], &mut turns);
}
