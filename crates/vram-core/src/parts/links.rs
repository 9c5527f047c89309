//! The state of the links between GPUs.

use std::collections::BTreeSet;

use crate::sync::{Mutex, lock};

/// Pairs of GPUs whose direct copies arrived altered though the device reported them as done.
/// Copies between them are staged through the host from then on, until the manager is dropped.
#[derive(Debug, Default)]
pub struct Links {
    distrusted: Mutex<BTreeSet<(u32, u32)>>,
}

/// How bytes are copied from one GPU to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkState {
    /// Directly: the probe's bytes arrived unaltered.
    Direct,
    /// Through the host: the devices have no peer access.
    Staged,
    /// Through the host, because direct copies arrived altered.
    Distrusted,
    /// Unknown: the probe could not run.
    Unknown,
}

impl Links {
    /// Marks a pair as distrusted. Returns true if it was not before.
    pub(crate) fn distrust(&self, source: u32, target: u32) -> bool {
        lock(&self.distrusted).insert((source, target))
    }

    pub(crate) fn is_distrusted(&self, source: u32, target: u32) -> bool {
        lock(&self.distrusted).contains(&(source, target))
    }

    /// All distrusted pairs, source first, in ascending order.
    pub(crate) fn distrusted(&self) -> Vec<(u32, u32)> {
        lock(&self.distrusted).iter().copied().collect()
    }
}
