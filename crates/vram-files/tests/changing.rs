//! Files that change while they are read: every write is seen, whatever the file's length is after it.
//!
//! Each test lets a thread act on the file while the call is in the middle of it: a callback of the
//! call wakes that thread, and waits for it.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, on figures of its own"
)]

#[macro_use]
extern crate vram_testkit;

use core::time::Duration;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use vram_files::{
    Expected, ExpectedDigest, FileError, FilePool, FileSource, ImageOptions, KeyRing, ReaderSource,
    SealContext, SealKey, SealParams, Source, SourceError, inspect_image, seal_image, unseal_image,
    unseal_image_to, verify_image,
};
use vram_seal::{ContentHasher, HashKind, SegmentSize, SivScope, Threads};

const LEN: usize = 10 * 4096 + 5;

/// What another process does to a file.
type Act = fn(&Path);

/// Any of the sources below.
type Any<'a> = &'a dyn Source;

/// Longer than a tick of the clock of a kernel: what is written after it has another time.
fn tick() {
    std::thread::sleep(Duration::from_millis(25));
}

fn rewrite(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    // The last bytes, which the call has not read yet.
    file.write_all_at(b"other", u64::try_from(LEN).unwrap() - 5).unwrap();
}

fn rewrite_and_set_back(path: &Path) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    rewrite(path);
    OpenOptions::new().write(true).open(path).unwrap().set_modified(before).unwrap();
}

fn rewrite_set_back_and_link(path: &Path) {
    rewrite_and_set_back(path);
    let link = path.with_extension("link");
    let _ = fs::remove_file(&link);
    fs::hard_link(path, link).unwrap();
}

fn touch(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
}

/// Writes bytes that were read already as they are: nothing was lost, but the call cannot know.
fn write_the_same(path: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 4096).unwrap();
    file.write_all_at(&byte, 4096).unwrap();
}

fn append(path: &Path) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
}

fn cut(path: &Path) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(9).unwrap();
}

fn replace(path: &Path) {
    let new = path.with_extension("new");
    fs::write(&new, vec![b'n'; LEN]).unwrap();
    fs::rename(new, path).unwrap();
}

fn delete(path: &Path) {
    fs::remove_file(path).unwrap();
}

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the test's content, old enough that a write shows.
    fn file(&self) -> PathBuf {
        let path = self.path("weights");
        fs::write(&path, content()).unwrap();
        tick();
        path
    }

    fn image(&self) -> PathBuf {
        let (file, path) = (self.file(), self.path("image"));
        let _ = fs::remove_file(&path);
        let source = FileSource::open(file).unwrap();
        seal_image(&key(), &context(), params(SivScope::Segment), &source, &path, options())
            .unwrap();
        tick();
        path
    }
}

fn content() -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(LEN).collect()
}

fn key() -> SealKey {
    SealKey::from_bytes(&[7; 32])
}

fn ring() -> KeyRing {
    KeyRing::new(key())
}

fn context() -> SealContext<'static> {
    SealContext::new("m").unwrap()
}

fn params(scope: SivScope) -> SealParams {
    SealParams::new().with_segment(SegmentSize::MIN).with_scope(scope)
}

fn options<'a>() -> ImageOptions<'a> {
    ImageOptions::new().threads(Threads::exactly(1))
}

/// Options whose callback lets another thread act on `path` once, when about `percent` of the bytes
/// are done, and goes on when it has.
fn acting(path: &Path, act: Act, percent: u64) -> ImageOptions<'static> {
    let (ask, asked) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel::<()>();
    let path = path.to_owned();
    std::thread::spawn(move || {
        if asked.recv().is_ok() {
            act(&path);
            answer.send(()).unwrap();
        }
    });
    let mut ask = Some(ask);
    options().progress(move |progress| {
        if progress.done * 100 >= progress.total * percent
            && let Some(ask) = ask.take()
        {
            ask.send(()).unwrap();
            answered.recv().unwrap();
        }
    })
}

