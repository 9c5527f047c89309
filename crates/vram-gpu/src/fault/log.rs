//! What was called on a fault device, and what became of freed memory.

use std::collections::{BTreeMap, VecDeque};

use vram_alloc::{ByteLen, DeviceOffset};

use super::{Action, Op};

/// Calls the log remembers; older ones are forgotten, their counts are not.
const REMEMBERED: usize = 8192;

/// One call on the device or on one of its allocations.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// Number of the call on this device, from 1.
    pub number: u64,
    /// What was called.
    pub op: Op,
    /// The allocation it was called on, numbered from 1 in the order of allocation.
    pub allocation: Option<u64>,
    /// Start of the range it named.
    pub offset: Option<DeviceOffset>,
    /// Bytes it named.
    pub len: Option<ByteLen>,
    /// What was injected, if anything was.
    pub injected: Option<Action>,
    /// Whether the device was lost when the call came; a reset, which helps, is never counted so.
    pub after_loss: bool,
}

/// An allocation that was freed while frees were watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Freed {
    /// Its number, from 1 in the order of allocation.
    pub allocation: u64,
    /// Its bytes.
    pub len: ByteLen,
    /// Whether every byte was zero when it was freed; `None` if it could not be read any more.
    pub wiped: Option<bool>,
}

/// The log of one device.
#[derive(Debug, Default)]
pub(super) struct Log {
    calls: VecDeque<Call>,
    counts: BTreeMap<Op, u64>,
    total: u64,
    after_loss: u64,
}

impl Log {
    pub(super) fn add(&mut self, mut call: Call) {
        self.total = self.total.saturating_add(1);
        call.number = self.total;
        let count = self.counts.entry(call.op).or_default();
        *count = count.saturating_add(1);
        if call.after_loss {
            self.after_loss = self.after_loss.saturating_add(1);
        }
        if self.calls.len() == REMEMBERED {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.iter().cloned().collect()
    }

    pub(super) fn count(&self, op: Op) -> u64 {
        self.counts.get(&op).copied().unwrap_or(0)
    }

    pub(super) const fn after_loss(&self) -> u64 {
        self.after_loss
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
