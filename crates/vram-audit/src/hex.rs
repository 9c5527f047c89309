//! Lower-case hexadecimal digits. Nothing that is written with them here is secret.

use core::fmt::Write as _;

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// Reads what [`hex`] writes, and refuses everything else.
pub(crate) fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    };
    if digits.len() != N.checked_mul(2)? {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_reads_as_hexadecimal() {
        let bytes: [u8; 32] = core::array::from_fn(|at| u8::try_from(at * 8).unwrap_or(255));
        assert_eq!(unhex(hex(&bytes).as_bytes()), Some(bytes));
        let zeros = hex(&[0; 32]);
        assert_eq!(unhex(zeros.as_bytes()), Some([0; 32]));
        for wrong in [&zeros[1..], &zeros.replace('0', "A"), &zeros.replace('0', "g"), ""] {
            assert_eq!(unhex::<32>(wrong.as_bytes()), None);
        }
    }
}
