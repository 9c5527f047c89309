//! Property: an image opens to the bytes that were sealed, and an image that differs in any way
//! from the written one does not open.
//!
//! Method: the reference is the content itself. Damage is drawn from flips, cuts, extensions, moved
//! and zeroed ranges, at any place.

#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

#[macro_use]
extern crate vram_testkit;

use std::fs;

use proptest::prelude::*;
use proptest::sample::Index;
use vram_residency::{
    Expected, ImageOptions, KeyRing, Overwrite, Protection, SealContext, SealKey, SealParams,
    SegmentSize, SivScope, SliceSource, Suite, Threads, VramError, seal_image, unseal_image,
    verify_image,
};

fn params() -> impl Strategy<Value = SealParams> {
    let base = SealParams::new().with_segment(SegmentSize::MIN);
    prop_oneof![
        Just(base.with_protection(Protection::Authenticated)),
        (any::<bool>(), any::<bool>()).prop_map(move |(shard, aes)| {
            let scope = if shard { SivScope::Shard } else { SivScope::Segment };
            let suite = if aes { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 };
            base.with_scope(scope).with_suite(suite)
        }),
    ]
}

/// One way to damage a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Extend(Vec<u8>),
    Move(Index, Index, usize),
    Zero(Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..5000).prop_map(Damage::Extend),
        1 => (any::<Index>(), any::<Index>(), 1..5000_usize)
            .prop_map(|(from, to, len)| Damage::Move(from, to, len)),
        1 => (any::<Index>(), 1..5000_usize).prop_map(|(at, len)| Damage::Zero(at, len)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        match self {
            Self::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Self::Cut(at) => bytes.truncate(at.index(len)),
            Self::Extend(more) => bytes.extend_from_slice(more),
            Self::Move(from, to, count) => {
                let (from, to) = (from.index(len), to.index(len));
                let count = (*count).min(len - from.max(to));
                bytes.copy_within(from..from + count, to);
            }
            Self::Zero(at, count) => {
                let at = at.index(len);
                let end = len.min(at + count);
                bytes[at..end].fill(0);
            }
        }
    }
}

proptest! {
    #[test]
    fn an_image_opens_to_what_went_in_and_a_damaged_one_to_nothing(
        params in params(),
        bytes in prop::collection::vec(any::<u8>(), 0..20_000),
        threads in 1..4_usize,
        damage in damage(),
    ) {
        // In memory if available: each case syncs several files.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (image, out) = (folder.path().join("image"), folder.path().join("out"));
        let keys = KeyRing::new(SealKey::from_bytes(&[3; 32]));
        let context = SealContext::new("model").unwrap();
        let expected = Expected::from(&context).any_protection();
        let options = || ImageOptions::new().threads(Threads::exactly(threads));
        let source = SliceSource::new(&bytes);
        seal_image(keys.active(), &context, params, &source, &image, options()).unwrap();
        unseal_image(&keys, &expected, &image, &out, options()).unwrap();
        prop_assert!(fs::read(&out).unwrap() == bytes);
        fs::remove_file(&out).unwrap();

        let good = fs::read(&image).unwrap();
        let mut bad = good.clone();
        damage.apply(&mut bad);
        fs::write(&image, &bad).unwrap();
        let opened = unseal_image(&keys, &expected, &image, &out, options());
        let verdict = verify_image(&keys, &expected, &image, options());
        if bad == good {
            prop_assert!(opened.is_ok() && verdict.unwrap().is_sound());
            return Ok(());
        }
        prop_assert!(matches!(opened, Err(VramError::Image { .. })), "{opened:?}");
        prop_assert!(!out.exists());
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        prop_assert!(verdict.map_or(true, |verdict| !verdict.is_sound()));
        // An output that already existed is unchanged.
        fs::write(&out, b"old").unwrap();
        let again = options().overwrite(Overwrite::Replace);
        prop_assert!(unseal_image(&keys, &expected, &image, &out, again).is_err());
        prop_assert_eq!(fs::read(&out).unwrap(), b"old");
    }
}
