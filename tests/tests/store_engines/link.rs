//! A link of a bounded bandwidth before a store: every byte that is read waits for its turn.

use core::fmt;
use core::time::Duration;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use vram_store::object_store::path::Path;
use vram_store::object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A store behind a link.
#[derive(Debug)]
pub(crate) struct Link {
    inner: Arc<dyn ObjectStore>,
    bytes_per_second: u64,
    /// When the last byte that was promised has passed.
    free_at: Arc<Mutex<Instant>>,
}

impl Link {
    pub(crate) fn before(inner: &Arc<dyn ObjectStore>, bytes_per_second: u64) -> Self {
        let free_at = Arc::new(Mutex::new(Instant::now()));
        Self { inner: Arc::clone(inner), bytes_per_second, free_at }
    }
}

/// When `len` more bytes have passed.
fn passes(free_at: &Mutex<Instant>, bytes_per_second: u64, len: usize) -> Instant {
    let mut free_at = free_at.lock().unwrap();
    let takes = Duration::from_nanos(len as u64 * 1_000_000_000 / bytes_per_second);
    *free_at = (*free_at).max(Instant::now()) + takes;
    *free_at
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("link")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Link {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut answer = self.inner.get_opts(location, options).await?;
        if let GetResultPayload::Stream(stream) = answer.payload {
            let (free_at, rate) = (Arc::clone(&self.free_at), self.bytes_per_second);
            let slow = stream.then(move |piece| {
                let len = piece.as_ref().map_or(0, hyper::body::Bytes::len);
                let at = passes(&free_at, rate, len);
                async move {
                    tokio::time::sleep_until(at.into()).await;
                    piece
                }
            });
            answer.payload = GetResultPayload::Stream(slow.boxed());
        }
        Ok(answer)
    }

    async fn put_opts(&self, at: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(at, bytes, how).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, how).await
    }

    fn delete_stream(
        &self,
        which: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(which)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}
