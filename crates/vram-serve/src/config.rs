//! The configuration, `vram.toml`: read, checked, with the line of what is wrong.

mod checks;
mod models;
mod places;
mod units;

use core::fmt;
use core::time::Duration;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use vram_residency::device::DeviceSpec;
use vram_residency::model::Limits;
use vram_residency::{ByteLen, KeySource};

pub(crate) use self::models::Stored;
pub use self::models::{CacheConfig, ModelConfig, ProtectionConfig};
pub use self::places::{Listen, default_config, default_listen, default_token_file};
pub use self::units::{BudgetConfig, parse_span};
use self::units::{from_text, from_text_option, from_texts, span, span_option};

/// What a server does: its devices, key, models, addresses and bounds.
///
/// Read from TOML by [`Config::read`]; a field that is not known is an error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen. Default: [`default_listen`].
    #[serde(default, deserialize_with = "from_texts")]
    pub listen: Vec<Listen>,
    /// The file of the token that control calls carry. Default: [`default_token_file`].
    pub token_file: Option<PathBuf>,
    /// How long leases are waited for when the server stops. Default: 30 s.
    #[serde(default = "drain", deserialize_with = "span")]
    pub drain: Duration,
    /// What makes room for a model that does not fit.
    #[serde(default)]
    pub eviction: EvictionConfig,
    /// The devices, numbered from 0 in this order.
    #[serde(default, rename = "device")]
    pub devices: Vec<DeviceConfig>,
    /// Where the key comes from. Default: a random key, which no restart needs.
    #[serde(default)]
    pub key: KeyConfig,
    /// The models that are loaded at the start, in this order.
    #[serde(default, rename = "model")]
    pub models: Vec<ModelConfig>,
    /// The folder that keeps images of stores. Default: none is kept.
    pub cache: Option<CacheConfig>,
    /// How often what is resident is checked. Default: never by itself.
    pub scrub: Option<ScrubConfig>,
    /// The certificate, for addresses beyond loopback.
    pub tls: Option<TlsConfig>,
    /// What the server bears.
    #[serde(default)]
    pub limits: LimitsConfig,
}

/// One device.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DeviceConfig {
    /// `cuda:0`, a UUID, a PCI bus id, or `host:8GiB`.
    #[serde(deserialize_with = "from_text")]
    pub device: DeviceSpec,
    /// How much of it the server may use: `6GiB`, or `80%` of what is free.
    #[serde(default, deserialize_with = "from_text_option")]
    pub budget: Option<BudgetConfig>,
    /// Bytes of the budget that are kept free.
    #[serde(default, deserialize_with = "from_text_option")]
    pub headroom: Option<ByteLen>,
}

/// Where the key comes from: at most one of the first three.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct KeyConfig {
    /// A key file, as `vram keygen` writes it.
    pub file: Option<PathBuf>,
    /// An environment variable with the key in hexadecimal digits.
    pub env: Option<String>,
    /// A credential of systemd (`LoadCredential=NAME:FILE`).
    pub credential: Option<String>,
    /// Whether a group may read the key file.
    #[serde(default)]
    pub group_readable: bool,
}

/// What makes room for a model that does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvictionConfig {
    /// Nothing: the load is refused, and the answer says what would help.
    #[default]
    Never,
    /// The models of the lowest priority are parked, of those the least recently used first.
    Priority,
    /// The least recently used models are parked.
    Lru,
}

/// How often what is resident is checked: exactly one of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ScrubConfig {
    /// No byte stays unverified for longer than this.
    #[serde(default, deserialize_with = "span_option")]
    pub within: Option<Duration>,
    /// So many bytes a second, on all devices together.
    #[serde(default, deserialize_with = "from_text_option")]
    pub bytes_per_second: Option<ByteLen>,
}

/// The certificate and its key, as PEM files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The certificate, and those that it hangs on.
    pub certificate: PathBuf,
    /// Its private key: a file that only its owner can read.
    pub key: PathBuf,
}

/// What the server bears; beyond, it answers 429 or 503 at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Connections at the same time: 1 to 1,000,000. Default: 4,096.
    pub connections: usize,
    /// Readers of `/events` at the same time. Default: 256.
    pub event_readers: usize,
    /// Leases by connection at the same time. Default: 1,024.
    pub leases: usize,
    /// Events that are kept for readers that come back. Default: 8,192.
    pub events_kept: usize,
    /// Loads, checks and moves that run at the same time: 1 to 256. Default: 2.
    pub calls: usize,
    /// Calls that wait for one of them to end. Default: 64.
    pub calls_waiting: usize,
    /// The longest that a control call may take, waiting included. Default: 10 min.
    #[serde(deserialize_with = "span")]
    pub call_deadline: Duration,
    /// The longest that a client may take to send a request's head, and then its body. Default: 10 s.
    #[serde(deserialize_with = "span")]
    pub receive: Duration,
    /// The longest that a client may take nothing of an answer that waits for it. Default: 30 s.
    #[serde(deserialize_with = "span")]
    pub send: Duration,
    /// The longest header of a model file, and index of a model in several. Default: 100 MB.
    #[serde(deserialize_with = "from_text")]
    pub header: ByteLen,
    /// Tensors of one model file. Default: 262,144.
    pub tensors: usize,
    /// Bytes of a tensor's name. Default: 1,024.
    pub name: usize,
    /// Dimensions of a tensor: 1 to 4,096. Default: 64.
    pub rank: usize,
    /// Keys of metadata in one model file. Default: 65,536.
    pub keys: usize,
    /// Files of one model. Default: 16,384.
    pub files: usize,
}

