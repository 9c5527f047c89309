//! Element types, and how many bytes a tensor of a given shape takes.

use core::fmt;

use crate::tensor::block::BlockFormat;
use crate::units::ByteLen;

/// Defines the types from one table, so that no two lists disagree.
macro_rules! dtypes {
    ($($name:ident, $text:literal, $bits:literal, $doc:literal;)*) => {
        /// The type of one tensor element. The names are those of the safetensors format.
        ///
        /// # Source
        ///
        /// <https://github.com/huggingface/safetensors>, `Dtype`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        pub enum Dtype {
            $(
                #[doc = $doc]
                $name,
            )*
        }

        impl Dtype {
            /// Every type.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Bits that one element takes: 4 to 64.
            #[must_use]
            pub const fn bits(self) -> u32 {
                match self {
                    $(Self::$name => $bits,)*
                }
            }

            /// The name in a safetensors header, such as `BF16` or `F8_E4M3`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The type with this name in a safetensors header, or `None` if the name is not known.
            #[must_use]
            pub fn from_safetensors_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

dtypes! {
    BOOL, "BOOL", 8, "A truth value in a byte.";
    F4, "F4", 4, "A 4-bit float (E2M1), two to a byte.";
    F6E2M3, "F6_E2M3", 6, "A 6-bit float, four to three bytes.";
    F6E3M2, "F6_E3M2", 6, "A 6-bit float, four to three bytes.";
    U8, "U8", 8, "An unsigned byte; also how many quantised formats are stored.";
    I8, "I8", 8, "A signed byte.";
    F8E5M2, "F8_E5M2", 8, "An 8-bit float.";
    F8E4M3, "F8_E4M3", 8, "An 8-bit float.";
    F8E8M0, "F8_E8M0", 8, "A power of two; a scale.";
    F8E4M3FNUZ, "F8_E4M3FNUZ", 8, "An 8-bit float without infinities and negative zero.";
    F8E5M2FNUZ, "F8_E5M2FNUZ", 8, "An 8-bit float without infinities and negative zero.";
    I16, "I16", 16, "A signed integer.";
    U16, "U16", 16, "An unsigned integer.";
    F16, "F16", 16, "A half-precision float.";
    BF16, "BF16", 16, "The upper half of a single-precision float.";
    I32, "I32", 32, "A signed integer.";
    U32, "U32", 32, "An unsigned integer.";
    F32, "F32", 32, "A single-precision float.";
    C64, "C64", 64, "A complex number of two single-precision floats.";
    F64, "F64", 64, "A double-precision float.";
    I64, "I64", 64, "A signed integer.";
    U64, "U64", 64, "An unsigned integer.";
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum TensorFormat {
    /// Each element on its own.
    Plain(Dtype),
    /// Quantised, in blocks that share their scales.
    Block(BlockFormat),
}

impl TensorFormat {
    /// The name that safetensors headers or ggml give it, such as `BF16` or `Q4_K`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain(dtype) => dtype.name(),
            Self::Block(format) => format.name(),
        }
    }

    /// The number that GGUF files store, or `None` for a type that they do not have.
    #[must_use]
    pub const fn ggml_type(self) -> Option<u32> {
        Some(match self {
            Self::Plain(Dtype::F32) => 0,
            Self::Plain(Dtype::F16) => 1,
            Self::Plain(Dtype::I8) => 24,
            Self::Plain(Dtype::I16) => 25,
            Self::Plain(Dtype::I32) => 26,
            Self::Plain(Dtype::I64) => 27,
            Self::Plain(Dtype::F64) => 28,
            Self::Plain(Dtype::BF16) => 30,
            Self::Plain(_) => return None,
            Self::Block(format) => format.ggml_type(),
        })
    }

    /// The format with this type number in a GGUF file, or `None` for one that is not known.
    #[must_use]
    pub const fn from_ggml_type(number: u32) -> Option<Self> {
        Some(Self::Plain(match number {
            0 => Dtype::F32,
            1 => Dtype::F16,
            24 => Dtype::I8,
            25 => Dtype::I16,
            26 => Dtype::I32,
            27 => Dtype::I64,
            28 => Dtype::F64,
            30 => Dtype::BF16,
            _ => {
                return match BlockFormat::from_ggml_type(number) {
                    Some(format) => Some(Self::Block(format)),
                    None => None,
                };
            }
        }))
    }
}

impl fmt::Display for TensorFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a shape has no size in a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SizeError {
    /// The elements, or their bytes, are more than a `u64` counts.
    #[error("the tensor is larger than 2^64 - 1 bytes")]
    TooLarge,
    /// A row ends inside a quantised block.
    #[error("a row of {row_len} elements does not divide into {format} blocks of {}", format.block_len())]
    PartialBlock {
        /// Elements in the last, fastest dimension; 1 for a scalar.
        row_len: u64,
        /// The format of the call.
        format: BlockFormat,
    },
    /// The tensor ends inside a byte.
    #[error("{count} elements of {dtype} do not fill whole bytes")]
    PartialByte {
        /// Elements in the tensor.
        count: u64,
        /// The type of the call.
        dtype: Dtype,
    },
}

/// Bytes that a tensor takes in a file or on a device, packed without gaps.
///
/// # Arguments
///
/// * `format`: how the elements are stored.
/// * `shape`: lengths of the dimensions, the last one varying fastest, as safetensors and Python
///   write them. GGUF files write the same dimensions in reverse. An empty shape is a scalar; a
///   dimension of 0 makes an empty tensor.
///
/// # Errors
///
/// [`SizeError::TooLarge`] if the size does not fit a `u64`; [`SizeError::PartialBlock`] if the
/// last dimension is not a whole number of quantised blocks; [`SizeError::PartialByte`] if elements
/// narrower than a byte do not add up to whole bytes.
pub fn tensor_bytes(format: TensorFormat, shape: &[u64]) -> Result<ByteLen, SizeError> {
    let count = element_count(shape)?;
    let (unit_count, unit_bits) = match format {
        TensorFormat::Plain(dtype) => (count, u64::from(dtype.bits())),
        TensorFormat::Block(format) => {
            let row_len = shape.last().copied().unwrap_or(1);
            if !row_len.is_multiple_of(format.block_len()) {
                return Err(SizeError::PartialBlock { row_len, format });
            }
            // The row divides into blocks, so the whole tensor does.
            let block_count = count.checked_div(format.block_len()).unwrap_or(0);
            (block_count, format.block_bytes().saturating_mul(8))
        }
    };
    // At most 2^64 * 2336 bits, which fits a u128.
    let bits = u128::from(unit_count).saturating_mul(u128::from(unit_bits));
    match format {
        TensorFormat::Plain(dtype) if !bits.is_multiple_of(8) => {
            Err(SizeError::PartialByte { count, dtype })
        }
        _ => u64::try_from(bits >> 3).map(ByteLen::new).map_err(|_too_large| SizeError::TooLarge),
    }
}

/// The product of the dimensions. One zero makes it zero, with any other dimensions.
fn element_count(shape: &[u64]) -> Result<u64, SizeError> {
    if shape.contains(&0) {
        return Ok(0);
    }
    shape.iter().try_fold(1_u64, |count, &len| count.checked_mul(len)).ok_or(SizeError::TooLarge)
}
