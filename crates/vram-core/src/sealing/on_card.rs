//! Seals by the kernels of the device that will hold the bytes: the host only copies, and a core
//! fills the bus.
//!
//! ```text
//!  1 each window: copied to staging once, fingerprinted there, sent as it is    one pass, any scope
//!  2 hashes of all segments, twice                                               device
//!  3 fingerprints of all bytes, compared with those of 1: what arrived           device, host
//!    is what was read
//!  4 hashes of a few segments, compared with the host's own; the digest,         host
//!    compared with what the caller expects
//!  5 keys of the segments; encrypted in place, opened and hashed there, and
//!    encrypted again to the same tags                                             host, device
//! ```
//!
//! From 1 to 5 the plaintext lies where the sealed bytes will, in memory that is wiped before it goes
//! anywhere else. Kernels that stop in the middle are no failure: the host reads the plaintext back,
//! compares its fingerprints, and seals it as it would have before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_files::Feed;
use vram_gpu::GpuError;
use vram_gpu::kernels::Kernels;
use vram_seal::{
    Fresh, Hashes, Opened, Protection, SealError, Sealer, SegmentCollector, SegmentHash,
    merge_digest,
};
use vram_space::{Space, locate};
use zeroize::Zeroize;

use crate::error::VramError;
use crate::shard::seal::prints::{Arming, room_for};
use crate::sync::{Mutex, into_inner, lock};
use crate::transfer::convert::part;
use crate::transfer::feed::read_window;
use crate::transfer::kernels::encrypt::encrypt;
use crate::transfer::kernels::launch::{Bytes, Told};
use crate::transfer::walk::send;
use crate::transfer::{Selection, Window, Windows, WriteOptions};

/// Segments, besides the first and the last, whose hash the host computes by itself.
const SAMPLED: u64 = 6;

/// The seal of one shard by kernels.
pub(crate) struct OnCard<'a> {
    pub(crate) kernels: &'a dyn Kernels,
    pub(crate) windows: &'a Windows,
    pub(crate) feed: &'a dyn Feed,
    pub(crate) options: &'a WriteOptions<'a>,
}

