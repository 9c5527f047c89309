//! Quantised block formats: how many weights share a block, and how many bytes a block takes.

use core::fmt;

/// Defines the formats from one table, so that no two lists disagree.
macro_rules! block_formats {
    ($($name:ident = $ggml:literal, $text:literal, $len:literal, $bytes:literal, $doc:literal;)*) => {
        /// A quantised format of GGUF files: weights come in blocks that share their scales.
        ///
        /// # Source
        ///
        /// The type numbers and block structures of ggml, `ggml.h` and `ggml-common.h` in
        /// <https://github.com/ggml-org/ggml>. Numbers that ggml has withdrawn (4, 5, 31 to 33, 36
        /// to 38) have no format here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        pub enum BlockFormat {
            $(
                #[doc = $doc]
                $name,
            )*
        }

        impl BlockFormat {
            /// Every format, in the order of ggml's type numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Weights in one block.
            #[must_use]
            pub const fn block_len(self) -> u64 {
                match self {
                    $(Self::$name => $len,)*
                }
            }

            /// Bytes in one block.
            #[must_use]
            pub const fn block_bytes(self) -> u64 {
                match self {
                    $(Self::$name => $bytes,)*
                }
            }

            /// The name that ggml prints, such as `Q4_K`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The number that GGUF files store.
            #[must_use]
            pub const fn ggml_type(self) -> u32 {
                match self {
                    $(Self::$name => $ggml,)*
                }
            }

            /// The format with this number in a GGUF file, or `None` for one that is not
            /// quantised, was withdrawn, or is not known.
            #[must_use]
            pub const fn from_ggml_type(number: u32) -> Option<Self> {
                match number {
                    $($ggml => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

block_formats! {
    Q4_0 = 2, "Q4_0", 32, 18, "4 bits, one scale for 32.";
    Q4_1 = 3, "Q4_1", 32, 20, "4 bits, one scale and one minimum for 32.";
    Q5_0 = 6, "Q5_0", 32, 22, "5 bits, one scale for 32.";
    Q5_1 = 7, "Q5_1", 32, 24, "5 bits, one scale and one minimum for 32.";
    Q8_0 = 8, "Q8_0", 32, 34, "8 bits, one scale for 32.";
    Q8_1 = 9, "Q8_1", 32, 36, "8 bits, one scale and one sum for 32.";
    Q2K = 10, "Q2_K", 256, 84, "2 bits, scales for groups of 16.";
    Q3K = 11, "Q3_K", 256, 110, "3 bits, scales for groups of 16.";
    Q4K = 12, "Q4_K", 256, 144, "4 bits, scales and minima for groups of 32.";
    Q5K = 13, "Q5_K", 256, 176, "5 bits, scales and minima for groups of 32.";
    Q6K = 14, "Q6_K", 256, 210, "6 bits, scales for groups of 16.";
    Q8K = 15, "Q8_K", 256, 292, "8 bits, one scale for 256 and sums of 16.";
    IQ2XXS = 16, "IQ2_XXS", 256, 66, "2.06 bits, from a codebook.";
    IQ2XS = 17, "IQ2_XS", 256, 74, "2.31 bits, from a codebook.";
    IQ3XXS = 18, "IQ3_XXS", 256, 98, "3.06 bits, from a codebook.";
    IQ1S = 19, "IQ1_S", 256, 50, "1.56 bits, from a codebook.";
    IQ4NL = 20, "IQ4_NL", 32, 18, "4.5 bits, not linear, one scale for 32.";
    IQ3S = 21, "IQ3_S", 256, 110, "3.44 bits, from a codebook.";
    IQ2S = 22, "IQ2_S", 256, 82, "2.56 bits, from a codebook.";
    IQ4XS = 23, "IQ4_XS", 256, 136, "4.25 bits, not linear, scales for groups of 32.";
    IQ1M = 29, "IQ1_M", 256, 56, "1.75 bits, from a codebook.";
    TQ1_0 = 34, "TQ1_0", 256, 54, "Ternary, five to a byte.";
    TQ2_0 = 35, "TQ2_0", 256, 66, "Ternary, four to a byte.";
    MXFP4 = 39, "MXFP4", 32, 17, "4-bit floats (E2M1), one power of two as scale for 32.";
    NVFP4 = 40, "NVFP4", 64, 36, "4-bit floats (E2M1), an 8-bit float as scale for 16.";
    Q1_0 = 41, "Q1_0", 128, 18, "Signs only, one scale for 128.";
    Q2_0 = 42, "Q2_0", 64, 18, "2 bits, one scale for 64.";
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
