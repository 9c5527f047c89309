//! Exporting and importing sealed images.

use std::io::{self, Read, Write};
use std::sync::Mutex;

use vram_alloc::DeviceOffset;
use vram_residency::{
    ByteLen, CancelToken, ContentHasher, ContextField, Expected, ExportOptions, HashKind,
    ImageOptions, ImportRequest, KeyRing, Overwrite, Protection, SealError, SealKey, SealRequest,
    SegmentSize, SivScope, Suite, Verify, VramError, VramManager, verify_image,
};
use vram_test_rigs::{Rig, SEGMENT, content};

const SIZES: [usize; 6] = [0, 1, SEGMENT, 2 * SEGMENT + 1, 5 * SEGMENT, 7 * SEGMENT + 77];

pub(crate) fn requests() -> [SealRequest; 4] {
    let base = SealRequest::new("model", 0).context(b"tenant").metadata(b"f16").shard_index(2);
    [
        base.clone().scope(SivScope::Shard),
        base.clone().scope(SivScope::Segment),
        base.clone().suite(Suite::ChaCha20Poly1305),
        base.protection(Protection::Authenticated),
    ]
}

pub(crate) fn import() -> ImportRequest<'static> {
    ImportRequest::new("model", 0).context(b"tenant")
}

fn node(total: usize) -> VramManager {
    VramManager::builder()
        .host_device(ByteLen::from_usize(total))
        .key(SealKey::from_bytes(&[7; 32]))
        .segment_size(SegmentSize::MIN)
        .build()
        .unwrap()
}

pub(crate) fn exported(request: SealRequest, bytes: &[u8]) -> Vec<u8> {
    let node = node(1 << 16);
    let shard = node.seal(request, bytes).unwrap();
    let mut image = Vec::new();
    node.export(&shard, &mut image).unwrap();
    image
}

