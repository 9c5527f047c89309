//! Properties of the seal over random content, kinds of seal, ranges and bytes.
//!
//! The references: the content itself (G1, G11), a second seal of the same content (G2), the xor of
//! two plaintexts, which must differ from the xor of their ciphertexts (P10), and arbitrary bytes,
//! which must be refused with an error (P9).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers, checked in test builds")]

#[macro_use]
extern crate vram_testkit;

use proptest::collection::vec;
use proptest::prelude::*;
use ring::hmac;
use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_seal::{
    Expected, ImageLayout, KeyId, OpenLimits, Opener, Protection, SealContext, SealError, SealKey,
    SealParams, SealRecord, Sealed, SegmentLayout, SegmentSize, SegmentTags, SivScope, Suite,
    Threads, image, open_record, seal, unseal, verify, verify_content,
};

fn params() -> impl Strategy<Value = SealParams> {
    (0..5_u8, 12..=14_u8).prop_map(|(kind, log2)| {
        let base = SealParams::new()
            .with_scope(SivScope::Shard)
            .with_segment(SegmentSize::from_log2(log2).unwrap());
        let chacha = base.with_suite(Suite::ChaCha20Poly1305);
        match kind {
            0 => base,
            1 => base.with_scope(SivScope::Segment),
            2 => chacha,
            3 => chacha.with_scope(SivScope::Segment),
            _ => base.with_protection(Protection::Authenticated),
        }
    })
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), 4000..4200), vec(any::<u8>(), 0..40_000)]
}

fn seal_as(context: &SealContext<'_>, params: SealParams, plaintext: &[u8]) -> (Sealed, Vec<u8>) {
    let mut data = vec![0; plaintext.len()];
    let key = SealKey::from_bytes(&[5; 32]);
    let sealed = seal(&key, context, params, Threads::exactly(2), plaintext, &mut data).unwrap();
    (sealed, data)
}