/// Seals `source` while `act` is done to its file.
fn seal(
    bench: &Bench,
    source: &dyn Source,
    scope: SivScope,
    options: ImageOptions<'_>,
) -> Result<(), FileError> {
    let target = bench.path("sealed");
    let sealed = seal_image(&key(), &context(), params(scope), source, &target, options).map(drop);
    assert_eq!(target.exists(), sealed.is_ok());
    let _ = fs::remove_file(target);
    sealed
}

#[track_caller]
fn assert_changed(answer: Result<(), FileError>, path: &Path, words: &[&str]) {
    let error = answer.unwrap_err();
    assert!(matches!(&error, FileError::Source(SourceError::Changed { .. })), "{error}");
    assert!(error.is_integrity());
    let shown = error.to_string();
    for word in words.iter().chain(&[path.to_str().unwrap(), "nothing writes it"]) {
        assert!(shown.contains(word), "{word:?} is not in {shown:?}");
    }
}

#[test]
fn a_source_that_is_written_in_place_while_it_is_read_is_refused_though_its_length_is_the_same() {
    let bench = Bench::new();
    let acts: [(Act, &str); 4] = [
        (rewrite, "modification time and its change time"),
        (rewrite_and_set_back, "its change time is"),
        (rewrite_set_back_and_link, "its change time is"),
        (touch, "its modification time"),
    ];
    for (act, words) in acts {
        for scope in [SivScope::Segment, SivScope::Shard] {
            let path = bench.file();
            let source = FileSource::open(&path).unwrap();
            let sealed = seal(&bench, &source, scope, acting(&path, act, 40));
            assert_changed(sealed, &path, &[words]);
        }
    }
    // Between the two passes of scope Shard, the content is compared as well.
    let path = bench.file();
    let source = FileSource::open(&path).unwrap();
    let sealed = seal(&bench, &source, SivScope::Shard, acting(&path, rewrite, 60));
    assert!(matches!(sealed, Err(FileError::SourceChanged { segment: 10, .. })), "{sealed:?}");
}

