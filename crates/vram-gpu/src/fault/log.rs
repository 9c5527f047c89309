//! The log of calls on a fault device, and whether freed memory was wiped.

use std::collections::{BTreeMap, VecDeque};

use vram_alloc::{ByteLen, DeviceOffset};

use super::{Action, Op};

/// The number of calls that the log keeps; counts include older calls.
const REMEMBERED: usize = 8192;

/// One call on the device or on one of its allocations.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// Number of the call on this device, from 1.
    pub number: u64,
    /// The kind of call.
    pub op: Op,
    /// The allocation it was called on, numbered from 1 in the order of allocation.
    pub allocation: Option<u64>,
    /// Start of the range in the call.
    pub offset: Option<DeviceOffset>,
    /// Bytes in the call.
    pub len: Option<ByteLen>,
    /// The injected fault, if any.
    pub injected: Option<Action>,
    /// Whether the device was lost when the call was made; always false for a reset.
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
