//! The arguments of the commands on stores.

use core::time::Duration;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use vram_residency::ByteLen;
use vram_store::{ManifestId, Revision};

use super::{KeyArgs, choice, key};

/// What reading a store takes besides its address.
#[derive(Args, Debug)]
pub(crate) struct FromArgs {
    /// Another store that is asked before it, such as a mirror or a proxy; may be given several times.
    /// Nothing that it sends is believed. Without --manifest, the store itself says which manifests
    /// there are.
    #[arg(long = "mirror", value_name = "STORE")]
    pub(crate) mirrors: Vec<String>,
    /// The digest of the manifest, as `vram push` printed it: no older manifest is accepted.
    #[arg(long, value_name = "DIGEST")]
    pub(crate) manifest: Option<ManifestId>,
    /// Seconds for the whole of the fetching.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) deadline: Option<Duration>,
}

/// A cache folder.
#[derive(Args, Debug)]
pub(crate) struct CacheArgs {
    /// A folder of its own that keeps images, asked first; what is in it is verified on every use.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,
    /// Most bytes of images in the cache folder when no command uses it; the images that were not used for
    /// the longest time go first.
    #[arg(long, value_name = "SIZE", default_value = "1TiB", requires = "cache")]
    pub(crate) cache_limit: ByteLen,
}

/// `vram push`.
#[derive(Args, Debug)]
#[command(
    override_usage = "vram push [OPTIONS] --model-id ID --revision N --store STORE KEY FILE...",
    mut_group(key::GROUP, |group| group.required(true))
)]
pub(crate) struct PushArgs {
    /// The files of the model: one shard each, in this order. A folder, and an index
    /// (`….index.json`), stand for the model files that they lead to.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The id of the model.
    #[arg(long, value_name = "ID")]
    pub(crate) model_id: String,
    /// Your number for this content. Other content needs another one.
    #[arg(long, value_name = "N")]
    pub(crate) revision: u64,
    /// Where to: a folder, or with the feature `cloud` an address such as `s3://BUCKET/PREFIX`.
    /// Credentials come from the environment.
    #[arg(long, value_name = "STORE")]
    pub(crate) store: String,
    /// A context of your own, such as a tenant.
    #[arg(long, value_name = "TEXT")]
    pub(crate) context: Option<String>,
    /// The numbers of the shards that a rank loads, as in 0,1,2; once for each rank [default: one rank
    /// with all shards]
    #[arg(long = "rank", value_name = "N,N")]
    pub(crate) ranks: Vec<String>,
    /// The fleet that the model belongs to.
    #[arg(long, value_name = "NAME")]
    pub(crate) fleet: Option<String>,
    /// A store that may have the right bytes of a manifest of this revision that is wrong in the store:
    /// they are written again. May be given several times.
    #[arg(long = "mirror", value_name = "STORE")]
    pub(crate) mirrors: Vec<String>,
    /// Read every byte of the images that are in the store already, and replace those that are wrong. A
    /// folder is always read so; of a bucket, the first and the last 8 MiB are without this.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Push images that everybody with access to the store can read: authenticated, not encrypted.
    #[arg(long)]
    pub(crate) plaintext: bool,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram pull`.
#[derive(Args, Debug)]
#[command(
    override_usage = "vram pull [OPTIONS] --store STORE <KEY|--keyless> <-o FOLDER|--cache FOLDER> \
                      MODEL@REVISION"
)]
pub(crate) struct PullArgs {
    /// The revision, as in llama-3-70b@7.
    #[arg(value_name = "MODEL@REVISION")]
    pub(crate) what: Revision,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Without a key: compare every part with the digests that a pinned manifest leads to. For
    /// mirrors; needs --manifest.
    #[arg(long, conflicts_with_all = [key::GROUP, "context"], requires = "manifest")]
    pub(crate) keyless: bool,
    /// Where from: a folder, or with the feature `cloud` an address such as `s3://BUCKET/PREFIX`.
    #[arg(long, value_name = "STORE")]
    pub(crate) store: String,
    #[command(flatten)]
    pub(crate) from: FromArgs,
    /// The context that the images were sealed with.
    #[arg(long, value_name = "TEXT")]
    pub(crate) context: Option<String>,
    /// Where to write the images, as 00000.vseal and so on. Images that are there are verified; other
    /// files of such a name are left as they are, and the command fails.
    #[arg(short, long, value_name = "FOLDER", required_unless_present = "cache", value_parser = choice::local())]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram store`.
#[derive(Args, Debug)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

/// What to do with a store.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// List the manifests that a store says it has. Needs no key, proves nothing.
    Ls(ListArgs),
    /// Try with small objects whether a place can be a store.
    Check(CheckArgs),
    /// Read what the manifests name, and name every part that is wrong.
    Verify(VerifyStoreArgs),
    /// List the images that no manifest names; with --delete, delete them.
    Gc(CollectArgs),
    /// Push a made-up model, flip a byte in the store, and load it from a mirror.
    Demo(StoreDemoArgs),
}

