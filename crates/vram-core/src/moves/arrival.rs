//! The data of an image as it is read: in order, verified, and written to its placement.

use std::io;
use std::io::Read;
use std::sync::Arc;

use vram_alloc::{ByteLen, host};
use vram_seal::{Hashes, Opener, Protection, SealError, SealRecord, open_and_hash};
use vram_space::{Space, Worker, locate};

use crate::error::VramError;
use crate::shard::seal::prints::Arming;
use crate::shard::{KeyUse, Metadata};
use crate::sync::{Mutex, lock};
use crate::transfer::convert::part;
use crate::transfer::read::zeroed;
use crate::transfer::walk::send;
use crate::transfer::{Window, Windows};

/// Record and table of an image, verified.
pub(crate) struct Proven {
    pub(crate) record: SealRecord,
    pub(crate) opener: Opener,
    pub(crate) key_use: KeyUse,
    pub(crate) image_len: u64,
    /// The caller's description of the content, as far as it is known.
    pub(crate) metadata: Metadata,
}

/// The data of an image, which can only be read in order, for threads that take turns to read it.
pub(crate) struct Arrival<'a> {
    pub(crate) windows: &'a Windows,
    /// The next window, and the reader that it comes from: one lock, so that choosing and reading
    /// it is one step.
    pub(crate) next: Mutex<(u64, &'a mut (dyn Read + Send))>,
    pub(crate) proven: &'a Proven,
    /// Takes fingerprints of what is written, if they are wanted.
    pub(crate) arming: Option<&'a Arming>,
}

impl Arrival<'_> {
    /// Reads the next window, opens its segments in `scratch`, and starts writing its bytes
    /// unchanged.
    pub(crate) fn write_window(
        &self,
        worker: &mut Worker<'_>,
        scratch: &mut [u8],
        space: &Space,
        hashes: &Hashes,
    ) -> Result<ByteLen, VramError> {
        let (staging, mut len) = (worker.buffer()?, ByteLen::ZERO);
        send(worker, staging, |buffer| {
            let window = self.read_next(buffer)?;
            self.open(&window, buffer, scratch, hashes)?;
            let to = locate(space.range(), window.bytes)?;
            len = to.len();
            // An empty shard has no bytes to write, and a GPU with a budget of zero has no memory
            // to write to.
            if to.is_empty() { Ok(None) } else { Ok(Some((space.memory()?, to))) }
        })?;
        Ok(len)
    }

    fn read_next(&self, buffer: &mut [u8]) -> Result<Window, VramError> {
        let mut next = lock(&self.next);
        let (index, image) = &mut *next;
        let window =
            self.windows.get(*index).ok_or(VramError::HostMemory { wanted: ByteLen::ZERO })?;
        let target = part(buffer, window.bytes.len())?;
        let found = read_some(&mut **image, target)?;
        if found < target.len() {
            let data_len = self.windows.layout().plaintext_len().get();
            let before = self.proven.image_len.saturating_sub(data_len);
            let start = before.saturating_add(window.bytes.start().get());
            let found = usize::try_from(start).unwrap_or(usize::MAX).saturating_add(found);
            return Err(cut_short("the sealed image", self.proven.image_len, found));
        }
        *index = index.saturating_add(1);
        Ok(window)
    }

    fn open(
        &self,
        window: &Window,
        bytes: &mut [u8],
        scratch: &mut [u8],
        hashes: &Hashes,
    ) -> Result<(), VramError> {
        let opener = &self.proven.opener;
        let bytes = part(bytes, window.bytes.len())?;
        window.each(opener.layout(), bytes, |segment, sealed| {
            let hash = if opener.protection() == Protection::Authenticated {
                // Verified where it lies, and not changed.
                open_and_hash(opener, segment, sealed)?
            } else {
                let plaintext = part(scratch, ByteLen::from_usize(sealed.len()))?;
                host::copy(sealed, plaintext);
                open_and_hash(opener, segment, plaintext)?
            };
            hashes.put(segment, hash);
            if let Some(arming) = self.arming {
                arming.put(opener.layout(), segment, sealed);
            }
            Ok(())
        })
    }

    /// Refuses trailing bytes as it refuses missing ones.
    pub(crate) fn expect_end(&self) -> Result<(), VramError> {
        let mut next = lock(&self.next);
        if read_some(&mut *next.1, &mut [0])? == 0 {
            return Ok(());
        }
        let expected = self.proven.image_len;
        let found = expected.saturating_add(1);
        Err(SealError::WrongLength { what: "the sealed image", expected, found }.into())
    }
}

/// Fills `target` from its start, as far as the image has bytes.
pub(crate) fn read_some(image: &mut dyn Read, target: &mut [u8]) -> Result<usize, VramError> {
    let mut filled = 0_usize;
    while let Some(rest) = target.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let len = rest.len();
        match image.read(rest) {
            Ok(0) => break,
            Ok(more) => filled = filled.saturating_add(more.min(len)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let action = "read the sealed image";
                return Err(VramError::Io { action, path: None, source: Arc::new(error) });
            }
        }
    }
    Ok(filled)
}

/// Reads the next `len` bytes, which end at `end` of the image.
pub(crate) fn read_part(image: &mut dyn Read, len: u64, end: u64) -> Result<Vec<u8>, VramError> {
    let mut bytes = zeroed(ByteLen::new(len))?;
    let found = read_some(image, &mut bytes)?;
    if found < bytes.len() {
        let start = usize::try_from(end.saturating_sub(len)).unwrap_or(usize::MAX);
        return Err(cut_short("the sealed image, at least", end, start.saturating_add(found)));
    }
    Ok(bytes)
}

pub(crate) fn cut_short(what: &'static str, expected: u64, found: usize) -> VramError {
    SealError::WrongLength { what, expected, found: ByteLen::from_usize(found).get() }.into()
}
