//! Records: each is answered as the text of the format says, by the first check that fails.
//!
//! The reference below is written from that text, and shares no code with the implementation.

use vram_alloc::ByteLen;
use vram_seal::{
    Expected, ImageLayout, OpenLimits, Protection, RecordFields, SealRecord, image, open_record,
    open_record_in,
};

use crate::Target;
use crate::choices::Choices;
use crate::edits::edit;
use crate::specimens::{self as made, tells_nothing};

/// The target.
pub const TARGET: Target = Target {
    name: "record",
    promise: "a record is accepted exactly where the format says so, and the refusal is the first",
    run,
    seeds,
    len_max: 400,
    cases: 40_000,
};

/// What the caller names, in the order of the checks.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    binding: Option<(&'static str, &'static [u8])>,
    metadata: Option<&'static [u8]>,
    index: Option<u64>,
    revision: Option<u64>,
    protection: Option<Protection>,
    len_max: u64,
}

impl Wanted {
    fn of(choices: &mut Choices<'_>) -> Self {
        let named = choices.byte();
        let bit = |bit: u8| named & (1 << bit) != 0;
        let context = if bit(1) { made::CONTEXT } else { b"another" };
        Self {
            binding: bit(0).then_some((made::MODEL, context)),
            metadata: bit(2).then_some(if bit(3) { made::METADATA } else { b"" }),
            index: bit(4).then_some(made::INDEX),
            revision: bit(5).then_some(made::REVISION),
            protection: match (bit(0), bit(6), bit(7)) {
                (false, ..) | (true, true, true) => None,
                (true, true, false) => Some(Protection::Authenticated),
                (true, false, _) => Some(Protection::Encrypted),
            },
            len_max: if choices.byte() % 4 == 3 { choices.number() } else { 1 << 48 },
        }
    }

    fn expected(&self) -> Expected<'static> {
        let mut expected = match self.binding {
            Some((model, context)) => Expected::in_context(model, context).unwrap(),
            None => Expected::anything(),
        };
        expected = match self.protection {
            Some(protection) => expected.protection(protection),
            None => expected.any_protection(),
        };
        if let Some(metadata) = self.metadata {
            expected = expected.metadata(metadata);
        }
        if let Some(index) = self.index {
            expected = expected.shard_index(index);
        }
        match self.revision {
            Some(revision) => expected.revision(revision),
            None => expected,
        }
    }
}

/// The answer of the format's text to a record.
fn reference(record: &[u8; 256], wanted: &Wanted) -> Result<(), &'static str> {
    let number = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().unwrap());
    let check = |good: bool, refusal| if good { Ok(()) } else { Err(refusal) };
    check(record[..8] == *b"VRSEAL1\0", "not-a-seal")?;
    check(record[8..10] == [1, 0], "unsupported-version")?;
    check(record[13] == 1, "unsupported-hash")?;
    check(record[48..64] == made::subkey("key-id")[..16], "wrong-key")?;
    check(record[224..] == made::record_code(record), "record-mismatch")?;

    let kind = (record[10], record[11], record[12]);
    let kinds = [(1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 2), (2, 0, 0)];
    let zeros = |part: &[u8]| part.iter().all(|byte| *byte == 0);
    let (log2, len, count) = (record[14], number(16), number(24));
    let form = kinds.contains(&kind)
        && record[15] == 0
        && zeros(&record[192..224])
        && (kind.1 == 2 || zeros(&record[128..160]))
        && (12..=24).contains(&log2)
        && len <= 1 << 48
        && count <= 1 << 24
        && count == len.div_ceil(1 << log2).max(1);
    check(form, "malformed-record")?;

    let another = "context-mismatch";
    if let Some((model, context)) = wanted.binding {
        check(record[64..96] == made::binding(model, context), another)?;
    }
    if let Some(metadata) = wanted.metadata {
        check(record[96..128] == made::metadata_code(metadata), another)?;
    }
    check(wanted.index.is_none_or(|index| index == number(32)), another)?;
    check(wanted.revision.is_none_or(|revision| revision == number(40)), another)?;
    let found = if kind.0 == 1 { Protection::Encrypted } else { Protection::Authenticated };
    check(wanted.protection.is_none_or(|wanted| wanted == found), "protection-mismatch")?;
    check(len <= wanted.len_max, "too-long")
}

fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let specimens = made::all();
    let specimen = choices.of(specimens);
    let how = choices.byte();
    let wanted = Wanted::of(&mut choices);
    let mut bytes = specimen.record.to_vec();
    if how & 1 == 0 {
        let others: Vec<&[u8]> = specimens.iter().map(|one| &one.record[..]).collect();
        edit(&mut choices, &mut bytes, &others, 8);
    } else {
        bytes = choices.rest().to_vec();
    }
    if how & 2 == 2 {
        made::sign_record(&mut bytes);
    }

    let Ok(record) = image::record(&bytes) else {
        assert!(bytes.len() < SealRecord::LEN, "a record has 256 bytes");
        return;
    };
    let limits = OpenLimits { max_len: ByteLen::new(wanted.len_max) };
    let answer = open_record(&made::key(), &record, &wanted.expected(), limits);
    let told = answer.as_ref().map(drop).map_err(vram_seal::SealError::code);
    assert_eq!(told, reference(record.as_bytes(), &wanted), "{wanted:?}");
    let in_ring = open_record_in(&made::keys(), &record, &wanted.expected(), limits);
    let in_ring = in_ring.map(drop).map_err(|error| error.code());
    assert_eq!(
        in_ring,
        told.map_err(|code| if code == "wrong-key" { "unknown-key" } else { code })
    );
    tells_nothing(&format!("{answer:?} {record:?}"));
    match answer {
        Ok(opened) => {
            // What nobody with the key signed here was made before.
            let known = specimens.iter().any(|one| one.record == record);
            assert!(known || how & 2 == 2, "a record that nobody made");
            read_as_stated(&record, opened.fields());
            let shown = record.parse_unauthenticated().unwrap();
            assert!(shown == *opened.fields());
        }
        Err(error) => {
            tells_nothing(&error.to_string());
            if let Ok(fields) = record.parse_unauthenticated() {
                read_as_stated(&record, &fields);
            }
        }
    }
}

/// The fields say what the bytes say, and all places that follow from them are in bounds.
fn read_as_stated(record: &[u8], fields: &RecordFields) {
    let number = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().unwrap());
    let (len, count) = (number(16), number(24));
    assert_eq!((fields.plaintext_len().get(), fields.segment_count()), (len, count));
    assert_eq!((fields.shard_index(), fields.revision()), (number(32), number(40)));
    let entry = match (record[10], record[11]) {
        (2, _) => 32,
        (_, 1) => 48,
        _ => 16,
    };
    let layout = ImageLayout::for_fields(fields);
    assert_eq!(layout.table_len(), count * entry);
    assert_eq!(layout.data_offset(), (256 + count * entry).next_multiple_of(4096));
    assert_eq!(layout.total_len(), layout.data_offset() + len);
    assert_eq!(layout.padding_offset() + layout.padding_len(), layout.data_offset());
    let last = fields.layout().range(count - 1).unwrap();
    assert_eq!(last.start().get() + last.len().get(), len);
    for beyond in [count, u64::MAX] {
        assert!(fields.layout().range(beyond).is_none());
    }
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let genuine = made::all()[18].record.to_vec();
    let segments = |count: u64| {
        let mut record = made::all()[18].record.to_vec();
        record[16..24].copy_from_slice(&(count << 12).to_le_bytes());
        record[24..32].copy_from_slice(&count.to_le_bytes());
        [vec![0, 3, 0xff, 0], record].concat()
    };
    let long = |place: u8, number: u8| vec![6, place, 0, 3, number];
    vec![
        ("genuine", vec![11, 0, 0xff, 0]),
        ("one-bit", vec![7, 0, 3, 0, 0, 40, 0, 1]),
        ("signed-revision", [vec![3, 2, 0x23, 0], long(40, 5)].concat()),
        ("signed-length", [vec![3, 2, 0, 3, 10], long(16, 20), long(24, 15)].concat()),
        ("signed-most-segments", segments(1 << 24)),
        ("signed-too-many-segments", segments((1 << 24) + 1)),
        ("signed-reserved", vec![16, 2, 0, 0, 0, 200, 0, 1]),
        ("signed-mode", vec![2, 2, 0x4f, 0, 1, 10, 0, 2, 1, 11, 0, 0, 1, 12, 0, 0]),
        ("two-records", vec![18, 2, 0, 0, 8, 17, 0, 128, 0, 128, 0, 32, 0]),
        ("raw", [vec![0, 1, 0x7f, 0], genuine].concat()),
        (
            "raw-signed",
            [vec![0, 3, 0, 0], b"VRSEAL1\0\x01\0\x01\x01\x01\x01\x0c\0".to_vec(), vec![0; 240]]
                .concat(),
        ),
    ]
}
