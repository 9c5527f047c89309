//! Sealing and opening, in every mode, scope and suite, at every boundary of sizes.

use vram_alloc::ByteLen;
use vram_seal::{
    ContentHasher, Expected, Fresh, HashKind, OpenLimits, Opener, Protection, SealContext,
    SealError, SealKey, SealParams, SealRecord, Sealed, Sealer, SegmentCollector, SegmentHash,
    SegmentSize, SivScope, Suite, Threads, hash_all, merge_digest, open_record, seal,
    seal_in_place, unseal, unseal_in_place, verify, verify_content,
};
use vram_testkit::weights;

const S: usize = 4096;

fn key() -> SealKey {
    SealKey::from_bytes(&[7; 32])
}

fn context() -> SealContext<'static> {
    SealContext::new("model").unwrap().context(b"tenant").shard_index(3).revision(9)
}

fn all_params() -> Vec<SealParams> {
    let base = SealParams::new().with_segment(SegmentSize::MIN);
    let mut all = vec![base.with_protection(Protection::Authenticated)];
    for scope in [SivScope::Shard, SivScope::Segment] {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            all.push(base.with_scope(scope).with_suite(suite));
        }
    }
    all
}

fn sizes() -> [usize; 12] {
    [0, 1, 15, 16, 17, S - 1, S, S + 1, 2 * S, 3 * S + 5, 65 * S, 131 * S + 77]
}

fn opener(sealed: &Sealed) -> Opener {
    let context = context();
    let expected = Expected::from(&context).any_protection();
    Opener::open(&key(), &sealed.record, sealed.tags.clone(), &expected).unwrap()
}

#[test]
fn what_was_sealed_comes_back_and_the_digest_is_the_plain_one() {
    for params in all_params() {
        for len in sizes() {
            let plaintext = weights(len);
            let mut data = vec![0xee; len];
            let sealed =
                seal(&key(), &context(), params, Threads::AUTO, &plaintext, &mut data).unwrap();
            assert_eq!(sealed.digest, ContentHasher::digest(HashKind::Blake3, &plaintext));
            if params.protection() == Protection::Authenticated {
                assert_eq!(data, plaintext);
            } else if len >= 16 {
                assert_ne!(data, plaintext);
            }
            let opener = opener(&sealed);
            let mut back = vec![0xdd; len];
            unseal(&opener, Threads::AUTO, &data, &mut back).unwrap();
            assert_eq!(back, plaintext, "{params:?}, {len} bytes");
            assert_eq!(verify(&opener, Threads::AUTO, &data), Ok(vec![]));
            assert_eq!(verify_content(&opener, Threads::AUTO, &data), Ok(sealed.digest));
        }
    }
}

#[test]
fn in_place_gives_the_same_bytes_as_from_one_buffer_to_another() {
    for params in all_params() {
        for len in sizes() {
            let plaintext = weights(len);
            let mut data = vec![0; len];
            let whole =
                seal(&key(), &context(), params, Threads::ONE, &plaintext, &mut data).unwrap();
            let mut buffer = plaintext.clone();
            let threads = Threads::exactly(3);
            let sealed = seal_in_place(&key(), &context(), params, threads, &mut buffer).unwrap();
            assert!(sealed.record == whole.record && sealed.tags == whole.tags && buffer == data);
            assert_eq!(sealed.digest, whole.digest);
            let opener = opener(&sealed);
            unseal_in_place(&opener, threads, &mut buffer).unwrap();
            assert_eq!(buffer, plaintext);
            if len > 0 {
                buffer.copy_from_slice(&data);
                buffer[len - 1] ^= 1;
                let segment = opener.layout().count() - 1;
                assert_eq!(
                    unseal_in_place(&opener, threads, &mut buffer),
                    Err(SealError::SegmentMismatch { segment })
                );
                assert!(buffer.iter().all(|byte| *byte == 0), "nothing is left");
            }
        }
    }
}

#[test]
fn one_thread_and_many_give_the_same_bytes() {
    for params in all_params() {
        for len in sizes() {
            let plaintext = weights(len);
            let run = |threads| {
                let mut data = vec![0; len];
                let sealed = seal(&key(), &context(), params, threads, &plaintext, &mut data);
                let sealed = sealed.unwrap();
                (sealed.record, sealed.tags, data)
            };
            let one = run(Threads::ONE);
            for count in [2, 3, 8] {
                assert!(run(Threads::exactly(count)) == one, "{params:?}, {len} bytes");
            }
        }
    }
}

