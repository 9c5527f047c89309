//! The count of shards that may be resident.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// A slot in the count of resident shards; released when dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) count: Arc<AtomicU64>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}
