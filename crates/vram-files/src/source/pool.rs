//! Files that are opened when they are read: more of them than a process may have open at once.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};

use super::SourceError;
use crate::sync::{Mutex, lock};

/// Most files that a pool keeps open by default.
const OPEN_MAX: u64 = 64;

/// Keeps the files that were read last open, up to a number. A source in a pool opens its file again
/// when it is read and the pool has closed it meanwhile.
///
/// Clones share the pool.
#[derive(Clone, Debug)]
pub struct FilePool {
    max: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    /// The numbers of the sources and their files; the one that was used last is at the end.
    files: VecDeque<(u64, Arc<File>)>,
    next: u64,
}

impl FilePool {
    /// A pool that keeps up to `max` files open, and at least one. A file that a thread reads at this
    /// moment may be open in addition.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), open: Arc::default() }
    }

    /// A pool that leaves most descriptors to others: a quarter of those that this process may have
    /// open (`RLIMIT_NOFILE`), 64 at most.
    #[must_use]
    pub fn within_limit() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let quarter = limit.checked_div(4).unwrap_or(0);
        Self::new(usize::try_from(quarter.min(OPEN_MAX)).unwrap_or(1))
    }

    /// Takes an open file, and returns its number in the pool.
    pub(super) fn add(&self, file: Arc<File>) -> u64 {
        let mut open = lock(&self.open);
        let number = open.next;
        open.next = number.saturating_add(1);
        drop(open);
        self.keep(number, file);
        number
    }

    /// The file with this number; `reopen` is called without any lock if the pool has closed it.
    pub(super) fn get(
        &self,
        number: u64,
        reopen: impl FnOnce() -> Result<File, SourceError>,
    ) -> Result<Arc<File>, SourceError> {
        let mut open = lock(&self.open);
        if let Some(at) = open.files.iter().position(|(known, _)| *known == number)
            && let Some(found) = open.files.remove(at)
        {
            let file = Arc::clone(&found.1);
            open.files.push_back(found);
            return Ok(file);
        }
        drop(open);
        let file = Arc::new(reopen()?);
        self.keep(number, Arc::clone(&file));
        Ok(file)
    }

    fn keep(&self, number: u64, file: Arc<File>) {
        let mut open = lock(&self.open);
        open.files.push_back((number, file));
        // Closed after the lock is released: closing a file can take long on a network.
        let count = open.files.len().saturating_sub(self.max);
        let _closed: Vec<_> = open.files.drain(..count).collect();
        drop(open);
    }

    #[cfg(test)]
    fn open_count(&self) -> usize {
        lock(&self.open).files.len()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{FileSource, Source as _};
    use super::*;

    #[test]
    fn a_pool_keeps_no_more_files_open_than_it_may_and_each_source_reads_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let pool = FilePool::new(3);
        let sources: Vec<FileSource> = (0..20_u8)
            .map(|number| {
                let path = folder.path().join(number.to_string());
                fs::write(&path, [number; 9]).unwrap();
                FileSource::open(path).unwrap().in_pool(&pool)
            })
            .collect();
        for round in 0..3 {
            for (number, source) in (0_u8..).zip(&sources) {
                let mut target = [0xff; 9];
                source.read_at(0, &mut target).unwrap();
                assert_eq!(target, [number; 9], "{round}");
                assert!(pool.open_count() <= 3);
            }
        }
        for source in &sources {
            source.finish().unwrap();
        }
        // A clone and a range share the file with the source that they were made of.
        let range = sources[4].clone().range(2, 3).unwrap();
        range.finish().unwrap();
        assert!(FilePool::new(0).max == 1 && FilePool::within_limit().max >= 1);
    }

    #[test]
    fn a_file_that_is_opened_again_must_be_the_one_that_was_opened_first() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let pool = FilePool::new(1);
        let open = |name: &str| FileSource::open(at(name)).unwrap().in_pool(&pool);
        fs::write(at("a"), b"first").unwrap();
        fs::write(at("b"), b"other").unwrap();
        let (first, _closes_the_first) = (open("a"), open("b"));
        fs::write(at("new"), b"lasts").unwrap();
        fs::rename(at("new"), at("a")).unwrap();
        let error = first.read_at(0, &mut [0; 5]).unwrap_err();
        assert!(error.is_change() && error.to_string().contains("another file"), "{error}");
        assert!(error.to_string().contains(&at("a").display().to_string()), "{error}");
        fs::remove_file(at("a")).unwrap();
        assert!(matches!(first.read_at(0, &mut [0; 5]), Err(SourceError::Io { .. })));
    }
}
