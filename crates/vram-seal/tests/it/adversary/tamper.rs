//! P9 and G10: flipped, swapped, dropped, added or spliced bytes are refused, and no byte of
//! plaintext is released with the refusal.

use vram_seal::{
    ContextField, Expected, OpenLimits, Opener, SealContext, SealError, SealRecord, Threads, image,
    open_record, unseal, verify,
};

use vram_testkit::content;

use crate::support::{S, Shard, key, kinds};

#[test]
fn every_bit_of_the_record_counts() {
    for params in kinds() {
        let mut shard = Shard::of(params, &content(2 * S + 5, 1));
        for bit in 0..8 * SealRecord::LEN {
            shard.record[bit / 8] ^= 1 << (bit % 8);
            let refusal = shard.try_open().err();
            let right = match bit / 8 {
                0..8 => refusal == Some(SealError::NotASeal),
                8..10 => matches!(refusal, Some(SealError::UnsupportedVersion { .. })),
                13 => matches!(refusal, Some(SealError::UnsupportedHash { .. })),
                48..64 => matches!(refusal, Some(SealError::WrongKey { .. })),
                // Changed lengths may disagree with the table before its content is checked.
                _ => refusal == Some(SealError::RecordMismatch),
            };
            assert!(right, "{params:?}, bit {bit}: {refusal:?}");
            shard.record[bit / 8] ^= 1 << (bit % 8);
        }
        shard.opener();
    }
}

#[test]
fn every_bit_of_the_table_counts() {
    for params in kinds() {
        let mut shard = Shard::of(params, &content(2 * S + 5, 2));
        let mut table = shard.tags.as_bytes().to_vec();
        for bit in 0..8 * table.len() {
            table[bit / 8] ^= 1 << (bit % 8);
            shard.tags = shard.tags_of(&table);
            assert_eq!(shard.try_open().err(), Some(SealError::TableMismatch), "bit {bit}");
            table[bit / 8] ^= 1 << (bit % 8);
        }
        shard.tags = shard.tags_of(&table);
        shard.opener();
    }
}

#[test]
fn every_byte_of_the_data_counts_and_names_its_segment() {
    for params in kinds() {
        let mut shard = Shard::of(params, &content(2 * S + 5, 3));
        let opener = shard.opener();
        for at in 0..shard.data.len() {
            let segment = at / S;
            let bytes = segment * S..((segment + 1) * S).min(shard.data.len());
            let segment = u64::try_from(segment).unwrap();
            shard.data[at] ^= 1 << (at % 8);
            let mut target = vec![0xaa; bytes.len()];
            assert_eq!(
                opener.open_segment_to(segment, &shard.data[bytes], &mut target),
                Err(SealError::SegmentMismatch { segment }),
                "byte {at}"
            );
            assert!(target.iter().all(|byte| *byte == 0), "nothing comes out");
            shard.data[at] ^= 1 << (at % 8);
        }
        assert_eq!(verify(&opener, Threads::ONE, &shard.data), Ok(vec![]));
    }
}

#[test]
fn every_bit_of_a_small_record_table_and_data_counts() {
    for params in kinds() {
        let shard = Shard::of(params, &content(33, 4));
        let opener = shard.opener();
        for bit in 0..8 * shard.data.len() {
            let mut data = shard.data.clone();
            data[bit / 8] ^= 1 << (bit % 8);
            let mut out = vec![0xaa; data.len()];
            assert_eq!(
                unseal(&opener, Threads::ONE, &data, &mut out),
                Err(SealError::SegmentMismatch { segment: 0 })
            );
            assert_eq!(out, vec![0; 33]);
        }
    }
}

