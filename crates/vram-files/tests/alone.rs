//! The crate used alone, as a publisher uses it: no manager, no device.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_files::{
    CancelToken, Feed, FileError, FileSource, ImageOptions, ImageReport, Inputs, KeySource,
    KeySourceError, Overwrite, PlainImage, ReaderSource, SliceSource, Source, WholeFile,
    create_key_file, inspect_image, seal_image, seal_image_to, unseal_image, unseal_image_to,
    verify_image,
};
use vram_seal::{
    Expected, KeyError, KeyRing, OpenLimits, Protection, SealContext, SealKey, SealParams,
    SegmentSize, SivScope, open_record_in,
};

const MODEL: &str = "llama-3-8b";

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

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn key() -> SealKey {
    SealKey::from_bytes(&[7; 32])
}

fn ring() -> KeyRing {
    KeyRing::new(key())
}

fn params() -> SealParams {
    SealParams::new().with_segment(SegmentSize::MIN).with_scope(SivScope::Segment)
}

fn expected() -> Expected<'static> {
    Expected::new(MODEL).unwrap()
}

fn content(len: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(len).collect()
}

fn seal(source: &dyn Source, target: &Path) -> Result<ImageReport, FileError> {
    let context = SealContext::new(MODEL).unwrap();
    seal_image(&key(), &context, params(), source, target, ImageOptions::new())
}

#[test]
fn every_kind_of_source_gives_the_same_image_and_the_image_gives_the_source_back() {
    let bench = Bench::new();
    let bytes = content(50_001);
    fs::write(bench.path("source"), &bytes).unwrap();
    let file = FileSource::open(bench.path("source")).unwrap();
    let reader = ReaderSource::new(&bytes[..], file.len());
    let slice = SliceSource::new(&bytes);
    let sources: [&dyn Source; 3] = [&file, &reader, &slice];
    let mut images = sources.map(|source| {
        seal(source, &bench.path("image")).unwrap();
        let image = fs::read(bench.path("image")).unwrap();
        fs::remove_file(bench.path("image")).unwrap();
        image
    });
    images.sort();
    let [first, .., last] = images;
    assert!(first == last);

    let context = SealContext::new(MODEL).unwrap();
    let mut written = Vec::new();
    let report =
        seal_image_to(&key(), &context, params(), &slice, &mut written, ImageOptions::new());
    assert!(written == first);
    fs::write(bench.path("image"), written).unwrap();
    assert_eq!(inspect_image(&bench.path("image")).unwrap().record, report.unwrap().record);
    let (image, copy) = (bench.path("image"), bench.path("copy"));
    unseal_image(&ring(), &expected(), &image, &copy, ImageOptions::new()).unwrap();
    assert!(fs::read(&copy).unwrap() == bytes);
    let mut out = Vec::new();
    unseal_image_to(&ring(), &expected(), &image, &mut out, ImageOptions::new()).unwrap();
    assert!(out == bytes);
    assert_eq!(bench.names(), ["copy", "image", "source"]);
}

#[test]
fn an_altered_segment_is_named_and_no_byte_of_the_content_is_released() {
    let bench = Bench::new();
    let image = bench.path("image");
    seal(&SliceSource::new(&content(40_000)), &image).unwrap();
    let mut bytes = fs::read(&image).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&image, bytes).unwrap();
    let verdict = verify_image(&ring(), &expected(), &image, ImageOptions::new()).unwrap();
    let altered: Vec<_> = verdict.altered.iter().map(|one| (one.segment, one.start)).collect();
    assert_eq!((verdict.is_sound(), altered), (false, vec![(9, 36_864)]));
    let mut out = Vec::new();
    let to_writer = unseal_image_to(&ring(), &expected(), &image, &mut out, ImageOptions::new());
    let to_file =
        unseal_image(&ring(), &expected(), &image, &bench.path("out"), ImageOptions::new());
    for refused in [to_writer, to_file] {
        let refused = refused.unwrap_err();
        assert!(refused.is_integrity() && matches!(refused, FileError::Image { .. }), "{refused}");
    }
    assert!(out.is_empty());
    assert_eq!(bench.names(), ["image"]);
}

