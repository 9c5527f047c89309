//! The arguments of `vram load`.

use std::path::PathBuf;

use clap::Args;
use vram_residency::device::DeviceSpec;

use super::{CacheArgs, ExpectedMode, FromArgs, KeyArgs, LimitArgs, Mode};
use crate::model::digests::DigestArgs;

/// `vram load`.
#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// Model files (safetensors, GGUF), a folder, or the index of a sharded model; or sealed images:
    /// together they are one model, loaded whole or not at all. With --store: MODEL@REVISION.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// What lies in device memory.
    #[arg(long, value_enum, default_value_t = Mode::Encrypted)]
    pub(crate) protection: Mode,
    // Without one, the key is random and dropped at the end.
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) digests: DigestArgs,
    /// What sealed images must be. Model files are sealed under their own name.
    #[command(flatten)]
    pub(crate) images: ImageArgs,
    /// A store that has the revision MODEL@REVISION: a folder, or with the feature `cloud` an address
    /// such as `s3://BUCKET/PREFIX`.
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) from: FromArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    /// From a store: load the shards of this rank alone.
    #[arg(long, value_name = "N", requires = "store")]
    pub(crate) rank: Option<usize>,
    /// Read model files past the page cache of the kernel: for files larger than memory, or so that they
    /// push out nothing that other programs use. A file system that cannot do that is read as ever.
    #[arg(long, conflicts_with = "store")]
    pub(crate) direct: bool,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which files of a model are taken, how their headers are read, and where they go.
#[derive(Args, Debug)]
pub(crate) struct PlaceArgs {
    /// Take the files that are there of a model in several files (`…-00001-of-00002.safetensors`).
    #[arg(long)]
    pub(crate) partial: bool,
    /// Place everything on this GPU of the list [default: most room first]
    #[arg(long, value_name = "N")]
    pub(crate) gpu: Option<u32>,
    /// A device to use: `cuda:0`, a UUID or the beginning of one (`GPU-8932f937`), a PCI bus id
    /// (`0000:1b:00.0`), or host memory (`host:8GiB`); may be given several times [default: every
    /// CUDA device; in a build without CUDA, host memory just large enough]
    #[arg(long = "device", value_name = "DEVICE")]
    pub(crate) devices: Vec<DeviceSpec>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// What `vram load` compares sealed images with.
#[derive(Args, Debug)]
pub(crate) struct ImageArgs {
    /// Of sealed images: the id of the model that they were sealed as; required.
    #[arg(long, value_name = "ID")]
    pub(crate) model_id: Option<String>,
    /// Of sealed images: their mode; `any` accepts plaintext as well as ciphertext. What lies in
    /// device memory is chosen by --protection.
    #[arg(long, value_enum, default_value_t = ExpectedMode::Encrypted)]
    pub(crate) mode: ExpectedMode,
    /// Of sealed images: the context that they were sealed with.
    #[arg(long, value_name = "TEXT")]
    pub(crate) context: Option<String>,
    /// Of sealed images: a file that describes the content.
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata: Option<PathBuf>,
    /// Of sealed images: your own revision of the content.
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u64>,
}
