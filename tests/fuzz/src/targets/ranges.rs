//! Reads of a resident shard: exact, or refused beyond the data, with nothing written and nothing
//! taken.

use std::sync::OnceLock;

use vram_residency::{
    ByteLen, Protection, SealRequest, SealedShard, SegmentSize, Threads, VramError, VramManager,
};

use crate::Target;
use crate::choices::Choices;
use crate::specimens as made;

/// The target.
pub const TARGET: Target = Target {
    name: "ranges",
    promise: "a read is exact, or refused beyond the data, and changes nothing",
    run,
    seeds,
    len_max: 300,
    cases: 30_000,
};

/// More than any buffer of this target: a length that a read may refuse, and never has to serve.
const SERVED_MAX: usize = 1 << 16;

struct World {
    manager: VramManager,
    shards: Vec<(SealedShard, Vec<u8>)>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let builder = VramManager::builder().host_device(ByteLen::MIB).key(made::key());
        let builder = builder.segment_size(SegmentSize::MIN).threads(Threads::exactly(1));
        let manager = builder.build().unwrap();
        let mut shards = Vec::new();
        for specimen in made::all() {
            let request = SealRequest::new(made::MODEL, 0).protection(specimen.protection);
            let content = specimen.plaintext.clone();
            shards.push((manager.seal(request, &content).unwrap(), content));
        }
        let open = |(shard, _): &&(SealedShard, _)| shard.protection == Protection::Authenticated;
        assert!(shards.iter().any(|shard| open(&shard)));
        World { manager, shards }
    })
}

fn run(input: &[u8]) {
    let World { manager, shards } = world();
    let before = manager.capacity(0).unwrap();
    let mut choices = Choices::new(input);
    for _ in 0..8 {
        if choices.is_empty() {
            break;
        }
        let (shard, content) = choices.of(shards);
        let into = choices.byte() & 1 == 1;
        let (offset, len) = (choices.number(), choices.number());
        let end = offset.checked_add(len).and_then(|end| usize::try_from(end).ok());
        let start = usize::try_from(offset).unwrap();
        let wanted = end.and_then(|end| content.get(start..end));
        let read = if into {
            let len = usize::try_from(len).unwrap().min(SERVED_MAX);
            let wanted = start.checked_add(len).and_then(|end| content.get(start..end));
            let mut target = vec![0xee; len];
            let answer = manager.read_into(shard, offset, &mut target);
            match wanted {
                Some(wanted) => assert_eq!(target, wanted),
                None => assert!(target.iter().all(|byte| *byte == 0xee), "nothing was written"),
            }
            assert_eq!(answer.is_ok(), wanted.is_some(), "{offset} {len}: {answer:?}");
            answer.err()
        } else {
            let len = usize::try_from(len).unwrap();
            let answer = manager.read_shard_at_offset(shard, start, len);
            assert_eq!(answer.as_deref().ok(), wanted, "{offset} {len}");
            answer.err()
        };
        assert!(read.is_none_or(|error| matches!(error, VramError::OutOfBounds { .. })));
    }
    assert_eq!(manager.capacity(0).unwrap(), before);
    assert_eq!(manager.shards().len(), shards.len());
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("whole", vec![16, 0, 2, 1, 5, 0x30]),
        ("across-segments", vec![17, 1, 1, 0xf0, 0x0f, 1, 0x20, 0x10]),
        ("to-the-end", vec![15, 1, 1, 0, 0x30, 1, 5, 0, 15, 0, 1, 0, 0x30, 1, 6, 0]),
        ("nothing-at-the-end", vec![16, 0, 1, 5, 0x30, 2, 16, 0, 1, 6, 0x30, 2]),
        ("extremes", vec![16, 0, 25, 25, 16, 1, 25, 3, 16, 0, 3, 25, 16, 0, 23, 23]),
        ("empty-shard", vec![1, 0, 2, 2, 1, 1, 3, 2, 1, 1, 2, 3]),
    ]
}
