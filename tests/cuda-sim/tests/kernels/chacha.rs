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

/// Seals, tags and opens segments, and compares all with ring. In place: the target is the source.
pub(crate) fn check(card: &Card, plain: &[Segment], in_place: bool) {
    let sealed: Vec<Segment> = plain.iter().map(Segment::sealed).collect();
    let result = |outcome: &Outcome| -> Vec<u8> {
        if in_place { outcome.source.clone() } else { outcome.target.clone() }
    };
    let outcomes = on_card(card, "chacha_seal", plain, in_place).unwrap();
    for (sealed, outcome) in sealed.iter().zip(&outcomes) {
        let len = sealed.bytes.len();
        assert!(result(outcome) == sealed.bytes, "ciphertext of {len} bytes");
        assert_eq!(outcome.tag, sealed.tag, "tag of {len} bytes");
    }
    let outcomes = on_card(card, "chacha_open", &sealed, in_place).unwrap();
    for (plain, outcome) in plain.iter().zip(&outcomes) {
        assert_eq!(outcome.verdict, GOOD, "{} bytes", plain.bytes.len());
        assert!(result(outcome) == plain.bytes, "plaintext of {} bytes", plain.bytes.len());
    }
    let outcomes = on_card(card, "chacha_tag", &sealed, in_place).unwrap();
    for (sealed, outcome) in sealed.iter().zip(&outcomes) {
        assert_eq!(outcome.tag, sealed.tag, "tag of {} bytes", sealed.bytes.len());
        assert!(outcome.source == sealed.bytes && outcome.target.iter().all(|b| *b == BEFORE));
    }
}

/// Changes one bit of one of three sealed segments, of its tag, key or number, and opens all.
pub(crate) fn check_forgery(card: &Card, lens: [usize; 3], dice: &mut Dice) {
    let mut sealed = lens.map(|len| Segment::new(len, dice).sealed());
    let which = dice.below(3);
    let segment = &mut sealed[which];
    let bit = |dice: &mut Dice, bytes: &mut [u8]| {
        let bit = dice.below(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    };
    match dice.below(5) {
        0 => bit(dice, &mut segment.tag),
        1 => bit(dice, &mut segment.key),
        2 => segment.index ^= 1 << dice.below(32),
        3 => segment.last = !segment.last,
        _ => bit(dice, &mut segment.bytes),
    }
    let in_place = dice.below(2) == 1;
    let outcomes = on_card(card, "chacha_open", &sealed, in_place).unwrap();
    for (at, (segment, outcome)) in sealed.iter().zip(&outcomes).enumerate() {
        assert_eq!(outcome.verdict, if at == which { BAD } else { GOOD });
        if at == which {
            assert!(outcome.source == segment.bytes, "the source is as it was");
            assert!(outcome.target.iter().all(|byte| *byte == BEFORE), "and the target");
        }
    }
}