#[test]
fn a_failed_unseal_leaves_no_plaintext_of_any_segment_and_names_the_first() {
    for params in kinds() {
        for threads in [1, 2, 5] {
            let shard = Shard::of(params, &content(200 * S + 9, 5));
            let opener = shard.opener();
            let mut data = shard.data.clone();
            for segment in [199, 77, 130, 78] {
                data[segment * S + 3] ^= 0x80;
            }
            let mut out = vec![0xaa; data.len()];
            let threads = Threads::exactly(threads);
            assert_eq!(
                unseal(&opener, threads, &data, &mut out),
                Err(SealError::SegmentMismatch { segment: 77 })
            );
            assert!(out.iter().all(|byte| *byte == 0));
            assert_eq!(verify(&opener, threads, &data), Ok(vec![77, 78, 130, 199]));
        }
    }
}

#[test]
fn segments_cannot_be_swapped_repeated_or_moved() {
    for params in kinds() {
        let shard = Shard::of(params, &content(4 * S, 6));
        let opener = shard.opener();
        for from in 0..4 {
            for to in 0..4 {
                let mut buffer = shard.data[from * S..(from + 1) * S].to_vec();
                let opened = opener.open_segment(u64::try_from(to).unwrap(), &mut buffer);
                assert_eq!(opened.is_ok(), from == to);
            }
        }
        // Together with their table entries: the table is authenticated as a whole.
        let entry = shard.tags.as_bytes().len() / 4;
        let mut swapped = shard.clone();
        let mut table = shard.tags.as_bytes().to_vec();
        let (first, second) = table.split_at_mut(entry);
        first.swap_with_slice(&mut second[..entry]);
        swapped.tags = shard.tags_of(&table);
        assert_eq!(swapped.try_open().err(), Some(SealError::TableMismatch));
    }
}

#[test]
fn segments_and_table_entries_cannot_be_dropped_or_added() {
    for params in kinds() {
        let shard = Shard::of(params, &content(3 * S, 7));
        let opener = shard.opener();
        for wrong in [2 * S, 3 * S - 1, 3 * S + 1, 4 * S, 0] {
            let data = vec![0; wrong];
            let mut out = vec![0xaa; 3 * S];
            assert!(matches!(
                unseal(&opener, Threads::ONE, &data, &mut out),
                Err(SealError::WrongLength { .. })
            ));
            assert!(out.iter().all(|byte| *byte == 0xaa), "untouched");
            assert!(matches!(
                verify(&opener, Threads::ONE, &data),
                Err(SealError::WrongLength { .. })
            ));
        }
        // A table of another length, which only another record allows to build.
        for len in [2 * S, 4 * S] {
            let mut other = Shard::of(params, &content(len, 7));
            other.record = shard.record.clone();
            assert!(matches!(other.try_open().err(), Some(SealError::WrongLength { .. })));
        }
        let fields = shard.record.parse_unauthenticated().unwrap();
        let table = shard.tags.as_bytes();
        for wrong in [&table[1..], &[table, &[0]].concat()] {
            assert!(vram_seal::SegmentTags::from_bytes(&fields, wrong.to_vec()).is_err());
        }
    }
}

#[test]
fn a_shard_cut_to_fewer_segments_does_not_pass() {
    // Both shards are genuine, and the shorter is a prefix of the longer.
    for params in kinds() {
        let long = content(3 * S, 8);
        let (long, short) = (Shard::of(params, &long), Shard::of(params, &long[..2 * S]));
        let opener = short.opener();
        let altered = verify(&opener, Threads::ONE, &long.data[..2 * S]).unwrap();
        if params.protection() == vram_seal::Protection::Encrypted {
            assert_eq!(altered, [0, 1]);
        } else {
            assert_eq!(altered, [0; 0], "the same plaintext is the same plaintext");
        }
    }
}

