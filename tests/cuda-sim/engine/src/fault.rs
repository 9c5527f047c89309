//! Faults of a device, by schedule or by seed.

use std::collections::BTreeMap;

use crate::random::Random;

/// Kinds of driver calls, as distinguished by faults and call counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CallKind {
    /// `cuMemAlloc`, `cuMemAllocAsync`.
    Alloc,
    /// `cuMemFree`, `cuMemFreeAsync`.
    Free,
    /// Host to device copies, queued or not.
    CopyIn,
    /// Device to host copies, queued or not.
    CopyOut,
    /// Copies within a device.
    CopyWithin,
    /// Copies between devices: counted for both, and a fault of either applies; the source's comes
    /// first.
    CopyPeer,
    /// `cuMemset*`, queued or not.
    Fill,
    /// `cuCtxSynchronize`, `cuStreamSynchronize`, `cuEventSynchronize`.
    Synchronize,
    /// `cuStreamQuery`, `cuEventQuery`.
    Query,
    /// `cuLaunchKernel`.
    Launch,
    /// Stream and event creation.
    StreamOrEvent,
    /// `cuEventRecord`, `cuStreamWaitEvent`.
    Order,
    /// Pinned host memory: allocation and registration.
    Pin,
    /// Pinned host memory: free and unregistration.
    Unpin,
    /// `cuDevicePrimaryCtxRetain`, `cuCtxCreate`.
    Context,
    /// `cuDevicePrimaryCtxReset`.
    Reset,
    /// `cuMemGetInfo`.
    MemoryInfo,
    /// `cuPointerGetAttribute(s)`.
    Pointer,
    /// `cuModuleLoad*`, `cuModuleGetFunction`.
    Module,
    /// `cuCtxEnablePeerAccess`.
    PeerAccess,
    /// `cuIpcGetMemHandle`, `cuIpcOpenMemHandle`, `cuIpcCloseMemHandle`.
    Ipc,
}

/// What a fault does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call returns this code and does nothing. A sticky code (700, 214, 719, …) poisons the
    /// context. Any number is allowed, including codes that no enum lists.
    Fail(u32),
    /// The call succeeds, its work is not done, and the code appears at the next wait for it. Calls
    /// that queue nothing fail at once. A sticky code poisons the context at the moment when it
    /// appears.
    FailLater(u32),
    /// A copy, fill or launch flips this bit of the bytes it writes (modulo their number), and
    /// succeeds. A launch does so if the kernel is run from its PTX.
    FlipBit(u64),
    /// A copy, fill or launch writes at most this many bytes, and succeeds.
    StopAfter(u64),
    /// A copy, fill or launch writes nothing, and succeeds.
    Drop,
}

/// Which calls a rule applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    kind: CallKind,
    /// Calls of the kind to skip first.
    skip: u64,
    /// Calls to fail after that.
    times: u64,
    fault: Fault,
}

/// The faults of one device.
#[derive(Debug)]
pub(crate) struct Faults {
    rules: Vec<Rule>,
    seeded: Option<Seeded>,
    counts: BTreeMap<CallKind, u64>,
    total: u64,
}

#[derive(Debug)]
struct Seeded {
    random: Random,
    /// Rate per 65 536 calls.
    rate: u16,
    choices: Vec<(CallKind, Fault)>,
}

impl Faults {
    pub(crate) const fn new() -> Self {
        Self { rules: Vec::new(), seeded: None, counts: BTreeMap::new(), total: 0 }
    }

    /// Skips the next `skip` calls and applies the fault to the `times` calls after them.
    pub(crate) fn schedule(&mut self, kind: CallKind, skip: u64, times: u64, fault: Fault) {
        self.rules.push(Rule { kind, skip, times, fault });
    }

    pub(crate) fn seed(&mut self, seed: u64, rate: u16, choices: Vec<(CallKind, Fault)>) {
        self.seeded = Some(Seeded { random: Random::new(seed), rate, choices });
    }

    /// Removes every rule; counts stay.
    pub(crate) fn clear(&mut self) {
        self.rules.clear();
        self.seeded = None;
    }

    pub(crate) fn count(&self, kind: CallKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// Counts a call in the device's context, of any kind and result.
    pub(crate) const fn count_any(&mut self) {
        self.total = self.total.saturating_add(1);
    }

    /// Counts one call, and returns its fault, if any. Every rule of the kind advances by one call;
    /// if several rules apply, the one that was scheduled first decides.
    pub(crate) fn meet(&mut self, kind: CallKind) -> Option<Fault> {
        let count = self.counts.entry(kind).or_insert(0);
        *count = count.saturating_add(1);
        let mut met = None;
        for rule in self.rules.iter_mut().filter(|rule| rule.kind == kind) {
            if rule.skip > 0 {
                rule.skip = rule.skip.saturating_sub(1);
            } else {
                rule.times = rule.times.saturating_sub(1);
                met = met.or(Some(rule.fault));
            }
        }
        self.rules.retain(|rule| rule.times > 0);
        met.or_else(|| self.seeded.as_mut()?.meet(kind))
    }
}

impl Seeded {
    fn meet(&mut self, kind: CallKind) -> Option<Fault> {
        let fitting: Vec<Fault> =
            self.choices.iter().filter(|(of, _)| *of == kind).map(|(_, fault)| *fault).collect();
        let count = u64::try_from(fitting.len()).unwrap_or(u64::MAX);
        if count == 0 || self.random.below(1 << 16) >= u64::from(self.rate) {
            return None;
        }
        fitting.get(usize::try_from(self.random.below(count)).unwrap_or(0)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_skips_hits_and_ends() {
        let mut faults = Faults::new();
        faults.schedule(CallKind::Alloc, 2, 2, Fault::Fail(2));
        let met: Vec<_> = (0..6).map(|_| faults.meet(CallKind::Alloc).is_some()).collect();
        assert_eq!(met, [false, false, true, true, false, false]);
        assert_eq!(faults.meet(CallKind::Free), None);
        assert_eq!((faults.count(CallKind::Alloc), faults.count(CallKind::Free)), (6, 1));
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_at_about_the_rate() {
        let run = |seed| {
            let mut faults = Faults::new();
            let choices =
                vec![(CallKind::CopyIn, Fault::FlipBit(3)), (CallKind::CopyIn, Fault::Drop)];
            faults.seed(seed, 1 << 14, choices);
            (0..4000).map(|_| faults.meet(CallKind::CopyIn)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let hits = run(1).iter().filter(|met| met.is_some()).count();
        assert!((800..1200).contains(&hits), "{hits} of 4000 at a rate of one in four");
    }
}
