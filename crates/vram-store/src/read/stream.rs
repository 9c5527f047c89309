//! An image as a reader, for an importer that verifies every segment itself.

use core::fmt;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::sync::Arc;

use vram_alloc::host;
use vram_files::{WholeFile, regular_file};

use super::proof::Steps;
use super::{Head, ImageRead};
use crate::error::{Part, StoreError};
use crate::fetch::{Body, Fetched, Window};
use crate::options::{StoreEvent, on_files};

/// The bytes of an image, in order.
///
/// The start (record and table) is proven before the first byte is given out; the data is not: the
/// importer opens each segment under that table, once, where it lies. If it refuses one,
/// [`Pull::load`](crate::Pull::load) knows which source gave it, and begins again without that source.
pub struct SealedReader<'a, 'o> {
    read: &'a ImageRead<'a, 'o>,
    head: Vec<u8>,
    head_at: usize,
    data_offset: u64,
    /// The next byte of the image behind the head.
    at: u64,
    data: Data,
    /// Which source gave the bytes up to each position.
    origins: Vec<(u64, Fetched)>,
    /// Bytes that were given out when progress was told last.
    told: u64,
    /// Keeps what passes, for the cache.
    copy: Option<WholeFile>,
    failure: Option<Failure>,
}

/// Why reading ended early.
pub(crate) enum Failure {
    /// A file of this machine failed, or became shorter, since it was opened: ranges can be asked for
    /// again, and of the other sources.
    File { source: usize, why: String },
    /// Nothing that is left helps.
    Final(StoreError),
}

impl<E: Into<StoreError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { why, .. } => f.write_str(why),
            Self::Final(error) => error.fmt(f),
        }
    }
}

enum Data {
    /// A folder of this machine: read into the importer's own buffer.
    File {
        file: File,
        source: usize,
    },
    Window(Box<Window<Steps>>),
}

impl<'a, 'o> SealedReader<'a, 'o> {
    /// `by_file`: whether a file of this machine is read as a file, without retries.
    pub(crate) fn new(
        read: &'a ImageRead<'a, 'o>,
        head: Head,
        copy: Option<WholeFile>,
        by_file: bool,
    ) -> Self {
        let data_offset = head.layout.data_offset();
        let steps = super::Proof::keyed_steps(&head, read.options);
        let Head { bytes, .. } = head;
        let data = if let Some((file, source)) = by_file.then(|| Self::local(read)).flatten() {
            Data::File { file, source }
        } else {
            let sources = Arc::clone(&read.sources);
            let window = Window::new(sources, read.shard.image_len, steps, read.options);
            Data::Window(Box::new(window))
        };
        Self {
            read,
            head: bytes,
            head_at: 0,
            data_offset,
            at: data_offset,
            data,
            origins: Vec::new(),
            told: 0,
            copy,
            failure: None,
        }
    }

    /// The file of the first source that is in use, if it is on a file system of this machine, and whole.
    /// On another one the kernel may block a read for as long as it likes: such a file is read by ranges,
    /// on threads that can be left behind.
    fn local(read: &ImageRead<'_, '_>) -> Option<(File, usize)> {
        let source = read.sources.next()?;
        let key = crate::naming::layout::image_key(&read.shard.image);
        let path = read.sources.store(source)?.path_of(&key)?;
        let open = move || {
            let file = regular_file::open_regular(&path)?;
            let (local, len) = (regular_file::is_local(&file), file.metadata()?.len());
            Ok((file, local, len))
        };
        let open = on_files(Some(read.options.limits.stall), open);
        // What is wrong with it, the reader of ranges finds out, and tells.
        let (file, local, len) = read.options.wait(open).ok()?.ok()?;
        (local && len == read.shard.image_len).then_some((file, source))
    }

    /// Bytes of the image that were given out.
    pub(crate) const fn given(&self) -> u64 {
        self.at.saturating_sub(self.data_offset)
    }