#[test]
fn a_source_that_was_written_between_its_opening_and_the_call_is_refused() {
    let bench = Bench::new();
    let path = bench.file();
    let whole = FileSource::open(&path).unwrap();
    let pooled = FileSource::open(&path).unwrap().in_pool(&FilePool::new(1));
    let part = whole.range(4096, 4096).unwrap();
    let reader = ReaderSource::of_file(File::open(&path).unwrap(), path.to_str().unwrap()).unwrap();
    rewrite(&path);
    let sources: [Any<'_>; 4] = [&whole, &pooled, &part, &reader];
    for source in sources {
        assert_changed(seal(&bench, source, SivScope::Segment, options()), &path, &["time"]);
    }
}

#[test]
fn a_source_that_grows_or_shrinks_is_refused_with_both_lengths() {
    let bench = Bench::new();
    let acts: [Act; 2] = [append, cut];
    for act in acts {
        for scope in [SivScope::Segment, SivScope::Shard] {
            let path = bench.file();
            let source = FileSource::open(&path).unwrap();
            let sealed = seal(&bench, &source, scope, acting(&path, act, 40));
            assert!(matches!(sealed, Err(FileError::SourceLength { .. })), "{sealed:?}");
        }
    }
}

#[test]
fn a_source_that_is_replaced_or_deleted_is_read_from_the_file_that_was_opened() {
    let bench = Bench::new();
    let acts: [Act; 2] = [replace, delete];
    for act in acts {
        for scope in [SivScope::Segment, SivScope::Shard] {
            let path = bench.file();
            let source = FileSource::open(&path).unwrap();
            let target = bench.path("image");
            let options = acting(&path, act, 40);
            let report = seal_image(&key(), &context(), params(scope), &source, &target, options);
            let digest = ContentHasher::digest(HashKind::Blake3, &content());
            assert_eq!(report.unwrap().digest, digest);
            fs::remove_file(target).unwrap();
        }
    }
}

#[test]
fn what_has_the_expected_digest_is_accepted_whatever_happened_to_its_file() {
    let bench = Bench::new();
    for kind in [HashKind::Blake3, HashKind::Sha256] {
        let expected = ExpectedDigest::new(kind, ContentHasher::digest(kind, &content()));
        for scope in [SivScope::Segment, SivScope::Shard] {
            let path = bench.file();
            let source = FileSource::open(&path).unwrap();
            let touched = acting(&path, touch, 40).expect_digest(expected);
            seal(&bench, &source, scope, touched).unwrap();
            // A write that changes the content is told as that, not as another digest.
            let path = bench.file();
            let source = FileSource::open(&path).unwrap();
            let rewritten = acting(&path, rewrite, 40).expect_digest(expected);
            let sealed = seal(&bench, &source, scope, rewritten);
            assert_changed(sealed, &path, &["modification time"]);
        }
        let image = bench.image();
        let touched = || acting(&image, touch, 40).expect_digest(expected);
        let out = bench.path("out");
        unseal_image(&ring(), &Expected::new("m").unwrap(), &image, &out, touched()).unwrap();
        fs::remove_file(out).unwrap();
        verify_image(&ring(), &Expected::new("m").unwrap(), &image, touched()).unwrap();
    }
}

#[test]
fn an_image_that_is_written_while_it_is_read_is_refused_and_nothing_is_written() {
    let bench = Bench::new();
    let expected = Expected::new("m").unwrap();
    let acts: [Act; 3] = [touch, append, write_the_same];
    for act in acts {
        let image = bench.image();
        let out = bench.path("out");
        let unsealed = unseal_image(&ring(), &expected, &image, &out, acting(&image, act, 40));
        assert_changed(unsealed.map(drop), &image, &["modification time"]);
        assert!(!out.exists());

        let image = bench.image();
        let verified = verify_image(&ring(), &expected, &image, acting(&image, act, 40));
        assert_changed(verified.map(drop), &image, &["modification time"]);

        let image = bench.image();
        let mut sink = Vec::new();
        let written =
            unseal_image_to(&ring(), &expected, &image, &mut sink, acting(&image, act, 20));
        assert_changed(written.map(drop), &image, &["modification time"]);
        assert!(sink.is_empty());
        // After the first pass each segment is compared with what that pass found.
        let image = bench.image();
        unseal_image_to(&ring(), &expected, &image, &mut sink, acting(&image, act, 60)).unwrap();
        assert_eq!(sink, content());
    }
    let image = bench.image();
    let replaced = acting(&image, replace, 40);
    verify_image(&ring(), &expected, &image, replaced).unwrap();
    inspect_image(&bench.image()).unwrap();
}

/// A reader that lets `act` happen after the first bytes.
struct Interrupted<R> {
    reader: R,
    act: Option<Box<dyn FnOnce() + Send>>,
}

impl<R: Read> Read for Interrupted<R> {
    fn read(&mut self, target: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(target)?;
        if let Some(act) = self.act.take() {
            act();
        }
        Ok(count)
    }
}

#[test]
fn a_reader_that_is_a_file_is_watched_as_a_file_is_and_another_one_is_not() {
    let bench = Bench::new();
    let path = bench.file();
    let open = || {
        let mut file = File::open(&path).unwrap();
        file.seek(SeekFrom::Start(5)).unwrap();
        file
    };
    let name = path.to_str().unwrap();
    let source = ReaderSource::of_file(open(), name).unwrap();
    assert_eq!(source.len(), u64::try_from(LEN).unwrap() - 5);
    let sealed = seal(&bench, &source, SivScope::Segment, acting(&path, rewrite, 40));
    assert_changed(sealed, &path, &["modification time"]);
    let quiet = ReaderSource::of_file(open(), name).unwrap();
    seal(&bench, &quiet, SivScope::Segment, options()).unwrap();
    assert!(ReaderSource::of_file(File::from(pipe()), "a pipe").is_err());

    let act = {
        let path = path.clone();
        Box::new(move || touch(&path))
    };
    let reader = Interrupted { reader: open(), act: Some(act) };
    let unknown = ReaderSource::new(reader, u64::try_from(LEN).unwrap() - 5);
    seal(&bench, &unknown, SivScope::Segment, options()).unwrap();
}

fn pipe() -> std::os::fd::OwnedFd {
    std::io::pipe().unwrap().0.into()
}
