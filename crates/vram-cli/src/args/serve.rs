//! The arguments of `vram serve`, and of the commands that talk to it.

use core::time::Duration;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use vram_serve::client::Server;
use vram_serve::config::parse_span;

/// `vram serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The configuration [default: vram.toml in this folder, else /etc/vram/vram.toml]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Check the configuration, its key and its model files; say what would be served; serve nothing.
    #[arg(long)]
    pub(crate) check: bool,
    /// Print the result as one JSON object when the server has ended; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which server a command talks to.
#[derive(Args, Debug)]
pub(crate) struct ToServer {
    /// The server: `unix:/PATH`, `127.0.0.1:PORT` or `https://HOST:PORT` [default: where `vram serve`
    /// listens if its configuration does not say]
    #[arg(long, value_name = "ADDRESS", env = "VRAM_SERVER", hide_env_values = true)]
    pub(crate) server: Option<Server>,
    /// The token of the server [default: where `vram serve` makes it]
    #[arg(long, value_name = "FILE", env = "VRAM_TOKEN_FILE", hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// With https: the certificate that is trusted, in PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The longest that an answer is waited for: an hour by default, and 10 s for listings.
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub(crate) patience: Option<Duration>,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram ps`.
#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    pub(crate) to: ToServer,
}

/// `vram top`.
#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    /// How often the figures are read.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_span)]
    pub(crate) every: Duration,
    /// End after so many readings [default: never]
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) to: ToServer,
}

/// `vram stop`.
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    /// The model.
    pub(crate) model: String,
    /// How long leases of it are waited for [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) to: ToServer,
}

/// `vram ctl`.
#[derive(Args, Debug)]
pub(crate) struct CtlArgs {
    #[command(subcommand)]
    pub(crate) command: CtlCommand,
}

/// What to do to a served model.
#[derive(Debug, Subcommand)]
pub(crate) enum CtlCommand {
    /// Make a model resident: one of the configuration, or files of the server's machine.
    Load(CtlLoad),
    /// Check a model where it lies.
    Verify(CtlVerify),
    /// Write what was altered again, from the files of the model.
    Repair(CtlModel),
    /// Move a model to host memory.
    Park(CtlMove),
    /// Move a parked model back.
    Wake(CtlMove),
    /// Move a model to another device.
    Migrate(CtlMove),
    /// Let no eviction take a model.
    Pin(CtlModel),
    /// Let evictions take it again.
    Unpin(CtlModel),
    /// Reset a device that is lost, and load again what lay there.
    Reset(CtlReset),
    /// Hold a model until this process ends, however it ends.
    Lease(CtlLease),
    /// Stop the server: wait for its leases, wipe, give back, report.
    Drain(CtlDrain),
}

/// A command on a model, without more.
#[derive(Args, Debug)]
pub(crate) struct CtlModel {
    /// The model.
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) to: ToServer,
}

/// `vram ctl load`.
#[derive(Args, Debug)]
pub(crate) struct CtlLoad {
    /// The name of the model.
    pub(crate) model: String,
    /// Its files (safetensors, GGUF), an index, or a folder of one model, on the server's machine; none for
    /// a model that the configuration names.
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Place everything on this device.
    #[arg(long, value_name = "N")]
    pub(crate) gpu: Option<u32>,
    /// Let no eviction take it.
    #[arg(long)]
    pub(crate) pin: bool,
    /// A model of a lower priority goes first.
    #[arg(long, value_name = "N")]
    pub(crate) priority: Option<u32>,
    /// What lies in device memory.
    #[arg(long, value_enum)]
    pub(crate) protection: Option<super::Mode>,
    #[command(flatten)]
    pub(crate) to: ToServer,
}

/// `vram ctl verify`.
#[derive(Args, Debug)]
pub(crate) struct CtlVerify {
    /// The model.
    pub(crate) model: String,
    /// How much is checked.
    #[arg(long, value_enum, default_value_t = CheckLevel::Segments)]
    pub(crate) level: CheckLevel,
    #[command(flatten)]
    pub(crate) to: ToServer,
}

/// How much a verification checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckLevel {
    /// Every segment against its tag.
    Segments,
    /// The digest of the content too.
    Full,
}

/// `vram ctl park`, `wake` and `migrate`.
#[derive(Args, Debug)]
pub(crate) struct CtlMove {
    /// The model.
    pub(crate) model: String,
    /// The device that it goes to [wake: most room first; migrate: required]
    #[arg(long, value_name = "N")]
    pub(crate) gpu: Option<u32>,
    /// How long leases of it are waited for [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) to: ToServer,
}

/// `vram ctl reset`.
#[derive(Args, Debug)]
pub(crate) struct CtlReset {
    /// The device, from 0 in the order of the server's configuration.
    pub(crate) gpu: u32,
    /// Reset a device that works, too: its models are wiped there, and loaded again.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) to: ToServer,
}

/// `vram ctl lease`.
#[derive(Args, Debug)]
pub(crate) struct CtlLease {
    /// The model.
    pub(crate) model: String,
    /// Who holds it, for listings [default: the number of this process]
    #[arg(long, value_name = "NAME")]
    pub(crate) holder: Option<String>,
    #[command(flatten)]
    pub(crate) to: ToServer,
}

/// `vram ctl drain`.
#[derive(Args, Debug)]
pub(crate) struct CtlDrain {
    /// How long leases are waited for [default: the configuration's time]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub(crate) deadline: Option<Duration>,
    /// End also while processes have memory of models open; what they then do is undefined
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) to: ToServer,
}

impl CtlCommand {
    /// Which server it talks to.
    pub(crate) const fn to(&self) -> &ToServer {
        match self {
            Self::Load(args) => &args.to,
            Self::Verify(args) => &args.to,
            Self::Repair(args) | Self::Pin(args) | Self::Unpin(args) => &args.to,
            Self::Park(args) | Self::Wake(args) | Self::Migrate(args) => &args.to,
            Self::Reset(args) => &args.to,
            Self::Lease(args) => &args.to,
            Self::Drain(args) => &args.to,
        }
    }

    /// The middle of its schema's name.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Verify(_) => "ctl-verify",
            Self::Repair(_) => "ctl-repair",
            Self::Reset(_) => "ctl-reset",
            Self::Lease(_) => "ctl-lease",
            Self::Drain(_) => "ctl-drain",
            _ => "ctl-model",
        }
    }
}