#[test]
fn nothing_passes_from_one_model_context_place_or_revision_to_another() {
    let plaintext = content(2 * S, 9);
    for params in kinds() {
        let base = SealContext::new("model").unwrap();
        let here = Shard::seal(&key(7), &base, params, &plaintext);
        let others = [
            (SealContext::new("model-b").unwrap(), ContextField::ModelAndContext),
            (base.context(b"t"), ContextField::ModelAndContext),
            (base.metadata(b"f32"), ContextField::Metadata),
            (base.shard_index(1), ContextField::ShardIndex),
            (base.revision(1), ContextField::Revision),
        ];
        for (context, field) in others {
            let there = Shard::seal(&key(7), &context, params, &plaintext);
            assert!(there.record != here.record);
            let expected = Expected::from(&base).params(params);
            assert_eq!(
                Opener::open(&key(7), &there.record, there.tags.clone(), &expected).err(),
                Some(SealError::ContextMismatch { field })
            );
            // Neither its table nor its data is accepted with another record.
            let mut spliced = here.clone();
            spliced.tags = there.tags.clone();
            assert_eq!(spliced.try_open().err(), Some(SealError::TableMismatch));
            if params.protection() == vram_seal::Protection::Encrypted {
                let altered = verify(&here.opener(), Threads::ONE, &there.data);
                assert_eq!(altered, Ok(vec![0, 1]));
            }
        }
    }
}

#[test]
fn model_id_and_context_cannot_trade_bytes() {
    let params = kinds()[1];
    let split = SealContext::new("ab").unwrap().context(b"c");
    let shard = Shard::seal(&key(7), &split, params, &content(10, 10));
    for (model, context) in [("a", &b"bc"[..]), ("abc", b""), ("ab", b"")] {
        let expected = Expected::in_context(model, context).unwrap();
        assert_eq!(
            Opener::open(&key(7), &shard.record, shard.tags.clone(), &expected).err(),
            Some(SealError::ContextMismatch { field: ContextField::ModelAndContext })
        );
    }
    let expected = Expected::in_context("ab", b"c").unwrap();
    assert!(Opener::open(&key(7), &shard.record, shard.tags, &expected).is_ok());
}

#[test]
fn another_key_opens_nothing_and_the_error_names_both() {
    for params in kinds() {
        let plaintext = content(2 * S, 11);
        let shard = Shard::of(params, &plaintext);
        let expected = Expected::new("model").unwrap().params(params);
        let other = key(8);
        assert_eq!(
            open_record(&other, &shard.record, &expected, OpenLimits::default()).err(),
            Some(SealError::WrongKey { expected: other.id(), found: key(7).id() })
        );
        // A record that names the other key's id, but was not made with that key.
        let mut claims = shard.record.clone();
        claims[48..64].copy_from_slice(other.id().as_bytes());
        assert_eq!(
            open_record(&other, &claims, &expected, OpenLimits::default()).err(),
            Some(SealError::RecordMismatch)
        );
        // The same content under the other key has a different table and different ciphertext.
        let there = Shard::seal(&other, &SealContext::new("model").unwrap(), params, &plaintext);
        assert!(there.tags != shard.tags);
        if params.protection() == vram_seal::Protection::Encrypted {
            assert_eq!(verify(&shard.opener(), Threads::ONE, &there.data), Ok(vec![0, 1]));
        }
    }
}

#[test]
fn an_image_is_its_parts_to_the_byte() {
    for params in kinds() {
        for len in [0, 1, S, 3 * S + 5] {
            let shard = Shard::of(params, &content(len, 12));
            let fields = shard.record.parse_unauthenticated().unwrap();
            let mut whole = image::head(&shard.record, &shard.tags).unwrap();
            let head = whole.len();
            assert_eq!(head % 4096, 0);
            whole.extend_from_slice(&shard.data);

            assert!(image::record(&whole).unwrap() == shard.record);
            let (tags, data) = image::split(&fields, &whole).unwrap();
            assert!(tags == shard.tags && data == shard.data);

            for bad in [&whole[..whole.len() - 1], &[&whole[..], &[0]].concat()] {
                assert!(matches!(
                    image::split(&fields, bad).err(),
                    Some(SealError::WrongLength { .. })
                ));
            }
            assert!(image::record(&whole[..255]).is_err());
            for at in 256 + shard.tags.as_bytes().len()..head {
                whole[at] = 1;
                let offset = u64::try_from(at).unwrap();
                assert_eq!(
                    image::split(&fields, &whole).err(),
                    Some(SealError::Padding { offset })
                );
                whole[at] = 0;
            }
        }
    }
}
