//! Sources return exactly the bytes that they declared, or an error with the reason.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use vram_residency::{FileSource, ReaderSource, SliceSource, Source, SourceError};

fn file_of(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    File::create(&path).unwrap().write_all(bytes).unwrap();
    (folder, path)
}

fn all_of(source: &impl Source) -> Result<Vec<u8>, SourceError> {
    let mut bytes = vec![0; usize::try_from(source.len()).unwrap()];
    source.read_at(0, &mut bytes)?;
    source.finish()?;
    Ok(bytes)
}

#[test]
fn every_kind_gives_the_same_bytes() {
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let (_folder, path) = file_of(&bytes);
    assert_eq!(all_of(&SliceSource::new(&bytes)).unwrap(), bytes);
    assert_eq!(all_of(&FileSource::open(&path).unwrap()).unwrap(), bytes);
    assert_eq!(all_of(&ReaderSource::new(&bytes[..], 5000)).unwrap(), bytes);
}

#[test]
fn ranges_of_a_file_nest_and_never_reach_outside() {
    let bytes: Vec<u8> = (0..100).collect();
    let (_folder, path) = file_of(&bytes);
    let file = FileSource::open(&path).unwrap();
    let middle = file.range(10, 50).unwrap();
    let inner = middle.range(5, 10).unwrap();
    assert_eq!(all_of(&inner).unwrap(), &bytes[15..25]);
    assert_eq!(all_of(&middle.range(50, 0).unwrap()).unwrap(), b"");
    for (offset, len) in [(0, 51), (51, 0), (50, 1), (u64::MAX, 1), (1, u64::MAX)] {
        assert!(
            matches!(middle.range(offset, len), Err(SourceError::NoSuchBytes { .. })),
            "{offset} {len}"
        );
    }
    let mut byte = [0];
    for offset in [50, 90, u64::MAX] {
        assert!(matches!(middle.read_at(offset, &mut byte), Err(SourceError::NoSuchBytes { .. })));
    }
}

#[test]
fn a_file_that_shrinks_or_grows_meanwhile_is_noticed() {
    let (_folder, path) = file_of(&[7; 4096]);
    let source = FileSource::open(&path).unwrap();
    let mut half = [0; 2048];
    source.read_at(0, &mut half).unwrap();

    let writer = File::options().write(true).open(&path).unwrap();
    writer.set_len(3000).unwrap();
    match source.read_at(2048, &mut half) {
        Err(SourceError::Short { declared: 4096, found: 3000, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(source.finish(), Err(SourceError::Short { .. })));
    writer.set_len(4097).unwrap();
    assert!(matches!(source.finish(), Err(SourceError::Long { declared: 4096, .. })));
}

#[test]
fn what_is_no_regular_file_is_refused_in_words_and_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    match FileSource::open(folder.path()) {
        Err(error @ SourceError::NotAFile { .. }) => {
            assert!(error.to_string().contains("is a folder"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(FileSource::open("/dev/null"), Err(SourceError::NotAFile { .. })));
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(matches!(FileSource::open(&fifo), Err(SourceError::NotAFile { .. })));
    let missing = folder.path().join("missing");
    let error = FileSource::open(&missing).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn a_reader_of_another_length_than_declared_is_refused() {
    let bytes = [1_u8; 100];
    assert!(matches!(
        all_of(&ReaderSource::new(&bytes[..], 101)),
        Err(SourceError::Short { declared: 101, found: 100, .. })
    ));
    assert!(matches!(
        all_of(&ReaderSource::new(&bytes[..], 99)),
        Err(SourceError::Long { declared: 99, .. })
    ));
    assert!(all_of(&ReaderSource::new(&bytes[..0], 0)).is_ok());
}

#[test]
fn a_reader_is_read_in_order_only() {
    let source = ReaderSource::new(&[1_u8; 100][..], 100);
    let mut ten = [0; 10];
    source.read_at(0, &mut ten).unwrap();
    assert!(matches!(source.read_at(0, &mut ten), Err(SourceError::NoSuchBytes { .. })));
    assert!(matches!(source.read_at(20, &mut ten), Err(SourceError::NoSuchBytes { .. })));
    source.read_at(10, &mut ten).unwrap();
}

/// Returns one byte a call, and is interrupted in every other call.
struct Reluctant {
    left: u8,
    interrupt: bool,
}

impl Read for Reluctant {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.left == 0 {
            return Ok(0);
        }
        target[0] = self.left;
        self.left -= 1;
        Ok(1)
    }
}

#[test]
fn short_and_interrupted_reads_are_put_together() {
    let source = ReaderSource::new(Reluctant { left: 5, interrupt: false }, 5);
    assert_eq!(all_of(&source).unwrap(), [5, 4, 3, 2, 1]);
}

struct Liar;

impl Read for Liar {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        Ok(target.len() + 1)
    }
}

#[test]
fn a_reader_that_reports_too_much_is_an_error_and_no_panic() {
    assert!(matches!(all_of(&ReaderSource::new(Liar, 5)), Err(SourceError::Io { .. })));
}
