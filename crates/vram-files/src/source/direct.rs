//! Reads past the page cache of the kernel: `O_DIRECT`, as `open(2)` has it.

use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::sync::{Mutex, lock};

/// Addresses, positions and lengths of these reads are multiples of it. Drives want 512 or 4096.
const ALIGN: usize = 4096;
/// Bytes of one read at most: long enough for a drive, short enough to be copied from the cache.
const LEN_MAX: usize = 1 << 20;

/// How files are read past the page cache. Clones share buffers, and what the file system said.
#[derive(Clone, Debug, Default)]
pub(super) struct Direct {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The file system has no such reads: the files are read as others are.
    refused: AtomicBool,
    /// As many as threads have read at once.
    idle: Mutex<Vec<Aligned>>,
}

/// A buffer that begins at a multiple of [`ALIGN`]. Wiped when it is dropped.
struct Aligned {
    room: Zeroizing<Vec<u8>>,
    /// Bytes that are left out at its start.
    lead: usize,
}

impl Direct {
    /// Makes reads of an open file direct, which no other source has open.
    pub(super) fn begin(&self, file: &File) {
        if !self.is_refused() && set(file, true).is_err() {
            self.shared.refused.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the file system has no such reads, as far as is known.
    pub(super) fn is_refused(&self) -> bool {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// As `FileExt::read_exact_at`.
    pub(super) fn read_exact_at(
        &self,
        file: &File,
        mut target: &mut [u8],
        mut position: u64,
    ) -> io::Result<()> {
        while !target.is_empty() {
            match self.read_at(file, target, position) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    target = target.get_mut(count..).unwrap_or_default();
                    position = position.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// As `FileExt::read_at`.
    pub(super) fn read_at(
        &self,
        file: &File,
        target: &mut [u8],
        position: u64,
    ) -> io::Result<usize> {
        if self.is_refused() {
            return plain(file, target, position);
        }
        let align = u64::try_from(ALIGN).unwrap_or(1);
        let skip = position.checked_rem(align).unwrap_or(0);
        let start = position.saturating_sub(skip);
        let skip = usize::try_from(skip).unwrap_or(0);
        let len = skip.saturating_add(target.len()).min(LEN_MAX).next_multiple_of(ALIGN);
        let mut buffer = self.take()?;
        let bytes = buffer.get_mut(len);
        let read = file.read_at(bytes, start);
        let outcome = match read {
            Ok(count) => {
                let found = bytes.get(skip..count).unwrap_or_default();
                let count = found.len().min(target.len());
                if let (Some(to), Some(from)) = (target.get_mut(..count), found.get(..count)) {
                    to.copy_from_slice(from);
                }
                Ok(count)
            }
            // Some file systems take the flag, and then no read.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.shared.refused.store(true, Ordering::Relaxed);
                plain(file, target, position)
            }
            Err(error) => Err(error),
        };
        lock(&self.shared.idle).push(buffer);
        outcome
    }

    fn take(&self) -> io::Result<Aligned> {
        let idle = lock(&self.shared.idle).pop();
        idle.map_or_else(Aligned::new, Ok)
    }
}

impl Aligned {
    fn new() -> io::Result<Self> {
        let mut room = Vec::new();
        let len = LEN_MAX.saturating_add(ALIGN);
        room.try_reserve_exact(len).map_err(|_full| io::ErrorKind::OutOfMemory)?;
        room.resize(len, 0);
        let lead = room.as_ptr().align_offset(ALIGN).min(ALIGN);
        Ok(Self { room: Zeroizing::new(room), lead })
    }

    fn get_mut(&mut self, len: usize) -> &mut [u8] {
        let end = self.lead.saturating_add(len);
        self.room.get_mut(self.lead..end).unwrap_or_default()
    }
}

impl core::fmt::Debug for Aligned {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Aligned").field("lead", &self.lead).finish_non_exhaustive()
    }
}

/// Reads through the page cache, from a file that may have been opened past it.
fn plain(file: &File, target: &mut [u8], position: u64) -> io::Result<usize> {
    set(file, false)?;
    file.read_at(target, position)
}

/// Sets or clears the flag, if it is not so already.
fn set(file: &File, direct: bool) -> io::Result<()> {
    let flags = fcntl_getfl(file)?;
    if flags.contains(OFlags::DIRECT) != direct {
        let mut wanted = flags;
        wanted.set(OFlags::DIRECT, direct);
        fcntl_setfl(file, wanted)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use crate::source::{FilePool, FileSource, Source as _, SourceError};

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]).collect()
    }

    /// Bytes that this process had a drive read, where the system counts them.
    fn read_from_drive() -> Option<u64> {
        let text = fs::read_to_string("/proc/self/io").ok()?;
        text.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok())
    }

