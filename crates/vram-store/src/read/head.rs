//! The start of an image: record, table and padding, proven before any of its content is read.

use std::sync::Arc;

use vram_seal::{
    ImageLayout, OpenLimits, Opener, SealError, SealRecord, SegmentTags, open_record_in,
};

use super::{ImageRead, Means};
use crate::error::{Part, StoreError};
use crate::fetch::Fetched;
use crate::manifest::{ManifestError, Trusted};
use crate::naming::layout::parts_key;
use crate::naming::parts::Parts;

/// Bytes of the first request: the record, and the whole table of most images.
const FIRST_LEN: u64 = 64 << 10;

/// Record and table of an image, genuine and expected.
pub(crate) struct Head {
    /// Everything before the data, as in the image.
    pub(crate) bytes: Vec<u8>,
    pub(crate) opener: Opener,
    pub(crate) layout: ImageLayout,
}

/// Why a source gave no head.
enum Fault {
    /// Its bytes are wrong.
    Lie { past_caches: bool, part: Part },
    /// The source is out, or asked last.
    Out,
    /// No source could help.
    Fatal(StoreError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Fatal(error)
    }
}

impl ImageRead<'_, '_> {
    /// Reads what precedes the data from the first source that has it right, and proves it.
    pub(crate) fn head(&self) -> Result<Head, StoreError> {
        let Means::Keys { keys, context } = self.means else {
            return Err(StoreError::config("a record is opened with its key"));
        };
        let open = |record: &SealRecord| {
            let expected = self.manifest.expected(self.shard, context)?;
            open_record_in(keys, record, &expected, OpenLimits::default())
        };
        let from = |source| {
            let first = self.range_of(source, 0..FIRST_LEN.min(self.shard.image_len))?;
            self.head_from(source, first, &open)
        };
        self.first_good(from)
    }

    /// Reads the digests of the image's parts, which prove themselves.
    pub(crate) fn parts(&self) -> Result<Parts, StoreError> {
        let key = parts_key(&self.shard.image);
        let len = Parts::object_len(self.shard.image_len);
        let from = |source: usize| {
            let (sources, key) = (Arc::clone(&self.sources), key.clone());
            let read = async move { sources.parts_of(source, &key, len).await };
            let Fetched { bytes, past_caches, .. } = self.options.wait(read)?.ok_or(Fault::Out)?;
            match Parts::from_bytes(&bytes.into_vec(), self.shard.image_len) {
                Ok(parts) if *parts.id() == self.shard.image => Ok(parts),
                _ => Err(Fault::Lie { past_caches, part: Part::Parts }),
            }
        };
        self.first_good(from)
    }

    /// The answer of the first source that gives a good one.
    fn first_good<T>(&self, from: impl Fn(usize) -> Result<T, Fault>) -> Result<T, StoreError> {
        while let Some(source) = self.sources.next() {
            match from(source) {
                Ok(good) => return Ok(good),
                Err(Fault::Out) => self.sources.tell(self.options),
                Err(Fault::Fatal(error)) => return Err(error),
                Err(Fault::Lie { past_caches, part }) => {
                    self.sources.lied(source, past_caches, part, self.options);
                }
            }
        }
        Err(self.no_source())
    }

    fn range_of(&self, source: usize, range: core::ops::Range<u64>) -> Result<Fetched, Fault> {
        let (sources, image_len) = (Arc::clone(&self.sources), self.shard.image_len);
        let fetch = async move { sources.range_of(source, range, image_len).await };
        self.options.wait(fetch)?.ok_or(Fault::Out)
    }

    fn head_from(
        &self,
        source: usize,
        first: Fetched,
        open: &dyn Fn(&SealRecord) -> Result<vram_seal::OpenedRecord, SealError>,
    ) -> Result<Head, Fault> {
        let past_caches = first.past_caches;
        let lie = |part| Fault::Lie { past_caches, part };
        let image_len = self.shard.image_len;
        let mut bytes = first.bytes.into_vec();
        let record = vram_seal::image::record(&bytes).map_err(|_short| {
            let why = ManifestError::Record { index: self.shard.index, field: "image_len" };
            self.wrong_manifest(why)
        })?;
        if record.mac() != self.shard.record_mac {
            return Err(lie(Part::Record));
        }
        let proven = open(&record).map_err(|error| match error {
            // The record is genuine, and not what the caller expects.
            SealError::ContextMismatch { .. }
            | SealError::ProtectionMismatch { .. }
            | SealError::MalformedRecord { .. }
            | SealError::ModelId { .. }
            | SealError::TooLong { .. } => Fault::Fatal(error.into()),
            // Its code is the one that the manifest names, so its other bytes are wrong.
            _ => lie(Part::Record),
        })?;
        let layout = ImageLayout::for_fields(proven.fields());
        let agrees = |trusted: &Trusted| {
            trusted.check_record(self.shard, &record, proven.fields(), layout.total_len())
        };
        agrees(self.manifest).map_err(|why| self.wrong_manifest(why))?;

        let data_offset = usize::try_from(layout.data_offset()).unwrap_or(usize::MAX);
        bytes.truncate(data_offset);
        while bytes.len() < data_offset {
            let start = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let end = start.saturating_add(self.options.limits.range_len);
            let range = start..end.min(layout.data_offset()).min(image_len);
            bytes.extend(self.range_of(source, range)?.bytes.into_vec());
        }
        let table_end = usize::try_from(layout.padding_offset()).unwrap_or(usize::MAX);
        let (before, padding) = bytes.split_at_checked(table_end).unwrap_or((&bytes, &[]));
        layout.check_padding(padding).map_err(|_wrong| lie(Part::Padding))?;
        let table = before.get(SealRecord::LEN..).unwrap_or_default().to_vec();
        let tags = SegmentTags::from_bytes(proven.fields(), table).map_err(StoreError::from)?;
        let opener = proven.with_table(tags).map_err(|_wrong| lie(Part::Table))?;
        Ok(Head { bytes, opener, layout })
    }

    fn wrong_manifest(&self, why: ManifestError) -> Fault {
        Fault::Fatal(StoreError::Manifest {
            store: Arc::from("the manifest's author"),
            id: Box::new(*self.manifest.id()),
            source: Box::new(why),
        })
    }
}
