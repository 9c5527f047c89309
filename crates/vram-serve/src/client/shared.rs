//! What a worker process is told of a model that it uses in place.

use core::fmt;

use serde::{Deserialize, Serialize};
use vram_residency::{ShareHandle, SharedShard};

/// A model that a process of this machine uses where it lies, until it says that it has closed all of
/// the memory, or has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SharedModel {
    /// The number of the lease: `POST /v1/leases/NUMBER/end` ends it.
    pub lease: u64,
    /// The model.
    pub model: String,
    /// Who holds it, for listings.
    pub holder: String,
    /// The process that holds it.
    pub pid: u32,
    /// The tensors, in the order of the model's plan.
    pub tensors: Vec<SharedTensor>,
}

/// A tensor of a shared model, or a part of one. Lengths and offsets are in bytes. `Debug` does not show
/// the handle: whoever has it can use the memory.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SharedTensor {
    /// The name in the model's files.
    pub tensor: String,
    /// The part of the tensor, from 0.
    pub part: u32,
    /// Parts of the tensor: 1 for a whole one.
    pub parts: u32,
    /// How elements are stored, such as `BF16`; `None` if the file does not say.
    pub dtype: Option<String>,
    /// The shape of the whole tensor, the last dimension varying fastest.
    pub shape: Vec<u64>,
    /// The UUID of the device.
    pub device: String,
    /// The name of the allocation, in base64: 64 bytes for `cuIpcOpenMemHandle`. Empty for a tensor
    /// without bytes.
    pub handle: String,
    /// The first byte in the allocation.
    pub offset: u64,
    /// Bytes of the tensor, or of this part of it.
    pub bytes: u64,
    /// Bytes of the allocation.
    pub allocation: u64,
}

impl fmt::Debug for SharedTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTensor")
            .field("tensor", &self.tensor)
            .field("part", &self.part)
            .field("device", &self.device)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl SharedTensor {
    /// The handle; `None` for a tensor without bytes.
    #[must_use]
    pub fn share_handle(&self) -> Option<ShareHandle> {
        let bytes = from_base64(&self.handle)?;
        Some(ShareHandle::from_bytes(bytes.try_into().ok()?))
    }

    /// A tensor that no memory is named for yet.
    pub(crate) fn new(
        tensor: &str,
        (part, parts): (u32, u32),
        dtype: Option<String>,
        shape: &[u64],
        bytes: u64,
    ) -> Self {
        let (tensor, shape) = (tensor.to_owned(), shape.to_vec());
        let (device, handle) = (String::new(), String::new());
        Self { tensor, part, parts, dtype, shape, device, handle, offset: 0, bytes, allocation: 0 }
    }

    pub(crate) fn place(&mut self, shared: &SharedShard) {
        self.device = shared.device.to_string();
        self.handle = to_base64(&shared.handle.to_bytes());
        self.offset = shared.offset.get();
        self.allocation = shared.allocation.get();
    }
}

/// The alphabet of RFC 4648, section 4.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Three bytes as four digits, padded with `=`.
fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| group.get(at).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let shift = 18_u32.saturating_sub(u32::saturating_mul(digit, 6));
            let at = usize::try_from(bits >> shift & 63).unwrap_or(0);
            let used = usize::try_from(digit).unwrap_or(0) <= group.len();
            let digit = DIGITS.get(at).copied().filter(|_| used).unwrap_or(b'=');
            text.push(char::from(digit));
        }
    }
    text
}

/// The bytes of a text that [`to_base64`] wrote; `None` for another one.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for byte in group {
            let value = match byte {
                b'=' => 0,
                byte => DIGITS.iter().position(|digit| digit == byte)?,
            };
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        let [_, decoded @ ..] = bits.to_be_bytes();
        // Each digit has six bits; what does not fill a byte is padding.
        let digits = group.split(|byte| *byte == b'=').next().map_or(0, <[u8]>::len);
        bytes.extend(decoded.get(..digits.checked_mul(6)? / 8)?);
    }
    // One way of writing each: padding only at the end, whole groups, no stray bits.
    (to_base64(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_not_shown() {
        let mut tensor = SharedTensor::new("w", (0, 1), None, &[2], 2);
        tensor.handle = to_base64(&[7; 64]);
        assert_eq!(tensor.share_handle(), Some(ShareHandle::from_bytes([7; 64])));
        assert!(!format!("{tensor:?}").contains(&tensor.handle));
    }

    #[test]
    fn base64_is_that_of_the_rfc_and_is_read_back() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(to_base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_base64(&to_base64(&all)), Some(all));
        for bad in ["Z", "Zg", "Zg=", "Zh==", "=Zg=", "Zg==Zg==", "Z g=", "Zm9v====", "Zm9-"] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }
}
