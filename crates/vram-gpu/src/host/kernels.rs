//! The kernels in host form: the same results as a card's, computed by the calling thread.

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};
use zeroize::Zeroizing;

use super::{HostMemory, Shared};
use crate::kernels::blake3::Tree;
use crate::kernels::chacha::{Segment, nonce};
use crate::kernels::{
    CipherSpan, FINGERPRINT_SPAN_MAX, FingerprintKey, Fingerprints, HashSpan, KernelError, Kernels,
    Site, Unfit, check,
};
use crate::{DeviceMemory, GpuError};

/// Bytes that are copied out at a time: the longest span of a fingerprint, whole chunks and blocks.
const PIECE: ByteLen = FINGERPRINT_SPAN_MAX;

/// Kernels over the memory of one host device.
#[derive(Debug)]
pub(super) struct HostKernels {
    shared: Arc<Shared>,
}

/// A host buffer for device bytes, which can be plaintext.
type Buffer = Zeroizing<Vec<u8>>;

impl HostKernels {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The memory, if it is of this device and of its present life.
    fn own<'a>(&self, memory: &'a dyn DeviceMemory) -> Result<&'a HostMemory, KernelError> {
        let own = memory.backing().as_any().downcast_ref::<HostMemory>();
        let Some(own) = own.filter(|own| own.is_of(&self.shared)) else {
            return Err(KernelError::Unfit { gpu: self.shared.gpu(), why: Unfit::OtherMemory });
        };
        own.live()?;
        Ok(own)
    }

    /// The segment of a cipher and its tag as it lies there.
    fn tag(
        memory: &HostMemory,
        span: &CipherSpan,
        segment: &Segment,
        buffer: &mut Buffer,
    ) -> Result<[u8; 16], GpuError> {
        let mut authenticator = segment.authenticator();
        walk(memory, span.source, buffer, |_, piece| {
            authenticator.update(piece);
            Ok(())
        })?;
        Ok(authenticator.finish())
    }

    /// Encrypts or decrypts, and passes each piece on before or after it is sealed.
    fn apply(
        source: &HostMemory,
        target: &HostMemory,
        span: &CipherSpan,
        segment: &Segment,
        buffer: &mut Buffer,
        mut done: impl FnMut(&[u8]),
    ) -> Result<(), GpuError> {
        let gpu = target.gpu();
        walk(source, span.source, buffer, |start, piece| {
            let len = ByteLen::from_usize(piece.len());
            segment.apply(start.to_usize().unwrap_or(usize::MAX), piece);
            done(piece);
            let capacity = target.len();
            // The whole target was checked to be inside.
            let at = span.target.checked_add(start).unwrap_or(DeviceOffset::new(u64::MAX));
            let to = DeviceRange::checked(at, len, capacity)
                .map_err(|error| GpuError::from_bounds(gpu, error, capacity))?;
            target.write(to, piece)
        })
    }
}

/// Room for one piece.
fn buffer() -> Result<Buffer, GpuError> {
    let refused = GpuError::HostMemory { wanted: PIECE };
    let count = PIECE.to_usize().ok_or(refused)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(count).map_err(|_no_room| refused)?;
    bytes.resize(count, 0);
    Ok(Zeroizing::new(bytes))
}

/// Copies a range out in pieces, each under the locks of its chunks for the time of its copy.
/// `act` gets the distance of a piece from the start of the range.
fn walk(
    memory: &HostMemory,
    range: DeviceRange,
    buffer: &mut Buffer,
    mut act: impl FnMut(ByteLen, &mut [u8]) -> Result<(), GpuError>,
) -> Result<(), GpuError> {
    let capacity = memory.len();
    let mut at = range.start();
    while let Some(left) = range.end().checked_since(at).filter(|left| !left.is_zero()) {
        let len = left.min(PIECE);
        let part = DeviceRange::checked(at, len, capacity)
            .map_err(|error| GpuError::from_bounds(memory.gpu(), error, capacity))?;
        let bytes = len.to_usize().and_then(|len| buffer.get_mut(..len)).unwrap_or_default();
        memory.read(part, bytes)?;
        act(at.checked_since(range.start()).unwrap_or_default(), bytes)?;
        at = part.end();
    }
    Ok(())
}

impl Kernels for HostKernels {
    fn site(&self) -> Site {
        Site::Host
    }

    fn hash(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[HashSpan],
    ) -> Result<Vec<[u8; 32]>, KernelError> {
        let own = self.own(memory)?;
        check::hash(own, spans)?;
        let mut buffer = buffer()?;
        let values = spans.iter().map(|span| {
            let mut tree = Tree::at(span.first_chunk);
            walk(own, span.range, &mut buffer, |_, piece| {
                tree.update(piece);
                Ok(())
            })?;
            Ok(tree.finish(span.root))
        });
        values.collect()
    }

    fn fingerprint(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[DeviceRange],
        key: &FingerprintKey,
        renewed: Option<&FingerprintKey>,
    ) -> Result<Vec<Fingerprints>, KernelError> {
        let own = self.own(memory)?;
        check::fingerprint(own, spans)?;
        let mut buffer = buffer()?;
        let mut values = Vec::with_capacity(spans.len());
        for span in spans {
            // One piece each.
            walk(own, *span, &mut buffer, |_, piece| {
                values.extend(key.fingerprints(piece, renewed));
                Ok(())
            })?;
        }
        Ok(values)
    }

    fn tags(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError> {
        let own = self.own(memory)?;
        check::tags(own, spans, keys.len())?;
        let mut buffer = buffer()?;
        let tags = spans.iter().zip(keys).map(|(span, key)| {
            let segment = Segment::new(key, nonce(span.index, span.last));
            Ok(Self::tag(own, span, &segment, &mut buffer)?)
        });
        tags.collect()
    }

    fn open(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
        tags: &[[u8; 16]],
    ) -> Result<Vec<bool>, KernelError> {
        let (source, target) = (self.own(source)?, self.own(target)?);
        check::cipher_both(source, target, spans, &[keys.len(), tags.len()])?;
        let mut buffer = buffer()?;
        let opened = spans.iter().zip(keys).zip(tags).map(|((span, key), tag)| {
            let segment = Segment::new(key, nonce(span.index, span.last));
            let good = equal(&Self::tag(source, span, &segment, &mut buffer)?, tag);
            if good {
                Self::apply(source, target, span, &segment, &mut buffer, |_| ())?;
            }
            Ok(good)
        });
        opened.collect()
    }

    fn seal(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError> {
        let (source, target) = (self.own(source)?, self.own(target)?);
        check::cipher_both(source, target, spans, &[keys.len()])?;
        let mut buffer = buffer()?;
        let tags = spans.iter().zip(keys).map(|(span, key)| {
            let segment = Segment::new(key, nonce(span.index, span.last));
            let mut authenticator = segment.authenticator();
            Self::apply(source, target, span, &segment, &mut buffer, |sealed| {
                authenticator.update(sealed);
            })?;
            Ok(authenticator.finish())
        });
        tags.collect()
    }
}

/// Whether two tags are equal, in a time that does not depend on where they differ.
fn equal(one: &[u8; 16], other: &[u8; 16]) -> bool {
    one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other)) == 0
}
