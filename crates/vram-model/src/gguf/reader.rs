//! Reads a header from front to back, through one small buffer, and proves every length against
//! the file before anything is allocated for it.

use vram_alloc::ByteLen;

use super::GgufProblem;
use crate::{Limits, ModelError, ReadAt};

/// Bytes read at a time.
const WINDOW: usize = 64 << 10;

/// A position in a source, and the bytes that were read ahead of it.
pub(super) struct Reader<'a, R: ?Sized> {
    source: &'a R,
    file: &'a str,
    file_len: u64,
    /// The end of what may be read: of the file, or of the longest accepted header.
    limit: u64,
    header_len_max: ByteLen,
    at: u64,
    window: Vec<u8>,
    /// Where the window begins in the source.
    window_at: u64,
}

impl<'a, R: ReadAt + ?Sized> Reader<'a, R> {
    pub(super) fn new(file: &'a str, source: &'a R, limits: &Limits) -> Result<Self, ModelError> {
        let unreadable = |source| ModelError::Read {
            file: file.to_owned(),
            offset: 0,
            wanted: ByteLen::ZERO,
            source,
        };
        let file_len = source.byte_len().map_err(unreadable)?;
        Ok(Self {
            source,
            file,
            file_len,
            limit: file_len.min(limits.header_len_max.get()),
            header_len_max: limits.header_len_max,
            at: 0,
            window: Vec::new(),
            window_at: 0,
        })
    }

    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    pub(super) const fn file_len(&self) -> ByteLen {
        ByteLen::new(self.file_len)
    }

    /// The error for a rule that the file breaks.
    pub(super) fn refuse(&self, problem: GgufProblem) -> ModelError {
        ModelError::Gguf { file: self.file.to_owned(), problem: Box::new(problem) }
    }

    /// Refuses `len` bytes that neither the file nor the longest accepted header has.
    fn prove(&self, len: u64) -> Result<u64, ModelError> {
        let (at, wanted, file_len) = (self.at, ByteLen::new(len), self.file_len());
        let cut = || self.refuse(GgufProblem::Cut { at, wanted, file_len });
        let end = at.checked_add(len).ok_or_else(cut)?;
        if end > self.file_len {
            return Err(cut());
        }
        if end > self.limit {
            return Err(self.refuse(GgufProblem::HeaderTooLong { max: self.header_len_max }));
        }
        Ok(end)
    }

    /// Refuses a count of things that take at least `each` bytes and that the file is too short for.
    pub(super) fn prove_count(
        &self,
        what: &'static str,
        count: u64,
        each: u64,
    ) -> Result<(), ModelError> {
        let left = self.file_len.saturating_sub(self.at);
        if count.checked_mul(each).is_some_and(|least| least <= left) {
            return Ok(());
        }
        let (at, file_len) = (self.at, self.file_len());
        Err(self.refuse(GgufProblem::CountBeyondFile { what, count, at, file_len }))
    }

    /// Goes on by `len` bytes without reading them.
    pub(super) fn skip(&mut self, len: u64) -> Result<(), ModelError> {
        self.at = self.prove(len)?;
        Ok(())
    }

    /// The next bytes, a fixed number of them.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ModelError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ModelError> {
        self.array().map(u64::from_le_bytes)
    }

    /// The bytes of a text, whose length comes first.
    pub(super) fn text(&mut self) -> Result<Vec<u8>, ModelError> {
        let len = self.u64()?;
        self.bytes(len)
    }

    /// A text whose content does not matter.
    pub(super) fn skip_text(&mut self) -> Result<(), ModelError> {
        let len = self.u64()?;
        self.skip(len)
    }

    /// A key or a name: UTF-8, within the limit.
    pub(super) fn name(&mut self, what: &'static str, max: usize) -> Result<String, ModelError> {
        let at = self.at;
        let len = self.u64()?;
        if usize::try_from(len).map_or(true, |len| len > max) {
            return Err(self.refuse(GgufProblem::NameTooLong { what, at, len, max }));
        }
        let bytes = self.bytes(len)?;
        String::from_utf8(bytes).map_err(|_not_text| self.refuse(GgufProblem::NotText { what, at }))
    }

    fn bytes(&mut self, len: u64) -> Result<Vec<u8>, ModelError> {
        self.prove(len)?;
        let no_memory =
            || ModelError::HostMemory { file: self.file.to_owned(), wanted: ByteLen::new(len) };
        let count = usize::try_from(len).map_err(|_too_large| no_memory())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(count).map_err(|_no_memory| no_memory())?;
        bytes.resize(count, 0);
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Fills `target`, from the window or, if it is longer than one, from the source.
    pub(super) fn fill(&mut self, target: &mut [u8]) -> Result<(), ModelError> {
        let end = self.prove(ByteLen::from_usize(target.len()).get())?;
        if target.len() >= WINDOW {
            self.read(self.at, target)?;
        } else if !target.is_empty() {
            if self.held(target.len()).is_none() {
                self.read_ahead()?;
            }
            let held = self.held(target.len()).unwrap_or_default();
            // As long as the target: the file has these bytes, and a window is longer.
            for (byte, read) in target.iter_mut().zip(held) {
                *byte = *read;
            }
        }
        self.at = end;
        Ok(())
    }

    /// The next `len` bytes, if the window has all of them.
    fn held(&self, len: usize) -> Option<&[u8]> {
        let skipped = usize::try_from(self.at.checked_sub(self.window_at)?).ok()?;
        self.window.get(skipped..)?.get(..len)
    }

    fn read_ahead(&mut self) -> Result<(), ModelError> {
        let left = self.file_len.saturating_sub(self.at);
        let len = usize::try_from(left).unwrap_or(WINDOW).min(WINDOW);
        let mut window = core::mem::take(&mut self.window);
        window.resize(len, 0);
        self.read(self.at, &mut window)?;
        self.window = window;
        self.window_at = self.at;
        Ok(())
    }

    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), ModelError> {
        let wanted = ByteLen::from_usize(target.len());
        let file = self.file;
        self.source.read_exact_at(offset, target).map_err(|source| ModelError::Read {
            file: file.to_owned(),
            offset,
            wanted,
            source,
        })
    }
}
