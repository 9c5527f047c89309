//! The models of a configuration: from files, or from a store.

use core::time::Duration;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use vram_residency::{ByteLen, Protection};
use vram_store::{ManifestId, Revision};

use super::units::{from_text, from_text_option, span_option};

/// One model that the server keeps resident.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelConfig {
    /// The name, by which all calls know it. The shards of a model from files are sealed under it.
    pub name: String,
    /// A model file (safetensors, GGUF), an index, or a folder of one model.
    pub path: Option<PathBuf>,
    /// The model files, in place of `path`.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// A store that has the model's sealed images, in place of `path`: a folder, or an address such as
    /// `s3://BUCKET/PREFIX`. Credentials come from the environment. Needs `image`.
    pub store: Option<String>,
    /// The model and the revision in the store, as in `llama-3-70b@7`.
    #[serde(default, deserialize_with = "from_text_option")]
    pub image: Option<Revision>,
    /// The digest of the manifest, as `vram push` printed it: no older manifest is accepted.
    #[serde(default, deserialize_with = "from_text_option")]
    pub manifest: Option<ManifestId>,
    /// Stores that are asked before it. Nothing that they send is believed.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// The context that the images were sealed with.
    pub context: Option<String>,
    /// The longest that a load or a repair from the store may take. Default: 24 h.
    #[serde(default, deserialize_with = "span_option")]
    pub deadline: Option<Duration>,
    /// The device that holds all of it. Default: most room first.
    pub gpu: Option<u32>,
    /// Whether no eviction takes it.
    #[serde(default)]
    pub pin: bool,
    /// A model of a lower priority goes first.
    #[serde(default)]
    pub priority: u32,
    /// What lies in device memory: ciphertext, or plaintext that is verified.
    #[serde(default)]
    pub protection: ProtectionConfig,
    /// Whether a process of this user may use the model in place, and so write to its plaintext: needs
    /// `protection = "authenticated"`, files and a CUDA device.
    #[serde(default)]
    pub share: bool,
}

/// What lies in device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProtectionConfig {
    /// Ciphertext.
    #[default]
    Encrypted,
    /// Plaintext, for kernels that read it in place.
    Authenticated,
}

/// A folder that keeps images of stores, so that a restart reads them from this machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CacheConfig {
    /// The folder; made if there is none. What is in it is verified on every use.
    pub folder: PathBuf,
    /// The most bytes in it. The images that were not used for the longest time go first.
    #[serde(deserialize_with = "from_text")]
    pub limit: ByteLen,
}

/// Where a model's images are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) store: &'a str,
    pub(crate) image: &'a Revision,
    pub(crate) manifest: Option<&'a ManifestId>,
    pub(crate) mirrors: &'a [String],
    pub(crate) context: &'a [u8],
    pub(crate) deadline: Duration,
}

/// How long a load from a store may take, if nothing is said.
const DEADLINE: Duration = Duration::from_hours(24);

impl ModelConfig {
    /// Where its images are; `None` for a model from files.
    pub(crate) fn stored(&self) -> Option<Stored<'_>> {
        Some(Stored {
            store: self.store.as_deref()?,
            image: self.image.as_ref()?,
            manifest: self.manifest.as_ref(),
            mirrors: &self.mirrors,
            context: self.context.as_deref().unwrap_or_default().as_bytes(),
            deadline: self.deadline.unwrap_or(DEADLINE),
        })
    }

    /// Takes these files in place of what the configuration names.
    pub(crate) fn take_files(&mut self, path: Option<PathBuf>, files: Vec<PathBuf>) {
        (self.path, self.files) = (path, files);
        (self.store, self.image, self.manifest) = (None, None, None);
        (self.mirrors, self.context, self.deadline) = (Vec::new(), None, None);
    }

    pub(super) fn make_absolute(&mut self, folder: &Path) {
        for path in self.path.iter_mut().chain(&mut self.files) {
            *path = folder.join(&*path);
        }
        for store in self.store.iter_mut().chain(&mut self.mirrors) {
            if vram_store::Store::is_path(store) {
                *store = folder.join(&*store).display().to_string();
            }
        }
    }

    pub(crate) fn check(&self, devices: usize) -> Result<(), String> {
        /// What a seal and a listing bear.
        const NAME_MAX: usize = 1024;

        let name = &self.name;
        if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(format!(
                "[[model]] {name:?}: a name has 1 to {NAME_MAX} bytes and no control characters"
            ));
        }
        let sources = [self.path.is_some(), !self.files.is_empty(), self.store.is_some()];
        if sources.into_iter().filter(|named| *named).count() != 1 {
            return Err(format!(
                "[[model]] {name:?} needs either path or files, or a store with its image"
            ));
        }
        self.check_store()?;
        if self.share && self.protection != ProtectionConfig::Authenticated {
            return Err(format!(
                "[[model]] {name:?}: share = true needs protection = \"authenticated\", since no other \
                 process can open ciphertext"
            ));
        }
        let gpu = self.gpu.and_then(|gpu| usize::try_from(gpu).ok());
        if gpu.is_some_and(|gpu| gpu >= devices) {
            return Err(format!(
                "[[model]] {name:?}: gpu counts from 0 in the order of [[device]], of which there \
                 are {devices}"
            ));
        }
        Ok(())
    }

    fn check_store(&self) -> Result<(), String> {
        let name = &self.name;
        if self.store.is_some() {
            if self.image.is_none() {
                return Err(format!(
                    "[[model]] {name:?}: store needs image, such as image = \"llama-3-70b@7\""
                ));
            }
            if self.share {
                return Err(format!(
                    "[[model]] {name:?}: share = true needs path or files, since an image in a store \
                     is a whole file and no tensor"
                ));
            }
            if self.deadline.is_some_and(|deadline| deadline.is_zero()) {
                return Err(format!("[[model]] {name:?}: deadline is more than no time"));
            }
            return Ok(());
        }
        let alone = [
            (self.image.is_some(), "image"),
            (self.manifest.is_some(), "manifest"),
            (!self.mirrors.is_empty(), "mirrors"),
            (self.context.is_some(), "context"),
            (self.deadline.is_some(), "deadline"),
        ];
        match alone.into_iter().find(|(given, _)| *given) {
            None => Ok(()),
            Some((_, field)) => Err(format!("[[model]] {name:?}: {field} needs store")),
        }
    }
}

impl From<ProtectionConfig> for Protection {
    fn from(protection: ProtectionConfig) -> Self {
        match protection {
            ProtectionConfig::Encrypted => Self::Encrypted,
            ProtectionConfig::Authenticated => Self::Authenticated,
        }
    }
}
