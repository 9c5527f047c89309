//! What each barrier and each check of the kernels is for: taken out of the PTX in turn, it must be missed.
//! Secrets that a block leaves in shared memory count too.

use cuda_sim::Sim;

use crate::card::{Card, Dice, pattern};
use crate::chacha::{self, Segment};
use crate::{blake3, fingerprint, wipe};

/// How a change showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The simulated card stopped the launch with this code.
    Code(u32),
    /// A result was wrong.
    Wrong,
}

type Workload = fn(&Card) -> Result<(), Found>;

fn right(is_right: bool) -> Result<(), Found> {
    if is_right { Ok(()) } else { Err(Found::Wrong) }
}

fn hashes(card: &Card) -> Result<(), Found> {
    for (len, segment) in
        [(1, 4096), (63, 4096), (64, 4096), (65, 4096), (2500, 1024), (9_219, 4096), (20_500, 8192)]
    {
        let data = pattern(len, 5);
        let values = blake3::on_card(card, &data, segment).map_err(Found::Code)?;
        right(values == blake3::expected(&data, segment))?;
    }
    Ok(())
}

/// Three subtrees of one segment.
fn merges(card: &Card) -> Result<(), Found> {
    let data = pattern(524_289, 6);
    let values = blake3::on_card(card, &data, 1 << 20).map_err(Found::Code)?;
    right(values == blake3::expected(&data, 1 << 20))
}

fn fingerprints(card: &Card, keys: &[&fingerprint::Key]) -> Result<(), Found> {
    let items: Vec<Vec<u8>> =
        [1, 15, 16, 4097, 17_000, 33_000].into_iter().map(|len| pattern(len, 6)).collect();
    // Fewer blocks than items, and more.
    for blocks in [2, 7] {
        let values = fingerprint::on_card(card, &items, keys, blocks).map_err(Found::Code)?;
        for (item, values) in items.iter().zip(values) {
            right(keys.iter().map(|key| key.of(item)).eq(values))?;
        }
    }
    Ok(())
}

fn under_one_key(card: &Card) -> Result<(), Found> {
    fingerprints(card, &[&fingerprint::Key::new(1)])
}

fn under_two_keys(card: &Card) -> Result<(), Found> {
    fingerprints(card, &[1, 2].map(fingerprint::Key::new).each_ref())
}

/// Segments, and the same sealed.
fn segments() -> (Vec<Segment>, Vec<Segment>) {
    let mut dice = Dice(7);
    let lens = [0, 1, 16, 63, 64, 65, 4200, 8300, 16_384 + 64];
    let plain: Vec<Segment> = lens.into_iter().map(|len| Segment::new(len, &mut dice)).collect();
    let sealed = plain.iter().map(Segment::sealed).collect();
    (plain, sealed)
}

fn seals(card: &Card) -> Result<(), Found> {
    let (plain, sealed) = segments();
    let outcomes = chacha::on_card(card, "chacha_seal", &plain, false).map_err(Found::Code)?;
    let same = |(sealed, outcome): (&Segment, chacha::Outcome)| {
        outcome.target == sealed.bytes && outcome.tag == sealed.tag
    };
    right(sealed.iter().zip(outcomes).all(same))
}

fn tags(card: &Card) -> Result<(), Found> {
    let (_, sealed) = segments();
    let outcomes = chacha::on_card(card, "chacha_tag", &sealed, false).map_err(Found::Code)?;
    right(sealed.iter().zip(outcomes).all(|(sealed, outcome)| outcome.tag == sealed.tag))
}

fn opens(card: &Card) -> Result<(), Found> {
    const FORGED: usize = 6;
    let (mut plain, mut sealed) = segments();
    sealed[FORGED].tag[3] ^= 1;
    plain[FORGED].bytes.fill(chacha::BEFORE);
    let outcomes = chacha::on_card(card, "chacha_open", &sealed, false).map_err(Found::Code)?;
    for (at, (plain, outcome)) in plain.iter().zip(outcomes).enumerate() {
        let verdict = if at == FORGED { chacha::BAD } else { chacha::GOOD };
        right(outcome.verdict == verdict && outcome.target == plain.bytes)?;
    }
    Ok(())
}

/// Each kernel, its image, and what is run to miss what was taken out.
const KERNELS: [(&str, &str, Workload); 7] = [
    ("blake3_items", blake3::PTX, hashes),
    ("blake3_merge", blake3::PTX, merges),
    ("fingerprint", fingerprint::PTX, under_one_key),
    ("fingerprint_renew", fingerprint::PTX, under_two_keys),
    ("chacha_open", chacha::PTX, opens),
    ("chacha_seal", chacha::PTX, seals),
    ("chacha_tag", chacha::PTX, tags),
];

