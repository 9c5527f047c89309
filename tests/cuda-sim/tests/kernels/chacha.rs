//! `chacha_seal`, `chacha_tag` and `chacha_open` beside the crate ring.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::card::{Argument, Card, Dice, Layout, address, at, buffer, pattern, read, word};

pub(crate) const PTX: &str = include_str!("../../../../crates/vram-gpu/kernels/chacha.ptx");

pub(crate) const GOOD: u32 = 0x600D_600D;
pub(crate) const BAD: u32 = 0xBAD0_BAD0;

/// What a target holds before a launch.
pub(crate) const BEFORE: u8 = 0x5A;

/// A segment of a shard.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) bytes: Vec<u8>,
    pub(crate) key: [u8; 32],
    pub(crate) tag: [u8; 16],
    pub(crate) index: u32,
    pub(crate) last: bool,
}

/// What a launch gave for each segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) source: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) tag: [u8; 16],
    pub(crate) verdict: u32,
}

impl Segment {
    pub(crate) fn new(len: usize, dice: &mut Dice) -> Self {
        let key = pattern(32, dice.next()).try_into().unwrap();
        let index = u32::try_from(dice.next() >> 32).unwrap() >> dice.below(32);
        let last = dice.below(2) == 1;
        Self { bytes: pattern(len, dice.next()), key, tag: [0; 16], index, last }
    }

    /// The same segment, sealed by ring.
    pub(crate) fn sealed(&self) -> Self {
        let mut nonce = [0; 12];
        nonce[0] = self.last.into();
        nonce[4..].copy_from_slice(&u64::from(self.index).to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &self.key).unwrap());
        let mut bytes = self.bytes.clone();
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut bytes).unwrap();
        Self { bytes, tag: tag.as_ref().try_into().unwrap(), ..self.clone() }
    }
}

/// Runs a kernel over segments, one block each. In place: the target is the source.
pub(crate) fn on_card(
    card: &Card,
    kernel: &str,
    segments: &[Segment],
    in_place: bool,
) -> Result<Vec<Outcome>, u32> {
    let sources: Vec<_> = segments
        .iter()
        // There are no buffers of no bytes.
        .map(|s| buffer(if s.bytes.is_empty() { &[BEFORE] } else { &s.bytes }))
        .collect();
    let targets: Vec<_> =
        segments.iter().map(|s| buffer(&vec![BEFORE; s.bytes.len().max(1)])).collect();
    let (mut list, mut keys, mut tags) = (Layout::default(), Layout::default(), Layout::default());
    for ((segment, source), target) in segments.iter().zip(&sources).zip(&targets) {
        let target = if in_place { source } else { target };
        list.doubles(&[address(source), address(target)]);
        list.words(&[word(segment.bytes.len()), segment.index, segment.last.into(), 0]);
        keys.0.extend(segment.key);
        // What is to be written is not there before.
        tags.0.extend(if kernel == "chacha_open" { segment.tag } else { [BEFORE; 16] });
    }
    let (list, keys, tags) = (buffer(&list.0), buffer(&keys.0), buffer(&tags.0));
    let verdicts = buffer(&vec![BEFORE; segments.len() * 4]);
    let mut arguments = vec![at(&list), at(&keys), at(&tags)];
    if kernel == "chacha_open" {
        arguments.push(at(&verdicts));
    }
    arguments.push(Argument::Word(1));
    let code = card.launch(kernel, word(segments.len()), &arguments);
    if code != 0 {
        core::mem::forget((sources, targets, list, keys, tags, verdicts));
        return Err(code);
    }
    let (tags, verdicts) = (read(&tags), read(&verdicts));
    let outcomes = segments.iter().zip(sources.iter().zip(&targets)).enumerate();
    Ok(outcomes
        .map(|(at, (segment, (source, target)))| {
            let [mut source, mut target] = [read(source), read(target)];
            source.truncate(segment.bytes.len());
            target.truncate(segment.bytes.len());
            let tag = tags[at * 16..][..16].try_into().unwrap();
            let verdict = u32::from_le_bytes(verdicts[at * 4..][..4].try_into().unwrap());
            Outcome { source, target, tag, verdict }
        })
        .collect())
}

/// Lengths at which something changes: blocks of both algorithms, rounds of a block of threads.
pub(crate) fn edges() -> Vec<usize> {
    let near = |base: usize| [base - 17, base - 16, base - 1, base, base + 1, base + 16, base + 65];
    let mut edges = vec![0, 1, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 127, 128, 129, 191];
    edges.extend([256, 1024, 4096, 8192, 16_384, 65_536].into_iter().flat_map(near));
    edges
}

