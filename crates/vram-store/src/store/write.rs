//! Writing objects: whole or not at all, and read back.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::try_join_all;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};
use vram_files::{Inputs, Overwrite, WholeFile};

use super::{Store, redact};
use crate::error::StoreError;
use crate::naming::parts::PART_LEN;
use crate::options::{StoreEvent, StoreOptions};

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
            return write_file(&path, |file| file.write_all(&bytes));
        }
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(key));
        let put = async move { objects.put(&name, PutPayload::from(bytes)).await };
        let sent = options.wait(put)?;
        sent.map(|_kept| ()).map_err(|error| self.failed(format!("write {key}"), &error))
    }

    /// Writes an object of `len` bytes from a file. `sent` is called with the bytes that are done.
    pub(crate) fn put_file(
        &self,
        key: &str,
        source: &File,
        len: u64,
        options: &StoreOptions<'_>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        if let Some(path) = self.path_of(key) {
            let copy = |target: &mut WholeFile| {
                for_each_piece(source, len, PART_LEN, |bytes| {
                    options.go_on().map_err(std::io::Error::other)?;
                    target.write_all(&bytes)?;
                    sent(bytes.len().try_into().unwrap_or(0));
                    Ok(())
                })
            };
            return match write_file(&path, copy) {
                // What stopped the copy, if it was the caller.
                Err(error) => Err(options.go_on().err().unwrap_or(error)),
                Ok(()) => Ok(()),
            };
        }
        if len <= PART_LEN {
            let mut whole = Vec::new();
            let take = |bytes: Vec<u8>| {
                whole = bytes;
                Ok(())
            };
            for_each_piece(source, len, PART_LEN, take)
                .map_err(|error| self.unread(key, &error))?;
            self.put(key, whole, options)?;
            sent(len);
            return Ok(());
        }
        self.put_multipart(key, source, len, options, sent)
    }

    fn put_multipart(
        &self,
        key: &str,
        source: &File,
        len: u64,
        options: &StoreOptions<'_>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        let (objects, name) = (Arc::clone(self.objects(false)), self.key(key));
        let begin = async move { objects.put_multipart(&name).await };
        let failed = |error: object_store::Error| self.failed(format!("upload {key}"), &error);
        let mut upload = options.wait(begin)?.map_err(failed)?;
        if let Err(error) = self.send_parts(key, &mut *upload, source, len, options, sent) {
            self.abort(key, upload, options);
            return Err(error);
        }
        let complete = async move {
            let done = upload.complete().await;
            (done, upload)
        };
        match options.wait(complete) {
            Ok((Ok(_kept), _)) => Ok(()),
            Ok((Err(error), upload)) => {
                self.abort(key, upload, options);
                Err(failed(error))
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
        source: &File,
        len: u64,
        options: &StoreOptions<'_>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<(), StoreError> {
        // Larger parts for an object that would have too many.
        let part_len = len.div_ceil(PARTS_MAX).div_ceil(1 << 20).saturating_mul(1 << 20);
        let mut waiting = Vec::new();
        let mut waiting_len = 0_u64;
        let mut outcome = Ok(());
        let mut flush = |waiting: &mut Vec<_>, bytes: &mut u64| {
            let parts = core::mem::take(waiting);
            options
                .wait(try_join_all(parts))?
                .map_err(|error| self.failed(format!("upload {key}"), &error))?;
            sent(core::mem::take(bytes));
            Ok::<(), StoreError>(())
        };
        let read = for_each_piece(source, len, part_len.max(PART_LEN), |bytes| {
            waiting_len = waiting_len.saturating_add(bytes.len().try_into().unwrap_or(0));
            waiting.push(upload.put_part(PutPayload::from(bytes)));
            if waiting.len() >= PARTS_AT_ONCE {
                outcome = flush(&mut waiting, &mut waiting_len);
            }
            match &outcome {
                Ok(()) => Ok(()),
                Err(_) => Err(std::io::Error::other("the upload failed")),
            }
        });
        outcome?;
        read.map_err(|error| self.unread(key, &error))?;
        flush(&mut waiting, &mut waiting_len)
    }

    /// Gives up an upload, so that nothing stays that is invisible and billed.
    fn abort(&self, key: &str, mut upload: Box<dyn MultipartUpload>, options: &StoreOptions<'_>) {
        // Not within the deadline of the call, which may be over.
        let patient = StoreOptions::new().deadline(core::time::Duration::from_secs(10));
        let abort = async move { upload.abort().await };
        if !matches!(patient.wait(abort), Ok(Ok(()))) {
            options.tell(&StoreEvent::NotAborted { key: self.key(key).to_string() });
        }
    }

    fn unread(&self, key: &str, error: &std::io::Error) -> StoreError {
        StoreError::Failed {
            store: Arc::clone(self.name()),
            action: format!("read the image to send as {key}"),
            why: redact(error),
        }
    }
}

/// Calls `take` with each piece of a file, in order.
fn for_each_piece(
    source: &File,
    len: u64,
    piece_len: u64,
    mut take: impl FnMut(Vec<u8>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut at = 0_u64;
    while at < len {
        let piece = len.saturating_sub(at).min(piece_len);
        let mut bytes = vec![0; usize::try_from(piece).map_err(std::io::Error::other)?];
        source.read_exact_at(&mut bytes, at)?;
        take(bytes)?;
        at = at.saturating_add(piece);
    }
    Ok(())
}

/// Writes a file that appears under its name whole and synced, or not at all.
fn write_file(
    path: &Path,
    write: impl FnOnce(&mut WholeFile) -> std::io::Result<()>,
) -> Result<(), StoreError> {
    let failed = |error| StoreError::io("write", path, error);
    if let Some(folder) = path.parent() {
        make_folder(folder).map_err(failed)?;
    }
    // A file of this name can only have these bytes, or wrong ones.
    let mut file =
        WholeFile::create(path, 0o644, Overwrite::Replace, Inputs::default()).map_err(failed)?;
    write(&mut file).map_err(failed)?;
    file.publish().map_err(failed)
}

/// Makes a folder and those above it, and syncs the names that are new.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else { return Ok(()) };
    make_folder(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(above)?.sync_all(),
    }
}