    #[test]
    fn direct_reads_give_the_same_bytes_wherever_they_begin_and_end() {
        let folder = tempfile::tempdir().unwrap();
        // A second folder in memory: where a file system refuses, files are read as ever.
        let folders = [folder.path(), Path::new("/dev/shm")];
        for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
            for len in [0, 1, 4095, 4096, 4097, (3 << 20) + 5] {
                let file = tempfile::NamedTempFile::new_in(folder).unwrap();
                let bytes = content(len);
                fs::write(&file, &bytes).unwrap();
                let plain = FileSource::open(file.path()).unwrap();
                let pooled = plain.clone().in_pool(&FilePool::new(1)).direct().unwrap();
                for source in [plain.clone().direct().unwrap(), pooled] {
                    for (from, to) in
                        [(0, len), (1, len), (4095, 4097), (4096, 8192), (len / 3, len / 2), (0, 1)]
                    {
                        let (from, to) = (from.min(len), to.min(len));
                        let Some(wanted) = bytes.get(from..to) else { continue };
                        let mut found = vec![0xee; wanted.len()];
                        source.read_at(u64::try_from(from).unwrap(), &mut found).unwrap();
                        assert!(found == wanted, "{from}..{to} of {len}");
                    }
                    source.finish().unwrap();
                }
                // The source that it was made of goes on.
                let mut found = vec![0; len.min(5)];
                plain.read_at(u64::try_from(len.min(3)).unwrap(), &mut []).unwrap();
                plain.read_at(0, &mut found).unwrap();
                assert_eq!(found, bytes[..len.min(5)]);
            }
        }
    }

    #[test]
    fn a_direct_read_asks_the_drive_each_time_and_keeps_nothing_in_the_page_cache() {
        const LEN: usize = 4 << 20;
        /// As `linux/magic.h` has it.
        const TMPFS: u32 = 0x0102_1994;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, content(LEN)).unwrap();
        fs::File::open(&path).unwrap().sync_all().unwrap();
        // A file system in memory takes the flag, and has no drive to ask.
        let kind = rustix::fs::statfs(&path).unwrap().f_type;
        let in_memory = u32::try_from(kind) == Ok(TMPFS);
        let source = FileSource::open(&path).unwrap().direct().unwrap();
        let mut target = vec![0; LEN];
        for turn in 0..2 {
            let before = read_from_drive();
            source.read_at(0, &mut target).unwrap();
            let (Some(before), Some(after)) = (before, read_from_drive()) else { return };
            if source.is_past_page_cache() && !in_memory {
                assert!(after - before >= u64::try_from(LEN).unwrap(), "turn {turn}");
            }
        }
        assert!(target == content(LEN));
    }

    #[test]
    fn a_direct_source_refuses_what_any_source_of_a_file_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let opened = |len: usize| {
            fs::write(&path, content(len)).unwrap();
            FileSource::open(&path).unwrap()
        };
        let source = opened(10_000).direct().unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
        let short = source.read_at(4000, &mut [0; 3000]).unwrap_err();
        assert!(
            matches!(short, SourceError::Short { declared: 10_000, found: 5000, .. }),
            "{short}"
        );
        assert!(source.finish().is_err());
        let grows = opened(4096).direct().unwrap();
        fs::write(&path, content(4097)).unwrap();
        assert!(matches!(grows.finish(), Err(SourceError::Long { .. })));
        // Another file lies there now: it is not the one that was opened.
        let gone = opened(10);
        fs::remove_file(&path).unwrap();
        fs::write(&path, content(10)).unwrap();
        assert!(gone.direct().is_err());
    }
}
