//! Errors, events and reports name the first altered segments and count all; a verdict names all.

use std::collections::BTreeMap;

use vram_residency::{
    AlteredSegments, EventKind, EventLog, Protection, RepairOptions, SliceSource, Verify, VramError,
};
use vram_test_rigs::{Rig, SEGMENT, content};

const COUNT: usize = 50;
const LISTED: usize = AlteredSegments::LISTED_MAX;

#[test]
fn however_many_segments_are_altered_a_refusal_names_the_first_and_counts_all() {
    let log = EventLog::new(1000);
    let rig = Rig::with(&[64 * SEGMENT], |builder| builder.event_sink(log.clone()));
    let bytes = content(COUNT * SEGMENT, 1);
    let shard = rig.seal(0, Protection::Encrypted, &bytes);
    let first = usize::try_from(rig.written_at(0)).unwrap();
    for segment in 0..COUNT {
        rig.flip(0, u64::try_from(first + segment * SEGMENT).unwrap(), 3);
    }
    let all: Vec<u64> = (0..COUNT as u64).collect();
    let names_the_first = |segments: &AlteredSegments| {
        assert_eq!((segments.first(), segments.count()), (&all[..LISTED], COUNT as u64));
    };

    let verdict = rig.manager.verify(&shard, Verify::Segments).unwrap();
    let told: Vec<u64> = verdict.altered.iter().map(|span| span.segment).collect();
    assert_eq!(told, all, "the answer to the question names all");
    match rig.manager.ensure_intact(&shard) {
        Err(VramError::ShardAltered { segments, .. }) => names_the_first(&segments),
        other => panic!("{other:?}"),
    }
    match rig.manager.unseal_model(&shard) {
        Err(error @ VramError::Quarantined { .. }) => {
            assert!(error.to_string().contains("segments 0, 1, 2, 3, 4, 5, 6, 7 and 42 more"));
            let VramError::Quarantined { segments, .. } = error else { unreachable!() };
            names_the_first(&segments);
        }
        other => panic!("{other:?}"),
    }
    names_the_first(rig.manager.report().shards[0].quarantine.as_ref().unwrap());

    // A repair knows all of them all the same.
    let report = rig.manager.repair_from(&shard, SliceSource::new(&bytes), RepairOptions::new());
    names_the_first(&report.unwrap().segments);
    assert_eq!(rig.manager.unseal_model(&shard).unwrap(), bytes);

    assert!(rig.manager.flush_events(core::time::Duration::from_mins(1)));
    let mut lists: BTreeMap<&str, u32> = BTreeMap::new();
    for event in log.take() {
        if let EventKind::Altered { segments, .. } | EventKind::Repaired { segments, .. } =
            &event.kind
        {
            names_the_first(segments);
            *lists.entry(event.kind.name()).or_default() += 1;
        }
    }
    assert_eq!(lists, BTreeMap::from([("altered", 2), ("repaired", 1)]));
}
