//! One tensor of a model file, of whatever format.

use vram_alloc::{ByteLen, TensorFormat};

/// One tensor of a file: its name, its format and shape, and the position of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tensor {
    /// The name, exactly as in the file. It may contain any character; escape it before printing.
    pub name: String,
    /// How the elements are stored.
    pub format: TensorFormat,
    /// Dimensions, outermost first, whatever the order in the file. Empty for a scalar.
    pub shape: Vec<u64>,
    /// Where the bytes begin, counted from the start of the file.
    pub file_offset: u64,
    /// The number of bytes.
    pub len: ByteLen,
}

/// A header that lists the tensors of one file.
pub trait TensorTable {
    /// The file as the caller named it.
    fn file(&self) -> &str;

    /// The tensors, in the order of their bytes in the file.
    fn tensors(&self) -> &[Tensor];
}

impl<T: TensorTable + ?Sized> TensorTable for &T {
    fn file(&self) -> &str {
        (**self).file()
    }

    fn tensors(&self) -> &[Tensor] {
        (**self).tensors()
    }
}