impl OnCard<'_> {
    /// Seals the source into `space`, and waits until the device has all bytes.
    pub(crate) fn seal(
        &self,
        sealer: Sealer<Fresh>,
        space: &mut Space,
    ) -> Result<Opened, VramError> {
        space.written()?;
        let layout = *self.windows.layout();
        let arming = Arming::new(&layout)?;
        let own = self.send(&arming, space)?;
        let bytes = Bytes::in_space(space, layout)?;
        let by_kernels = self.hashes(&bytes, &arming, &own)?;
        let seals = by_kernels.is_some();
        let hashes = match by_kernels {
            Some(hashes) => hashes,
            None => self.hashes_on_host(&arming, space)?,
        };
        let mut digest = merge_digest(&hashes, &layout)?;
        let expected = (self.options.check)(digest);
        digest.zeroize();
        expected?;
        let hashes = Arc::new(hashes);
        let collector = SegmentCollector::new(sealer.fix(Arc::clone(&hashes))?)?;
        if seals {
            match encrypt(self.kernels, [&bytes; 2], &collector, &hashes, &|| self.go_on())? {
                Told::All => {}
                Told::Nothing { untouched: true, .. } => self.encrypt_on_host(&collector, space)?,
                // There is no way back: kernels that stop in the middle end the seal.
                Told::Nothing { error, .. } => return Err(stopped(&bytes, error)),
            }
        } else {
            self.encrypt_on_host(&collector, space)?;
        }
        Ok(collector.finish_open()?)
    }

    /// No byte is done, but the caller may have cancelled.
    fn go_on(&self) -> Result<(), VramError> {
        (self.options.watch)(ByteLen::ZERO)
    }

    /// Copies the source to the device as it is. Returns the hashes that the host computed of a few
    /// segments.
    fn send(
        &self,
        arming: &Arming,
        space: &Space,
    ) -> Result<BTreeMap<u64, SegmentHash>, VramError> {
        let (gpu, layout) = (space.gpu(), self.windows.layout());
        // Chosen anew each time, so that no fault of kernels is always elsewhere.
        let seed = gpu.kernel_turn().wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let picked = Selection::sample(layout.count(), SAMPLED, seed);
        let picked: BTreeSet<u64> = picked.segments().collect();
        let own = Mutex::new(BTreeMap::new());
        let count = self.windows.count();
        self.windows.run(gpu, self.windows.buffers(), count, |worker, index| {
            let (staging, mut len) = (worker.buffer()?, ByteLen::ZERO);
            send(worker, staging, |buffer| {
                let (window, bytes) = read_window(self.feed, self.windows, index, buffer)?;
                len = window.bytes.len();
                window.each(layout, bytes, |segment, bytes| {
                    arming.put(layout, segment, bytes);
                    if picked.contains(&segment) {
                        let hash = SegmentHash::of(layout, segment, bytes)?;
                        lock(&own).insert(segment, hash);
                    }
                    Ok::<_, VramError>(())
                })?;
                Ok(Some((space.memory()?, locate(space.range(), window.bytes)?)))
            })?;
            (self.options.watch)(len)
        })?;
        Ok(into_inner(own))
    }

    /// The hashes of what arrived, which is what was sent; `None` if the kernels cannot tell, or
    /// tell otherwise than the host.
    fn hashes(
        &self,
        bytes: &Bytes<'_>,
        arming: &Arming,
        own: &BTreeMap<u64, SegmentHash>,
    ) -> Result<Option<Vec<SegmentHash>>, VramError> {
        let all = 0..bytes.layout.count();
        let (mut hashes, mut agree) = (room_for(all.end)?, true);
        let told = bytes.hashes(self.kernels, all.clone(), |segment, hash| {
            agree &= own.get(&segment).is_none_or(|own| *own == hash);
            hashes.push(hash);
            Ok(())
        })?;
        if told != Told::All {
            return Ok(None);
        }
        // After the hashes: what changed before they were computed shows here.
        self.go_on()?;
        let (mut piece, mut arrived) = (0, true);
        let told = bytes.pieces(&all, |memory, spans| {
            let computed = self.kernels.fingerprint(memory, spans, arming.key(), None)?;
            arrived &= computed.len() == spans.len();
            for one in &computed {
                arrived &= arming.is_at(piece, &one.value);
                piece = piece.saturating_add(1);
            }
            Ok(())
        })?;
        if told != Told::All || !arrived {
            // The host judges: it reads the bytes, and seals them if they did arrive.
            return Ok(None);
        }
        self.go_on()?;
        // Computed once more: nobody else knows the right hashes, and what is sealed under a wrong one
        // opens and is not what its record says.
        let mut first = hashes.iter();
        let told = bytes.hashes(self.kernels, all, |_segment, hash| {
            agree &= first.next() == Some(&hash);
            Ok(())
        })?;
        if told != Told::All {
            return Ok(None);
        }
        if !agree {
            bytes.gpu.distrust_kernels();
            return Ok(None);
        }
        Ok(Some(hashes))
    }

    /// As [`hashes`](Self::hashes), on the host.
    fn hashes_on_host(
        &self,
        arming: &Arming,
        space: &Space,
    ) -> Result<Vec<SegmentHash>, VramError> {
        let (gpu, layout) = (space.gpu(), self.windows.layout());
        let (hashes, altered) = (Hashes::new(layout)?, Mutex::new(Vec::new()));
        self.each_on_device(space, |window, bytes| {
            window.each(layout, bytes, |segment, bytes| {
                if !arming.knows(layout, segment, bytes) {
                    lock(&altered).push(segment);
                }
                hashes.put(segment, SegmentHash::of(layout, segment, bytes)?);
                Ok::<_, VramError>(())
            })?;
            Ok(false)
        })?;
        let mut segments = into_inner(altered);
        segments.sort_unstable();
        if segments.is_empty() {
            return Ok(hashes.into_vec());
        }
        Err(VramError::WriteNotKept { gpu: gpu.index, segments: segments.into() })
    }

    /// Encrypts every segment on the host: read, sealed, and written back.
    fn encrypt_on_host(
        &self,
        collector: &SegmentCollector,
        space: &Space,
    ) -> Result<(), VramError> {
        let gpu = space.gpu().index;
        self.each_on_device(space, |window, bytes| {
            window.each(self.windows.layout(), bytes, |segment, bytes| {
                let sealed = collector.sealer().seal_segment(segment, bytes);
                // Not the caller's source: that is read no more.
                let sealed = sealed.map_err(|error| match error {
                    SealError::SourceChanged { segment } => {
                        VramError::WriteNotKept { gpu, segments: vec![segment].into() }
                    }
                    other => other.into(),
                })?;
                collector.put(segment, sealed)?;
                Ok::<_, VramError>(())
            })?;
            Ok(collector.sealer().protection() == Protection::Encrypted)
        })
    }

    /// Reads every window from the device; writes it back if `work` says so.
    fn each_on_device(
        &self,
        space: &Space,
        work: impl Fn(&Window, &mut [u8]) -> Result<bool, VramError> + Sync,
    ) -> Result<(), VramError> {
        let (windows, count) = (self.windows, self.windows.count());
        windows.run(space.gpu(), windows.buffers(), count, |worker, index| {
            let Some(window) = windows.get(index) else { return Ok(()) };
            self.go_on()?;
            let at = locate(space.range(), window.bytes)?;
            let memory = space.memory()?;
            let staging = worker.read(&**memory, at)?;
            send(worker, staging, |buffer| {
                let changed = work(&window, part(buffer, at.len())?)?;
                Ok(changed.then_some((memory, at)))
            })
        })
    }
}

/// The error of a seal whose kernels stopped while they encrypted.
fn stopped(bytes: &Bytes<'_>, error: Option<GpuError>) -> VramError {
    let gpu = bytes.gpu.index;
    if let Some(error) = error {
        return VramError::Device { gpu, source: Box::new(error) };
    }
    let segments: Vec<u64> = (0..bytes.layout.count()).collect();
    VramError::WriteNotKept { gpu, segments: segments.into() }
}