impl LimitsConfig {
    /// Bounds on the headers of model files, for the library.
    #[must_use]
    pub const fn of_models(&self) -> Limits {
        Limits::DEFAULT
            .with_header_len_max(self.header)
            .with_tensor_count_max(self.tensors)
            .with_name_len_max(self.name)
            .with_rank_max(self.rank)
            .with_metadata_count_max(self.keys)
            .with_file_count_max(self.files)
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 4096,
            event_readers: 256,
            leases: 1024,
            events_kept: 8192,
            calls: 2,
            calls_waiting: 64,
            call_deadline: Duration::from_mins(10),
            receive: Duration::from_secs(10),
            send: Duration::from_secs(30),
            header: Limits::DEFAULT.header_len_max,
            tensors: Limits::DEFAULT.tensor_count_max,
            name: Limits::DEFAULT.name_len_max,
            rank: Limits::DEFAULT.rank_max,
            keys: Limits::DEFAULT.metadata_count_max,
            files: Limits::DEFAULT.file_count_max,
        }
    }
}

const fn drain() -> Duration {
    Duration::from_secs(30)
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {file}: {what}")]
    Io {
        /// The file.
        file: String,
        /// The operating system's words.
        what: String,
    },
    /// A line is not what is expected there.
    #[error("{file}:{line}:{column}: {what}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// The parts do not fit together.
    #[error("{file}: {what}")]
    Whole {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], with the line of what is wrong where one line is.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        /// A configuration is a page or two.
        const MAX: u64 = 1 << 20;

        let io = |what: String| ConfigError::Io { file: file.display().to_string(), what };
        let opened = std::fs::File::open(file).map_err(|error| io(error.to_string()))?;
        let mut text = String::new();
        let mut bounded = std::io::Read::take(opened, MAX.saturating_add(1));
        std::io::Read::read_to_string(&mut bounded, &mut text)
            .map_err(|error| io(error.to_string()))?;
        if bounded.limit() == 0 {
            return Err(io(format!("it has more than {MAX} bytes")));
        }
        let folder = file.parent().unwrap_or(Path::new(""));
        Self::parse(&text, &file.display().to_string(), folder)
    }

    /// Checks a text.
    ///
    /// # Arguments
    ///
    /// * `file`: the name in errors.
    /// * `folder`: what relative paths are relative to.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Line`] or [`ConfigError::Whole`].
    pub fn parse(text: &str, file: &str, folder: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let (line, column) = position(text, at);
            // One line, also where the parser says more.
            let what = error.message().lines().map(str::trim).collect::<Vec<_>>().join(" ");
            ConfigError::Line { file: file.to_owned(), line, column, what }
        })?;
        config.make_absolute(folder);
        let whole = |what| ConfigError::Whole { file: file.to_owned(), what };
        config.check().map_err(whole)?;
        Ok(config)
    }

    fn make_absolute(&mut self, folder: &Path) {
        let base = |path: &mut PathBuf| *path = folder.join(&*path);
        self.token_file.iter_mut().for_each(base);
        self.key.file.iter_mut().for_each(base);
        if let Some(tls) = &mut self.tls {
            base(&mut tls.certificate);
            base(&mut tls.key);
        }
        if let Some(cache) = &mut self.cache {
            base(&mut cache.folder);
        }
        self.models.iter_mut().for_each(|model| model.make_absolute(folder));
    }

    /// Where the server listens.
    #[must_use]
    pub fn listen(&self) -> Vec<Listen> {
        if self.listen.is_empty() { vec![default_listen()] } else { self.listen.clone() }
    }

    /// Whether memory of a device is shared with other processes: a model may lie there that is.
    #[must_use]
    pub fn shares(&self, gpu: u32) -> bool {
        let here = |model: &ModelConfig| model.gpu.is_none_or(|wanted| wanted == gpu);
        self.models.iter().any(|model| model.share && here(model))
    }

    /// The file of the token.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.token_file.clone().unwrap_or_else(default_token_file)
    }
}

impl KeyConfig {
    /// Returns true if no restart has the same key again.
    #[must_use]
    pub const fn is_random(&self) -> bool {
        self.file.is_none() && self.env.is_none() && self.credential.is_none()
    }

    /// The source, for the library.
    #[must_use]
    pub fn source(&self) -> KeySource {
        match (&self.file, &self.env, &self.credential) {
            (Some(file), _, _) if self.group_readable => KeySource::GroupReadableFile(file.clone()),
            (Some(file), _, _) => KeySource::File(file.clone()),
            (None, Some(name), _) => KeySource::Env(name.clone()),
            (None, None, Some(name)) => KeySource::SystemdCredential(name.clone()),
            (None, None, None) => KeySource::Random,
        }
    }
}

impl fmt::Display for KeyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, &self.env, &self.credential) {
            (Some(file), _, _) => write!(f, "key file {}", file.display()),
            (None, Some(name), _) => write!(f, "environment variable {name}"),
            (None, None, Some(name)) => write!(f, "credential {name}"),
            (None, None, None) => f.write_str("a random key, dropped at the end"),
        }
    }
}

/// The line and the column of a byte, both from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count());
    (line.saturating_add(1), column.saturating_add(1))
}