#[expect(clippy::panic, reason = "a test fails by panicking")]
fn seal_error(outcome: Result<impl core::fmt::Debug, VramError>) -> SealError {
    match outcome {
        Err(VramError::Seal(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// P17: another node with the key imports exactly what was exported.
#[test]
fn an_image_carries_a_shard_to_another_node() {
    for len in SIZES {
        let bytes = content(len, 1);
        for request in requests() {
            let rig = Rig::new(&[1 << 16]);
            let shard = rig.manager.seal(request.owner("me"), &bytes).unwrap();
            let mut image = Vec::new();
            let report = rig.manager.export(&shard, &mut image).unwrap();
            assert_eq!(report.image_len.get(), image.len() as u64);
            assert_eq!(report.digest, ContentHasher::digest(HashKind::Blake3, &bytes));
            assert_eq!(report.fields.protection(), Protection::Encrypted);
            if len >= 32 {
                assert!(!image.windows(32).any(|part| part == &bytes[..32]), "no plaintext");
            }

            let there = node(1 << 16);
            let told = Mutex::new(0);
            let request = import()
                .metadata(b"f16")
                .shard_index(2)
                .revision(0)
                .expected_digest(report.digest)
                .progress(|progress| *told.lock().unwrap() = progress.done);
            let arrived = there.import(request, image.as_slice()).unwrap();
            assert_eq!(*told.lock().unwrap(), len as u64);
            assert_eq!(arrived.sealed_data, report.record);
            assert_ne!(arrived.shard_id, shard.shard_id, "another shard of the same content");
            assert_eq!(there.unseal_model(&arrived).unwrap(), bytes);
            assert!(there.verify(&arrived, Verify::Full).unwrap().sound);
            // An imported shard can be opened, closed and exported like any other.
            let open = there.open_resident(&arrived).unwrap();
            let closed = there.close_resident(&open).unwrap();
            assert_eq!(closed.sealed_data, arrived.sealed_data);
            let mut again = Vec::new();
            there.export(&closed, &mut again).unwrap();
            assert!(again == image);
        }
    }
}

#[test]
fn plaintext_is_exported_only_when_asked_for_by_name() {
    let bytes = content(5000, 2);
    let node = node(1 << 16);
    let request = SealRequest::new("model", 0).protection(Protection::Authenticated);
    let shard = node.seal(request, &bytes).unwrap();
    let mut image = Vec::new();
    let report = node.export_with(&shard, &mut image, ExportOptions::new().plaintext()).unwrap();
    assert_eq!(report.record, shard.sealed_data);
    assert!(image.ends_with(&bytes));
    let request = ImportRequest::new("model", 0).protection(Protection::Authenticated);
    let arrived = node.import(request, image.as_slice()).unwrap();
    assert_eq!(arrived.protection, Protection::Authenticated);
    assert_eq!(node.unseal_model(&arrived).unwrap(), bytes);
}

#[test]
fn files_are_written_whole_for_their_owner_and_read_back_by_every_tool() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("shard.vseal");
    let node = node(1 << 16);
    let shard = node.seal_model("model", 0, &content(9000, 3)).unwrap();
    node.export_to(&shard, &target, ExportOptions::new()).unwrap();
    let again = node.export_to(&shard, &target, ExportOptions::new());
    assert!(matches!(again, Err(VramError::Io { path: Some(_), .. })), "{again:?}");
    let replace = ExportOptions::new().overwrite(Overwrite::Replace);
    node.export_to(&shard, &target, replace).unwrap();

    let ring = KeyRing::new(SealKey::from_bytes(&[7; 32]));
    let expected = Expected::new("model").unwrap();
    let verdict = verify_image(&ring, &expected, &target, ImageOptions::new()).unwrap();
    assert!(verdict.is_sound());
    let arrived = node.import_from(ImportRequest::new("model", 0), &target).unwrap();
    assert_eq!(node.unseal_model(&arrived).unwrap(), content(9000, 3));

    let names = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 1, "nothing else was left");
    match node.import_from(ImportRequest::new("another", 0), &target) {
        Err(VramError::Image { path, .. }) => assert_eq!(path, target),
        other => panic!("{other:?}"),
    }
    let missing = node.import_from(ImportRequest::new("model", 0), folder.path().join("none"));
    assert!(matches!(missing, Err(VramError::Io { path: Some(_), .. })));
    let is_folder = node.import_from(ImportRequest::new("model", 0), folder.path());
    assert!(matches!(is_folder, Err(VramError::Io { path: Some(_), .. })));
}

/// A sink that accepts a number of bytes, and then fails or panics.
struct Full {
    room: usize,
    panics: bool,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        assert!(taken > 0 || !self.panics, "the sink panics");
        if taken == 0 { Err(io::Error::other("disk full")) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reproduces the export that was interrupted: no file under the final name, and the shard
/// unchanged.
#[test]
fn an_interrupted_export_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("shard.vseal");
    let rig = Rig::new(&[1 << 16]);
    let bytes = content(30_000, 4);
    let shard = rig.manager.seal_model("model", 0, &bytes).unwrap();
    for room in [0, 100, 256, 4096, 5000, 13_000] {
        let full = rig.manager.export(&shard, Full { room, panics: false });
        assert!(matches!(full, Err(VramError::Io { .. })), "{full:?}");
        let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            rig.manager.export(&shard, Full { room, panics: true })
        }));
        assert!(outcome.is_err());
    }
    let stop = CancelToken::new();
    let options = ExportOptions::new().cancel(stop.clone()).progress(|_| stop.cancel());
    let cancelled = rig.manager.export_to(&shard, &target, options);
    assert!(matches!(cancelled, Err(VramError::Cancelled { .. })), "{cancelled:?}");
    let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        let options = ExportOptions::new().progress(|_| panic!("callback"));
        rig.manager.export_to(&shard, &target, options)
    }));
    assert!(outcome.is_err());
    let offset = DeviceOffset::new(rig.written_at(0) + 5000);
    rig.devices[0].flip_bit_at(None, offset, 0).unwrap();
    match rig.manager.export_to(&shard, &target, ExportOptions::new()) {
        Err(VramError::ShardAltered { segments, .. }) => assert_eq!(segments, [1]),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    rig.settle(true);
}

