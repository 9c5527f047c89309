//! An allocation of a fault device: passes calls on and applies the damage of the rules.

use core::any::Any;
use core::fmt;
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};

use super::core::{Core, flip};
use super::plan::Fired;
use super::{Action, Op};
use crate::dice::mix;
use crate::memory::Extent;
use crate::{
    Completion, DeviceAddress, DeviceMemory, FreeError, GpuError, Pending, ShareHandle, Staging,
};

/// An allocation of the wrapped device, with injected faults.
pub(super) struct FaultMemory {
    // The first field, so that it is dropped first: the list loses the allocation before it is
    // freed.
    registration: Registration,
    inner: Arc<Box<dyn DeviceMemory>>,
}

/// Keeps an allocation in the device's list; removes it when dropped.
struct Registration {
    core: Arc<Core>,
    number: u64,
    // Whether a drop is an implicit free and is logged as one.
    armed: bool,
}

/// The effect of a fired rule on one copy.
#[derive(Clone, Copy, Debug, Default)]
struct Damage {
    /// Copies only this many bytes.
    keep: Option<ByteLen>,
    /// Then flips this bit.
    flip: Option<(ByteLen, u8)>,
    /// Then returns this error.
    error: Option<GpuError>,
}

impl FaultMemory {
    pub(super) fn new(core: &Arc<Core>, number: Option<u64>, inner: Box<dyn DeviceMemory>) -> Self {
        let inner = Arc::new(inner);
        let number = core.register(number, &inner);
        Self { registration: Registration { core: Arc::clone(core), number, armed: true }, inner }
    }

    /// Its number in the log.
    pub(super) const fn number(&self) -> u64 {
        self.registration.number
    }

    fn core(&self) -> &Arc<Core> {
        &self.registration.core
    }

    fn enter(&self, op: Op, offset: DeviceOffset, len: ByteLen) -> Result<Damage, GpuError> {
        let number = Some(self.registration.number);
        let fired = self.core().enter(op, number, Some((offset, len)))?;
        Ok(fired.map_or_else(Damage::default, |fired| Damage::of(&fired, len, self.gpu())))
    }

    /// Copies with the given damage. `copy` gets the part of `range` to copy, and its length as a
    /// `usize`.
    fn copy(
        &self,
        op: Op,
        range: DeviceRange,
        copy: impl FnOnce(&dyn DeviceMemory, DeviceRange, usize) -> Result<(), GpuError>,
    ) -> Result<Damage, GpuError> {
        let damage = self.enter(op, range.start(), range.len())?;
        let part = damage.shortened(range, self.gpu())?;
        let count = part.len().to_usize().unwrap_or(usize::MAX);
        let copied = if damage.keep == Some(ByteLen::ZERO) {
            Ok(())
        } else {
            copy(&**self.inner, part, count)
        };
        self.core().noted(copied)?;
        Ok(damage)
    }
}

impl Damage {
    fn of(fired: &Fired, len: ByteLen, gpu: GpuIndex) -> Self {
        let place = |byte: u64| ByteLen::new(byte.checked_rem(len.get()).unwrap_or(0));
        let mut damage = Self::default();
        match fired.action {
            Action::ShortCopy { keep } => damage.keep = Some(len.min(ByteLen::new(keep))),
            Action::DropCopy => damage.keep = Some(ByteLen::ZERO),
            Action::FlipBit { byte, bit } => damage.flip = Some((place(byte), bit)),
            Action::FlipAnyBit => {
                let [bit, ..] = mix(fired.dice).to_le_bytes();
                damage.flip = Some((place(fired.dice), bit));
            }
            Action::FailAfterwards(error) | Action::LateFail(error) => damage.error = Some(error),
            Action::LateDriver(code) => damage.error = Some(GpuError::driver(gpu, code)),
            // Handled at the start of the call, or for calls of kernels.
            Action::Unfit(_)
            | Action::FlipResult { .. }
            | Action::FlipResults
            | Action::Fail(_)
            | Action::Driver(_)
            | Action::OutOfMemory
            | Action::Panic
            | Action::Run(_) => {}
        }
        // An empty copy has no bit to flip.
        damage.flip = damage.flip.filter(|_| !len.is_zero());
        damage
    }

    /// The part of the range that is copied.
    fn shortened(&self, range: DeviceRange, gpu: GpuIndex) -> Result<DeviceRange, GpuError> {
        let Some(keep) = self.keep else { return Ok(range) };
        let capacity = ByteLen::new(range.end().get());
        DeviceRange::checked(range.start(), keep, capacity)
            .map_err(|error| GpuError::from_bounds(gpu, error, capacity))
    }