#[test]
fn segments_of_every_edge_are_sealed_tagged_and_opened_as_ring_does() {
    let card = Card::new(PTX);
    let mut dice = Dice(11);
    let plain: Vec<Segment> = edges().into_iter().map(|len| Segment::new(len, &mut dice)).collect();
    let sealed: Vec<Segment> = plain.iter().map(Segment::sealed).collect();
    for in_place in [false, true] {
        let outcomes = on_card(&card, "chacha_seal", &plain, in_place).unwrap();
        for ((plain, sealed), outcome) in plain.iter().zip(&sealed).zip(&outcomes) {
            let len = plain.bytes.len();
            let result = if in_place { &outcome.source } else { &outcome.target };
            assert!(*result == sealed.bytes, "ciphertext of {len} bytes");
            assert_eq!(outcome.tag, sealed.tag, "tag of {len} bytes");
        }
        let outcomes = on_card(&card, "chacha_open", &sealed, in_place).unwrap();
        for (plain, outcome) in plain.iter().zip(&outcomes) {
            let result = if in_place { &outcome.source } else { &outcome.target };
            assert_eq!(outcome.verdict, GOOD, "{} bytes", plain.bytes.len());
            assert!(*result == plain.bytes, "plaintext of {} bytes", plain.bytes.len());
        }
    }
    let outcomes = on_card(&card, "chacha_tag", &sealed, false).unwrap();
    for (sealed, outcome) in sealed.iter().zip(&outcomes) {
        assert_eq!(outcome.tag, sealed.tag, "tag of {} bytes", sealed.bytes.len());
        assert!(outcome.source == sealed.bytes && outcome.target.iter().all(|b| *b == BEFORE));
    }
    card.finish();
}

#[test]
fn extreme_messages_are_authenticated_exactly() {
    let card = Card::new(PTX);
    let mut dice = Dice(12);
    // Ciphertext of ones fills every limb; many lengths, so that carries meet every place.
    let segments: Vec<Segment> = [16, 255, 4096, 4112, 20_000]
        .into_iter()
        .flat_map(|len| [(len, 0xFF), (len, 0)])
        .map(|(len, byte)| {
            let wanted = Segment { bytes: vec![byte; len], ..Segment::new(len, &mut dice) };
            // Sealing twice gives what was there: this is sealed to the bytes that were wanted.
            Segment { bytes: wanted.sealed().bytes, ..wanted }
        })
        .collect();
    let sealed: Vec<Segment> = segments.iter().map(Segment::sealed).collect();
    assert!(sealed.iter().all(|s| s.bytes.iter().all(|byte| *byte == s.bytes[0])));
    for (sealed, outcome) in
        sealed.iter().zip(on_card(&card, "chacha_tag", &sealed, false).unwrap())
    {
        assert_eq!(outcome.tag, sealed.tag, "{} bytes", sealed.bytes.len());
    }
    card.finish();
}

#[test]
fn one_flipped_bit_anywhere_is_refused_and_nothing_is_written() {
    let card = Card::new(PTX);
    let mut dice = Dice(13);
    for round in 0..60 {
        let lens: [usize; 3] = core::array::from_fn(|_| 1 + dice.below(1 << (1 + round % 14)));
        let mut sealed: Vec<Segment> =
            lens.iter().map(|len| Segment::new(*len, &mut dice).sealed()).collect();
        let which = dice.below(3);
        let segment = &mut sealed[which];
        let bit = |dice: &mut Dice, bytes: &mut [u8]| {
            let bit = dice.below(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        };
        match dice.below(5) {
            0 => bit(&mut dice, &mut segment.tag),
            1 => bit(&mut dice, &mut segment.key),
            2 => segment.index ^= 1 << dice.below(32),
            3 => segment.last = !segment.last,
            _ => bit(&mut dice, &mut segment.bytes),
        }
        let in_place = dice.below(2) == 1;
        let outcomes = on_card(&card, "chacha_open", &sealed, in_place).unwrap();
        for (at, (segment, outcome)) in sealed.iter().zip(&outcomes).enumerate() {
            assert_eq!(outcome.verdict, if at == which { BAD } else { GOOD });
            if at == which {
                assert!(outcome.source == segment.bytes, "the source is as it was");
                assert!(outcome.target.iter().all(|byte| *byte == BEFORE), "and the target");
            }
        }
    }
    card.finish();
}
