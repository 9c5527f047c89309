//! Files that are written while the manager reads them, and digests that content must have.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::SystemTime;

use vram_residency::{
    AdmitRequest, ByteLen, ContentHasher, ExpectedDigest, ExportOptions, FilePool, FileSource,
    GpuChoice, HashKind, ImportRequest, ModelPlan, Piece, ReaderSource, SealOptions, SealRequest,
    SivScope, SliceSource, Source, SourceError, VramError,
};
use vram_test_rigs::{ActingSource, Rig, SEGMENT, content};

const LEN: usize = 9 * SEGMENT + 77;

/// Writes bytes with no other content: the times of the file are all that changes.
fn touch(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now()).unwrap();
}

/// A file whose times are older than a tick of the clock.
fn file(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("weights");
    fs::write(&path, content(LEN, 1)).unwrap();
    std::thread::sleep(Duration::from_millis(25));
    path
}

#[track_caller]
fn assert_changed<T: core::fmt::Debug>(answer: Result<T, VramError>, path: &Path) {
    let error = answer.unwrap_err();
    assert!(matches!(&error, VramError::Source(SourceError::Changed { .. })), "{error:?}");
    assert!(error.is_integrity() && error.to_string().contains(path.to_str().unwrap()), "{error}");
}

fn expected(kind: HashKind) -> ExpectedDigest {
    ExpectedDigest::new(kind, ContentHasher::digest(kind, &content(LEN, 1)))
}

#[test]
fn a_file_that_is_written_while_it_is_sealed_makes_no_shard_unless_its_digest_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(&[1 << 18]);
    for scope in [SivScope::Segment, SivScope::Shard] {
        let request = || SealRequest::new("model", 0).scope(scope);
        let path = file(folder.path());
        let touching = || SealOptions::new().progress(|_| touch(&path));
        let source = FileSource::open(&path).unwrap();
        assert_changed(rig.manager.seal_from(request(), &source, touching()), &path);
        for kind in [HashKind::Blake3, HashKind::Sha256] {
            let options = touching().expect_digest(expected(kind));
            let shard = rig.manager.seal_from(request(), &source, options).unwrap();
            rig.manager.free_shard(&shard).unwrap();
        }
    }
    rig.settle(true);
}

#[test]
fn a_model_file_that_is_written_while_it_is_admitted_makes_no_shard() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(&[1 << 18]);
    let len = ByteLen::from_usize(LEN);
    let plan = ModelPlan::new(vec![Piece::new("tensor".to_owned(), 0, 0, len)]).unwrap();
    for pool in [None, Some(FilePool::new(1))] {
        let path = file(folder.path());
        let mut source = FileSource::open(&path).unwrap();
        if let Some(pool) = &pool {
            source = source.in_pool(pool);
        }
        let request = || AdmitRequest::new("model", GpuChoice::One(0));
        let touching = request().progress(|_| touch(&path));
        assert_changed(rig.manager.admit(touching, &plan, &source), &path);
        let model = rig.manager.admit(request(), &plan, &FileSource::open(&path).unwrap()).unwrap();
        rig.manager.free_model(&model).unwrap();
    }
    rig.settle(true);
}

#[test]
fn an_image_that_is_written_while_it_is_imported_makes_no_shard_unless_its_digest_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(&[1 << 18]);
    let shard = rig.manager.seal(SealRequest::new("model", 0), &content(LEN, 1)).unwrap();
    let path = folder.path().join("image");
    rig.manager.export_to(&shard, &path, ExportOptions::new()).unwrap();
    rig.manager.free_shard(&shard).unwrap();
    std::thread::sleep(Duration::from_millis(25));
    let touching = || ImportRequest::new("model", 0).progress(|_| touch(&path));
    assert_changed(rig.manager.import_from(touching(), &path), &path);
    let known = touching().expected_digest(expected(HashKind::Blake3).digest());
    let shard = rig.manager.import_from(known, &path).unwrap();
    rig.manager.free_shard(&shard).unwrap();
    let quiet = rig.manager.import_from(ImportRequest::new("model", 0), &path).unwrap();
    rig.manager.free_shard(&quiet).unwrap();
    rig.settle(true);
}

#[test]
fn a_digest_of_either_kind_is_compared_while_the_source_is_sealed_and_costs_no_read() {
    let bytes = content(LEN, 1);
    let rig = Rig::new(&[1 << 18]);
    for kind in [HashKind::Blake3, HashKind::Sha256] {
        let wrong = ExpectedDigest::new(kind, ContentHasher::digest(kind, b"other"));
        for (scope, passes) in [(SivScope::Segment, 1), (SivScope::Shard, 2)] {
            let request = || SealRequest::new("model", 0).scope(scope);
            let read = AtomicU64::new(0);
            let counted = ActingSource::new(&bytes, |_, target: &mut [u8]| {
                read.fetch_add(ByteLen::from_usize(target.len()).get(), Ordering::Relaxed);
                Ok(())
            });
            let slice = SliceSource::new(&bytes);
            let sources: [&dyn Source; 2] = [&counted, &slice];
            for source in sources {
                let seal = |digest| {
                    let options = SealOptions::new().expect_digest(digest);
                    rig.manager.seal_from(request(), source, options)
                };
                let shard = seal(expected(kind)).unwrap();
                assert_eq!(rig.manager.unseal_model(&shard).unwrap(), bytes);
                rig.manager.free_shard(&shard).unwrap();
                let refused = seal(wrong).unwrap_err();
                assert!(matches!(refused, VramError::DigestMismatch { .. }), "{refused:?}");
            }
            let once = ByteLen::from_usize(LEN).get();
            assert_eq!(read.into_inner(), 2 * passes * once);
        }
        let reader = || ReaderSource::new(&bytes[..], ByteLen::from_usize(LEN).get());
        let options = |digest| SealOptions::new().expect_digest(digest);
        let request = || SealRequest::new("model", 0).scope(SivScope::Segment);
        let shard = rig.manager.seal_from(request(), reader(), options(expected(kind))).unwrap();
        rig.manager.free_shard(&shard).unwrap();
        rig.manager.seal_from(request(), reader(), options(wrong)).unwrap_err();
        // No byte at all.
        let digest = ContentHasher::digest(kind, b"");
        let empty = options(ExpectedDigest::new(kind, digest));
        let shard = rig.manager.seal_from(request(), SliceSource::new(b""), empty).unwrap();
        rig.manager.free_shard(&shard).unwrap();
    }
    rig.settle(true);
}
