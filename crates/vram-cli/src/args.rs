//! The command line: the arguments of every command, and their types.

mod choice;
mod key;
mod load;
mod log;
mod model;
mod operator;
mod plan;
mod serve;
pub(crate) mod store;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use vram_residency::{ByteLen, SegmentSize};

pub(crate) use self::choice::{Cipher, ExpectedMode, Mode, Scope};
pub(crate) use self::key::{KeyArgs, KeyMode};
pub(crate) use self::load::{ImageArgs, LoadArgs, PlaceArgs};
pub(crate) use self::log::LogArgs;
pub(crate) use self::model::LimitArgs;
pub(crate) use self::operator::{
    BenchArgs, CompletionsArgs, ManArgs, SEED_MAX, SoakArgs, ViewArgs,
};
pub(crate) use self::plan::PlanArgs;
pub(crate) use self::serve::{
    CheckLevel, CtlArgs, CtlCommand, CtlLease, CtlLoad, CtlReset, PsArgs, ServeArgs, StopArgs,
    ToServer, TopArgs,
};
pub(crate) use self::store::{
    CacheArgs, FromArgs, PullArgs, PushArgs, StoreArgs, StoreCommand, VerifyStoreArgs,
};
use crate::output::Json;
use crate::streams;

/// Keeps model weights resident, accounted for and provably intact in GPU memory.
///
/// Results go to standard output; progress and errors go to standard error.
///
/// Exit codes: 0 sound; 1 bytes are not what was sealed or expected; 2 usage, input, wrong key,
/// unwritable target; 3 no room; 4 device, driver, or no server; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "vram", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Let a core dump, or a debugger of the same user, see the keys and the plaintext in memory.
    #[arg(long, global = true)]
    pub(crate) allow_core_dumps: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl Command {
    /// The name on the command line.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Load(_) => "load",
            Self::Plan(_) => "plan",
            Self::Devices(_) => "devices",
            Self::Demo(_) => "demo",
            Self::Seal(_) => "seal",
            Self::Unseal(_) => "unseal",
            Self::Verify(_) => "verify",
            Self::Inspect(_) => "inspect",
            Self::Keygen(_) => "keygen",
            Self::Push(_) => "push",
            Self::Pull(_) => "pull",
            Self::Store(args) => args.command.name(),
            Self::View(_) => "view",
            Self::Soak(_) => "soak",
            Self::Bench(_) => "bench",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
            Self::Serve(_) => "serve",
            Self::Ps(_) | Self::Top(_) => "ps",
            Self::Stop(_) => "stop",
            Self::Ctl(args) => args.command.name(),
        }
    }

    /// How to print JSON, if the user asks for it.
    pub(crate) fn json(&self) -> Option<Json> {
        let (asked, output) = match self {
            Self::Load(args) => (args.json, None),
            Self::Plan(args) => (args.json, None),
            Self::Devices(args) => (args.json, None),
            Self::Demo(args) => (args.json, None),
            Self::Seal(args) => (args.json, Some(&args.output)),
            Self::Unseal(args) => (args.json, Some(&args.output)),
            Self::Verify(args) => (args.json, None),
            Self::Inspect(args) => (args.json, None),
            Self::Keygen(args) => (args.json, None),
            Self::Push(args) => (args.json, None),
            Self::Pull(args) => (args.json, None),
            Self::Store(args) => (args.command.is_json(), None),
            Self::View(args) => (args.json, Some(&args.output)),
            Self::Soak(args) => (args.json, None),
            Self::Bench(args) => (args.json, None),
            Self::Completions(args) => (args.json, None),
            Self::Man(args) => (args.json, None),
            Self::Serve(args) => (args.json, None),
            Self::Ps(args) => (args.to.json, None),
            Self::Top(args) => (args.to.json, None),
            Self::Stop(args) => (args.to.json, None),
            Self::Ctl(args) => (args.command.to().json, None),
        };
        let stdout_is_taken = output.is_some_and(|path| streams::is_dash(path));
        asked.then_some(Json { command: self.name(), stdout_is_taken })
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load model files (safetensors, GGUF), sealed images, or a revision from a store into device
    /// memory; verify them there; free them.
    ///
    /// Without a key, a random one is used and dropped at the end.
    Load(LoadArgs),
    /// Say whether a model fits, where each tensor would go, and what room would be left. Takes
    /// nothing of any device.
    Plan(PlanArgs),
    /// List the devices of this machine, or say why there is no CUDA.
    Devices(DevicesArgs),
    /// Show the program's purpose on a made-up model and two host devices.
    Demo(DemoArgs),
    /// Seal a file into an image that only the key opens.
    Seal(SealArgs),
    /// Open a sealed image; write its content whole, or nothing.
    Unseal(UnsealArgs),
    /// Check every byte of sealed images without writing anything.
    Verify(VerifyArgs),
    /// Print what a sealed image or a model file states about itself. Needs no key, proves nothing.
    Inspect(InspectArgs),
    /// Write a new random key to a new file that only its owner can read.
    Keygen(KeygenArgs),
    /// Seal files and send them to a store as a revision of a model; what is there is not sent again.
    Push(PushArgs),
    /// Fetch a revision of a model from a store, every byte verified on the way.
    Pull(PullArgs),
    /// Look after a store: list, check, verify, collect; or see what it is for.
    Store(StoreArgs),
    /// Make a page of HTML from a snapshot: what lies where, and what is wrong.
    View(ViewArgs),
    /// Burn in devices: fill, verify, move, park, wake and free for a set time; a verdict at the end.
    Soak(SoakArgs),
    /// Measure this machine beside its own memcpy: seal, verify, unseal, read, copy to the device.
    Bench(BenchArgs),
    /// Print a script that completes commands and options in a shell.
    Completions(CompletionsArgs),
    /// Write the manual pages of every command.
    Man(ManArgs),
    /// Keep models resident: load them as `vram.toml` says, and serve figures, events, leases and
    /// control over HTTP until SIGTERM.
    Serve(ServeArgs),
    /// List what a server holds.
    Ps(PsArgs),
    /// List it again and again.
    Top(TopArgs),
    /// Wipe and free a model of a server.
    Stop(StopArgs),
    /// Change what a server holds: load, verify, repair, park, wake, migrate, pin, lease, drain.
    Ctl(CtlArgs),
}