    /// The position of the flipped bit, in an allocation whose copy started at `start`.
    fn flipped(&self, start: DeviceOffset) -> Option<(DeviceOffset, u8)> {
        self.flip.and_then(|(byte, bit)| Some((start.checked_add(byte)?, bit)))
    }

    fn flip_in(&self, bytes: &mut [u8]) {
        if let Some((byte, bit)) = self.flip
            && let Some(byte) = byte.to_usize().and_then(|byte| bytes.get_mut(byte))
        {
            *byte ^= 1_u8.rotate_left(u32::from(bit));
        }
    }

    fn outcome(&self, core: &Core) -> Result<(), GpuError> {
        self.error.map_or(Ok(()), |error| Err(core.suffer(error)))
    }
}

impl DeviceMemory for FaultMemory {
    fn gpu(&self) -> GpuIndex {
        self.inner.gpu()
    }

    fn len(&self) -> ByteLen {
        self.inner.len()
    }

    fn address(&self) -> DeviceAddress {
        self.inner.address()
    }

    fn write(&self, to: DeviceRange, source: &[u8]) -> Result<(), GpuError> {
        let extent = Extent { gpu: self.gpu(), len: self.len() };
        let damage = self.copy(Op::Write, to, |memory, part, count| {
            extent.matching(to, source.len())?;
            memory.write(part, source.get(..count).unwrap_or(source))
        })?;
        if let Some((offset, bit)) = damage.flipped(to.start()) {
            flip(&**self.inner, offset, bit)?;
        }
        damage.outcome(self.core())
    }

    fn read(&self, from: DeviceRange, target: &mut [u8]) -> Result<(), GpuError> {
        let extent = Extent { gpu: self.gpu(), len: self.len() };
        let damage = self.copy(Op::Read, from, |memory, part, count| {
            extent.matching(from, target.len())?;
            memory.read(part, target.get_mut(..count).unwrap_or_default())
        })?;
        damage.flip_in(target);
        damage.outcome(self.core())
    }

    fn fill(&self, range: DeviceRange, value: u8) -> Result<(), GpuError> {
        let damage = self.copy(Op::Fill, range, |memory, part, _| memory.fill(part, value))?;
        if let Some((offset, bit)) = damage.flipped(range.start()) {
            flip(&**self.inner, offset, bit)?;
        }
        damage.outcome(self.core())
    }

    fn copy_from(
        &self,
        to: DeviceRange,
        source: &dyn DeviceMemory,
        from: DeviceRange,
    ) -> Result<(), GpuError> {
        let op = if source.gpu() == self.gpu() { Op::Copy } else { Op::PeerCopy };
        let gpu = self.gpu();
        let damage = self.copy(op, to, |memory, part, _| {
            if to.len() != from.len() {
                let (range_len, buffer_len) = (to.len(), from.len());
                return Err(GpuError::LengthMismatch { gpu, range_len, buffer_len });
            }
            let capacity = ByteLen::new(from.end().get());
            let from = DeviceRange::checked(from.start(), part.len(), capacity)
                .map_err(|error| GpuError::from_bounds(gpu, error, capacity))?;
            memory.copy_from(part, source, from)
        })?;
        if let Some((offset, bit)) = damage.flipped(to.start()) {
            flip(&**self.inner, offset, bit)?;
        }
        damage.outcome(self.core())
    }

    fn queue_write(&self, to: DeviceOffset, staging: Staging, len: ByteLen) -> Pending {
        let damage = match self.enter(Op::QueueWrite, to, len) {
            Ok(damage) => damage,
            Err(error) => return Pending::over(staging, Err(error)),
        };
        self.queue(Queued::Write { to, len: damage.keep.unwrap_or(len) }, damage, to, staging)
    }

    fn queue_read(&self, from: DeviceRange, staging: Staging) -> Pending {
        let entered = self.enter(Op::QueueRead, from.start(), from.len());
        let shortened =
            entered.and_then(|damage| Ok((damage, damage.shortened(from, self.gpu())?)));
        match shortened {
            Ok((damage, from)) => self.queue(Queued::Read { from }, damage, from.start(), staging),
            Err(error) => Pending::over(staging, Err(error)),
        }
    }

    fn share(&self) -> Result<ShareHandle, GpuError> {
        self.core().noted(self.inner.share())
    }

