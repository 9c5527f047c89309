//! Headers of model files: what is accepted covers its file exactly, and no statement of a file is
//! taken on trust.

use std::io;

use serde_json::Value;
use vram_alloc::{ByteLen, TensorFormat};
use vram_model::{Limits, ReadAt, SafetensorsHeader, Tensor, plan_of};

use crate::Target;
use crate::choices::Choices;
use crate::edits::edit;

/// The target.
pub const TARGET: Target = Target {
    name: "model",
    promise: "an accepted header covers its file exactly, and its plan is the sum of its tensors",
    run,
    seeds,
    len_max: 4000,
    cases: 60_000,
};

const HEADERS: [&str; 4] = [
    r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}"#,
    r#"{"x":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"e":{"dtype":"F16","shape":[0,7],"data_offsets":[1,1]},"y":{"dtype":"I64","shape":[1,1],"data_offsets":[1,9]}}"#,
    r#"{"w":{"dtype":"F8_E4M3","shape":[1099511627776],"data_offsets":[0,1099511627776]}}"#,
    "{}",
];

/// A file of which only the beginning has bytes; the rest are zeros that nobody stored.
struct Sparse {
    head: Vec<u8>,
    len: u64,
}

impl ReadAt for Sparse {
    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        let len = u64::try_from(target.len()).unwrap();
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target.fill(0);
        let from = usize::try_from(offset).unwrap().min(self.head.len());
        for (byte, stored) in target.iter_mut().zip(&self.head[from..]) {
            *byte = *stored;
        }
        Ok(())
    }
}

fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let how = choices.byte();
    let file = match how % 4 {
        0 => {
            let head = choices.rest().to_vec();
            Sparse { len: u64::try_from(head.len()).unwrap(), head }
        }
        1 => {
            // Lengths that lie.
            let (stated, len) = (choices.number(), choices.number());
            let head = [&stated.to_le_bytes(), choices.rest()].concat();
            // More than any header here; a length within the limit may be taken.
            Sparse { head, len: if stated > 1 << 20 { len } else { len.min(1 << 21) } }
        }
        2 => with_text(choices.rest()),
        _ => {
            let mut text = choices.of(&HEADERS).as_bytes().to_vec();
            edit(&mut choices, &mut text, &HEADERS.map(str::as_bytes), 6);
            with_text(&text)
        }
    };
    let limits = Limits::DEFAULT.with_header_len_max(ByteLen::MIB);
    let Ok(header) = SafetensorsHeader::read("file", &file, &limits).inspect_err(|error| {
        assert!(error.to_string().len() < 20_000, "{error}");
    }) else {
        return;
    };
    covers(&header, &file);
    let few = limits.with_tensor_count_max(1);
    let few = SafetensorsHeader::read("file", &file, &few);
    assert_eq!(few.is_ok(), header.tensors().len() <= 1);
}

/// A file with this header, and as many bytes behind it as it seems to want.
fn with_text(text: &[u8]) -> Sparse {
    let stated = u64::try_from(text.len()).unwrap();
    let value: Value = serde_json::from_slice(text).unwrap_or_default();
    let ends = value.as_object().into_iter().flat_map(serde_json::Map::values);
    let ends = ends.filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
    let len = ends.max().unwrap_or(0).saturating_add(stated).saturating_add(8);
    Sparse { head: [&stated.to_le_bytes()[..], text].concat(), len }
}

fn covers(header: &SafetensorsHeader, file: &Sparse) {
    assert_eq!(header.file_len().get(), file.len);
    let mut at = header.data_offset();
    let stated = u64::from_le_bytes(file.head[..8].try_into().unwrap());
    assert_eq!(at, stated + 8);
    let mut names: Vec<&str> = Vec::new();
    for tensor in header.tensors() {
        assert_eq!(tensor.file_offset, at, "no hole and no overlap");
        let count = tensor.shape.iter().map(|dim| u128::from(*dim)).product::<u128>();
        let bits = count * u128::from(bits_of(tensor));
        assert_eq!(bits, u128::from(tensor.len.get()) * 8);
        at += tensor.len.get();
        names.push(&tensor.name);
    }
    assert_eq!(at, file.len, "to the end of the file");
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "each name once");
    if let Ok(plan) = plan_of([header]) {
        assert_eq!(plan.total().get(), header.data_len().get());
        assert_eq!(plan.pieces().len(), header.tensors().len());
        assert!(plan.largest() <= plan.total() && plan.total() <= plan.footprint());
    }
    assert!(header.tensors().is_empty() || plan_of([header, header]).is_err(), "a name twice");
}

/// Bits of one element; files of this format have no others than plain ones.
fn bits_of(tensor: &Tensor) -> u32 {
    let TensorFormat::Plain(dtype) = tensor.format else { panic!("{}", tensor.format) };
    dtype.bits()
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut whole = 142_u64.to_le_bytes().to_vec();
    whole.extend_from_slice(HEADERS[0].as_bytes());
    whole[0] = u8::try_from(HEADERS[0].len()).unwrap();
    whole.extend_from_slice(&[0; 32]);
    vec![
        ("whole", [&[0][..], &whole].concat()),
        ("text", [&[2], HEADERS[1].as_bytes()].concat()),
        ("large", vec![3, 2]),
        ("empty", vec![3, 3]),
        ("offsets", vec![3, 0, 1, 75, 0, b'9']),
        ("dtype", vec![3, 0, 1, 47, 0, b'6']),
        ("twice", vec![3, 0, 5, 31, 0, 31, 0, 57, 0]),
        ("nested", [&[2][..], &[b'['; 400]].concat()),
        ("lies", vec![1, 25, 9, b'{', b'}']),
        ("gguf", [&[0], &b"GGUF\x03\0\0\0"[..]].concat()),
        ("shape", [&[2], &br#"{"a":{"dtype":"F4","shape":[18446744073709551615,2],"data_offsets":[0,18446744073709551615]}}"#[..]].concat()),
    ]
}
