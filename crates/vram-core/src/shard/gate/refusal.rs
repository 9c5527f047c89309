//! Why a thread does not enter a gate.

/// Why exclusive use, or use from inside the caller's own exclusive use, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    /// Leases that exist; 0 if the calling thread itself uses a shard.
    pub(crate) leases: usize,
}

/// Who keeps a thread out that does not wait. See
/// [`Gate::try_exclusive`](super::Gate::try_exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupied {
    /// The calling thread itself is inside this gate.
    Own,
    /// So many leases exist.
    Leases(usize),
    /// So many shared users are inside.
    Readers(u32),
    /// Another thread is exclusive.
    Exclusive,
    /// The gate is free, but so many calls wait in the queue and come first.
    Queue(usize),
}

/// Why a call with a deadline did not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Leases exist, or the calling thread itself uses a shard.
    Busy(Busy),
    /// Other threads were inside until the deadline.
    TimedOut,
}

impl From<Occupied> for Busy {
    fn from(occupied: Occupied) -> Self {
        let leases = if let Occupied::Leases(leases) = occupied { leases } else { 0 };
        Self { leases }
    }
}

impl Refusal {
    /// Converts the refusal for a caller without a deadline.
    pub(crate) fn for_ever(self) -> Busy {
        match self {
            Self::Busy(busy) => busy,
            // Cannot happen: a caller without a deadline does not time out.
            Self::TimedOut => Busy { leases: 0 },
        }
    }
}
