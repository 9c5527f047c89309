//! Hexadecimal digits of an exact length, in time that does not depend on the digits: they may be a
//! key.

use base16ct::mixed;

/// Fills `target` from exactly twice as many digits, of either case. Otherwise returns `false`,
/// with `target` unspecified.
pub(crate) fn read(digits: &[u8], target: &mut [u8]) -> bool {
    let expected = target.len();
    mixed::decode(digits, target).is_ok_and(|read| read.len() == expected)
}

/// Whether all bytes are hexadecimal digits, in time that does not depend on the bytes: they may be
/// a raw key.
pub(crate) fn all_digits(bytes: &[u8]) -> bool {
    let others = bytes.iter().fold(0, |others, byte| others | not_a_digit(*byte));
    others == 0
}

/// Not zero, unless the byte is a hexadecimal digit. Neither a branch nor a table.
fn not_a_digit(byte: u8) -> u16 {
    // The sign of a difference says whether the byte lies outside a range.
    let outside = |byte: u8, low: u8, high: u8| {
        let byte = u16::from(byte);
        byte.wrapping_sub(u16::from(low)) | u16::from(high).wrapping_sub(byte)
    };
    let letter = byte | 0x20;
    outside(byte, b'0', b'9') & outside(letter, b'a', b'f') & 0x8000
}

#[cfg(test)]
mod tests {
    use super::{all_digits, read};

    #[test]
    fn only_digits_of_the_exact_length_are_read() {
        let mut bytes = [0; 3];
        assert!(read(b"00aAfF", &mut bytes));
        assert_eq!(bytes, [0, 0xaa, 0xff]);
        for wrong in ["", "00aA", "00aAf", "00aAfF0", "00aAfF00", "00aAfG", " 0aAfF", "+0aAfF"] {
            assert!(!read(wrong.as_bytes(), &mut [0; 3]), "{wrong:?}");
        }
        for digit in u8::MIN..=u8::MAX {
            assert_eq!(read(&[b'0', digit], &mut [0]), digit.is_ascii_hexdigit(), "{digit}");
            assert_eq!(all_digits(&[b'0', digit, b'f']), digit.is_ascii_hexdigit(), "{digit}");
        }
    }
}
