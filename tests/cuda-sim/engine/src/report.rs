//! The misuse log of a program, and the objects that it left behind.

use core::fmt;

use crate::memory::Allocation;

/// Kinds of misuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MisuseKind {
    /// A call that needs a context was made on a thread without one: a free would leak silently.
    NoContext,
    /// The memory or stream belongs to another context than the thread's current one.
    WrongContext,
    /// Memory was freed a second time.
    DoubleFree,
    /// An address that is not an allocation, or not the start of one.
    UnknownAddress,
    /// A copy, fill or kernel exceeded its allocation.
    OutOfBounds,
    /// Memory was used after it was freed.
    UseAfterFree,
    /// Memory was freed while work that uses it was queued on a stream and not waited for.
    FreedWhileQueued,
    /// Memory was freed while another process had it open: the manual leaves undefined what happens.
    FreedWhileOpen,
    /// An allocation was exported to other processes that is a part of a larger block of the driver:
    /// they can read and write its neighbours too.
    SharesNeighbours,
    /// A handle that was never returned, or was destroyed.
    UnknownHandle,
    /// A driver call from within a host function or kernel.
    CallFromCallback,
    /// An image with something that the simulator does not know, or that is no PTX.
    UnknownPtx,
    /// A kernel accessed an address that is not a multiple of the size of the access.
    Misaligned,
    /// Threads of a kernel used the same byte of shared memory, one of them to write, without a
    /// barrier between them. A real card would not tell.
    Race,
    /// Threads that have to meet at a barrier or a matrix instruction do not all get there. A real
    /// card would not tell.
    Barrier,
    /// A block left something in its shared memory, and its kernel was to leave none
    /// ([`Sim::require_zero_shared`](crate::Sim::require_zero_shared)). A real card would not tell.
    SharedLeft,
    /// A kernel that does not end.
    Endless,
    /// A fault of the simulator itself.
    Simulator,
}

/// One entry of the misuse log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misuse {
    /// The kind of misuse.
    pub kind: MisuseKind,
    /// The affected device, if known.
    pub device: Option<u32>,
    /// The driver function that was called.
    pub call: &'static str,
    /// A description of the details.
    pub detail: String,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {}", self.kind, self.call)?;
        if let Some(device) = self.device {
            write!(f, " on device {device}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What is left on a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeakReport {
    /// Live allocations.
    pub allocations: Vec<Allocation>,
    /// Allocations that were live when their context was destroyed.
    pub lost_with_context: Vec<Allocation>,
    /// Pinned host memory: address and length of each block.
    pub pinned: Vec<(usize, usize)>,
    /// Streams that were not destroyed.
    pub streams: usize,
    /// Events that were not destroyed.
    pub events: usize,
    /// Modules that were not unloaded.
    pub modules: usize,
    /// Contexts that were created or retained and not destroyed or released.
    pub contexts: u32,
    /// Queued operations that no call waited for.
    pub queued: usize,
}

impl LeakReport {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing is left");
        }
        for (allocations, what) in
            [(&self.allocations, "live"), (&self.lost_with_context, "lost with its context")]
        {
            for Allocation { address, len, serial, .. } in allocations {
                writeln!(f, "allocation {serial}: {len} bytes at {address:#x}, {what}")?;
            }
        }
        for (address, len) in &self.pinned {
            writeln!(f, "pinned host memory: {len} bytes at {address:#x}")?;
        }
        let contexts = usize::try_from(self.contexts).unwrap_or(usize::MAX);
        for (count, what) in [
            (self.streams, "streams"),
            (self.events, "events"),
            (self.modules, "modules"),
            (contexts, "contexts"),
            (self.queued, "operations that nobody waited for"),
        ] {
            if count > 0 {
                writeln!(f, "{what}: {count}")?;
            }
        }
        Ok(())
    }
}
