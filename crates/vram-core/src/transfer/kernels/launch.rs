//! Launches of kernels over the segments of one shard, slice by slice.

use core::ops::Range;
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteRange, DeviceRange};
use vram_gpu::kernels::{HashSpan, KernelError, Kernels};
use vram_gpu::{DeviceMemory, GpuError};
use vram_seal::{SegmentHash, SegmentLayout};
use vram_space::{Block, Gpu, KernelWork, Space, locate};
use zeroize::Zeroizing;

use crate::error::VramError;
use crate::shard::View;
use crate::shard::seal::prints;
use crate::transfer::kernels::lent::{Lending, Lent};

/// Bytes of one launch: at the speed of a card a fraction of a millisecond, after which a loss or a
/// close is noticed.
const SLICE: u64 = 256 << 20;

/// Chunks of BLAKE3 in the longest segment: canaries are hashed at a multiple of it.
const CHUNKS_MAX: u64 = 1 << 14;

/// The first chunk behind every shard: a shard has at most 2^48 bytes.
const BEHIND_ALL: u64 = 1 << 38;

/// The bytes of a shard in device memory, for kernels.
pub(crate) struct Bytes<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) range: DeviceRange,
    pub(crate) memory: Arc<Block>,
    pub(crate) layout: SegmentLayout,
}

/// Whether kernels told what they were asked. If not, the host computes it.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    All,
    /// The device's error, if it was one; and whether no byte of a target was written.
    Nothing {
        error: Option<GpuError>,
        untouched: bool,
    },
}

impl Told {
    /// The same, after launches that wrote already unless this was the first.
    fn after(self, first: bool) -> Self {
        match self {
            Self::Nothing { error, untouched } => {
                Self::Nothing { error, untouched: untouched && first }
            }
            Self::All => self,
        }
    }
}

impl<'a> Bytes<'a> {
    pub(crate) fn of(view: &'a View) -> Result<Self, VramError> {
        let layout = *view.seal.opener.layout();
        Ok(Self { gpu: &view.gpu, range: view.range, memory: view.memory()?, layout })
    }

    /// The bytes in a space that is being filled.
    pub(crate) fn in_space(space: &'a Space, layout: SegmentLayout) -> Result<Self, VramError> {
        Ok(Self { gpu: space.gpu(), range: space.range(), memory: space.memory()?, layout })
    }

    /// Hashes segments, and shows each hash in order.
    pub(crate) fn hashes(
        &self,
        kernels: &dyn Kernels,
        segments: impl IntoIterator<Item = u64>,
        mut show: impl FnMut(u64, SegmentHash) -> Result<(), VramError>,
    ) -> Result<Told, VramError> {
        let chunks = self.layout.segment_size().bytes().get() >> 10;
        let mut segments = segments.into_iter().peekable();
        while segments.peek().is_some() {
            self.gpu.ready()?;
            let (mut spans, mut numbers, mut bytes) = (Vec::new(), Vec::new(), ByteLen::ZERO);
            while bytes.get() < SLICE
                && let Some(segment) = segments.next()
            {
                let Some(range) = self.layout.range(segment) else { continue };
                let range = locate(self.range, range)?;
                let first_chunk = segment.saturating_mul(chunks);
                spans.push(HashSpan { range, first_chunk, root: self.layout.count() == 1 });
                numbers.push(segment);
                bytes = bytes.saturating_add(range.len());
            }
            let Some(first) = spans.first().copied() else { continue };
            // The canary: one span once more, at another place in the tree, where it was never
            // before. A hash equal to that of the span would be one that was not computed.
            let turn = self.gpu.kernel_turn() & (u64::MAX >> 26);
            let first_chunk = BEHIND_ALL.saturating_add(turn.saturating_mul(CHUNKS_MAX));
            spans.push(HashSpan { first_chunk, root: false, ..first });
            let computed = kernels.hash(&**self.memory, &spans);
            let values = match self.told(KernelWork::Hash, bytes, computed)? {
                // They tell of content, and are wiped.
                Ok(values) => Zeroizing::new(values),
                Err(nothing) => return Ok(nothing),
            };
            // The canary is the last of the values: the kernels missed it, or gave another number.
            if values.len() != spans.len() || values.last() == values.first() {
                return Ok(self.dead());
            }
            for (segment, value) in numbers.into_iter().zip(values.iter()) {
                show(segment, SegmentHash::from_bytes(*value))?;
            }
        }
        Ok(Told::All)
    }

