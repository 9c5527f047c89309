//! Sealed images: what goes in comes out, nothing else does, and no half file is ever left.

use core::panic::AssertUnwindSafe;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use vram_residency::{
    ByteLen, CancelToken, ContentDigest, ContentHasher, Expected, FileSource, HashKind,
    ImageOptions, ImageReport, KeyRing, Overwrite, Protection, ReaderSource, SealContext,
    SealError, SealKey, SealParams, SegmentSize, SivScope, SliceSource, Source, SourceError, Suite,
    Threads, VramError, inspect_image, seal_image, seal_image_to, unseal_image, unseal_image_to,
    verify_image,
};

const MODEL: &str = "llama-3-8b";
const SEGMENT: usize = 4096;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: memory_folder() }
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

    fn seal(&self, name: &str, params: SealParams, bytes: &[u8]) -> ImageReport {
        self.try_seal(name, params, &SliceSource::new(bytes), ImageOptions::new()).unwrap()
    }

    fn try_seal(
        &self,
        name: &str,
        params: SealParams,
        source: &dyn Source,
        options: ImageOptions<'_>,
    ) -> Result<ImageReport, VramError> {
        let context = SealContext::new(MODEL).unwrap();
        seal_image(&key(), &context, params, source, &self.path(name), options)
    }

    fn unseal(&self, image: &str, target: &str) -> Result<Vec<u8>, VramError> {
        let expected = Expected::new(MODEL).unwrap();
        let (image, target) = (self.path(image), self.path(target));
        unseal_image(&ring(), &expected, &image, &target, ImageOptions::new())?;
        let bytes = fs::read(&target).unwrap();
        fs::remove_file(&target).unwrap();
        Ok(bytes)
    }

    /// The segments that verifying names, or why it could not be done.
    fn altered(&self, image: &str) -> Result<Vec<u64>, VramError> {
        let expected = Expected::new(MODEL).unwrap();
        let verdict = verify_image(&ring(), &expected, &self.path(image), ImageOptions::new())?;
        assert_eq!(verdict.is_sound(), verdict.altered.is_empty());
        Ok(verdict.altered.iter().map(|one| one.segment).collect())
    }
}

/// A temporary folder in memory where there is one: thousands of small files are synced here.
fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn key() -> SealKey {
    SealKey::from_bytes([7; 32])
}

fn ring() -> KeyRing {
    KeyRing::new(key())
}

fn params() -> SealParams {
    SealParams::new().with_segment(SegmentSize::MIN)
}

/// Every combination that the format knows.
fn every_kind() -> Vec<SealParams> {
    let mut kinds = vec![params().with_protection(Protection::Authenticated)];
    for scope in [SivScope::Shard, SivScope::Segment] {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            kinds.push(params().with_scope(scope).with_suite(suite));
        }
    }
    kinds
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

