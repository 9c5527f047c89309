//! A link of a bounded bandwidth before a store: every byte that is read waits for its turn.

use core::time::Duration;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::StreamExt as _;
use vram_store::object_store::path::Path;
use vram_store::object_store::{GetOptions, GetResult, GetResultPayload, ObjectStore, Result};

use crate::through::{Before, Through};

/// A link that all reads pass.
#[derive(Debug)]
pub(crate) struct Link {
    bytes_per_second: u64,
    /// When the last byte that was promised has passed.
    free_at: Arc<Mutex<Instant>>,
}

impl Link {
    /// A store behind a link.
    pub(crate) fn before(
        inner: &Arc<dyn ObjectStore>,
        bytes_per_second: u64,
    ) -> Arc<dyn ObjectStore> {
        let free_at = Arc::new(Mutex::new(Instant::now()));
        Through::of(Arc::clone(inner), Self { bytes_per_second, free_at })
    }
}

/// When `len` more bytes have passed.
fn passes(free_at: &Mutex<Instant>, bytes_per_second: u64, len: usize) -> Instant {
    let mut free_at = free_at.lock().unwrap();
    let takes = Duration::from_nanos(len as u64 * 1_000_000_000 / bytes_per_second);
    *free_at = (*free_at).max(Instant::now()) + takes;
    *free_at
}

#[async_trait::async_trait]
impl Before for Link {
    async fn read(
        &self,
        inner: &dyn ObjectStore,
        location: &Path,
        options: GetOptions,
    ) -> Result<GetResult> {
        let mut answer = inner.get_opts(location, options).await?;
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
}
