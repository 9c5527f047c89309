//! Sealing from sources.

use core::panic::AssertUnwindSafe;
use std::fs;
use std::io::{self};
use std::panic::catch_unwind;
use std::sync::Mutex;

use vram_residency::{
    ByteLen, CancelToken, ContentHasher, FileSource, HashKind, Protection, ReaderSource, SealKey,
    SealOptions, SealRequest, SegmentSize, SivScope, SliceSource, Source, SourceError, Threads,
    Verify, VramError, VramManager,
};

use vram_test_rigs::{ActingSource, Rig, SEGMENT, acts_at, content};

fn request() -> SealRequest {
    SealRequest::new("model", 0)
}

#[test]
fn every_source_and_scope_gives_the_same_shard_as_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    for len in [0, 1, SEGMENT, 2 * SEGMENT + 1, 9 * SEGMENT + 77] {
        let bytes = content(len, 1);
        fs::write(&path, &bytes).unwrap();
        let rig = Rig::new(&[1 << 17]);
        for scope in [SivScope::Shard, SivScope::Segment] {
            let expected = rig.manager.seal(request().scope(scope), &bytes).unwrap();
            let file = FileSource::open(&path).unwrap();
            let slice = SliceSource::new(&bytes);
            let sources: [&dyn Source; 2] = [&file, &slice];
            for source in sources {
                let request = request().scope(scope);
                let shard = rig.manager.seal_from(request, source, SealOptions::new()).unwrap();
                assert_eq!(shard.sealed_data, expected.sealed_data);
                assert_eq!(rig.manager.unseal_model(&shard).unwrap(), bytes);
                assert!(rig.manager.verify(&shard, Verify::Full).unwrap().sound);
                rig.manager.free_shard(&shard).unwrap();
            }
            let reader = ReaderSource::new(&bytes[..], ByteLen::from_usize(len).get());
            match rig.manager.seal_from(request().scope(scope), reader, SealOptions::new()) {
                Ok(shard) => {
                    assert_eq!(shard.sealed_data, expected.sealed_data);
                    rig.manager.free_shard(&shard).unwrap();
                }
                Err(VramError::Config { .. }) => assert_eq!(scope, SivScope::Shard),
                Err(other) => panic!("{other}"),
            }
            rig.manager.free_shard(&expected).unwrap();
        }
        rig.settle(true);
    }
}

#[test]
fn the_scope_is_the_segment_for_every_source_unless_the_shard_is_asked_for() {
    let rig = Rig::new(&[1 << 16]);
    let bytes = content(2 * SEGMENT, 2);
    let scope_of = |source: &dyn Source, request: SealRequest| {
        let shard = rig.manager.seal_from(request, source, SealOptions::new()).unwrap();
        shard.sealed_data.parse_unauthenticated().unwrap().scope()
    };
    let slice = SliceSource::new(&bytes);
    let reader = || ReaderSource::new(&bytes[..], 2 * 4096);
    assert_eq!(scope_of(&slice, request()), Some(SivScope::Segment));
    assert_eq!(scope_of(&reader(), request()), Some(SivScope::Segment));
    assert_eq!(scope_of(&slice, request().scope(SivScope::Shard)), Some(SivScope::Shard));
    assert_eq!(scope_of(&reader(), request().protection(Protection::Authenticated)), None);
}

/// Enough staging for every thread's windows, which are 256 KiB long.
fn many_threads() -> VramManager {
    VramManager::builder()
        .host_device(ByteLen::from_mib_saturating(64))
        .segment_size(SegmentSize::MIN)
        .threads(Threads::exactly(4))
        .build()
        .unwrap()
}

const WINDOW: u64 = 256 << 10;

#[test]
fn a_reader_is_sealed_in_order_by_many_threads() {
    let manager = many_threads();
    let bytes = content(20 * (256 << 10) + 5, 3);
    for _ in 0..5 {
        let reader = ReaderSource::new(&bytes[..], ByteLen::from_usize(bytes.len()).get());
        let shard = manager.seal_from(request(), reader, SealOptions::new()).unwrap();
        assert!(manager.unseal_and_free(&shard).unwrap() == bytes);
    }
}

