//! A store behind something: what is read and written passes through hooks, all else goes to the store itself.

use core::fmt;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use vram_store::object_store::path::Path;
use vram_store::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What stands before a store. By default it lets everything through.
#[async_trait::async_trait]
pub(crate) trait Before: fmt::Debug + Send + Sync + 'static {
    async fn read(
        &self,
        inner: &dyn ObjectStore,
        location: &Path,
        options: GetOptions,
    ) -> Result<GetResult> {
        inner.get_opts(location, options).await
    }

    /// Called before each call of any kind that is not in parts.
    fn call(&self) {}

    /// Called before each write that is not in parts.
    fn write(&self) -> Result<()> {
        Ok(())
    }
}

/// A store, and what stands before it.
#[derive(Debug)]
pub(crate) struct Through<B> {
    inner: Arc<dyn ObjectStore>,
    before: B,
}

impl<B: Before> Through<B> {
    pub(crate) fn of(inner: Arc<dyn ObjectStore>, before: B) -> Arc<dyn ObjectStore> {
        Arc::new(Self { inner, before })
    }
}

impl<B: Before> fmt::Display for Through<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} before {}", core::any::type_name::<B>(), self.inner)
    }
}

#[async_trait::async_trait]
impl<B: Before> ObjectStore for Through<B> {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.before.call();
        self.before.read(&*self.inner, location, options).await
    }

    async fn put_opts(&self, at: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.before.call();
        self.before.write()?;
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
        self.before.call();
        self.inner.delete_stream(which)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.before.call();
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}