impl StoreCommand {
    /// The name of the result's schema.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Ls(_) => "store-ls",
            Self::Check(_) => "store-check",
            Self::Verify(_) => "store-verify",
            Self::Gc(_) => "store-gc",
            Self::Demo(_) => "store-demo",
        }
    }

    pub(crate) const fn is_json(&self) -> bool {
        match self {
            Self::Ls(args) => args.json,
            Self::Check(args) => args.json,
            Self::Verify(args) => args.json,
            Self::Gc(args) => args.json,
            Self::Demo(args) => args.json,
        }
    }
}

/// `vram store ls`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// The store.
    pub(crate) store: String,
    /// List the manifests of this model alone.
    #[arg(long, value_name = "ID")]
    pub(crate) model_id: Option<String>,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram store check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The store; a folder is made if there is none.
    pub(crate) store: String,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram store verify`.
#[derive(Args, Debug)]
#[command(override_usage = "vram store verify [OPTIONS] <KEY|--keyless> STORE")]
pub(crate) struct VerifyStoreArgs {
    /// The store.
    pub(crate) store: String,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Without a key: compare parts of 8 MiB with the digests beside the images. A context is not seen
    /// without one.
    #[arg(long, conflicts_with_all = [key::GROUP, "context"])]
    pub(crate) keyless: bool,
    /// Verify the images of this model alone.
    #[arg(long, value_name = "ID")]
    pub(crate) model_id: Option<String>,
    /// Verify the images of this context alone [default: each in the context that its manifest names]
    #[arg(long, value_name = "TEXT")]
    pub(crate) context: Option<String>,
    /// Read so many percent of the parts of 8 MiB, drawn at random.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) sample: Option<u8>,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram store gc`.
#[derive(Args, Debug)]
pub(crate) struct CollectArgs {
    /// The store.
    pub(crate) store: String,
    /// Leave what is younger: a push sends images before the manifest that names them.
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    pub(crate) grace: u32,
    /// Delete them.
    #[arg(long)]
    pub(crate) delete: bool,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `vram store demo`.
#[derive(Args, Debug)]
pub(crate) struct StoreDemoArgs {
    /// The approximate size of the made-up model.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", hide = true)]
    pub(crate) size: ByteLen,
    /// Print the result as one JSON object; a failure too.
    #[arg(long)]
    pub(crate) json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no number of seconds");
    let seconds: u64 = text.parse().map_err(|_not_a_number| wrong())?;
    if seconds == 0 { Err(wrong()) } else { Ok(Duration::from_secs(seconds)) }
}

/// A number of percent, with or without its sign.
fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number
        .filter(|percent| (1..=100).contains(percent))
        .ok_or_else(|| format!("`{text}` is no share; write for instance 5%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_between_one_and_a_hundred_percent() {
        assert_eq!((percent("5%"), percent("100")), (Ok(5), Ok(100)));
        for wrong in ["0", "101", "-1", "x%", ""] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
