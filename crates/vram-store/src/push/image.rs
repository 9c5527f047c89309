//! One image of a push: what the store has of it, and what is sent.

use std::fs::File;
use std::sync::Arc;

use vram_files::ImageReport;

use super::Sent;
use crate::error::StoreError;
use crate::manifest::ShardEntry;
use crate::naming::id::ImageId;
use crate::naming::layout::{image_key, parts_key};
use crate::naming::parts::Parts;
use crate::options::{StoreEvent, StoreOptions};
use crate::store::Store;

/// What a store has under the name of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    /// Nothing.
    Absent,
    /// The object, as far as it was looked at.
    Good,
    /// Other bytes.
    Wrong,
}

/// How much of an image is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Its length, and its first and last part.
    Ends,
    /// Every part.
    Whole,
}

/// A sealed image that is to be in the store.
pub(super) struct Sealed {
    pub(super) file: Arc<File>,
    pub(super) parts: Parts,
    pub(super) entry: ShardEntry,
}

impl Sealed {
    pub(super) fn new(index: u64, file: File, report: &ImageReport) -> Result<Self, StoreError> {
        let len = report.image_len.get();
        let parts = Parts::of_file(&file, len)
            .map_err(|error| StoreError::io("read back", &std::env::temp_dir(), error))?;
        let entry = ShardEntry {
            index,
            plaintext_len: report.fields.plaintext_len().get(),
            image: *parts.id(),
            image_len: len,
            record_mac: report.record.mac(),
        };
        Ok(Self { file: Arc::new(file), parts, entry })
    }
}

impl Store {
    /// Sends one image and the digests of its parts, unless they are there. What is there is read back;
    /// what is wrong of it is written anew.
    pub(super) fn push_image(
        &self,
        sealed: &Sealed,
        options: &StoreOptions<'_>,
        sent: &mut Sent,
    ) -> Result<(), StoreError> {
        let Sealed { file, parts, entry } = sealed;
        let (id, len) = (entry.image, entry.image_len);
        let (key, digests_key) = (image_key(&id), parts_key(&id));
        let to = Arc::clone(self.name());
        // Before it is looked at: from here on, a collection finds it young.
        self.refresh(&[&key, &digests_key], options)?;
        let whole = options.reads_present(!self.is_remote());
        let look = if whole { Look::Whole } else { Look::Ends };
        let found = self.looks(&id, len, parts, look, options)?;
        if found == There::Good {
            sent.advance(len, &to, options);
        } else {
            let mut advance = |bytes| sent.advance(bytes, &to, options);
            self.put_file(&key, file, len, options, &mut advance)?;
            if self.looks(&id, len, parts, Look::Ends, options)? != There::Good {
                return Err(self.not_kept(&key));
            }
            sent.bytes = sent.bytes.saturating_add(len);
        }
        let digests = parts.to_bytes();
        let keeps = || {
            let found = self.object(&digests_key, Parts::object_len(len), true, options);
            // An object of another length is not ours, and is written anew.
            match found {
                Ok(Some(bytes)) if bytes == digests => There::Good,
                Ok(None) => There::Absent,
                _ => There::Wrong,
            }
        };
        let found_digests = keeps();
        if found_digests != There::Good {
            self.put(&digests_key, digests.clone(), options)?;
            if keeps() != There::Good {
                return Err(self.not_kept(&digests_key));
            }
        }
        let count = match (found, found_digests) {
            (There::Wrong, _) | (There::Good, There::Wrong) => {
                let store = Arc::clone(self.name());
                options.tell(&StoreEvent::ImageMended { store, image: id });
                &mut sent.mended
            }
            (There::Good, _) => {
                options.tell(&StoreEvent::Present { image: id, place: to });
                &mut sent.present
            }
            (There::Absent, _) => &mut sent.images,
        };
        *count = count.saturating_add(1);
        Ok(())
    }

    /// What the store has under the name of an image.
    fn looks(
        &self,
        id: &ImageId,
        len: u64,
        parts: &Parts,
        look: Look,
        options: &StoreOptions<'_>,
    ) -> Result<There, StoreError> {
        let key = image_key(id);
        match self.len(&key, options)? {
            None => return Ok(There::Absent),
            Some(found) if found != len => return Ok(There::Wrong),
            Some(_) => {}
        }
        let last = parts.count().saturating_sub(1);
        for part in 0..parts.count() {
            if look == Look::Ends && part != 0 && part != last {
                continue;
            }
            options.go_on()?;
            let Some(range) = parts.range(part) else { return Ok(There::Wrong) };
            match self.object_range(&key, range, len, options)? {
                Some(bytes) if parts.holds(part, &bytes) => {}
                _ => return Ok(There::Wrong),
            }
        }
        Ok(There::Good)
    }
}