/// The image that `workload` needs: the heads and this kernel, and `blake3_items` before its merges.
fn image<'p>(name: &str, ptx: &'p str) -> Vec<&'p str> {
    let lines: Vec<&str> = ptx.lines().collect();
    let starts: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].contains(".entry ")).collect();
    let mut kept: Vec<&str> = lines[..starts[0]].to_vec();
    for (at, start) in starts.iter().enumerate() {
        let end = starts.get(at + 1).copied().unwrap_or(lines.len());
        let is_it = lines[*start].contains(&format!(".entry {name}("));
        if is_it || name == "blake3_merge" {
            kept.extend(&lines[*start..end]);
        }
    }
    kept
}

/// Where the lines of a kernel are in an image.
fn body(name: &str, lines: &[&str]) -> core::ops::Range<usize> {
    let start = lines.iter().position(|l| l.contains(&format!(".entry {name}("))).unwrap();
    let len = lines[start + 1..].iter().position(|line| line.contains(".entry "));
    start..len.map_or(lines.len(), |len| start + 1 + len)
}

/// How an image with one line changed is found, if it is.
fn found(lines: &[&str], at: usize, changed: &str, workload: Workload) -> Option<Found> {
    let mut lines = lines.to_vec();
    lines[at] = changed;
    let card = Card::new(&lines.join("\n"));
    Sim::set_step_limit(card.device, 200_000);
    wipe::require(&card);
    let found = workload(&card).err();
    if matches!(found, Some(Found::Code(_))) {
        card.abandon();
    } else {
        let device = card.device;
        card.finish();
        Sim::retire_device(device);
    }
    found
}

/// The kernel's image, whose text is right as it is; its lines; what is run.
fn kernel(name: &str) -> (Vec<&'static str>, core::ops::Range<usize>, Workload) {
    let (_, ptx, workload) = KERNELS.into_iter().find(|(known, ..)| *known == name).unwrap();
    let lines = image(name, ptx);
    assert_eq!(found(&lines, 0, "", workload), None, "{name} as it is");
    let body = body(name, &lines);
    (lines, body, workload)
}

#[test]
fn without_any_one_of_their_barriers_kernels_are_stopped() {
    for (name, ..) in KERNELS {
        let (lines, body, workload) = kernel(name);
        let barriers: Vec<usize> = body.filter(|at| lines[*at].contains("bar.sync")).collect();
        let missed = barriers.iter().filter(|at| match found(&lines, **at, "", workload) {
            Some(found) => {
                assert_eq!(found, Found::Code(719), "{name}, line {at}");
                false
            }
            None => true,
        });
        // In `chacha_open` the thread that finishes a tag is the one that compares it. The barrier
        // between is for the other two kernels, which share that code.
        let redundant = usize::from(name == "chacha_open");
        assert_eq!(missed.count(), redundant, "{name} has {} barriers", barriers.len());
    }
}

/// Takes each check (a conditional branch) out in turn, once so that it never branches and once so
/// that it always does. Asserts that all but so many of those changes are found, and how many there are.
fn each_check_is_needed(name: &str, changes: usize, without_effect: usize) {
    let (lines, body, workload) = kernel(name);
    let (mut tried, mut missed) = (0, Vec::new());
    for at in body {
        let Some(rest) = lines[at].trim().strip_prefix('@') else { continue };
        let (_, always) = rest.split_once(char::is_whitespace).unwrap();
        for changed in ["", always] {
            tried += 1;
            if found(&lines, at, changed, workload).is_none() {
                missed.push(format!("{}, as {changed:?}", lines[at].trim()));
            }
        }
    }
    assert_eq!((tried, missed.len()), (changes, without_effect), "{name}: {missed:#?}");
}

#[test]
fn without_any_one_of_their_checks_hashes_are_wrong_or_stopped() {
    // Without effect: a block of no bytes is one with all its bytes skipped; a whole block may be
    // read byte by byte; a part of a block has no byte 63.
    each_check_is_needed("blake3_items", 146, 3);
    // A merge has at least two subtrees.
    each_check_is_needed("blake3_merge", 12, 1);
}

#[test]
fn without_any_one_of_their_checks_fingerprints_are_wrong_or_stopped() {
    // Without effect: four loads at once may as well be one at a time, all of them or the rest; a step
    // beyond the end adds zeros.
    each_check_is_needed("fingerprint", 52, 3);
    each_check_is_needed("fingerprint_renew", 54, 3);
}

#[test]
fn without_any_one_of_their_checks_tags_are_wrong_or_stopped() {
    // Without effect: the quick loop over whole blocks may be skipped or left early, since the slow one
    // goes on; and a block that is there has a first byte.
    each_check_is_needed("chacha_tag", 60, 3);
}

/// Without effect in ciphers, beside those of their tags: a whole block may be ciphered byte by byte; a
/// part of one has a first byte, and no byte 63.
const OF_CIPHERS: usize = 3 + 3;

#[test]
fn without_any_one_of_its_checks_opening_is_wrong_or_stopped() {
    each_check_is_needed("chacha_open", 196, OF_CIPHERS);
}

#[test]
fn without_any_one_of_its_checks_sealing_is_wrong_or_stopped() {
    each_check_is_needed("chacha_seal", 194, OF_CIPHERS);
}
