//! Hexadecimal digits, without intermediate copies of what may be a key.

use core::fmt;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

const fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => digit.checked_sub(b'0'),
        b'a'..=b'f' => digit.wrapping_sub(b'a').checked_add(10),
        b'A'..=b'F' => digit.wrapping_sub(b'A').checked_add(10),
        _ => None,
    }
}

/// Fills `target` from exactly twice as many digits; `false`, with `target` unspecified, otherwise.
pub(crate) fn read(digits: &[u8], target: &mut [u8]) -> bool {
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != target.len() {
        return false;
    }
    for (byte, [high, low]) in target.iter_mut().zip(pairs) {
        let (Some(high), Some(low)) = (value(*high), value(*low)) else {
            return false;
        };
        *byte = (high << 4) | low;
    }
    true
}

fn digit(nibble: u8) -> char {
    DIGITS.get(usize::from(nibble & 15)).copied().map_or('?', char::from)
}

/// Appends two digits a byte.
pub(crate) fn push(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(*byte));
    }
}

/// Writes two digits a byte.
pub(crate) fn write(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for byte in bytes {
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}
