//! Files that are taken for safetensors files: what they are, by their first bytes.

use core::fmt;

/// Bytes that tell every format of the table: the mark of a tar archive comes last.
pub(crate) const SNIFFED: usize = 512;

/// Bytes of a key, in a file of nothing else.
const KEY_LEN: usize = 32;

/// What a file is that is not a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lookalike {
    /// A file without a byte.
    Empty,
    /// `GGUF`, llama.cpp's format.
    Gguf,
    /// A zip archive with the entries of a `PyTorch` checkpoint (`.bin`, `.pt`, `.pth`).
    PytorchZip,
    /// A zip archive of `NumPy` arrays (`.npz`).
    Npz,
    /// Another zip archive.
    Zip,
    /// One `NumPy` array (`.npy`).
    Npy,
    /// A bare Python pickle, as `PyTorch` before 1.6 wrote checkpoints.
    Pickle,
    /// An ONNX model.
    Onnx,
    /// An HDF5 file, as Keras writes models.
    Hdf5,
    /// Compressed by this program.
    Compressed {
        /// The program that unpacks it.
        with: &'static str,
    },
    /// A tar archive.
    Tar,
    /// The index of a model in several files, which is a JSON text.
    Index,
    /// A Git LFS pointer: the placeholder of a file that was not fetched.
    LfsPointer,
    /// A pointer of the Xet storage: the placeholder of a file that was not fetched.
    XetPointer,
    /// A sealed image of this project.
    SealedImage,
    /// The length of a key file, or 64 hexadecimal digits: a key, or a token.
    Key,
    /// A text: the answer of a server in place of the file, as a rule. It is not quoted, since it may be
    /// anybody's secret, and an error goes to logs and to other users.
    Text {
        /// HTML, XML, JSON, or plain.
        kind: &'static str,
    },
}

impl fmt::Display for Lookalike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty, 0 bytes; fetch it again",
            Self::Gguf => "it is a GGUF file",
            Self::PytorchZip => "it is a PyTorch checkpoint (a zip archive); convert it first",
            Self::Npz => "it is an archive of NumPy arrays (.npz); convert it first",
            Self::Zip => "it is a zip archive; unpack it first",
            Self::Npy => "it is a NumPy array (.npy); convert it first",
            Self::Pickle => "it is a Python pickle, perhaps a PyTorch checkpoint; convert it first",
            Self::Onnx => "it is an ONNX model; convert it first",
            Self::Hdf5 => "it is an HDF5 file, perhaps a Keras model; convert it first",
            Self::Compressed { with } => {
                return write!(f, "it is compressed with {with}; unpack it first");
            }
            Self::Tar => "it is a tar archive; unpack it first",
            Self::Index => {
                "it is the index of a sharded model; give its folder, or a name of it that ends in .json"
            }
            Self::LfsPointer => "it is a Git LFS pointer; fetch the file with `git lfs pull`",
            Self::XetPointer => {
                "it is a pointer of the Xet storage; fetch the file with `git xet` or `hf download`"
            }
            Self::SealedImage => "it is a sealed image; it is opened with its key",
            Self::Key => "it has the form of a key or a token; give a model file",
            Self::Text { kind } => {
                return write!(
                    f,
                    "it is {kind} text, perhaps the answer of a server: look at how it begins, and fetch \
                     the file again"
                );
            }
        })
    }
}

