//! A script of edits: what somebody who can write to a genuine object does to it.

use crate::choices::Choices;

/// The longest result. Longer ones show nothing new, and are slow.
const LEN_MAX: usize = 1 << 16;

/// Carries out up to `most` edits.
///
/// | first byte, of 9 | then | edit |
/// |---|---|---|
/// | 0 | place, bit | flips one bit |
/// | 1 | place, byte | sets one byte |
/// | 2 | place, length, bytes | inserts bytes |
/// | 3 | place, length | removes bytes |
/// | 4 | from, to, length | copies bytes over others |
/// | 5 | from, to, length | inserts a copy of bytes |
/// | 6 | place, width, number | writes a number, little-endian |
/// | 7 | place | cuts |
/// | 8 | which, from, to, length | copies bytes of another object over these |
pub fn edit(choices: &mut Choices<'_>, bytes: &mut Vec<u8>, others: &[&[u8]], most: usize) {
    for _ in 0..most {
        if choices.is_empty() {
            break;
        }
        one(choices, bytes, others);
        bytes.truncate(LEN_MAX);
    }
}

fn one(choices: &mut Choices<'_>, bytes: &mut Vec<u8>, others: &[&[u8]]) {
    let kind = choices.byte() % 9;
    let count = bytes.len();
    if kind == 8 {
        if let Some(other) = others.get(choices.below(others.len())) {
            let (from, to, len) =
                (choices.below(other.len()), choices.below(count), choices.short());
            let len = len.min(other.len() - from).min(count.saturating_sub(to));
            bytes.splice(to.min(count)..to.min(count) + len, other[from..from + len].to_vec());
        }
        return;
    }
    let at = choices.below(count);
    match kind {
        0 if count > 0 => bytes[at] ^= 1 << (choices.byte() % 8),
        1 if count > 0 => bytes[at] = choices.byte(),
        2 => {
            let len = usize::from(choices.byte());
            bytes.splice(at..at, choices.take(len).iter().copied());
        }
        3 => {
            let end = (at + choices.short()).min(count);
            bytes.drain(at..end);
        }
        4 | 5 => {
            let to = choices.below(count);
            let end = (at + choices.short()).min(count);
            let copied = bytes[at..end].to_vec();
            let over = if kind == 4 { (to + copied.len()).min(count) } else { to };
            bytes.splice(to..over, copied);
        }
        6 => {
            let width = 1_usize << (choices.byte() % 4);
            let number = choices.number().to_le_bytes();
            if let Some(place) = bytes.get_mut(at..at + width) {
                place.copy_from_slice(&number[..width]);
            }
        }
        7 => bytes.truncate(at),
        _ => {}
    }
}
