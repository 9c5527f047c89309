//! Hexadecimal digits of an exact length, in time that does not depend on the digits: they may be a
//! key.

use base16ct::mixed;

/// Fills `target` from exactly twice as many digits, of either case. Otherwise returns `false`,
/// with `target` unspecified.
pub(crate) fn read(digits: &[u8], target: &mut [u8]) -> bool {
    let expected = target.len();
    mixed::decode(digits, target).is_ok_and(|read| read.len() == expected)
}

#[cfg(test)]
mod tests {
    use super::read;

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
        }
    }
}
