//! The arguments of `vram plan`.

use std::path::PathBuf;

use clap::Args;

use super::PlaceArgs;

/// `vram plan`.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// Model files, a folder, or the index of a sharded model: together they are one model. Their
    /// headers alone are read: a file that ends behind its header will do.
    #[arg(required = true, value_name = "MODEL")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// List every tensor, however many there are. `--json` always does.
    #[arg(long)]
    pub(crate) all: bool,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}