fn open(context: &SealContext<'_>, sealed: &Sealed) -> Opener {
    let key = SealKey::from_bytes(&[5; 32]);
    let expected = Expected::from(context).any_protection();
    Opener::open(&key, &sealed.record, sealed.tags.clone(), &expected).unwrap()
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

proptest! {
    #[test]
    fn what_is_sealed_comes_back_and_verifies(
        params in params(),
        plaintext in content(),
        model in "[a-zA-Zäß0-9/_.-]{1,40}",
        tenant in vec(any::<u8>(), 0..40),
        (index, revision) in any::<(u64, u64)>(),
    ) {
        let context = SealContext::new(&model).unwrap();
        let context = context.context(&tenant).shard_index(index).revision(revision);
        let (sealed, data) = seal_as(&context, params, &plaintext);
        prop_assert_eq!(*sealed.digest.as_bytes(), *blake3::hash(&plaintext).as_bytes());
        let opener = open(&context, &sealed);
        prop_assert_eq!(opener.fields().shard_index(), index);
        prop_assert_eq!(opener.fields().revision(), revision);
        let mut back = vec![0xcc; data.len()];
        unseal(&opener, Threads::exactly(2), &data, &mut back).unwrap();
        prop_assert_eq!(&back, &plaintext);
        prop_assert_eq!(verify(&opener, Threads::ONE, &data), Ok(vec![]));
        prop_assert_eq!(verify_content(&opener, Threads::ONE, &data), Ok(sealed.digest));
    }

    #[test]
    fn the_same_input_gives_the_same_bytes(params in params(), plaintext in content()) {
        let context = SealContext::new("m").unwrap();
        let (first, first_data) = seal_as(&context, params, &plaintext);
        let (again, again_data) = seal_as(&context, params, &plaintext);
        prop_assert_eq!(first.record.as_bytes(), again.record.as_bytes());
        prop_assert_eq!(first.tags.as_bytes(), again.tags.as_bytes());
        prop_assert_eq!(first_data, again_data);
    }

    #[test]
    fn any_range_opens_from_the_segments_it_touches_alone(
        params in params(),
        plaintext in content(),
        (from, to) in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let context = SealContext::new("m").unwrap();
        let (sealed, data) = seal_as(&context, params, &plaintext);
        let opener = open(&context, &sealed);
        let layout = *opener.layout();
        let (a, b) = (from.index(plaintext.len() + 1), to.index(plaintext.len() + 1));
        let (start, end) = (a.min(b), a.max(b));
        let range = ByteRange::checked(
            ByteOffset::new(u64::try_from(start).unwrap()),
            ByteLen::from_usize(end - start),
            layout.plaintext_len(),
        )
        .unwrap();
        let touched = layout.covering(range).unwrap();
        prop_assert_eq!(touched.is_empty(), start == end);
        let mut opened = vec![];
        for segment in touched.clone() {
            let place = layout.range(segment).unwrap().to_usize_range().unwrap();
            let mut buffer = data[place].to_vec();
            opener.open_segment(segment, &mut buffer).unwrap();
            opened.extend_from_slice(&buffer);
        }
        if let Some(span) = layout.span(&touched) {
            let skipped = start - span.to_usize_range().unwrap().start;
            prop_assert_eq!(&opened[skipped..skipped + (end - start)], &plaintext[start..end]);
            let segment = 1 << params.segment().log2();
            prop_assert!(opened.len() < (end - start) + 2 * segment, "at most two extra");
        }
    }

    /// If a key and nonce were used for two plaintexts, the xor of the ciphertexts would equal
    /// theirs.
    #[test]
    fn no_key_and_nonce_serve_two_plaintexts(
        params in params(),
        plaintext in vec(any::<u8>(), 20_000..30_000),
        at in any::<prop::sample::Index>(),
        (flip, place) in (1..=u8::MAX, 0..4_u8),
    ) {
        prop_assume!(params.protection() == Protection::Encrypted);
        let context = SealContext::new("m").unwrap();
        let (_, data) = seal_as(&context, params, &plaintext);
        let layout = SegmentLayout::new(ByteLen::from_usize(plaintext.len()), params.segment());
        let layout = layout.unwrap();
        let changed_at = at.index(plaintext.len());
        let mut other = plaintext.clone();
        other[changed_at] ^= flip;
        let other_context = match place {
            0 => context,
            1 => context.revision(1),
            2 => context.shard_index(1),
            _ => context.metadata(b"m"),
        };
        let (_, other_data) = seal_as(&other_context, params, &other);
        for segment in 0..layout.count() {
            let range = layout.range(segment).unwrap().to_usize_range().unwrap();
            let plain = xor(&plaintext[range.clone()], &other[range.clone()]);
            let sealed = xor(&data[range.clone()], &other_data[range.clone()]);
            let unchanged = !range.contains(&changed_at);
            // In scope Segment an unchanged segment of an unchanged context gives the same bytes
            // again.
            if unchanged && place == 0 && params.scope() == SivScope::Segment {
                prop_assert_eq!(sealed, plain);
            } else {
                prop_assert_ne!(sealed, plain, "segment {}", segment);
            }
        }
        // Two segments of one shard do not share a key stream either.
        let size = params.segment().bytes().to_usize().unwrap();
        let (plain, sealed) = (xor(&plaintext[..size], &plaintext[size..]), xor(&data[..size], &data[size..]));
        prop_assert_ne!(plain, sealed);
    }

    #[test]
    fn any_bytes_at_all_are_refused_in_an_orderly_way(
        mut bytes in vec(any::<u8>(), 256),
        genuine_head in 0..130_usize,
        table in vec(any::<u8>(), 0..200),
    ) {
        let context = SealContext::new("m").unwrap();
        let (sealed, _) = seal_as(&context, SealParams::new(), &[1; 100]);
        bytes[..genuine_head].copy_from_slice(&sealed.record[..genuine_head]);
        let record = SealRecord::try_from(&bytes[..]).unwrap();
        let key = SealKey::from_bytes(&[5; 32]);
        let expected = Expected::from(&context).any_protection();
        prop_assert!(open_record(&key, &record, &expected, OpenLimits::default()).is_err());
        // Reading without authentication may succeed; the fields must then be within the format.
        if let Ok(fields) = record.parse_unauthenticated() {
            prop_assert!(fields.plaintext_len() <= vram_seal::PLAINTEXT_LEN_MAX);
            let layout = ImageLayout::for_fields(&fields);
            prop_assert!(layout.total_len() >= fields.plaintext_len().get());
            prop_assert_eq!(layout.data_offset() % 4096, 0);
            let whole = [&bytes[..], &table].concat();
            prop_assert!(image::split(&fields, &whole).is_err() || layout.total_len() < 4096);
        }
        prop_assert!(image::record(&table).is_ok() == (table.len() >= 256));
    }

    #[test]
    fn any_text_is_a_key_or_not_without_a_panic(text in "\\PC{0,70}", bytes in vec(any::<u8>(), 0..70)) {
        let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
        prop_assert_eq!(SealKey::from_hex(&text).is_ok(), hex(&text, 64));
        prop_assert_eq!(text.parse::<KeyId>().is_ok(), hex(&text, 32));
        let read = SealKey::from_key_file_bytes(&bytes);
        let raw = bytes.len() == 32 && !bytes.iter().all(u8::is_ascii_hexdigit);
        if raw || bytes.len() < 64 {
            prop_assert_eq!(read.is_ok(), raw);
        }
    }

    /// The reference is division over unbounded integers.
    #[test]
    fn segments_agree_with_unbounded_integers(
        len in prop_oneof![0..100_000_u64, 0..=1_u64 << 48, (1_u64 << 48) - 70_000..=1 << 48],
        log2 in 12..=24_u8,
        (a, b) in any::<(u64, u64)>(),
        segment in prop_oneof![any::<u64>(), 0..40_u64],
    ) {
        let size = 1_u128 << log2;
        let layout =
            SegmentLayout::new(ByteLen::new(len), SegmentSize::from_log2(log2).unwrap());
        let wide = u128::from(len);
        prop_assert_eq!(layout.is_ok(), wide.div_ceil(size) <= 1 << 24);
        let Ok(layout) = layout else { return Ok(()) };
        prop_assert_eq!(u128::from(layout.count()), wide.div_ceil(size).max(1));
        let start = u128::from(segment) * size;
        match layout.range(segment) {
            Some(range) => {
                prop_assert!(segment < layout.count());
                prop_assert_eq!(u128::from(range.start().get()), start);
                prop_assert_eq!(u128::from(range.end().get()), (start + size).min(wide));
            }
            None => prop_assert!(segment >= layout.count()),
        }
        let (a, b) = (a % (len + 1), b % (len + 1));
        let (start, end) = (a.min(b), a.max(b));
        let range =
            ByteRange::checked(ByteOffset::new(start), ByteLen::new(end - start), ByteLen::new(len));
        let touched = layout.covering(range.unwrap()).unwrap();
        prop_assert!(touched.end <= layout.count());
        if start < end {
            prop_assert_eq!(u128::from(touched.start), u128::from(start) / size);
            prop_assert_eq!(u128::from(touched.end), u128::from(end).div_ceil(size));
        } else {
            prop_assert!(touched.is_empty());
        }
    }

    /// A hostile holder of the key signs arbitrary fields: they are refused, or within the format.
    #[test]
    fn any_signed_fields_are_refused_or_within_the_format(
        mode in prop::sample::select(vec![[1, 1, 1], [1, 1, 2], [1, 2, 1], [1, 2, 2], [2, 0, 0], [2, 1, 1]]),
        log2 in 10..27_u8,
        len in prop_oneof![0..40_000_u64, any::<u64>(), Just(1 << 48), Just((1 << 48) + 1)],
        count in prop_oneof![0..12_u64, any::<u64>(), Just(1 << 36)],
        exact in any::<bool>(),
        table in vec(any::<u8>(), 0..600),
    ) {
        let (sealed, _) = seal_as(&SealContext::new("m").unwrap(), SealParams::new(), &[1; 100]);
        let mut record = sealed.record;
        record[10..13].copy_from_slice(&mode);
        record[14] = log2;
        record[16..24].copy_from_slice(&len.to_le_bytes());
        let count = if exact { (len >> log2) + u64::from(len % (1 << log2) != 0) } else { count };
        record[24..32].copy_from_slice(&count.max(1).to_le_bytes());
        if mode[1] != 2 {
            record[128..160].fill(0);
        }
        let secret = blake3::derive_key("vram-seal v1 2026-11 header-mac", &[5; 32]);
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), &record[..224]);
        record[224..].copy_from_slice(mac.as_ref());

        let key = SealKey::from_bytes(&[5; 32]);
        let expected = Expected::new("m").unwrap().any_protection();
        let segments_fit = len.div_ceil(1_u64.checked_shl(log2.into()).unwrap_or(1)) <= 1 << 24;
        let good = mode != [2, 1, 1] && (12..=24).contains(&log2) && len <= 1 << 48 && segments_fit;
        match open_record(&key, &record, &expected, OpenLimits::default()) {
            Ok(opened) => {
                prop_assert!(good);
                prop_assert_eq!(opened.fields().plaintext_len().get(), len);
                let entry = match mode { [2, ..] => 32, [_, 1, _] => 48, _ => 16 };
                prop_assert_eq!(opened.table_len(), opened.fields().segment_count() * entry);
                if let Ok(tags) = SegmentTags::from_bytes(opened.fields(), table) {
                    prop_assert_eq!(opened.with_table(tags).err(), Some(SealError::TableMismatch));
                }
            }
            Err(SealError::MalformedRecord { .. }) => prop_assert!(!(good && exact)),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
