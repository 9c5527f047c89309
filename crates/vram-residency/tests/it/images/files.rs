//! No partial file is left after any end of a call, and no file is replaced without a request.

use core::panic::AssertUnwindSafe;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Mutex;

use vram_residency::{
    CancelToken, Expected, ImageOptions, Overwrite, Protection, ReaderSource, SivScope,
    SliceSource, SourceError, VramError, unseal_image, verify_image,
};
use vram_test_rigs::{ActingSource, acts_at, weights};

use super::{Bench, MODEL, SEGMENT, every_kind, params, ring};

/// P10: two plaintexts are never encrypted under one key and nonce.
#[test]
fn a_source_that_changes_under_the_seal_is_refused_by_its_segment() {
    let bench = Bench::new();
    let (bytes, read) = (weights(6 * SEGMENT), Mutex::new(Vec::new()));
    // Returns other bytes from the second read of the fifth segment on.
    let source = ActingSource::new(&bytes, |offset, target: &mut [u8]| {
        let mut read = read.lock().unwrap();
        if read.contains(&offset) && offset == 4 * 4096 {
            target[0] ^= 1;
        }
        read.push(offset);
        Ok(())
    });
    let shard = params().with_scope(SivScope::Shard);
    let refused = bench.try_seal("image", shard, &source, ImageOptions::new());
    assert!(matches!(refused, Err(VramError::SourceChanged { segment: 4, .. })), "{refused:?}");
    assert!(bench.names().is_empty());

    // Read once: the bytes of that read are the sealed ones.
    read.lock().unwrap().clear();
    let segment = params().with_scope(SivScope::Segment);
    bench.try_seal("image", segment, &source, ImageOptions::new()).unwrap();
    assert_eq!(bench.unseal("image", "out").unwrap(), bytes);
}

#[test]
fn a_failing_or_panicking_source_leaves_no_file() {
    let bench = Bench::new();
    for params in every_kind() {
        for at in [0, 3 * 4096, 6 * 4096] {
            let fails = acts_at(7 * 4096, at, || Err(io::Error::other("the source fails").into()));
            let refused = bench.try_seal("image", params, &fails, ImageOptions::new());
            assert!(matches!(refused, Err(VramError::Source(SourceError::Io { .. }))));
            assert!(bench.names().is_empty());

            let panics = acts_at(7 * 4096, at, || panic!("the source panics"));
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
    let bytes = weights(3 * SEGMENT);
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
    let bytes = weights(20 * SEGMENT);
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
fn existing_files_are_kept_unless_asked_and_the_plaintext_is_for_its_owner_alone() {
    let bench = Bench::new();
    let bytes = weights(100);
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
