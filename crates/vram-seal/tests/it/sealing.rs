//! Sealing segment by segment: never two plaintexts under one key and nonce, and no part of one seal
//! in another.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use vram_alloc::ByteLen;
use vram_seal::{
    ContentHasher, Expected, HashKind, Opener, Protection, SealContext, SealError, SealParams,
    Sealed, Sealer, SegmentCollector, SegmentHash, SegmentSize, SivScope, Suite, Threads, hash_all,
    seal, unseal, verify_content,
};
use vram_testkit::weights;

use crate::support::{S, key, kinds};

fn context() -> SealContext<'static> {
    SealContext::new("model").unwrap()
}

/// A sealer for this content, ready by the way that its scope prescribes.
fn ready(params: SealParams, plaintext: &[u8]) -> Sealer {
    let len = ByteLen::from_usize(plaintext.len());
    let fresh = Sealer::new(&key(7), &context(), params, len).unwrap();
    fresh.begin(|fresh| hash_all(fresh.layout(), Threads::ONE, plaintext)).unwrap()
}

/// A sealer that takes this content and no other, in any scope.
fn fixed(params: SealParams, plaintext: &[u8]) -> Sealer {
    let len = ByteLen::from_usize(plaintext.len());
    let fresh = Sealer::new(&key(7), &context(), params, len).unwrap();
    let hashes = hash_all(fresh.layout(), Threads::ONE, plaintext).unwrap();
    fresh.fix(hashes).unwrap()
}

#[test]
fn scope_segment_is_the_default() {
    assert_eq!(SealParams::new().scope(), SivScope::Segment);
    assert_eq!(SealParams::default(), SealParams::new());
    assert_eq!(SivScope::default(), SivScope::Segment);
}

#[test]
fn scope_shard_is_not_ready_before_all_hashes_are_fixed() {
    for params in kinds() {
        let len = ByteLen::from_usize(2 * S);
        let fresh = || Sealer::new(&key(7), &context(), params, len).unwrap();
        let one_pass = fresh().one_pass();
        if fresh().needs_digest_first() {
            assert_eq!(one_pass.err(), Some(SealError::NotFixed));
        } else {
            assert!(!one_pass.unwrap().is_fixed());
        }
        let hash = fresh().hash_segment(0, &[1; S]).unwrap();
        for hashes in [vec![], vec![hash.clone()], vec![hash.clone(), hash.clone(), hash]] {
            let found = ByteLen::from_usize(hashes.len()).get();
            assert_eq!(
                fresh().fix(hashes).err(),
                Some(SealError::WrongHashCount { expected: 2, found })
            );
        }
    }
}

#[test]
fn a_segment_whose_hash_was_fixed_is_sealed_as_those_bytes_or_refused_and_wiped() {
    let plaintext = weights(3 * S);
    for params in kinds() {
        let sealer = fixed(params, &plaintext);
        for (at, segment) in [(0, 0_u64), (S, 1), (2 * S, 2)] {
            for place in [0, 77, S - 1] {
                let mut lie = plaintext[at..at + S].to_vec();
                lie[place] ^= 1;
                assert_eq!(
                    sealer.seal_segment(segment, &mut lie).err(),
                    Some(SealError::SourceChanged { segment })
                );
                assert!(lie.iter().all(|byte| *byte == 0), "the refused segment is wiped");
            }
            let mut truth = plaintext[at..at + S].to_vec();
            let sealed = sealer.seal_segment(segment, &mut truth).unwrap();
            assert_eq!(
                *sealed.hash(),
                sealer.hash_segment(segment, &plaintext[at..at + S]).unwrap()
            );
        }
    }
}

#[test]
fn hashes_that_are_fixed_change_no_sealed_byte() {
    let plaintext = weights(3 * S + 5);
    for params in kinds() {
        let mut data = vec![0; plaintext.len()];
        let whole = seal(&key(7), &context(), params, Threads::ONE, &plaintext, &mut data).unwrap();
        let collector = SegmentCollector::new(fixed(params, &plaintext)).unwrap();
        let mut pieces = plaintext.clone();
        for (segment, bytes) in (0..).zip(pieces.chunks_mut(S)) {
            collector
                .put(segment, collector.sealer().seal_segment(segment, bytes).unwrap())
                .unwrap();
        }
        let sealed = collector.finish().unwrap();
        assert!(sealed.record == whole.record && sealed.tags == whole.tags && pieces == data);
        assert_eq!(sealed.digest, whole.digest);
    }
}