/// Where the mark of a format stands, the mark, and the format.
type Mark = (usize, &'static [u8], Lookalike);

/// The marks of binary formats and of pointers, each of which tells its format by itself.
const MARKS: &[Mark] = &[
    (0, b"GGUF", Lookalike::Gguf),
    (0, b"VRSEAL1\0", Lookalike::SealedImage),
    (0, b"\x93NUMPY", Lookalike::Npy),
    (0, b"\x89HDF\r\n\x1a\n", Lookalike::Hdf5),
    (0, b"\x1f\x8b\x08", Lookalike::Compressed { with: "gzip" }),
    (0, b"\x28\xb5\x2f\xfd", Lookalike::Compressed { with: "zstd" }),
    (0, b"\xfd7zXZ\0", Lookalike::Compressed { with: "xz" }),
    (0, b"BZh", Lookalike::Compressed { with: "bzip2" }),
    (0, b"\x04\x22\x4d\x18", Lookalike::Compressed { with: "lz4" }),
    // The first protocol, which is a text: a dict, a list.
    (0, b"(dp0\n", Lookalike::Pickle),
    (0, b"(lp0\n", Lookalike::Pickle),
    (257, b"ustar", Lookalike::Tar),
    (0, b"version https://git-lfs.github.com/", Lookalike::LfsPointer),
    (0, b"version https://hawser.github.com/", Lookalike::LfsPointer),
    (0, b"# xet version", Lookalike::XetPointer),
];

/// The format of a file, if its beginning tells one.
///
/// # Arguments
///
/// * `beginning`: the first [`SNIFFED`] bytes, or all bytes of a shorter file.
pub(crate) fn recognise(beginning: &[u8]) -> Option<Lookalike> {
    if beginning.is_empty() {
        return Some(Lookalike::Empty);
    }
    let stands =
        |(at, mark, _): &&Mark| beginning.get(*at..).is_some_and(|bytes| bytes.starts_with(mark));
    if let Some((_, _, found)) = MARKS.iter().find(stands) {
        return Some(found.clone());
    }
    match beginning {
        [b'P', b'K', 3, 4, ..] => Some(archive(beginning)),
        [b'P', b'K', 5, 6, ..] => Some(Lookalike::Zip),
        [0x80, 2..=5, ..] => Some(Lookalike::Pickle),
        // A protocol buffer: the version of ONNX, then one of the fields that follow it.
        [8, 1..=32, 0x12 | 0x1a | 0x22 | 0x2a | 0x32 | 0x3a | 0x42, ..] => Some(Lookalike::Onnx),
        _ if is_hex_key(beginning) => Some(Lookalike::Key),
        _ => text(beginning).or_else(|| (beginning.len() == KEY_LEN).then_some(Lookalike::Key)),
    }
}

/// A zip archive, by the name of its first entry.
fn archive(beginning: &[u8]) -> Lookalike {
    let len = match beginning.get(26..28) {
        Some(&[low, high]) => usize::from(u16::from_le_bytes([low, high])),
        _ => 0,
    };
    let name = beginning.get(30..).map(|rest| rest.get(..len).unwrap_or(rest)).unwrap_or_default();
    // `archive/data.pkl` comes first; newer versions put these two before it.
    let of_pytorch: [&[u8]; 3] = [b"/data.pkl", b"/.format_version", b"/byteorder"];
    if of_pytorch.iter().any(|end| name.ends_with(end)) {
        Lookalike::PytorchZip
    } else if name.ends_with(b".npy") {
        Lookalike::Npz
    } else {
        Lookalike::Zip
    }
}

/// A text, by its beginning. Nothing that holds control characters is one.
fn text(beginning: &[u8]) -> Option<Lookalike> {
    let valid = match core::str::from_utf8(beginning) {
        Ok(text) => text,
        // A character may be cut at the end of what was read.
        Err(error) if error.error_len().is_none() => {
            core::str::from_utf8(beginning.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let text = valid.trim_start_matches('\u{feff}').trim_start();
    if text.is_empty() || valid.chars().any(|c| c.is_control() && !"\t\r\n".contains(c)) {
        return None;
    }
    let lower: String = text.chars().take(16).collect::<String>().to_ascii_lowercase();
    let kind = match text.chars().next() {
        Some('{' | '[') if text.contains("\"weight_map\"") => return Some(Lookalike::Index),
        Some('{' | '[') => "a JSON",
        _ if lower.starts_with("<!doctype html") || lower.starts_with("<html") => "an HTML",
        _ if lower.starts_with("<?xml") => "an XML",
        _ => "a plain",
    };
    Some(Lookalike::Text { kind })
}

/// Whether a whole file is one line of 64 hexadecimal digits.
fn is_hex_key(beginning: &[u8]) -> bool {
    let digits = beginning.trim_ascii_end();
    digits.len() == 2 * KEY_LEN && digits.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_lie_in_what_is_read_and_none_begins_another() {
        for (number, (at, mark, _)) in MARKS.iter().enumerate() {
            assert!(!mark.is_empty() && at + mark.len() <= SNIFFED);
            let others = MARKS.iter().enumerate().filter(|(other, _)| *other != number);
            assert!(others.into_iter().all(|(_, (_, other, _))| !mark.starts_with(other)));
        }
    }

    #[test]
    fn a_character_that_is_cut_is_no_reason_to_take_a_text_for_bytes() {
        let cut = &"ä".repeat(SNIFFED).into_bytes()[..SNIFFED - 1];
        assert!(matches!(recognise(cut), Some(Lookalike::Text { kind: "a plain", .. })));
        assert_eq!(recognise(b"\xffabc"), None);
        assert_eq!(recognise(b"a\0b"), None);
        assert_eq!(recognise(&[0; 40]), None);
        assert_eq!(recognise(b" \n "), None);
    }
}