    /// Calls `compute` with the pieces of a run of segments, in order.
    pub(crate) fn pieces(
        &self,
        run: &Range<u64>,
        mut compute: impl FnMut(&dyn DeviceMemory, &[DeviceRange]) -> Result<(), KernelError>,
    ) -> Result<Told, VramError> {
        let layout = &self.layout;
        let mut pieces = run.clone().flat_map(|segment| prints::pieces(layout, segment)).peekable();
        while pieces.peek().is_some() {
            self.gpu.ready()?;
            let (mut spans, mut bytes) = (Vec::new(), ByteLen::ZERO);
            while bytes.get() < SLICE
                && let Some(piece) = pieces.next()
            {
                spans.push(locate(self.range, piece)?);
                bytes = bytes.saturating_add(piece.len());
            }
            let computed = compute(&**self.memory, &spans);
            if let Err(nothing) = self.told(KernelWork::Fingerprint, bytes, computed)? {
                return Ok(nothing);
            }
        }
        Ok(Told::All)
    }

    /// Calls `compute` with the segments that `add` lends, and shows what it computed for each, with
    /// its place among those of the launch.
    pub(crate) fn lent<T: Copy + PartialEq>(
        &self,
        segments: impl IntoIterator<Item = u64>,
        mut add: impl FnMut(&mut Lent, u64) -> Result<(), VramError>,
        compute: impl Fn(&dyn DeviceMemory, &Lent) -> Result<Vec<T>, KernelError>,
        mut show: impl FnMut(&Lent, usize, T) -> Result<(), VramError>,
    ) -> Result<Told, VramError> {
        let mut segments = segments.into_iter().peekable();
        let mut first = true;
        while segments.peek().is_some() {
            self.gpu.ready()?;
            let (mut lent, mut bytes) = (Lent::default(), ByteLen::ZERO);
            while bytes.get() < SLICE
                && let Some(segment) = segments.next()
            {
                add(&mut lent, segment)?;
                let range = self.layout.range(segment);
                bytes = bytes.saturating_add(range.map_or(ByteLen::ZERO, ByteRange::len));
            }
            let computed = compute(&**self.memory, &lent);
            let values = match self.told(KernelWork::Tag, bytes, computed)? {
                Ok(values) => values,
                Err(nothing) => return Ok(nothing.after(first)),
            };
            first = false;
            if values.len() != lent.spans.len() {
                return Ok(self.dead());
            }
            for (at, value) in values.into_iter().enumerate() {
                show(&lent, at, value)?;
            }
        }
        Ok(Told::All)
    }

    /// Opens every segment into `to`, which may be where it lies. Returns false if the kernels cannot,
    /// or found a tag that is not good.
    ///
    /// # Arguments
    ///
    /// * `lend`: calls its second argument with the key and the tag of a segment.
    pub(crate) fn open(
        &self,
        kernels: &dyn Kernels,
        to: &Bytes<'_>,
        lend: impl Fn(u64, &mut Lending<'_>) -> Result<(), VramError>,
    ) -> Result<bool, VramError> {
        let mut good = true;
        let told = self.lent(
            0..self.layout.count(),
            |lent, segment| {
                lend(segment, &mut |key, tag| {
                    lent.tags.push(tag);
                    lent.push(&self.layout, [self.range, to.range], key)
                })
            },
            |memory, lent| kernels.open(memory, &**to.memory, &lent.spans, &lent.keys, &lent.tags),
            |_lent, _at, opened| {
                good &= opened;
                Ok(())
            },
        )?;
        Ok(told == Told::All && good)
    }

    /// What kernels computed, or that they gave nothing.
    fn told<T>(
        &self,
        work: KernelWork,
        bytes: ByteLen,
        computed: Result<T, KernelError>,
    ) -> Result<Result<T, Told>, VramError> {
        match computed {
            Ok(computed) => {
                self.gpu.kernels_did(work, bytes);
                Ok(Ok(computed))
            }
            Err(error) => {
                self.gpu.fell_back(error)?;
                let of_device = match error {
                    KernelError::Device(error) => Some(error),
                    _ => None,
                };
                let untouched = matches!(error, KernelError::Unfit { .. });
                Ok(Err(Told::Nothing { error: of_device, untouched }))
            }
        }
    }

    /// Kernels that gave what they never should are not used again.
    fn dead(&self) -> Told {
        self.gpu.distrust_kernels();
        Told::Nothing { error: None, untouched: false }
    }
}
