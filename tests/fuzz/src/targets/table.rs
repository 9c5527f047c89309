//! Tables and segments: a segment opens exactly if its entry and its bytes are those that were
//! sealed, also where a holder of the key signed another table.

use vram_seal::{Opener, SealRecord, SegmentTags, Threads, verify, verify_content};

use crate::Target;
use crate::choices::Choices;
use crate::edits::edit;
use crate::specimens::{self as made, SEGMENT, tells_nothing};

/// The target.
pub const TARGET: Target = Target {
    name: "table",
    promise: "a segment opens exactly if its entry and its bytes are those that were sealed",
    run,
    seeds,
    len_max: 400,
    cases: 15_000,
};

fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let specimens = made::all();
    let specimen = choices.of(specimens);
    let how = choices.byte();
    let (mut table, mut data) = (specimen.table.clone(), specimen.data.clone());
    let tables: Vec<&[u8]> = specimens.iter().map(|one| &one.table[..]).collect();
    let bodies: Vec<&[u8]> = specimens.iter().map(|one| &one.data[..]).collect();
    edit(&mut choices, &mut table, &tables, usize::from(how >> 4));
    edit(&mut choices, &mut data, &bodies, 4);

    let mut record = *specimen.record.as_bytes();
    if how & 1 == 1 {
        made::sign_table(&mut record, &table);
    }
    let record = SealRecord::from_bytes(record);
    let fields = record.parse_unauthenticated().unwrap();
    let tags = SegmentTags::from_bytes(&fields, table.clone());
    let fits = table.len() == specimen.table.len();
    assert_eq!(tags.is_ok(), fits, "{tags:?}");
    let Ok(tags) = tags else { return };
    let opener = Opener::open(&made::key(), &record, tags, &made::expected());
    tells_nothing(&format!("{opener:?}"));
    assert_eq!(opener.is_ok(), how & 1 == 1 || table == specimen.table, "{opener:?}");
    let Ok(opener) = opener else { return };
    compare(&opener, specimen, &table, &data);
}

fn compare(opener: &Opener, specimen: &made::Specimen, table: &[u8], data: &[u8]) {
    let count = usize::try_from(opener.layout().count()).unwrap();
    let entry = table.len() / count;
    let mut altered = Vec::new();
    for segment in 0..count {
        let range = segment * SEGMENT..specimen.data.len().min((segment + 1) * SEGMENT);
        let (genuine, plain) = (&specimen.data[range.clone()], &specimen.plaintext[range.clone()]);
        let found = data.get(range.start..range.end.min(data.len())).unwrap_or_default();
        let number = u64::try_from(segment).unwrap();
        let mut target = vec![0xee; plain.len()];
        let answer = opener.open_segment_to(number, found, &mut target);
        if found.len() != plain.len() {
            assert_eq!(answer.map_err(|error| error.code()), Err("wrong-length"));
            assert!(target.iter().all(|byte| *byte == 0xee), "nothing was written");
            continue;
        }
        let entries = segment * entry..(segment + 1) * entry;
        if found == genuine && table[entries.clone()] == specimen.table[entries] {
            assert_eq!(answer, Ok(()));
            assert_eq!(target, plain);
        } else {
            assert_eq!(answer.map_err(|error| error.code()), Err("segment-mismatch"));
            assert!(target.iter().all(|byte| *byte == 0), "what is refused is wiped");
            altered.push(number);
        }
    }
    for beyond in [opener.layout().count(), u64::MAX] {
        let answer = opener.open_segment(beyond, &mut []);
        assert_eq!(answer.map_err(|error| error.code()), Err("no-such-segment"));
    }
    let threads = Threads::exactly(1);
    let (found, content) = (verify(opener, threads, data), verify_content(opener, threads, data));
    if data.len() == specimen.data.len() {
        assert_eq!(found, Ok(altered.clone()));
        assert_eq!(content.is_ok(), altered.is_empty());
        assert!(content.is_err() || content == Ok(specimen.digest));
    } else {
        assert_eq!(found.map_err(|error| error.code()), Err("wrong-length"));
        assert_eq!(content.map_err(|error| error.code()), Err("wrong-length"));
    }
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("genuine", vec![16, 0]),
        ("table-bit", vec![16, 0x10, 0, 9, 0, 1]),
        ("signed-table-bit", vec![16, 0x11, 0, 60, 0, 1]),
        ("signed-entries-swapped", vec![18, 0x21, 4, 0, 0, 16, 0, 16, 0, 4, 32, 0, 0, 0, 16, 0]),
        ("signed-other-table", vec![15, 0x11, 8, 10, 0, 0, 0, 0, 0, 64, 0]),
        ("data-bit", vec![17, 0, 0, 0, 0x10, 1]),
        ("data-cut", vec![11, 0, 7, 0, 16]),
        ("data-of-another", vec![17, 0, 8, 15, 0, 0, 0, 0, 0, 0, 0x10]),
    ]
}