#[test]
fn what_a_seal_ends_with_opens_its_shard_as_what_is_opened_from_its_record_does() {
    for len in [0, 1, S, 3 * S + 5] {
        let plaintext = weights(len);
        for params in kinds() {
            let collector = SegmentCollector::new(ready(params, &plaintext)).unwrap();
            let mut pieces = plaintext.clone();
            let whole: &mut [u8] = &mut [];
            let parts = pieces.chunks_mut(S).chain(plaintext.is_empty().then_some(whole));
            for (segment, bytes) in (0..).zip(parts) {
                let sealed = collector.sealer().seal_segment(segment, bytes).unwrap();
                collector.put(segment, sealed).unwrap();
            }
            let opened = collector.finish_open().unwrap();
            let expected = Expected::from(&context()).params(params);
            let tags = opened.opener.tags().clone();
            let read = Opener::open(&key(7), &opened.record, tags, &expected).unwrap();
            assert!(read.fields() == opened.opener.fields());
            for opener in [&read, &opened.opener] {
                assert!(opener.record() == opened.record);
                assert_eq!(opener.record_mac(), opened.record.mac());
                assert_eq!(
                    verify_content(opener, Threads::ONE, &pieces).unwrap(),
                    opened.digest,
                    "{len} bytes, {params:?}"
                );
            }
        }
    }
}

#[test]
fn two_plaintexts_of_one_segment_never_meet_under_one_key_and_nonce() {
    let one = weights(2 * S);
    let mut other = one.clone();
    other[5] ^= 1;
    for params in kinds() {
        let sealer = ready(params, &one);
        let mut first = one[..S].to_vec();
        sealer.seal_segment(0, &mut first).unwrap();
        let mut second = other[..S].to_vec();
        match sealer.seal_segment(0, &mut second) {
            // Refused: nothing was encrypted.
            Err(error) => {
                assert!(sealer.needs_digest_first());
                assert_eq!(error, SealError::SourceChanged { segment: 0 });
                assert!(second.iter().all(|byte| *byte == 0));
            }
            // Sealed under another synthetic IV, so under another key.
            Ok(_) if params.protection() == Protection::Encrypted => {
                let streams = first.iter().zip(&one).zip(second.iter().zip(&other));
                let same = streams.filter(|((a, p), (b, q))| *a ^ *p == *b ^ *q).count();
                assert!(same < S / 16, "{same} bytes of one key stream");
            }
            Ok(_) => assert_eq!(second, other[..S]),
        }
    }
}

#[test]
fn a_collector_takes_each_segment_of_its_own_seal_once() {
    let plaintext = weights(2 * S);
    for params in kinds() {
        let collector = SegmentCollector::new(ready(params, &plaintext)).unwrap();
        let sealed = |sealer: &Sealer, segment: u64, at: usize| {
            sealer.seal_segment(segment, &mut plaintext[at..at + S].to_vec()).unwrap()
        };
        let own = |segment, at| sealed(collector.sealer(), segment, at);
        let foreign = Err(SealError::ForeignSegment { segment: 0 });
        assert_eq!(collector.put(0, own(1, S)), foreign, "another segment");
        // The same key, context, length and content: still another seal.
        let twin = ready(params, &plaintext);
        assert_eq!(collector.put(0, sealed(&twin, 0, 0)), foreign, "another seal");
        collector.put(1, own(1, S)).unwrap();
        assert_eq!(collector.put(1, own(1, S)), Err(SealError::DuplicateSegment { segment: 1 }));
        assert_eq!(collector.finish().err(), Some(SealError::Incomplete { missing: 1 }));
    }
}

#[test]
fn segments_of_two_seals_that_run_at_once_are_not_mixed() {
    let (one, other) = (weights(2 * S), vec![9; 2 * S]);
    for params in kinds() {
        let [mine, theirs] =
            [&one, &other].map(|bytes| SegmentCollector::new(ready(params, bytes)).unwrap());
        for (segment, at) in [(0, 0), (1, S)] {
            let mut bytes = other[at..at + S].to_vec();
            let sealed = theirs.sealer().seal_segment(segment, &mut bytes).unwrap();
            assert_eq!(mine.put(segment, sealed), Err(SealError::ForeignSegment { segment }));
        }
        assert_eq!(mine.finish().err(), Some(SealError::Incomplete { missing: 2 }));
    }
}

