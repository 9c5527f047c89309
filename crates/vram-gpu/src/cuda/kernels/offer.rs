//! The kernels as callers see them: arguments are checked, and become addresses.

use core::fmt;
use std::sync::Arc;

use vram_alloc::DeviceRange;

use super::super::allocation::{Allocation, Span};
use super::super::context::Bound;
use super::super::memory::CudaMemory;
use super::cipher::{Act, CipherAt, CipherKernels, Ciphering};
use super::fingerprint::{FingerprintKernels, Fingerprinting};
use super::hash::{Hash, HashAt, HashKernels};
use super::life::Life;
use crate::kernels::{
    CipherSpan, FingerprintKey, Fingerprints, HashSpan, KernelError, Kernels, Site, Unfit, check,
};
use crate::{DeviceMemory, GpuError};

/// A code that says nothing of the device: a kernel ended and did not do its work.
const UNKNOWN: u32 = 999;

/// Kernels of one life of a device's memory. Those that are loaded after it was made are in another
/// offer.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) life: Arc<Life>,
    pub(super) hash: HashKernels,
    pub(super) fingerprint: FingerprintKernels,
    pub(super) ciphers: Option<CipherKernels>,
}

/// Tags of a list of segments, or verdicts: none where the word of the device means nothing.
type Ciphered = (Vec<[u8; 16]>, Vec<Option<bool>>);

impl Offer {
    /// The memory as this backend's, if it is of this device.
    fn own<'m>(&self, memory: &'m dyn DeviceMemory) -> Result<&'m Allocation, KernelError> {
        let gpu = memory.gpu();
        let other = KernelError::Unfit { gpu, why: Unfit::OtherMemory };
        let memory = memory.backing().as_any().downcast_ref::<CudaMemory>().ok_or(other)?;
        let allocation = memory.allocation();
        let core = &allocation.port.core;
        if !Arc::ptr_eq(core, &self.life.port().core) {
            return Err(other);
        }
        match allocation.epoch == self.life.epoch() {
            true => Ok(allocation),
            // These kernels are from before the reset, and the memory is not.
            false if allocation.epoch == core.epoch() => Err(other),
            false => Err(GpuError::StaleAllocation { gpu }.into()),
        }
    }

    /// The context, for memory of this device. Errors have the index that the memory's user gave.
    fn bind<'m>(&self, allocation: &'m Allocation) -> Result<Bound<'m>, GpuError> {
        allocation.port.bind(Some(self.life.epoch()))
    }

    fn cipher<'a>(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &'a [[u8; 32]],
        act: Act<'a>,
    ) -> Result<Ciphered, KernelError> {
        let (from, to) = (self.own(source)?, self.own(target)?);
        let not_loaded = Unfit::NotLoaded { kernel: "chacha" };
        let not_loaded = KernelError::Unfit { gpu: source.gpu(), why: not_loaded };
        let kernels = self.ciphers.ok_or(not_loaded)?;
        let mut list = Vec::with_capacity(spans.len());
        for span in spans {
            let source = from.span(from.extent().within(span.source)?)?;
            let target = match act {
                Act::Tag => source.start,
                Act::Open(_) | Act::Seal => {
                    to.span(to.extent().at(span.target, span.source.len())?)?.start
                }
            };
            list.push(CipherAt { source, target, index: span.index, last: span.last });
        }
        let bound = self.bind(from)?;
        let mut job = Ciphering::new(kernels, act, &list, keys);
        // SAFETY: the spans lie in two allocations that live as long as their two borrows, and are
        // of the bound context's epoch.
        unsafe { self.life.run(&bound, &mut job) }?;
        Ok((job.tags, job.verdicts))
    }
}

impl Kernels for Offer {
    fn site(&self) -> Site {
        Site::Card
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %memory.gpu(), spans = spans.len()))]
    fn hash(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[HashSpan],
    ) -> Result<Vec<[u8; 32]>, KernelError> {
        let allocation = self.own(memory)?;
        check::hash(memory, spans)?;
        let mut list = Vec::with_capacity(spans.len());
        for span in spans {
            let HashSpan { range, first_chunk, root } = *span;
            let range = allocation.extent().within(range)?;
            list.push(HashAt { span: allocation.span(range)?, first_chunk, root });
        }
        let bound = self.bind(allocation)?;
        let values = Vec::with_capacity(list.len());
        let mut job = Hash { kernels: self.hash, spans: &list, values };
        // SAFETY: the spans lie in an allocation that lives as long as its borrow, and is of the
        // bound context's epoch.
        unsafe { self.life.run(&bound, &mut job) }?;
        Ok(job.values)
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %memory.gpu(), spans = spans.len()))]
    fn fingerprint(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[DeviceRange],
        key: &FingerprintKey,
        renewed: Option<&FingerprintKey>,
    ) -> Result<Vec<Fingerprints>, KernelError> {
        let allocation = self.own(memory)?;
        check::fingerprint(memory, spans)?;
        let mut list: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            list.push(allocation.span(allocation.extent().within(*span)?)?);
        }
        let bound = self.bind(allocation)?;
        let values = Vec::with_capacity(list.len());
        let kernels = self.fingerprint;
        let mut job = Fingerprinting { kernels, spans: &list, key, renewed, values };
        // SAFETY: as for `hash`.
        unsafe { self.life.run(&bound, &mut job) }?;
        Ok(job.values)
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %memory.gpu(), spans = spans.len()))]
    fn tags(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError> {
        self.own(memory)?;
        check::tags(memory, spans, keys.len())?;
        self.cipher(memory, memory, spans, keys, Act::Tag).map(|(tags, _)| tags)
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %source.gpu(), spans = spans.len()))]
    fn open(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
        tags: &[[u8; 16]],
    ) -> Result<Vec<bool>, KernelError> {
        self.own(source)?;
        self.own(target)?;
        check::cipher_both(source, target, spans, &[keys.len(), tags.len()])?;
        let (_, verdicts) = self.cipher(source, target, spans, keys, Act::Open(tags))?;
        let verdicts: Option<Vec<bool>> = verdicts.into_iter().collect();
        verdicts.ok_or_else(|| {
            // It ended without an error and did not do its work: no word of it counts any more.
            self.life.is_wrong_from_now_on();
            GpuError::driver(source.gpu(), UNKNOWN).into()
        })
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %source.gpu(), spans = spans.len()))]
    fn seal(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError> {
        self.own(source)?;
        self.own(target)?;
        check::cipher_both(source, target, spans, &[keys.len()])?;
        self.cipher(source, target, spans, keys, Act::Seal).map(|(tags, _)| tags)
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaKernels")
            .field("gpu", &self.life.port().gpu)
            .field("ciphers", &self.ciphers.is_some())
            .finish_non_exhaustive()
    }
}