/// `vram devices`.
#[derive(Args, Debug)]
pub(crate) struct DevicesArgs {
    /// Fail with exit code 4 unless at least N CUDA devices can be used.
    #[arg(long, value_name = "N")]
    pub(crate) require: Option<u32>,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// The approximate size of the made-up model.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", hide = true)]
    pub(crate) size: ByteLen,
    /// Also write a snapshot to this file, taken while the altered shard is there: for `vram view`.
    #[arg(long, value_name = "FILE", value_parser = choice::local())]
    pub(crate) snapshot: Option<PathBuf>,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram seal`.
#[derive(Args, Debug)]
#[command(
    override_usage = "vram seal [OPTIONS] --model-id ID KEY -o IMAGE FILE",
    mut_group(key::GROUP, |group| group.required(true))
)]
pub(crate) struct SealArgs {
    /// The file to seal; `-` is standard input.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The id of the model; opening compares it.
    #[arg(long, value_name = "ID")]
    pub(crate) model_id: String,
    /// Encrypted, or only authenticated and readable without a key.
    #[arg(long, value_enum, default_value_t = Mode::Encrypted)]
    pub(crate) mode: Mode,
    /// What equal content reveals: `segment` reads the file once, and equal segments show; `shard`
    /// reads it twice, and only whole equal files show. Not with `--mode authenticated` [default:
    /// segment]
    #[arg(long, value_enum)]
    pub(crate) scope: Option<Scope>,
    /// The cipher. Not with `--mode authenticated` [default: aes-256-gcm]
    #[arg(long, value_enum)]
    pub(crate) suite: Option<Cipher>,
    /// Bytes that are authenticated together: a power of two, 4KiB to 16MiB.
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = choice::segment_size)]
    pub(crate) segment: SegmentSize,
    #[command(flatten)]
    pub(crate) bound: BoundArgs,
    /// Where to write the image; `-` is standard output. An existing file is replaced, in one step.
    #[arg(short, long, value_name = "IMAGE", value_parser = choice::local())]
    pub(crate) output: PathBuf,
    /// Replace also a file that looks like a key: 64 hexadecimal digits, or 32, 64 or 65 bytes
    /// without access for other users.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a seal is bound to besides key and model id.
#[derive(Args, Debug)]
pub(crate) struct BoundArgs {
    /// A context of your own, such as a tenant.
    #[arg(long, value_name = "TEXT")]
    pub(crate) context: Option<String>,
    /// A file that describes the content; its hash is sealed in.
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata: Option<PathBuf>,
    /// The shard's number within its model [default when sealing: 0]
    #[arg(long, value_name = "N")]
    pub(crate) shard_index: Option<u64>,
    /// Your own revision of the content [default when sealing: 0]
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u64>,
}

/// What opening compares an image with.
#[derive(Args, Debug)]
pub(crate) struct ExpectArgs {
    /// Refuse an image that was sealed as another model. This or `--any-model` is required.
    #[arg(long, value_name = "ID")]
    pub(crate) model_id: Option<String>,
    /// Accept an image of any model and context that was sealed under the key.
    #[arg(long, conflicts_with = "model_id")]
    pub(crate) any_model: bool,
    /// Refuse an image of another mode; `any` accepts plaintext as well as ciphertext.
    #[arg(long, value_enum, default_value_t = ExpectedMode::Encrypted)]
    pub(crate) mode: ExpectedMode,
    #[command(flatten)]
    pub(crate) bound: BoundArgs,
}

/// `vram unseal`.
#[derive(Args, Debug)]
#[command(
    override_usage = "vram unseal [OPTIONS] KEY -o FILE IMAGE",
    mut_group(key::GROUP, |group| group.required(true))
)]
pub(crate) struct UnsealArgs {
    /// The sealed image; `-` is standard input.
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) expect: ExpectArgs,
    /// Where to write the content, readable only by you; `-` is standard output. An existing file
    /// is replaced.
    #[arg(short, long, value_name = "FILE", value_parser = choice::local())]
    pub(crate) output: PathBuf,
    /// Replace also a file that looks like a key: 64 hexadecimal digits, or 32, 64 or 65 bytes
    /// without access for other users.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram verify`.
#[derive(Args, Debug)]
#[command(
    override_usage = "vram verify [OPTIONS] KEY IMAGE",
    mut_group(key::GROUP, |group| group.required(true))
)]
pub(crate) struct VerifyArgs {
    /// The sealed images; `-` is standard input.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) expect: ExpectArgs,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The sealed image, the model file (safetensors, GGUF), or the folder or index of a sharded
    /// model; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram keygen`.
#[derive(Args, Debug)]
pub(crate) struct KeygenArgs {
    /// Where to write the key. An existing file is never overwritten.
    #[arg(short, long, value_name = "FILE", value_parser = choice::local())]
    pub(crate) output: PathBuf,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