    fn free(self: Box<Self>) -> Result<(), FreeError> {
        let (core, number) = (Arc::clone(self.core()), self.registration.number);
        let range = Some((DeviceOffset::START, self.len()));
        if let Err(error) = core.enter(Op::Free, Some(number), range) {
            // The inner device still has the allocation, so the caller keeps it too.
            return Err(FreeError { memory: self, error });
        }
        let Self { mut registration, inner } = *self;
        registration.armed = false;
        drop(registration);
        let inner = sole_owner(inner);
        inner.free().map_err(|FreeError { memory, error }| {
            let error = core.suffer(error);
            FreeError { memory: Box::new(Self::new(&core, Some(number), memory)), error }
        })
    }

    fn backing(&self) -> &dyn DeviceMemory {
        self.inner.backing()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Takes the allocation out of its `Arc`. Other owners exist only under the lock of the list, and
/// the allocation has just left the list, so this does not wait.
fn sole_owner(mut inner: Arc<Box<dyn DeviceMemory>>) -> Box<dyn DeviceMemory> {
    loop {
        match Arc::try_unwrap(inner) {
            Ok(inner) => return inner,
            Err(shared) => inner = shared,
        }
        std::thread::yield_now();
    }
}

/// The arguments of a queued copy, after shortening.
#[derive(Clone, Copy, Debug)]
enum Queued {
    Write { to: DeviceOffset, len: ByteLen },
    Read { from: DeviceRange },
}

impl Queued {
    fn start(self, memory: &dyn DeviceMemory, staging: Staging) -> Pending {
        match self {
            Self::Write { to, len } => memory.queue_write(to, staging, len),
            Self::Read { from } => memory.queue_read(from, staging),
        }
    }
}

impl FaultMemory {
    fn queue(
        &self,
        copy: Queued,
        damage: Damage,
        start: DeviceOffset,
        staging: Staging,
    ) -> Pending {
        let core = Arc::clone(self.core());
        let number = self.registration.number;
        let copy_now = damage.keep != Some(ByteLen::ZERO);
        let stage = match (copy_now, core.deferred) {
            (false, _) => Stage::Dropped(staging),
            (true, true) => Stage::Deferred(copy, staging),
            (true, false) => Stage::Started(copy.start(&**self.inner, staging)),
        };
        Pending::queued(Box::new(FaultyCopy { core, number, copy, damage, start, stage }))
    }
}

/// A queued copy of a fault device.
#[derive(Debug)]
struct FaultyCopy {
    core: Arc<Core>,
    number: u64,
    copy: Queued,
    damage: Damage,
    start: DeviceOffset,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The copy is never made.
    Dropped(Staging),
    /// The copy is made at the wait.
    Deferred(Queued, Staging),
    /// The copy runs on the wrapped device.
    Started(Pending),
}

impl Completion for FaultyCopy {
    fn finish(self: Box<Self>) -> (Staging, Result<(), GpuError>) {
        let Self { core, number, copy, damage, start, stage } = *self;
        let gone = GpuError::StaleAllocation { gpu: core.gpu() };
        let (mut staging, outcome) = match stage {
            Stage::Dropped(staging) => (staging, Ok(())),
            Stage::Started(pending) => pending.wait(),
            Stage::Deferred(copy, staging) => {
                let mut held = Some(staging);
                let done = core.with_live(Some(number), |memory| {
                    held.take().map(|staging| copy.start(memory, staging).wait())
                });
                match (done.flatten(), held) {
                    (Some(done), _) => done,
                    (None, Some(staging)) => (staging, Err(gone)),
                    (None, None) => (Staging::empty(), Err(gone)),
                }
            }
        };
        let outcome = core.noted(outcome).and_then(|()| {
            match copy {
                Queued::Read { .. } => damage.flip_in(staging.as_mut_slice()),
                Queued::Write { .. } => {
                    if let Some((offset, bit)) = damage.flipped(start) {
                        core.with_live(Some(number), |memory| flip(memory, offset, bit))
                            .unwrap_or(Err(gone))?;
                    }
                }
            }
            damage.outcome(&core)
        });
        (staging, outcome)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.armed {
            let _nothing_fires = self.core.record(Op::Drop, Some(self.number), None);
        }
        self.core.unregister(self.number);
    }
}

impl fmt::Debug for FaultMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultMemory").field("inner", &self.inner).finish_non_exhaustive()
    }
}