    /// The source of a segment of this length, and whether it was asked past its caches.
    pub(crate) fn origin(&self, part: Part, segment_len: u64) -> Option<(usize, bool)> {
        if let Data::File { source, .. } = self.data {
            // A file is asked once more as well: the wrong read may have been one of this machine.
            return Some((source, self.read.sources.is_past_caches(source)));
        }
        let start = match part {
            Part::Segment(segment) => {
                self.data_offset.saturating_add(segment.saturating_mul(segment_len))
            }
            _ => self.data_offset,
        };
        let covers = |(end, _): &&(u64, Fetched)| start < *end;
        let (_, fetched) = self.origins.iter().find(covers).or(self.origins.last())?;
        Some((fetched.source, fetched.past_caches))
    }

    /// Why reading failed, if it did.
    pub(crate) fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// The copy of all that passed, if all of it passed.
    pub(crate) fn take_copy(&mut self) -> Option<WholeFile> {
        let whole = self.at == self.read.shard.image_len;
        self.copy.take().filter(|_| whole)
    }

    /// Tells how far it is, about once a range.
    fn tell(&mut self) {
        let (done, step) = (self.given(), self.read.options.limits.range_len);
        if done >= self.told.saturating_add(step) {
            self.told = done;
            let source = match (&self.data, self.origins.last()) {
                (Data::File { source, .. }, _) => *source,
                (_, last) => last.map_or(0, |(_, fetched)| fetched.source),
            };
            let (total, source) = (self.read.shard.image_len, self.read.sources.name(source));
            self.read.options.tell(&StoreEvent::Progress { done, total, source });
        }
    }

    fn data(&mut self, target: &mut [u8]) -> Result<usize, Failure> {
        self.read.options.go_on()?;
        let left = self.read.shard.image_len.saturating_sub(self.at);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(target.len());
        let Some(target) = target.get_mut(..wanted).filter(|target| !target.is_empty()) else {
            return Ok(0);
        };
        match &mut self.data {
            Data::File { file, source } => {
                use std::os::unix::fs::FileExt as _;
                let (source, at) = (*source, self.at);
                match file.read_at(target, at) {
                    Ok(0) => {
                        let why = format!("the file ended at byte {at} while it was read");
                        Err(Failure::File { source, why })
                    }
                    Ok(done) => Ok(done),
                    Err(error) => Err(Failure::File { source, why: error.to_string() }),
                }
            }
            Data::Window(window) => {
                let current = self.origins.last().filter(|(end, _)| *end > self.at);
                if current.is_none() {
                    let Some((step, fetched)) = window.next(self.read.options)? else {
                        return Ok(0);
                    };
                    let Some(fetched) = fetched else { return Err(self.read.no_source().into()) };
                    // Of ranges that were given out, the origin alone is kept.
                    if let Some((_, before)) = self.origins.last_mut() {
                        before.bytes = Body::default();
                    }
                    self.origins.push((step.range.end, fetched));
                }
                let Some((end, fetched)) = self.origins.last() else { return Ok(0) };
                let left = usize::try_from(end.saturating_sub(self.at)).unwrap_or(0);
                let from = fetched.bytes.len().saturating_sub(left);
                Ok(fetched.bytes.copy_to(from, target))
            }
        }
    }
}

impl Read for SealedReader<'_, '_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let head = self.head.get(self.head_at..).unwrap_or_default();
        let done = if head.is_empty() {
            let done = match self.data(target) {
                Ok(done) => done,
                Err(error) => {
                    let text = error.to_string();
                    self.failure = Some(error);
                    return Err(io::Error::other(text));
                }
            };
            self.at = self.at.saturating_add(u64::try_from(done).unwrap_or(0));
            self.tell();
            done
        } else {
            let done = host::copy(head, target);
            self.head_at = self.head_at.saturating_add(done);
            done
        };
        // A cache that fails costs a later load its speed, and this one nothing.
        if let (Some(file), Some(bytes)) = (&mut self.copy, target.get(..done))
            && file.write_all(bytes).is_err()
        {
            self.copy = None;
        }
        Ok(done)
    }
}

impl fmt::Debug for SealedReader<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedReader").field("at", &self.at).finish_non_exhaustive()
    }
}