#[test]
fn hashes_can_be_shared_by_several_sealers() {
    let plaintext = weights(2 * S);
    let len = ByteLen::from_usize(plaintext.len());
    let [new, old] =
        [7, 8].map(|byte| Sealer::new(&key(byte), &context(), kinds()[1], len).unwrap());
    let hashes = Arc::new(hash_all(new.layout(), Threads::ONE, &plaintext).unwrap());
    let (new, old) = (new.fix(Arc::clone(&hashes)).unwrap(), old.fix(hashes).unwrap());
    let [mut a, mut b] = [plaintext[..S].to_vec(), plaintext[..S].to_vec()];
    new.seal_segment(0, &mut a).unwrap();
    old.seal_segment(0, &mut b).unwrap();
    assert_ne!(a, b);
}

/// What is sealed by segment while it changes: each segment is one content, hashed and sealed, and
/// the digest is that of what opens.
#[test]
fn content_that_changes_while_it_is_sealed_by_segment_is_sealed_as_what_was_read() {
    let mut source = weights(4 * S);
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let params = kinds()[2].with_suite(suite);
        let mut seen: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for round in 0..20_u8 {
            let collector = SegmentCollector::new(ready(params, &source)).unwrap();
            let (mut data, mut read) = (Vec::new(), Vec::new());
            for segment in 0..4 {
                let at = usize::try_from(segment).unwrap() * S;
                let mut staging = source[at..at + S].to_vec();
                read.extend_from_slice(&staging);
                // Others write the source while the segment is sealed.
                source.iter_mut().step_by(1000).for_each(|byte| *byte = byte.wrapping_add(round));
                let sealed = collector.sealer().seal_segment(segment, &mut staging).unwrap();
                collector.put(segment, sealed).unwrap();
                data.extend_from_slice(&staging);
            }
            let sealed = collector.finish().unwrap();
            assert_eq!(sealed.digest, ContentHasher::digest(HashKind::Blake3, &read));
            for (segment, entry) in sealed.tags.as_bytes().chunks(48).enumerate() {
                let bytes = &data[segment * S..(segment + 1) * S];
                let before = seen.insert(entry[..32].to_vec(), bytes.to_vec());
                assert!(before.is_none_or(|before| before == bytes), "one key, two plaintexts");
            }
            let expected = Expected::from(&context());
            let opener = Opener::open(&key(7), &sealed.record, sealed.tags, &expected).unwrap();
            let mut back = vec![0; data.len()];
            unseal(&opener, Threads::ONE, &data, &mut back).unwrap();
            assert_eq!(back, read);
        }
    }
}

/// The call hashes and encrypts its copy in either scope, so no change of the source fails it. The
/// kernel writes the source meanwhile, as another process writes a mapping.
#[test]
fn a_whole_shard_is_sealed_as_what_was_copied_however_its_source_changes() {
    // One segment, long enough that the source changes between its copy and its hash.
    const LARGE: usize = 16 << 20;
    let plaintext = weights(LARGE);
    let start = u64::try_from(plaintext.as_ptr().addr()).unwrap();
    let memory = File::options().write(true).open("/proc/self/mem").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u64.. {
                let at = start + round * 4099 % (16 << 20);
                memory.write_all_at(&round.to_le_bytes()[..1], at).unwrap();
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let _stop = StopAtEnd(&stop);
        let (began, mut data) = (Instant::now(), vec![0; plaintext.len()]);
        while began.elapsed() < Duration::from_millis(500) {
            for params in kinds() {
                let params = params.with_segment(SegmentSize::MAX);
                // The other processor is the writer's.
                let threads = Threads::ONE;
                let sealed = seal(&key(7), &context(), params, threads, &plaintext, &mut data);
                let Sealed { record, tags, digest, .. } = sealed.unwrap();
                let expected = Expected::from(&context()).params(params);
                let opener = Opener::open(&key(7), &record, tags, &expected).unwrap();
                assert_eq!(verify_content(&opener, threads, &data), Ok(digest));
            }
        }
    });
}

/// Stops the writing thread, also if the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_hash_of_zeros_is_no_content_s() {
    let len = ByteLen::from_usize(2 * S);
    let fresh = Sealer::new(&key(7), &context(), kinds()[1], len).unwrap();
    let sealer = fresh.fix(vec![SegmentHash::from_bytes([0; 32]); 2]).unwrap();
    let refused = sealer.seal_segment(0, &mut [0; S]).err();
    assert_eq!(refused, Some(SealError::SourceChanged { segment: 0 }));
}