/// P10: two plaintexts are never encrypted under one key and nonce.
#[test]
fn a_source_that_changes_between_two_passes_is_refused_by_its_segment() {
    let rig = Rig::new(&[1 << 16]);
    let seen = Mutex::new(Vec::new());
    // Returns other bytes from the second read of an offset on.
    let source = ActingSource::new(content(5 * SEGMENT, 4), |offset, target: &mut [u8]| {
        let mut seen = seen.lock().unwrap();
        if seen.contains(&offset) {
            target[0] ^= 1;
        }
        seen.push(offset);
        Ok(())
    });
    let shard = request().scope(SivScope::Shard);
    let refused = rig.manager.seal_from(shard, &source, SealOptions::new());
    assert!(matches!(refused, Err(VramError::SourceChanged { segment: 0, .. })), "{refused:?}");
    rig.settle(true);
}

#[test]
fn an_expected_digest_decides_before_anything_is_resident() {
    let rig = Rig::new(&[1 << 16]);
    let bytes = content(5 * SEGMENT, 5);
    let (right, wrong) = (
        ContentHasher::digest(HashKind::Blake3, &bytes),
        ContentHasher::digest(HashKind::Blake3, b"another"),
    );
    for scope in [SivScope::Shard, SivScope::Segment] {
        let source = SliceSource::new(&bytes);
        let options = SealOptions::new().expected_digest(wrong);
        let refused = rig.manager.seal_from(request().scope(scope), source, options);
        assert!(matches!(refused, Err(VramError::DigestMismatch { .. })), "{refused:?}");
        let text = refused.unwrap_err().to_string();
        assert!(!text.contains(&right.to_string()), "a log would hold the digest: {text}");
        assert!(rig.manager.shards().is_empty());
        rig.settle(true);
        let options = SealOptions::new().expected_digest(right);
        assert!(rig.manager.seal_from(request().scope(scope), source, options).is_ok());
        rig.settle(true);
    }
}

#[test]
fn a_source_of_another_length_is_refused_with_both_lengths() {
    let rig = Rig::new(&[1 << 16]);
    let bytes = content(3 * SEGMENT, 6);
    for (declared, found) in [(3 * 4096 + 1, 3 * 4096), (3 * 4096 - 1, 3 * 4096), (0, 1)] {
        let reader = ReaderSource::new(&bytes[..], declared);
        match rig.manager.seal_from(request(), reader, SealOptions::new()) {
            Err(VramError::SourceLength { declared: stated, found: had, .. }) => {
                assert_eq!((stated.get(), had.get()), (declared, found));
            }
            other => panic!("{other:?}"),
        }
        rig.settle(true);
    }
}

#[test]
fn a_source_that_fails_panics_or_is_cancelled_leaves_nothing_resident() {
    let rig = Rig::new(&[1 << 16]);
    for scope in [SivScope::Shard, SivScope::Segment] {
        for at in [0, 2 * 4096, 6 * 4096] {
            let request = || request().scope(scope);
            let fails = acts_at(7 * 4096, at, || Err(io::Error::other("gone").into()));
            let refused = rig.manager.seal_from(request(), fails, SealOptions::new());
            assert!(matches!(refused, Err(VramError::Source(_))), "{refused:?}");
            rig.settle(true);

            let panics = acts_at(7 * 4096, at, || panic!("source"));
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _unreached = rig.manager.seal_from(request(), panics, SealOptions::new());
            }));
            assert!(panicked.is_err());
            rig.settle(true);

            let token = CancelToken::new();
            let cancel = || {
                token.cancel();
                Ok(())
            };
            let cancels = acts_at(7 * 4096, at, cancel);
            let options = SealOptions::new().cancel(token.clone());
            let refused = rig.manager.seal_from(request(), cancels, options);
            assert!(matches!(refused, Err(VramError::Cancelled { .. })), "{refused:?}");
            rig.settle(true);
        }
    }
}