#[test]
fn segment_by_segment_gives_the_same_bytes_as_whole_in_any_order() {
    for params in all_params() {
        for len in sizes() {
            let plaintext = weights(len);
            let mut data = vec![0; len];
            let whole =
                seal(&key(), &context(), params, Threads::ONE, &plaintext, &mut data).unwrap();

            let len64 = ByteLen::from_usize(len);
            let fresh = Sealer::new(&key(), &context(), params, len64).unwrap();
            let layout = *fresh.layout();
            let range = |i| layout.range(i).unwrap().to_usize_range().unwrap();
            let hash_all = |fresh: &Sealer<Fresh>| {
                (0..layout.count()).map(|i| fresh.hash_segment(i, &plaintext[range(i)])).collect()
            };
            let sealer = fresh.begin::<SealError>(hash_all).unwrap();
            assert_eq!(sealer.is_fixed(), sealer.needs_digest_first());
            let collector = SegmentCollector::new(sealer).unwrap();
            let mut pieces = vec![0; len];
            for i in (0..layout.count()).rev() {
                let buffer = &mut pieces[range(i)];
                buffer.copy_from_slice(&plaintext[range(i)]);
                let segment = collector.sealer().seal_segment(i, buffer).unwrap();
                collector.put(i, segment).unwrap();
            }
            let sealed = collector.finish().unwrap();
            assert_eq!(pieces, data);
            assert!(sealed.record == whole.record && sealed.tags == whole.tags);
            assert_eq!(sealed.digest, whole.digest);

            let opener = opener(&sealed);
            for i in 0..layout.count() {
                let mut target = vec![1; range(i).len()];
                opener.open_segment_to(i, &data[range(i)], &mut target).unwrap();
                assert_eq!(target, plaintext[range(i)]);
                let mut buffer = data[range(i)].to_vec();
                opener.open_segment(i, &mut buffer).unwrap();
                assert_eq!(buffer, plaintext[range(i)]);
                let mut buffer = data[range(i)].to_vec();
                opener.verify_segment(i, &mut buffer).unwrap();
                assert!(buffer.iter().all(|byte| *byte == 0));
            }
        }
    }
}

#[test]
fn the_merged_digest_is_blake3_at_every_boundary() {
    for count in 1..=40_usize {
        for extra in [0, 1, 1023, 1024, 1025, S - 1] {
            let plaintext = weights(count * S - S + extra);
            let layout = vram_seal::SegmentLayout::new(
                ByteLen::from_usize(plaintext.len()),
                SegmentSize::MIN,
            )
            .unwrap();
            let hashes = hash_all(&layout, Threads::ONE, &plaintext).unwrap();
            let digest = merge_digest(&hashes, &layout).unwrap();
            assert_eq!(digest.as_bytes(), blake3::hash(&plaintext).as_bytes());
        }
    }
}

#[test]
fn the_limit_is_checked_before_anything_is_allocated() {
    let params = SealParams::new();
    let mut data = vec![0; 10];
    let sealed = seal(&key(), &context(), params, Threads::ONE, &[1; 10], &mut data).unwrap();
    let expected = Expected::in_context("model", b"tenant").unwrap();
    let limits = OpenLimits { max_len: ByteLen::new(9) };
    assert_eq!(
        open_record(&key(), &sealed.record, &expected, limits).err(),
        Some(SealError::TooLong { len: ByteLen::new(10), max: ByteLen::new(9) })
    );
    assert!(SealRecord::try_from(&sealed.record[..255]).is_err());
    assert!(SealRecord::try_from(&sealed.record[..]).unwrap() == sealed.record);
}

#[test]
fn hashes_vouched_for_are_those_of_the_content_and_no_others() {
    for params in all_params() {
        let plaintext = weights(3 * S + 5);
        let mut data = vec![0; plaintext.len()];
        let sealed = seal(&key(), &context(), params, Threads::ONE, &plaintext, &mut data).unwrap();
        let opener = opener(&sealed);
        let mut hashes = hash_all(opener.layout(), Threads::ONE, &plaintext).unwrap();
        assert_eq!(opener.check_digest(&hashes), Ok(sealed.digest));
        let whole = opener.fields().scope() == Some(SivScope::Shard);
        for (i, hash) in (0..).zip(&hashes) {
            if whole {
                assert!(matches!(
                    opener.check_hash(i, hash),
                    Err(SealError::NotInThisScope { .. })
                ));
            } else {
                assert_eq!(opener.check_hash(i, hash), Ok(()));
            }
        }
        assert!(matches!(
            opener.check_digest(&hashes[..3]),
            Err(SealError::WrongHashCount { expected: 4, found: 3 })
        ));
        let mut wrong = *hashes[2].as_bytes();
        wrong[0] ^= 1;
        hashes[2] = SegmentHash::from_bytes(wrong);
        let refusal = if whole {
            SealError::DigestMismatch
        } else {
            SealError::SegmentMismatch { segment: 2 }
        };
        assert_eq!(opener.check_digest(&hashes), Err(refusal));
    }
}