/// P9, P10a: every bit of the head and every byte of the data, and truncation and extension at any
/// place.
#[test]
fn an_altered_image_never_becomes_resident() {
    let node = node(1 << 16);
    for request in requests() {
        let image = exported(request, &content(SEGMENT + 100, 5));
        let data = image.len() - (SEGMENT + 100);
        let head = 0..data.min(700);
        for byte in head.chain((700..image.len()).step_by(97)).chain(data - 2..data + 2) {
            let mut altered = image.clone();
            altered[byte] ^= 1 << (byte % 8);
            let refused = node.import(import(), altered.as_slice());
            assert!(refused.is_err(), "byte {byte}");
        }
        for len in (0..image.len()).step_by(119).chain([image.len() - 1]) {
            match seal_error(node.import(import(), &image[..len])) {
                SealError::WrongLength { found, .. } => assert_eq!(found, len as u64),
                other => panic!("{other}"),
            }
        }
        let longer = [image.as_slice(), &[0]].concat();
        assert!(matches!(
            seal_error(node.import(import(), longer.as_slice())),
            SealError::WrongLength { .. }
        ));
        assert_eq!(node.shards(), []);
        assert_eq!(node.get_used_vram(0).unwrap(), 0);
    }
}

#[test]
fn an_image_of_another_model_context_or_revision_is_refused_by_name() {
    let image = exported(requests()[0].clone(), b"weights");
    let node = node(1 << 16);
    for (request, wrong) in [
        (ImportRequest::new("modem", 0).context(b"tenant"), ContextField::ModelAndContext),
        (ImportRequest::new("model", 0), ContextField::ModelAndContext),
        (import().metadata(b"f32"), ContextField::Metadata),
        (import().shard_index(3), ContextField::ShardIndex),
        (import().revision(1), ContextField::Revision),
    ] {
        match seal_error(node.import(request, image.as_slice())) {
            SealError::ContextMismatch { field } => assert_eq!(field, wrong),
            other => panic!("{other}"),
        }
    }
    let digest = ContentHasher::digest(HashKind::Blake3, b"other");
    let refused = node.import(import().expected_digest(digest), image.as_slice());
    assert!(matches!(refused, Err(VramError::DigestMismatch { .. })));
    let stranger = VramManager::new_mock(1 << 16).unwrap();
    assert!(matches!(
        seal_error(stranger.import(import(), image.as_slice())),
        SealError::UnknownKey { .. }
    ));
    assert!(matches!(
        node.import(ImportRequest::new("model", 1), image.as_slice()),
        Err(VramError::UnknownGpu { .. })
    ));
    let small = Rig::new(&[256]);
    let crowded =
        small.manager.import(import(), exported(requests()[0].clone(), &[1; 300]).as_slice());
    assert!(matches!(crowded, Err(VramError::InsufficientVram(_))));
    assert_eq!(node.get_used_vram(0).unwrap(), 0);
}

/// A reader that returns a byte or two at a time, is interrupted, and may panic at its end.
struct Slow<'a> {
    image: &'a [u8],
    calls: usize,
    panics: bool,
}

impl Read for Slow<'_> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        assert!(!self.image.is_empty() || !self.panics, "the reader panics");
        let len = target.len().min(701).min(self.image.len());
        let (now, later) = self.image.split_at(len);
        target[..len].copy_from_slice(now);
        self.image = later;
        Ok(len)
    }
}

#[test]
fn any_reader_will_do_and_one_that_panics_harms_nothing() {
    let bytes = content(30_000, 6);
    let image = exported(requests()[0].clone(), &bytes);
    let rig = Rig::new(&[1 << 16]);
    let slow = Slow { image: &image, calls: 0, panics: false };
    let arrived = rig.manager.import(import(), slow).unwrap();
    assert_eq!(rig.manager.unseal_model(&arrived).unwrap(), bytes);
    rig.manager.free_shard(&arrived).unwrap();
    for cut in [100, 300, 5000, image.len()] {
        let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            rig.manager.import(import(), Slow { image: &image[..cut], calls: 0, panics: true })
        }));
        assert!(outcome.is_err(), "{cut}");
        assert_eq!(rig.used(0), 0);
    }
    let stop = CancelToken::new();
    let request = import().cancel(stop.clone()).progress(|_| stop.cancel());
    let cancelled = rig.manager.import(request, image.as_slice());
    assert!(matches!(cancelled, Err(VramError::Cancelled { .. })));
    assert_eq!(rig.manager.shards(), []);
    rig.settle(true);
}
