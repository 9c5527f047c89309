//! Reading an image from sources that are not believed.
//!
//! ```text
//!   1 the start of the image      against the code that the manifest names
//!   2 the rest of the table       against the record
//!   3 ranges, several at a time   each segment against the table
//!   4 the end                     the length exactly; the content as a whole
//! ```

mod content;
mod file;
mod head;
mod proof;
mod stream;

use std::sync::Arc;

use vram_seal::KeyRing;

pub use content::StoreContent;
pub use file::VerifiedImage;
pub(crate) use stream::Failure;
pub use stream::SealedReader;

pub(crate) use file::{Wrong, fetch_file, verify_only};
pub(crate) use head::Head;
pub(crate) use proof::Proof;

use crate::error::StoreError;
use crate::fetch::{CallSource, Fetched, Sources, Step, Window};
use crate::manifest::{ShardEntry, Trusted, short};
use crate::naming::layout::image_key;
use crate::options::StoreOptions;

/// What proves the bytes of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Means<'a> {
    /// The keys, and the context that the caller expects; `None`: the one that the manifest names.
    Keys { keys: &'a KeyRing, context: Option<&'a [u8]> },
    /// The digests of parts, which merge to the id that a pinned manifest names.
    Parts,
}

/// One image that is read in a call.
pub(crate) struct ImageRead<'a, 'o> {
    pub(crate) manifest: &'a Trusted,
    pub(crate) shard: &'a ShardEntry,
    pub(crate) means: Means<'a>,
    pub(crate) options: &'a StoreOptions<'o>,
    pub(crate) sources: Arc<Sources>,
}

impl<'a, 'o> ImageRead<'a, 'o> {
    pub(crate) fn new(
        manifest: &'a Trusted,
        shard: &'a ShardEntry,
        means: Means<'a>,
        all: &[CallSource],
        options: &'a StoreOptions<'o>,
    ) -> Self {
        let (model, key) = (&manifest.manifest().model, image_key(&shard.image));
        let sources = Sources::new(model, shard.image, &key, all, options);
        Self { manifest, shard, means, options, sources }
    }

    /// The error for an image that no source gave.
    pub(crate) fn no_source(&self) -> StoreError {
        self.sources.tell(self.options);
        let what = format!(
            "image {} (shard {} of {})",
            short(self.shard.image.as_bytes()),
            self.shard.index,
            self.manifest.manifest().model
        );
        StoreError::NoSource { what, causes: self.sources.causes() }
    }

    /// The ranges of the image, from one step on.
    pub(crate) fn window(&self, proof: &Proof, from: u64) -> Window<proof::Steps> {
        let steps = proof.steps(from, self.options);
        Window::new(Arc::clone(&self.sources), self.shard.image_len, steps, self.options)
    }

    /// Proves a range; asks for it again, of this source and of others, until it is proven or no source
    /// is left.
    pub(crate) fn prove(
        &self,
        proof: &Proof,
        step: &Step,
        mut fetched: Option<Fetched>,
    ) -> Result<Fetched, StoreError> {
        loop {
            let Some(got) = fetched else { return Err(self.no_source()) };
            match proof.check(step, &got.bytes)? {
                Ok(()) => return Ok(got),
                Err(part) => {
                    self.sources.lied(got.source, got.past_caches, part, self.options);
                }
            }
            let (sources, range) = (Arc::clone(&self.sources), step.range.clone());
            let image_len = self.shard.image_len;
            let again = async move { sources.fetch(range, image_len).await };
            fetched = self.options.wait(again)?;
            self.sources.tell(self.options);
        }
    }
}
