//! The kernels of a fault device: passes calls on and falsifies what the rules name.

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};

use super::core::Core;
use super::memory::FaultMemory;
use super::plan::Fired;
use super::{Action, Op};
use crate::kernels::{
    CipherSpan, FingerprintKey, Fingerprints, HashSpan, KernelError, Kernels, Site,
};
use crate::{DeviceMemory, GpuError};

/// The kernels of the wrapped device, with injected faults.
#[derive(Debug)]
pub(super) struct FaultKernels {
    core: Arc<Core>,
    inner: Arc<dyn Kernels>,
}

/// A result of a kernel, with its bits numbered.
trait Bits {
    /// How many there are.
    fn count(&self) -> u64;
    /// Flips one of them.
    fn flip(&mut self, bit: u64);
    /// Makes the result that of altered bytes.
    fn alter(&mut self) {
        self.flip(0);
    }
}

impl FaultKernels {
    pub(super) const fn new(core: Arc<Core>, inner: Arc<dyn Kernels>) -> Self {
        Self { core, inner }
    }

    /// Records a call, makes it, and falsifies its results if a rule says so.
    fn call<R: Bits>(
        &self,
        op: Op,
        memory: &dyn DeviceMemory,
        ranges: impl Iterator<Item = DeviceRange>,
        call: impl FnOnce() -> Result<Vec<R>, KernelError>,
    ) -> Result<Vec<R>, KernelError> {
        // Logged as one range: from the start of the first span, as long as all of them.
        let range = ranges.fold(None, |all: Option<(DeviceOffset, ByteLen)>, range| {
            let (start, len) = all.unwrap_or((range.start(), ByteLen::ZERO));
            Some((start, len.saturating_add(range.len())))
        });
        let number = memory.as_any().downcast_ref::<FaultMemory>().map(FaultMemory::number);
        let fired = self.core.enter(op, number, range)?;
        if let Some(Fired { action: Action::Unfit(why), .. }) = fired {
            return Err(KernelError::Unfit { gpu: self.core.gpu(), why });
        }
        let mut results = call().map_err(|error| match error {
            KernelError::Device(error) => KernelError::Device(self.core.suffer(error)),
            unfit @ KernelError::Unfit { .. } => unfit,
        })?;
        match fired.map(|fired| fired.action) {
            Some(Action::FlipResult { span, bit }) => {
                let count = u64::try_from(results.len()).unwrap_or(u64::MAX);
                let at = span.checked_rem(count).and_then(|at| usize::try_from(at).ok());
                if let Some(result) = at.and_then(|at| results.get_mut(at)) {
                    result.flip(bit.checked_rem(result.count()).unwrap_or(0));
                }
            }
            Some(Action::FlipResults) => {
                for result in &mut results {
                    result.alter();
                }
            }
            Some(Action::FailAfterwards(error)) => {
                let error: GpuError = self.core.suffer(error);
                return Err(error.into());
            }
            _ => {}
        }
        Ok(results)
    }
}

impl<const N: usize> Bits for [u8; N] {
    fn count(&self) -> u64 {
        u64::try_from(N).unwrap_or(0).saturating_mul(8)
    }

    fn flip(&mut self, bit: u64) {
        let at = usize::try_from(bit / 8).ok();
        if let Some(byte) = at.and_then(|at| self.get_mut(at)) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

impl Bits for bool {
    fn count(&self) -> u64 {
        1
    }

    fn flip(&mut self, _bit: u64) {
        *self = !*self;
    }

    fn alter(&mut self) {
        *self = false;
    }
}

/// The bits under the key, and then those under the new one.
impl Bits for Fingerprints {
    fn count(&self) -> u64 {
        if self.renewed.is_some() { 256 } else { 128 }
    }

    fn flip(&mut self, bit: u64) {
        let value = if bit < 128 { Some(&mut self.value) } else { self.renewed.as_mut() };
        if let Some(value) = value {
            value.bytes_mut().flip(bit % 128);
        }
    }
}

impl Kernels for FaultKernels {
    fn site(&self) -> Site {
        self.inner.site()
    }

    fn hash(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[HashSpan],
    ) -> Result<Vec<[u8; 32]>, KernelError> {
        let ranges = spans.iter().map(|span| span.range);
        self.call(Op::Hash, memory, ranges, || self.inner.hash(memory, spans))
    }

    fn fingerprint(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[DeviceRange],
        key: &FingerprintKey,
        renewed: Option<&FingerprintKey>,
    ) -> Result<Vec<Fingerprints>, KernelError> {
        let call = || self.inner.fingerprint(memory, spans, key, renewed);
        self.call(Op::Fingerprint, memory, spans.iter().copied(), call)
    }

    fn tags(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError> {
        let ranges = spans.iter().map(|span| span.source);
        self.call(Op::Tags, memory, ranges, || self.inner.tags(memory, spans, keys))
    }

    fn open(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
        tags: &[[u8; 16]],
    ) -> Result<Vec<bool>, KernelError> {
        let ranges = spans.iter().map(|span| span.source);
        let call = || self.inner.open(source, target, spans, keys, tags);
        self.call(Op::Open, source, ranges, call)
    }

    fn seal(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError> {
        let ranges = spans.iter().map(|span| span.source);
        self.call(Op::Seal, source, ranges, || self.inner.seal(source, target, spans, keys))
    }
}
