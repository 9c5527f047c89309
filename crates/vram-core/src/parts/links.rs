//! What is known of the links between GPUs.

use std::collections::BTreeSet;

use crate::sync::{Mutex, lock};

/// Pairs of GPUs whose direct copies arrived altered though they were reported as done. They are
/// staged through the host from then on, for as long as the manager lives.
#[derive(Debug, Default)]
pub struct Links {
    distrusted: Mutex<BTreeSet<(u32, u32)>>,
}

/// How bytes go from one GPU to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkState {
    /// Directly: what was sent arrived.
    Direct,
    /// Through the host: the devices cannot copy to each other.
    Staged,
    /// Through the host, because direct copies arrived altered.
    Distrusted,
    /// Not known: the probe could not be made.
    Unknown,
}

impl Links {
    /// Says whether that is news.
    pub(crate) fn distrust(&self, source: u32, target: u32) -> bool {
        lock(&self.distrusted).insert((source, target))
    }

    pub(crate) fn is_distrusted(&self, source: u32, target: u32) -> bool {
        lock(&self.distrusted).contains(&(source, target))
    }

    /// All of them, source first, in ascending order.
    pub(crate) fn distrusted(&self) -> Vec<(u32, u32)> {
        lock(&self.distrusted).iter().copied().collect()
    }
}
