//! A worker process that uses a model of `vram serve` in place: it leases the model for itself, opens its
//! memory on the card, compares what lies there with the file, closes it, and ends the lease.
//!
//! ```text
//! cargo run -p vram-cli --features cuda --example worker -- SOCKET TOKEN_FILE MODEL FILE
//! ```
//!
//! `vram.toml` says `share = true` for the model. A worker in another language does the same with three
//! calls: `POST /v1/leases/shared`, `cuIpcOpenMemHandle` for each tensor, `POST /v1/leases/NUMBER/end`.

use core::error::Error;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use vram_residency::device::{CudaDevice, DeviceMemory, DeviceRange, DeviceSpec};
use vram_residency::{
    ByteLen, ContentDigest, ContentHasher, Device, DeviceOffset, GpuIndex, HashKind, ModelFiles,
};
use vram_serve::client::{Client, SharedModel};

#[expect(clippy::print_stdout, reason = "it says what it found")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, token, model, file] = &arguments[..] else {
        return Err("worker SOCKET TOKEN_FILE MODEL FILE".into());
    };
    let bytes = run(socket, Path::new(token), model, Path::new(file))?;
    println!("{bytes} bytes on the card are those of {file}");
    Ok(())
}

/// Compares a model on the card with its file. Returns how many bytes.
pub(crate) fn run(
    socket: &str,
    token: &Path,
    model: &str,
    file: &Path,
) -> Result<u64, Box<dyn Error>> {
    let client = Client::new(format!("unix:{socket}").parse()?)?.token_file(token.to_owned())?;
    let shared = client.share(model, "example")?;
    // All memory is closed when this returns, also by an error.
    let compared = compare(&shared, file);
    client.end_shared(shared.lease)?;
    compared
}

fn compare(shared: &SharedModel, file: &Path) -> Result<u64, Box<dyn Error>> {
    let files = ModelFiles::open([file])?;
    let pieces = files.plan().pieces();
    let content = File::open(file)?;
    let mut devices: BTreeMap<&str, Arc<CudaDevice>> = BTreeMap::new();
    let mut sum = 0_u64;
    for (tensor, piece) in shared.tensors.iter().zip(pieces) {
        if (&*tensor.tensor, tensor.bytes) != (&*piece.name, piece.len.get()) {
            return Err(format!("the file has {}, not {}", piece.name, tensor.tensor).into());
        }
        let Some(handle) = tensor.share_handle() else { continue };
        let device = if let Some(device) = devices.get(&*tensor.device) {
            Arc::clone(device)
        } else {
            // Its number here may be another one than in the server.
            let ordinal = CudaDevice::ordinal_of(tensor.device.parse::<DeviceSpec>()?)?;
            let device = CudaDevice::open(ordinal, GpuIndex::new(ordinal))?;
            devices.insert(&tensor.device, Arc::clone(&device));
            device
        };
        let memory = device.open_shared(&handle)?;
        let there = hash_on_card(&*memory, tensor.offset, tensor.bytes)?;
        let mut bytes = vec![0; usize::try_from(tensor.bytes)?];
        content.read_exact_at(&mut bytes, piece.source_offset)?;
        if there != ContentHasher::digest(HashKind::Blake3, &bytes) {
            return Err(format!("{} is not as in the file", tensor.tensor).into());
        }
        sum = tensor.bytes.saturating_add(sum);
    }
    Ok(sum)
}

/// The BLAKE3 of a tensor, read where it lies. A kernel would use `memory.address()`.
fn hash_on_card(
    memory: &dyn DeviceMemory,
    offset: u64,
    len: u64,
) -> Result<ContentDigest, Box<dyn Error>> {
    const WINDOW: u64 = 4 << 20;

    let mut hasher = ContentHasher::new(HashKind::Blake3);
    let mut window = vec![0; usize::try_from(WINDOW.min(len))?];
    let mut done = 0_u64;
    while done < len {
        let part = WINDOW.min(len.saturating_sub(done));
        let start = DeviceOffset::new(offset.saturating_add(done));
        let range = DeviceRange::checked(start, ByteLen::new(part), memory.len())?;
        let target = window.get_mut(..usize::try_from(part)?).ok_or("the window is short")?;
        memory.read(range, target)?;
        hasher.update(target);
        done = done.saturating_add(part);
    }
    Ok(hasher.finalize())
}
