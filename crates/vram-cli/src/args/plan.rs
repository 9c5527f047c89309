//! The arguments of `vram plan`.

use std::path::PathBuf;

use clap::Args;
use vram_residency::device::DeviceSpec;

use super::LimitArgs;

/// `vram plan`.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// Model files, a folder, or the index of a sharded model: together they are one model. Their
    /// headers alone are read: a file that ends behind its header will do.
    #[arg(required = true, value_name = "MODEL")]
    pub(crate) files: Vec<PathBuf>,
    /// Plan with the files that are there of a model in several files.
    #[arg(long)]
    pub(crate) partial: bool,
    /// Place everything on this GPU of the list [default: most room first]
    #[arg(long, value_name = "N")]
    pub(crate) gpu: Option<u32>,
    /// A device to plan with, as `vram load` takes it; may be given several times [default: every
    /// CUDA device; in a build without CUDA, host memory just large enough]
    #[arg(long = "device", value_name = "DEVICE")]
    pub(crate) devices: Vec<DeviceSpec>,
    /// List every tensor, however many there are. `--json` always does.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}
