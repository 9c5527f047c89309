//! Values of the metadata of a GGUF file.

use core::fmt;

/// Elements of a list that are kept.
pub(super) const KEPT_MAX: u64 = 16;

/// Defines the types from one table, so that no two lists disagree.
macro_rules! types {
    ($($name:ident = $number:literal, $text:literal, $bytes:literal;)*) => {
        /// The type of a value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum GgufType {
            $($name,)*
        }

        impl GgufType {
            /// The type with this number in a file, or `None` for one that the format does not have.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The number that files store.
            #[must_use]
            pub const fn number(self) -> u32 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// The name that the format gives it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The fewest bytes that a value takes in a file, and all that a number takes.
            #[must_use]
            pub const fn least_bytes(self) -> u64 {
                match self {
                    $(Self::$name => $bytes,)*
                }
            }
        }
    };
}

types! {
    U8 = 0, "uint8", 1;
    I8 = 1, "int8", 1;
    U16 = 2, "uint16", 2;
    I16 = 3, "int16", 2;
    U32 = 4, "uint32", 4;
    I32 = 5, "int32", 4;
    F32 = 6, "float32", 4;
    Bool = 7, "bool", 1;
    Text = 8, "string", 8;
    Array = 9, "array", 12;
    U64 = 10, "uint64", 8;
    I64 = 11, "int64", 8;
    F64 = 12, "float64", 8;
}

impl fmt::Display for GgufType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value of the metadata.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GgufValue {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// A float of 32 bits.
    F32(f32),
    /// A float of 64 bits.
    F64(f64),
    /// A truth value.
    Bool(bool),
    /// A text. What is not UTF-8 in it is replaced.
    Text(String),
    /// A list.
    Array(GgufArray),
}

/// A list of values of one type, of which the first ones are kept: a vocabulary has hundreds of
/// thousands.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GgufArray {
    /// The type of its elements.
    pub of: GgufType,
    /// The number of its elements.
    pub len: u64,
    /// Its first elements, at most 16; none of a list inside a list.
    pub first: Vec<GgufValue>,
    /// Where the elements begin, in bytes from the start of the file.
    pub file_offset: u64,
}

impl GgufArray {
    /// A short list of these values.
    #[must_use]
    pub fn of(of: GgufType, first: Vec<GgufValue>) -> Self {
        let len = u64::try_from(first.len()).unwrap_or(u64::MAX);
        Self { of, len, first, file_offset: 0 }
    }
}

impl GgufValue {
    /// The value, if it is an integer that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(*value),
            Self::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The value, if it is a text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Prints a text as it is, and a list as its first elements: `[1, 2, … 32000 in all]`.
impl fmt::Display for GgufValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::F32(value) => value.fmt(f),
            Self::F64(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Array(array) => array.fmt(f),
        }
    }
}

impl fmt::Display for GgufArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (number, value) in self.first.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { ", " })?;
            match value {
                GgufValue::Text(text) => write!(f, "{text:?}")?,
                other => other.fmt(f)?,
            }
        }
        if u64::try_from(self.first.len()).is_ok_and(|kept| kept < self.len) {
            let between = if self.first.is_empty() { "" } else { ", " };
            write!(f, "{between}… {} of type {} in all", self.len, self.of)?;
        }
        f.write_str("]")
    }
}
