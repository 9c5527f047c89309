//! Writing objects: whole or not at all, and read back.

use core::time::Duration;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use futures_util::future::try_join_all;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};
use tokio::time::timeout;

use super::{Store, begin, caused, redact, stalled};
use crate::error::StoreError;
use crate::naming::parts::PART_LEN;
use crate::options::{StoreEvent, StoreOptions};

/// How long a store may take to make one object of the parts of an upload.
const COMPLETE: Duration = Duration::from_mins(10);
/// The modes of the folders and files of a store: others may read them.
const MODES: (u32, u32) = (0o755, 0o644);
/// Parts of a multipart upload that are on their way at the same time.
const PARTS_AT_ONCE: usize = 4;
/// Most parts that stores take.
const PARTS_MAX: u64 = 10_000;

impl Store {
    /// Writes a small object.
    pub(crate) fn put(
        &self,
        key: &str,
        bytes: Vec<u8>,
        options: &StoreOptions<'_>,
    ) -> Result<(), StoreError> {
        options.go_on()?;
        if let Some(path) = self.path_of(key) {
            let (root, name) = (self.path_of("").unwrap_or_default(), key.to_owned());
            let write = move || {
                let mut file = begin(&root, &name, MODES)?;
                file.write_all(&bytes)?;
                file.publish()
            };
            return options.on_files(write)?.map_err(|error| StoreError::io("write", &path, error));
        }
        let patience = patience(options, bytes.len().try_into().unwrap_or(u64::MAX));
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(key));
        let put = async move { objects.put(&name, PutPayload::from(bytes)).await };
        self.sent(patience, options, put, || format!("write {key}")).map(|_kept| ())
    }

    /// The answer to something that was sent.
    fn sent<T: Send + 'static>(
        &self,
        patience: Duration,
        options: &StoreOptions<'_>,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
        action: impl Fn() -> String,
    ) -> Result<T, StoreError> {
        let answer = self.answer_within(patience, options, request, &action)?;
        answer.map_err(|error| self.failed(action(), &caused(&error)))
    }

    /// Writes an object of `len` bytes from a file. `sent` is called with the bytes that are done.
    pub(crate) fn put_file(
        &self,
        key: &str,
        source: &Arc<File>,
        len: u64,
        options: &StoreOptions<'_>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        if let Some(path) = self.path_of(key) {
            let failed = |error| StoreError::io("write", &path, error);
            let (root, name) = (self.path_of("").unwrap_or_default(), key.to_owned());
            let mut file = options.on_files(move || begin(&root, &name, MODES))?.map_err(failed)?;
            let mut at = 0_u64;
            while at < len {
                let (source, piece) = (Arc::clone(source), len.saturating_sub(at).min(PART_LEN));
                let copy = move || {
                    file.write_all(&read_piece(&source, at, piece)?)?;
                    Ok(file)
                };
                // Dropped before it is published, it leaves nothing.
                file = options.on_files(copy)?.map_err(failed)?;
                sent(piece);
                at = at.saturating_add(piece);
            }
            return options.on_files(move || file.publish())?.map_err(failed);
        }
        if len <= PART_LEN {
            let whole = read_piece(source, 0, len).map_err(|error| self.unread(key, &error))?;
            self.put(key, whole, options)?;
            sent(len);
            return Ok(());
        }
        self.put_multipart(key, source, len, options, sent)
    }

    fn put_multipart(
        &self,
        key: &str,
        source: &Arc<File>,
        len: u64,
        options: &StoreOptions<'_>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(key));
        let action = || format!("upload {key}");
        let brief = patience(options, 0);
        let begin = async move { objects.put_multipart(&name).await };
        let mut upload = self.sent(brief, options, begin, action)?;
        if let Err(error) = self.send_parts(key, &mut *upload, source, len, options, sent) {
            self.abort(key, upload, options);
            return Err(error);
        }
        let complete = async move {
            let done = timeout(COMPLETE, upload.complete()).await;
            (done, upload)
        };
        match options.wait(complete) {
            Ok((Ok(Ok(_kept)), _)) => Ok(()),
            Ok((failed, upload)) => {
                self.abort(key, upload, options);
                let why = failed.map_or_else(
                    |_elapsed| stalled(COMPLETE),
                    |failed| failed.map_or_else(|error| caused(&error), |_kept| String::new()),
                );
                Err(self.failed(action(), &why))
            }
            Err(error) => {
                // The upload went with the task that was to complete it.
                options.tell(&StoreEvent::NotAborted { key: self.key(key).to_string() });
                Err(error)
            }
        }
    }

    fn send_parts(
        &self,
        key: &str,
        upload: &mut dyn MultipartUpload,
        source: &Arc<File>,
        len: u64,
        options: &StoreOptions<'_>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        // Larger parts for an object that would have too many.
        let part_len = len.div_ceil(PARTS_MAX).div_ceil(1 << 20).saturating_mul(1 << 20);
        let part_len = part_len.max(PART_LEN);
        let mut at = 0_u64;
        while at < len {
            let mut parts = Vec::new();
            let from = at;
            while at < len && parts.len() < PARTS_AT_ONCE {
                let piece = len.saturating_sub(at).min(part_len);
                let bytes = read_piece(source, at, piece);
                let bytes = bytes.map_err(|error| self.unread(key, &error))?;
                parts.push(upload.put_part(PutPayload::from(bytes)));
                at = at.saturating_add(piece);
            }
            let together = at.saturating_sub(from);
            let patience = patience(options, together);
            self.sent(patience, options, try_join_all(parts), || format!("upload {key}"))?;
            sent(together);
        }
        Ok(())
    }

    /// Gives up an upload, so that nothing stays that is invisible and billed.
    fn abort(&self, key: &str, mut upload: Box<dyn MultipartUpload>, options: &StoreOptions<'_>) {
        // Not within the deadline of the call, which may be over.
        let patient = StoreOptions::new().deadline(Duration::from_secs(10));
        let abort = async move { upload.abort().await };
        if !matches!(patient.wait(abort), Ok(Ok(()))) {
            options.tell(&StoreEvent::NotAborted { key: self.key(key).to_string() });
        }
    }

    fn unread(&self, key: &str, error: &io::Error) -> StoreError {
        StoreError::Failed {
            store: Arc::clone(self.name()),
            action: format!("read the image to send as {key}"),
            why: redact(error),
        }
    }
}

/// How long a store may take for bytes that are sent to it: none of them is seen to arrive.
fn patience(options: &StoreOptions<'_>, len: u64) -> Duration {
    /// The slowest line that is waited for, in bytes a second.
    const SLOWEST: u64 = 64 << 10;

    let sending = Duration::from_secs(len.div_ceil(SLOWEST));
    options.limits.stall.saturating_mul(3).saturating_add(sending)
}

fn read_piece(source: &File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    source.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}