#[test]
fn an_image_is_read_as_plaintext_range_by_range() {
    let bench = Bench::new();
    let bytes = content(10_000);
    seal(&SliceSource::new(&bytes), &bench.path("image")).unwrap();
    let keys = ring();
    let limits = OpenLimits::default();
    let plain = PlainImage::open(&bench.path("image"), |record| {
        open_record_in(&keys, record, &expected(), limits)
    })
    .unwrap();
    assert_eq!((plain.len().get(), plain.segment_len().get()), (10_000, 4096));
    let (start, len) = (ByteOffset::new(4096), ByteLen::new(10_000 - 4096));
    let range = ByteRange::checked(start, len, plain.len()).unwrap();
    let mut target = vec![0; 10_000 - 4096];
    plain.fill(range, &mut target).unwrap();
    assert!(target == bytes[4096..]);
}

#[test]
fn a_key_file_is_created_once_and_gives_its_key_back() {
    let bench = Bench::new();
    create_key_file(&bench.path("key"), &key()).unwrap();
    assert_eq!(KeySource::File(bench.path("key")).load().unwrap().id(), key().id());
    assert!(create_key_file(&bench.path("key"), &SealKey::random().unwrap()).is_err());
    assert_eq!(KeySource::File(bench.path("key")).load().unwrap().id(), key().id());
}

#[test]
fn a_cancelled_call_says_how_far_it_came_and_leaves_no_file() {
    let bench = Bench::new();
    let token = CancelToken::new();
    token.cancel();
    let context = SealContext::new(MODEL).unwrap();
    let options = ImageOptions::new().cancel(token);
    let bytes = content(9000);
    let source = SliceSource::new(&bytes);
    let params = params().with_protection(Protection::Authenticated);
    match seal_image(&key(), &context, params, &source, &bench.path("image"), options) {
        Err(FileError::Cancelled { done, total }) => {
            assert_eq!((done.get(), total.get()), (0, 9000));
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.names().is_empty());
}

#[test]
fn a_file_of_ones_own_is_written_whole_and_over_no_input() {
    let bench = Bench::new();
    fs::write(bench.path("input"), b"precious").unwrap();
    let inputs = || Inputs::default().with_paths(&[bench.path("input")]).unwrap();
    let write = |name: &str| {
        let file = WholeFile::create(&bench.path(name), 0o644, Overwrite::Replace, inputs())?;
        std::io::Write::write_all(&mut file.file(), b"new")?;
        file.publish()
    };
    write("output").unwrap();
    assert!(write("input").is_err());
    assert_eq!(fs::read(bench.path("output")).unwrap(), b"new");
    assert_eq!(fs::read(bench.path("input")).unwrap(), b"precious");
}

#[test]
fn a_file_that_reports_no_length_and_yields_bytes_is_not_sealed_as_empty() {
    let bench = Bench::new();
    let source = FileSource::open("/proc/self/status").unwrap();
    assert_eq!(source.len(), 0, "what such a file reports");
    let context = SealContext::new(MODEL).unwrap();
    let target = bench.path("image");
    for params in [params(), params().with_scope(SivScope::Shard)] {
        let sealed = seal_image(&key(), &context, params, &source, &target, ImageOptions::new());
        let error = sealed.unwrap_err();
        assert!(matches!(error, FileError::SourceLength { .. }), "{error}");
        assert!(error.to_string().contains("/proc/self/status"), "{error}");
    }
    assert!(bench.names().is_empty());
    // A file that is empty is sealed as such.
    fs::write(bench.path("empty"), b"").unwrap();
    let empty = FileSource::open(bench.path("empty")).unwrap();
    seal_image(&key(), &context, params(), &empty, &target, ImageOptions::new()).unwrap();
}

#[test]
fn zeros_are_no_key_from_any_source() {
    let bench = Bench::new();
    let path = bench.path("key");
    let refused = |source: KeySource| {
        let error = source.load().unwrap_err();
        assert!(
            matches!(error, KeySourceError::Content { error: KeyError::AllZero, .. }),
            "{error}"
        );
    };
    for content in ["0".repeat(64), format!("{}\n", "0".repeat(64)), "\0".repeat(32)] {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        refused(KeySource::File(path.clone()));
        refused(KeySource::Descriptor(fs::File::open(&path).unwrap().into()));
    }
    refused(KeySource::bytes(&[0; 32]));
}
