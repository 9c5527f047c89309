//! Property: whatever several sources answer, in whatever order and with whatever ranges, what is
//! admitted is what was pushed, or nothing is; and one honest source is enough.
//!
//! Method: a random number of sources, each honest, failing or lying in a random way at a random
//! place; random lengths of content, segments and ranges. The reference is the content itself.

#![expect(clippy::unwrap_used, reason = "a panic is the failure of the test")]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers, checked in test builds")]
#![expect(clippy::indexing_slicing, reason = "an index out of bounds is the failure of the test")]
#![allow(
    dead_code,
    clippy::panic,
    reason = "the modules of the other suite, of which this one uses a part"
)]

#[macro_use]
extern crate vram_testkit;

#[path = "it/liar.rs"]
mod liar;
#[path = "it/support.rs"]
mod support;
#[path = "it/through.rs"]
mod through;

use proptest::prelude::*;
use vram_seal::{SealParams, SegmentSize};
use vram_store::{LoadError, Pull, Push, StoreEvent, StoreOptions};

use liar::{Liar, Lie};
use support::{World, content, load, noting, push};

/// A lie, whose places are shares of the image's length.
fn lie() -> impl Strategy<Value = (Lie, bool)> {
    let place = 0..100_000_u64;
    prop_oneof![
        4 => (place.clone(), 1..=255_u8).prop_map(|(at, with)| (Lie::Flip(at, with), true)),
        1 => (1..50_000_u64).prop_map(|by| (Lie::Short(by), true)),
        1 => (1..50_000_u64).prop_map(|by| (Lie::Long(by), true)),
        1 => Just((Lie::ShortAnswers, true)),
        1 => Just((Lie::LongAnswers, true)),
        1 => (place.clone(), place, 1..3000_u64).prop_map(|(one, other, len)| {
            (Lie::Swap(one..one + len, other..other + len), true)
        }),
        1 => prop::collection::vec(any::<u8>(), 0..20_000).prop_map(|new| (Lie::Instead(new), true)),
        1 => (1..=2_u64).prop_map(|times| (Lie::FailFirst(times), false)),
        1 => (1..=2_u64).prop_map(|times| (Lie::Reset(times), false)),
        1 => Just((Lie::Absent, false)),
        1 => Just((Lie::Denied, false)),
    ]
}

/// A lie whose places lie in an image of this length, so that it has an effect.
fn within(lie: Lie, len: u64) -> Lie {
    match lie {
        Lie::Flip(at, with) => Lie::Flip(at % len, with),
        Lie::Short(by) => Lie::Short(by.min(len)),
        Lie::Swap(one, other) => {
            let (one, other) = (one.start % len, other.start % len);
            let room = (len - one.max(other)).min(one.abs_diff(other));
            Lie::Swap(one..one + room, other..other + room)
        }
        other => other,
    }
}

proptest! {
    #[test]
    fn what_is_admitted_is_what_was_pushed(
        len in 0..60_000_usize,
        log2 in 12..=16_u8,
        range_len in 64_u64..300,
        in_flight in 1..6_usize,
        lies in prop::collection::vec(lie(), 1..4),
        honest in any::<bool>(),
        to_folder in any::<bool>(),
    ) {
        let world = World::new();
        let params = SealParams::new().with_segment(SegmentSize::from_log2(log2).unwrap());
        let files = vec![world.file("model", len)];
        let pushed = Push { params, ..push(&world.key, files) };
        world.store.push(&pushed, &StoreOptions::new()).unwrap();
        let manifest = world.manifest(7);
        let image_len = manifest.shards()[0].image_len;
        let names = ["first", "second", "third"];
        let mut sources: Vec<_> = names.iter().zip(lies).map(|(name, (lie, lying))| {
            let lie = within(lie, image_len);
            (Liar::store(name, &world.objects, lie.clone()), lie, lying)
        }).collect();
        let (last, last_lie, _) = sources.pop().unwrap();
        let last = if honest { world.store.clone() } else { last };
        let mut events = Vec::new();
        let options = noting(&mut events).range_len(range_len << 10).in_flight(in_flight);
        let mut pull = Pull::new(&manifest, &world.keys, b"", &last);
        for (store, _, _) in &sources {
            pull = pull.mirror(store);
        }
        let pull = pull.options(options);
        let outcome = if to_folder {
            let folder = tempfile::tempdir().unwrap();
            pull.to_folder(folder.path()).map_err(LoadError::Store).map(|images| {
                support::open(&std::fs::read(images[0].path()).unwrap()).unwrap()
            })
        } else {
            load(&pull, 0)
        };
        drop(pull);
        match outcome {
            Ok(bytes) => prop_assert_eq!(bytes, content("model", len)),
            Err(LoadError::Store(error)) => {
                prop_assert!(!honest, "an honest source was not enough: {error}");
                for name in names.iter().take(sources.len()) {
                    prop_assert!(error.to_string().contains(name), "{error} does not name {name}");
                }
            }
            Err(other) => prop_assert!(false, "{other:?}, {last_lie:?}"),
        }
        // Nobody is called a liar who gave no wrong byte.
        for event in &events {
            if let StoreEvent::SourceLied(lie) = event {
                let honest = sources.iter().any(|(store, _, lying)| {
                    **store.name() == *lie.source && !lying
                });
                prop_assert!(!honest && &*lie.source != "bucket", "{lie}");
            }
        }
    }
}