#[test]
fn progress_rises_to_the_total_and_a_panicking_callback_leaves_nothing() {
    let rig = Rig::new(&[1 << 17]);
    let bytes = content(20 * SEGMENT, 7);
    let source = SliceSource::new(&bytes);
    for scope in [SivScope::Shard, SivScope::Segment] {
        let mut told = Vec::new();
        let options = SealOptions::new().progress(|progress| told.push(progress));
        let shard = rig.manager.seal_from(request().scope(scope), source, options).unwrap();
        rig.manager.free_shard(&shard).unwrap();
        assert!(told.len() > 3 && told.windows(2).all(|pair| pair[0].done < pair[1].done));
        let last = told.last().unwrap();
        assert_eq!((last.done, last.total), (20 * 4096, 20 * 4096));

        for at in [1, 10 * 4096, 20 * 4096] {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let options = SealOptions::new().progress(move |progress| {
                    assert!(progress.done < at, "callback");
                });
                let _unreached = rig.manager.seal_from(request().scope(scope), source, options);
            }));
            assert!(panicked.is_err());
            assert!(rig.manager.shards().is_empty());
            rig.settle(true);
        }
    }
}

#[test]
fn a_key_from_a_source_is_the_manager_s() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seal.key");
    let key = SealKey::from_bytes(&[7; 32]);
    vram_residency::create_key_file(&path, &key).unwrap();
    let build =
        |source| VramManager::builder().host_device(ByteLen::MIB).key_source(source).build();
    let manager = build(vram_residency::KeySource::File(path.clone())).unwrap();
    let shard = manager.seal_model("model", 0, b"weights").unwrap();
    assert_eq!(shard.sealed_data.parse_unauthenticated().unwrap().key_id(), key.id());
    fs::remove_file(&path).unwrap();
    let refused = build(vram_residency::KeySource::File(path)).map(|_| ());
    assert!(matches!(refused, Err(VramError::KeySource(_))), "{refused:?}");
}

#[test]
fn a_source_of_an_impossible_length_is_an_error_and_no_panic() {
    let rig = Rig::new(&[1 << 16]);
    for declared in [1 << 17, 1 << 48, (1 << 48) + 1, 1 << 63, u64::MAX] {
        for protection in [Protection::Encrypted, Protection::Authenticated] {
            let request = request().protection(protection);
            let reader = ReaderSource::new(io::empty(), declared);
            let refused = rig.manager.seal_from(request, reader, SealOptions::new());
            match refused {
                Err(VramError::InsufficientVram(shortfall)) => {
                    assert!(shortfall.needed.get() >= declared);
                }
                Err(VramError::LimitExceeded { wanted, .. }) => assert_eq!(wanted, declared),
                other => panic!("{declared}: {other:?}"),
            }
        }
    }
    rig.settle(true);
}

/// Lends other bytes than it reads.
struct TwoFaced {
    lent: Vec<u8>,
}

impl Source for TwoFaced {
    fn len(&self) -> u64 {
        ByteLen::from_usize(self.lent.len()).get()
    }

    fn read_at(&self, _offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        target.fill(0xEE);
        Ok(())
    }

    fn as_slice(&self) -> Option<&[u8]> {
        Some(&self.lent)
    }
}

/// P10: the encrypted bytes are the hashed ones, even if a source lends other bytes than it reads.
#[test]
fn a_source_whose_slice_and_reads_differ_is_sealed_as_its_slice() {
    let rig = Rig::new(&[1 << 16]);
    let source = TwoFaced { lent: content(3 * SEGMENT, 11) };
    let expected = rig.manager.seal(request(), &source.lent).unwrap();
    let shard = rig.manager.seal_from(request(), &source, SealOptions::new()).unwrap();
    assert_eq!(shard.sealed_data, expected.sealed_data);
    assert_eq!(rig.manager.unseal_model(&shard).unwrap(), source.lent);
}

#[test]
fn a_panic_on_one_of_many_threads_reaches_the_caller_after_everything_was_given_back() {
    let manager = many_threads();
    for at in [0, 3 * WINDOW, 19 * WINDOW] {
        for scope in [SivScope::Shard, SivScope::Segment] {
            let panics = acts_at(20 * WINDOW, at, || panic!("source"));
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let _unreached =
                    manager.seal_from(request().scope(scope), panics, SealOptions::new());
            }));
            let payload = panicked.unwrap_err();
            assert_eq!(payload.downcast_ref::<&str>(), Some(&"source"), "the payload is kept");
            assert!(manager.shards().is_empty());
            let capacity = manager.capacity(0).unwrap();
            assert_eq!(capacity.free, capacity.total);
        }
    }
    let shard = manager.seal_model("model", 0, &content(1 << 20, 12)).unwrap();
    manager.free_shard(&shard).unwrap();
}