fn image_error(error: VramError) -> SealError {
    match error {
        VramError::Image { source, .. } => *source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_sealed_comes_out_again_for_every_kind_and_boundary_size() {
    let bench = Bench::new();
    for params in every_kind() {
        for len in [0, 1, 15, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 5 * SEGMENT + 17] {
            let bytes = content(len);
            let report = bench.seal("image", params, &bytes);
            assert_eq!(report.digest, ContentHasher::digest(HashKind::Blake3, &bytes));
            assert_eq!(report.image_len.get(), fs::metadata(bench.path("image")).unwrap().len());
            assert_eq!(bench.unseal("image", "out").unwrap(), bytes, "{params:?} {len}");
            assert!(bench.altered("image").unwrap().is_empty());
            fs::remove_file(bench.path("image")).unwrap();
        }
    }
    assert!(bench.names().is_empty());
}

#[test]
fn an_image_is_the_format_s_whatever_the_threads_and_the_kind_of_source() {
    let bench = Bench::new();
    let bytes = content(9 * SEGMENT + 5);
    fs::write(bench.path("weights"), &bytes).unwrap();
    for params in every_kind() {
        let context = SealContext::new(MODEL).unwrap();
        let mut data = vec![0; bytes.len()];
        let sealed =
            vram_seal::seal(&key(), &context, params, Threads::ONE, &bytes, &mut data).unwrap();
        let mut expected = vram_seal::image::head(&sealed.record, &sealed.tags).unwrap();
        expected.extend_from_slice(&data);

        let file = FileSource::open(bench.path("weights")).unwrap();
        let slice = SliceSource::new(&bytes);
        let sources: [(&dyn Source, usize); 3] = [(&file, 1), (&file, 4), (&slice, 3)];
        for (source, threads) in sources {
            let options = ImageOptions::new().threads(Threads::exactly(threads));
            bench.try_seal("image", params, source, options).unwrap();
            assert!(fs::read(bench.path("image")).unwrap() == expected, "{params:?} {threads}");
            fs::remove_file(bench.path("image")).unwrap();
        }
        let once = ReaderSource::new(&bytes[..], 9 * 4096 + 5);
        let options = ImageOptions::new().threads(Threads::exactly(4));
        match bench.try_seal("image", params, &once, options) {
            Ok(_) => {
                assert!(fs::read(bench.path("image")).unwrap() == expected, "{params:?}");
                fs::remove_file(bench.path("image")).unwrap();
            }
            // Two passes over something that can be read once.
            Err(VramError::Config { .. }) if params.scope() == SivScope::Shard => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// P9: every byte of an image matters, wherever it lies.
#[test]
fn any_flipped_bit_of_an_image_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    for params in every_kind() {
        // Two segments, the second a short one.
        let bytes = content(SEGMENT + 40);
        let report = bench.seal("image", params, &bytes);
        let good = fs::read(bench.path("image")).unwrap();
        fs::remove_file(bench.path("image")).unwrap();
        let data_at = good.len() - bytes.len();
        let head = 256 + usize::try_from(report.fields.table_len().get()).unwrap();
        let positions = (0..head)
            .chain([head, head + 1, data_at - 1])
            .chain([data_at, data_at + 1, data_at + SEGMENT - 1, data_at + SEGMENT])
            .chain(good.len() - 40..good.len());
        for at in positions {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(bench.path("bad"), &bad).unwrap();
            let refused = bench.unseal("bad", "out").map(|_| ()).unwrap_err();
            assert_eq!(bench.names(), ["bad"], "byte {at}");
            if at >= data_at {
                let segment = u64::try_from((at - data_at) / SEGMENT).unwrap();
                assert!(refused.is_integrity(), "{refused}");
                assert_eq!(image_error(refused), SealError::SegmentMismatch { segment });
                assert_eq!(bench.altered("bad").unwrap(), [segment]);
            } else {
                let checked = image_error(bench.altered("bad").unwrap_err());
                assert_eq!(checked, image_error(refused), "byte {at}");
            }
        }
        fs::remove_file(bench.path("bad")).unwrap();
    }
}

#[test]
fn an_image_of_any_other_length_is_refused() {
    let bench = Bench::new();
    let bytes = content(SEGMENT + 3);
    bench.seal("image", params(), &bytes);
    let good = fs::read(bench.path("image")).unwrap();
    let lengths = [0, 1, 7, 8, 100, 255, 256, 257, 4096, good.len() - 1, good.len() + 1];
    for len in lengths {
        let mut bad = good.clone();
        bad.resize(len, 0);
        fs::write(bench.path("image"), &bad).unwrap();
        let refused = image_error(bench.unseal("image", "out").unwrap_err());
        match refused {
            // Too short to say what it is.
            SealError::NotASeal => assert!(len < 8, "{len}"),
            SealError::WrongLength { found, .. } => assert_eq!(found, u64::try_from(len).unwrap()),
            other => panic!("{len}: {other}"),
        }
        assert_eq!(bench.names(), ["image"]);
    }
}

#[test]
fn swapped_repeated_and_foreign_segments_are_named() {
    let bench = Bench::new();
    for params in every_kind() {
        let bytes = content(4 * SEGMENT);
        bench.seal("image", params, &bytes);
        let good = fs::read(bench.path("image")).unwrap();
        let data_at = good.len() - bytes.len();
        let segment = |at: usize| data_at + at * SEGMENT..data_at + (at + 1) * SEGMENT;

        let mut swapped = good.clone();
        swapped.copy_within(segment(2), segment(1).start);
        swapped[segment(2)].copy_from_slice(&good[segment(1)]);
        fs::write(bench.path("image"), &swapped).unwrap();
        assert_eq!(bench.altered("image").unwrap(), [1, 2]);

        let mut repeated = good;
        repeated.copy_within(segment(0), segment(3).start);
        fs::write(bench.path("image"), &repeated).unwrap();
        assert_eq!(bench.altered("image").unwrap(), [3]);
        fs::remove_file(bench.path("image")).unwrap();
    }
}

/// P11: a good image under another name, key or limit is refused, and the error says which.
#[test]
fn an_image_of_another_model_key_or_size_is_refused_in_words() {
    let bench = Bench::new();
    bench.seal("image", params(), &content(100));
    let image = bench.path("image");
    let open = |keys: &KeyRing, expected: &Expected<'_>, options| {
        let refused = unseal_image(keys, expected, &image, &bench.path("out"), options);
        let verdict =
            verify_image(keys, expected, &image, ImageOptions::new().len_max(ByteLen::new(99)));
        assert!(verdict.is_err());
        assert_eq!(bench.names(), ["image"]);
        image_error(refused.unwrap_err())
    };
    let right = Expected::new(MODEL).unwrap();
    let wrong_model = Expected::new("llama-3-70b").unwrap();
    let wrong_context = right.context(b"tenant");
    let wrong_revision = right.revision(1);
    for expected in [&wrong_model, &wrong_context, &wrong_revision] {
        let refused = open(&ring(), expected, ImageOptions::new());
        assert!(matches!(refused, SealError::ContextMismatch { .. }), "{refused}");
    }
    let other_key = KeyRing::new(SealKey::from_bytes([8; 32]));
    let refused = open(&other_key, &right, ImageOptions::new());
    assert!(matches!(refused, SealError::UnknownKey { id } if id == key().id()), "{refused}");
    let refused = open(&ring(), &right, ImageOptions::new().len_max(ByteLen::new(99)));
    assert!(matches!(refused, SealError::TooLong { .. }), "{refused}");

    // A tool that only converts may say that anything will do.
    let report = unseal_image(
        &ring(),
        &Expected::anything(),
        &image,
        &bench.path("out"),
        ImageOptions::new(),
    );
    assert!(report.is_ok());
}

#[test]
fn an_expected_digest_decides_before_a_file_appears() {
    let bench = Bench::new();
    let bytes = content(3 * SEGMENT);
    let right = ContentHasher::digest(HashKind::Blake3, &bytes);
    let wrong = ContentHasher::digest(HashKind::Blake3, b"something else");
    let source = SliceSource::new(&bytes);
    for params in every_kind() {
        let refused =
            bench.try_seal("image", params, &source, ImageOptions::new().expected_digest(wrong));
        assert!(matches!(refused, Err(VramError::DigestMismatch { .. })), "{refused:?}");
        assert!(bench.names().is_empty());
    }
    bench.try_seal("image", params(), &source, ImageOptions::new().expected_digest(right)).unwrap();

    let expected = Expected::new(MODEL).unwrap();
    let (image, out) = (bench.path("image"), bench.path("out"));
    let options = || ImageOptions::new().expected_digest(wrong);
    let refused = unseal_image(&ring(), &expected, &image, &out, options());
    assert!(matches!(refused, Err(VramError::DigestMismatch { .. })));
    let refused = verify_image(&ring(), &expected, &image, options());
    assert!(matches!(refused, Err(VramError::DigestMismatch { .. })));
    assert_eq!(bench.names(), ["image"]);
}

#[test]
fn inspecting_needs_no_key_and_shows_a_wrong_length_without_refusing_it() {
    let bench = Bench::new();
    let report = bench.seal("image", params(), &content(5000));
    let info = inspect_image(&bench.path("image")).unwrap();
    assert_eq!(info.record, report.record);
    assert_eq!(info.fields.plaintext_len().get(), 5000);
    assert_eq!(info.file_len, info.image_len);
    assert_eq!(info.fields.key_id(), key().id());

    let file = fs::File::options().write(true).open(bench.path("image")).unwrap();
    file.set_len(300).unwrap();
    let info = inspect_image(&bench.path("image")).unwrap();
    assert_eq!((info.file_len.get(), info.image_len), (300, report.image_len));

    fs::write(bench.path("text"), b"hello, this is not an image").unwrap();
    let refused = inspect_image(&bench.path("text")).unwrap_err();
    assert!(refused.to_string().contains("text"), "{refused}");
    assert_eq!(image_error(refused), SealError::NotASeal);
    assert!(matches!(inspect_image(bench.folder.path()), Err(VramError::Io { .. })));
    assert!(matches!(inspect_image(&bench.path("none")), Err(VramError::Io { .. })));
}

/// Gives other bytes from the second read of a segment on.
struct Changing {
    bytes: Vec<u8>,
    read: Mutex<Vec<u64>>,
    changes: u64,
}

impl Source for Changing {
    fn len(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        SliceSource::new(&self.bytes).read_at(offset, target)?;
        let mut read = self.read.lock().unwrap();
        if read.contains(&offset) && offset == self.changes {
            target[0] ^= 1;
        }
        read.push(offset);
        Ok(())
    }
}

/// P10: two plaintexts never meet under one key and nonce.
#[test]
fn a_source_that_changes_under_the_seal_is_refused_by_its_segment() {
    let bench = Bench::new();
    let source =
        Changing { bytes: content(6 * SEGMENT), read: Mutex::default(), changes: 4 * 4096 };
    let shard = params().with_scope(SivScope::Shard);
    let refused = bench.try_seal("image", shard, &source, ImageOptions::new());
    assert!(matches!(refused, Err(VramError::SourceChanged { segment: 4, .. })), "{refused:?}");
    assert!(bench.names().is_empty());

    // Read once, whatever it says is what is sealed.
    source.read.lock().unwrap().clear();
    let segment = params().with_scope(SivScope::Segment);
    bench.try_seal("image", segment, &source, ImageOptions::new()).unwrap();
    assert_eq!(bench.unseal("image", "out").unwrap(), source.bytes);
}

/// Fails in one way or another at a given offset.
struct Failing {
    len: u64,
    at: u64,
    panics: bool,
}

impl Source for Failing {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        if offset == self.at {
            assert!(!self.panics, "the source panics");
            return Err(io::Error::other("the source fails").into());
        }
        target.fill(1);
        Ok(())
    }
}

#[test]
fn a_failing_or_panicking_source_leaves_no_file() {
    let bench = Bench::new();
    for params in every_kind() {
        for at in [0, 3 * 4096, 6 * 4096] {
            let fails = Failing { len: 7 * 4096, at, panics: false };
            let refused = bench.try_seal("image", params, &fails, ImageOptions::new());
            assert!(matches!(refused, Err(VramError::Source(SourceError::Io { .. }))));
            assert!(bench.names().is_empty());

            let panics = Failing { panics: true, ..fails };
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _unreached = bench.try_seal("image", params, &panics, ImageOptions::new());
            }));
            assert!(panicked.is_err());
            assert!(bench.names().is_empty());
        }
    }
}

#[test]
fn a_reader_that_ends_early_or_late_leaves_no_file() {
    let bench = Bench::new();
    let bytes = content(3 * SEGMENT);
    let segment = params().with_scope(SivScope::Segment);
    for declared in [0, 1, 3 * 4096 - 1, 3 * 4096 + 1, 4 * 4096 + 1] {
        let source = ReaderSource::new(&bytes[..], declared);
        let refused = bench.try_seal("image", segment, &source, ImageOptions::new()).unwrap_err();
        match refused {
            VramError::SourceLength { declared: stated, found, .. } => {
                assert_eq!(stated.get(), declared);
                assert_eq!(found.get() > declared, declared < 3 * 4096);
            }
            other => panic!("{other}"),
        }
        assert!(bench.names().is_empty());
    }
}

type Call<'a> = &'a dyn Fn(ImageOptions<'_>) -> Result<(), VramError>;

#[test]
fn a_cancelled_call_and_a_panicking_callback_leave_no_file() {
    let bench = Bench::new();
    let bytes = content(20 * SEGMENT);
    bench.seal("image", params(), &bytes);
    let (image, out) = (bench.path("image"), bench.path("out"));
    let expected = Expected::new(MODEL).unwrap();
    let calls: [Call<'_>; 3] = [
        &|options| bench.try_seal("new", params(), &SliceSource::new(&bytes), options).map(drop),
        &|options| unseal_image(&ring(), &expected, &image, &out, options).map(drop),
        &|options| verify_image(&ring(), &expected, &image, options).map(drop),
    ];
    for call in calls {
        let token = CancelToken::new();
        let halfway = token.clone();
        let options = ImageOptions::new().cancel(token).progress(move |progress| {
            if progress.done > 5 * 4096 {
                halfway.cancel();
            }
        });
        match call(options) {
            Err(VramError::Cancelled { done, total }) => assert!(done < total, "{done} {total}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.names(), ["image"]);

        let panicked = catch_unwind(AssertUnwindSafe(|| {
            call(ImageOptions::new().progress(|_| panic!("the callback panics")))
        }));
        assert!(panicked.is_err());
        assert_eq!(bench.names(), ["image"]);

        let before = CancelToken::new();
        before.cancel();
        assert!(matches!(
            call(ImageOptions::new().cancel(before)),
            Err(VramError::Cancelled { done, .. }) if done.is_zero()
        ));
    }
}

#[test]
fn progress_rises_to_the_total() {
    let bench = Bench::new();
    let bytes = content(50 * SEGMENT);
    for params in every_kind() {
        let mut told = Vec::new();
        let options = ImageOptions::new().overwrite(Overwrite::Replace).progress(|p| told.push(p));
        bench.try_seal("image", params, &SliceSource::new(&bytes), options).unwrap();
        assert!(told.windows(2).all(|pair| pair[0].done < pair[1].done));
        let last = told.last().unwrap();
        assert_eq!(last.done, last.total);
    }
}

#[test]
fn existing_files_are_kept_unless_asked_and_the_plaintext_is_for_its_owner_alone() {
    let bench = Bench::new();
    let bytes = content(100);
    bench.seal("image", params(), &bytes);
    let before = fs::read(bench.path("image")).unwrap();
    let other = SliceSource::new(b"other");
    let refused = bench.try_seal("image", params(), &other, ImageOptions::new()).unwrap_err();
    match &refused {
        VramError::Io { source, path, .. } => {
            assert_eq!(source.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(path.as_deref(), Some(Path::new(&bench.path("image"))));
        }
        other => panic!("{other}"),
    }
    assert!(fs::read(bench.path("image")).unwrap() == before);

    let mode = |name: &str| fs::metadata(bench.path(name)).unwrap().permissions().mode() & 0o777;
    bench.seal("plain", params().with_protection(Protection::Authenticated), &bytes);
    assert_eq!(mode("plain"), 0o600);
    let expected = Expected::new(MODEL).unwrap();
    fs::write(bench.path("out"), b"old").unwrap();
    let options = ImageOptions::new().overwrite(Overwrite::Replace);
    unseal_image(&ring(), &expected, &bench.path("image"), &bench.path("out"), options).unwrap();
    assert_eq!(fs::read(bench.path("out")).unwrap(), bytes);
    assert_eq!(mode("out"), 0o600);
}

#[test]
fn a_target_that_cannot_be_written_is_named() {
    let bench = Bench::new();
    let source = SliceSource::new(b"weights");
    for target in ["no/such/folder/image", ""] {
        let refused = bench.try_seal(target, params(), &source, ImageOptions::new()).unwrap_err();
        assert!(matches!(refused, VramError::Io { .. }), "{refused}");
    }
    assert!(bench.names().is_empty());
}

#[test]
fn a_header_that_lies_costs_no_memory() {
    let bench = Bench::new();
    bench.seal("image", params(), &content(100));
    let mut bad = fs::read(bench.path("image")).unwrap();
    // 2^48 bytes in segments of 4 KiB: a table of terabytes, if it were believed.
    bad[16..24].copy_from_slice(&(1_u64 << 48).to_le_bytes());
    bad[24..32].copy_from_slice(&(1_u64 << 36).to_le_bytes());
    fs::write(bench.path("image"), &bad).unwrap();
    assert!(inspect_image(&bench.path("image")).is_ok());
    let refused = image_error(bench.unseal("image", "out").unwrap_err());
    assert_eq!(refused, SealError::RecordMismatch);
}

#[test]
fn a_digest_survives_its_journey_through_an_image() {
    let bench = Bench::new();
    let bytes = content(70_000);
    let sealed: ContentDigest = bench.seal("image", SealParams::new(), &bytes).digest;
    let expected = Expected::new(MODEL).unwrap();
    let verdict =
        verify_image(&ring(), &expected, &bench.path("image"), ImageOptions::new()).unwrap();
    assert_eq!(verdict.digest, Some(sealed));
}

#[test]
fn neither_the_source_nor_the_image_nor_a_named_input_is_ever_replaced() {
    let bench = Bench::new();
    fs::write(bench.path("source"), b"weights").unwrap();
    let source = FileSource::open(bench.path("source")).unwrap();
    bench.try_seal("image", params(), &source, ImageOptions::new()).unwrap();
    fs::write(bench.path("key"), b"a key").unwrap();
    let before = fs::read(bench.path("image")).unwrap();
    let options = || ImageOptions::new().overwrite(Overwrite::Replace).input(bench.path("key"));
    let refused = |answer: Result<ImageReport, VramError>| match answer.unwrap_err() {
        VramError::Io { source, .. } => {
            assert_eq!(source.kind(), io::ErrorKind::InvalidInput);
            assert!(source.to_string().contains("over itself"), "{source}");
        }
        other => panic!("{other}"),
    };
    let expected = Expected::new(MODEL).unwrap();
    for target in ["source", "key"] {
        refused(bench.try_seal(target, params(), &source, options()));
        // The traits of references and of shared sources pass the file on.
        refused(bench.try_seal(target, params(), &&source, options()));
        refused(bench.try_seal(target, params(), &Arc::new(source.clone()), options()));
    }
    for target in ["image", "key"] {
        let (image, target) = (bench.path("image"), bench.path(target));
        refused(unseal_image(&ring(), &expected, &image, &target, options()));
    }
    assert_eq!(fs::read(bench.path("source")).unwrap(), b"weights");
    assert_eq!(fs::read(bench.path("key")).unwrap(), b"a key");
    assert!(fs::read(bench.path("image")).unwrap() == before);
    assert_eq!(bench.names(), ["image", "key", "source"]);
}

#[test]
fn a_writer_gets_the_same_image_and_the_content_only_if_all_of_it_is_sound() {
    let bench = Bench::new();
    let context = SealContext::new(MODEL).unwrap();
    let expected = Expected::new(MODEL).unwrap();
    for len in [0, 1, 3 * SEGMENT, 20 * SEGMENT + 1] {
        let bytes = content(len);
        for params in every_kind() {
            let report = bench.seal("image", params, &bytes);
            let image = fs::read(bench.path("image")).unwrap();
            let mut written = Vec::new();
            let source = SliceSource::new(&bytes);
            let options = ImageOptions::new();
            let same =
                seal_image_to(&key(), &context, params, &source, &mut written, options).unwrap();
            assert!(written == image && same.record == report.record);

            let mut out = Vec::new();
            let unseal = |out: &mut Vec<u8>| {
                unseal_image_to(&ring(), &expected, &bench.path("image"), out, ImageOptions::new())
            };
            assert_eq!(unseal(&mut out).unwrap().digest, report.digest);
            assert!(out == bytes);
            let mut altered = image;
            *altered.last_mut().unwrap() ^= 1;
            fs::write(bench.path("image"), altered).unwrap();
            out.clear();
            assert!(unseal(&mut out).unwrap_err().is_integrity() && out.is_empty());
            fs::remove_file(bench.path("image")).unwrap();
        }
    }
}
