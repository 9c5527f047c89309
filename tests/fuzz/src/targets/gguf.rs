//! GGUF files: accepted exactly if a second reader, which takes no bound and no shortcut, accepts
//! them, with the same tensors at the same places; and whatever is claimed, no more is read than the
//! file's beginning.

use core::cell::Cell;
use std::collections::BTreeSet;
use std::io;

use vram_alloc::{BlockFormat, ByteLen, Dtype, TensorFormat};
use vram_model::gguf::{GgufArray, GgufType};
use vram_model::synth::SynthGguf;
use vram_model::{GgufHeader, GgufValue, Limits, ModelOptions, ReadAt, plan_of};

use crate::Target;
use crate::choices::Choices;
use crate::edits::edit;

/// The target.
pub const TARGET: Target = Target {
    name: "gguf",
    promise: "a GGUF file is accepted exactly if a plain reader accepts it, with the same tensors",
    run,
    seeds,
    len_max: 4000,
    cases: 60_000,
};

/// A file of which only the beginning has bytes; the rest are zeros that nobody stored.
struct Sparse {
    head: Vec<u8>,
    len: u64,
    read: Cell<u64>,
}

impl ReadAt for Sparse {
    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        let len = u64::try_from(target.len()).unwrap();
        self.read.set(self.read.get().saturating_add(len));
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target.fill(0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.head.len());
        for (byte, stored) in target.iter_mut().zip(&self.head[from..]) {
            *byte = *stored;
        }
        Ok(())
    }
}

fn specimens() -> [Vec<u8>; 4] {
    let text = |text: &str| GgufValue::Text(text.to_owned());
    let list =
        |of, value: GgufValue, count| GgufValue::Array(GgufArray::of(of, vec![value; count]));
    let small = SynthGguf::new(1)
        .key("general.name", text("tiny"))
        .key("a", GgufValue::Unsigned(1 << 40))
        .key("b", GgufValue::Signed(-1))
        .key("c", GgufValue::F32(0.5))
        .key("d", GgufValue::Bool(true))
        .key("tokens", list(GgufType::Text, text("<s>"), 20))
        .key("flags", list(GgufType::Bool, GgufValue::Bool(false), 20))
        .tensor("w", TensorFormat::Block(BlockFormat::Q4K), [2, 256])
        .tensor("v", TensorFormat::Plain(Dtype::F32), [7])
        .tensor("e", TensorFormat::Plain(Dtype::F16), [0, 7]);
    let aligned = SynthGguf::new(2)
        .version(2)
        .alignment(64)
        .key("split.count", GgufValue::Unsigned(2))
        .tensor("x", TensorFormat::Plain(Dtype::BF16), [3, 1, 2])
        .tensor("y", TensorFormat::Block(BlockFormat::MXFP4), [32]);
    let nested = SynthGguf::new(3)
        .key("lists", list(GgufType::Array, list(GgufType::U32, GgufValue::Unsigned(7), 2), 3));
    let huge = SynthGguf::new(4).tensor("h", TensorFormat::Plain(Dtype::F32), [1 << 30, 1 << 20]);
    [whole(&small), whole(&aligned), whole(&nested), huge.header().unwrap()]
}

fn whole(file: &SynthGguf) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.write_to(&mut bytes).unwrap();
    bytes
}

fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let how = choices.byte();
    let head = if how.is_multiple_of(4) {
        choices.rest().to_vec()
    } else {
        let specimens = specimens();
        let mut head = choices.of(&specimens).clone();
        let others: Vec<&[u8]> = specimens.iter().map(Vec::as_slice).collect();
        edit(&mut choices, &mut head, &others, 6);
        head
    };
    let stored = u64::try_from(head.len()).unwrap();
    // As long as what is stored, or as an index may claim.
    let len = if how % 8 < 4 { stored } else { 1 << 55 };
    let file = Sparse { head, len, read: Cell::new(0) };
    let limits = Limits::DEFAULT.with_header_len_max(ByteLen::MIB);
    let read = GgufHeader::read("file", &file, &limits).inspect_err(|error| {
        assert!(error.to_string().len() < 20_000, "{error}");
    });
    // The header once, and the last window of it.
    assert!(file.read.get() <= (1 << 20) + (2 << 16), "{} bytes were read", file.read.get());

    let expected = Plain { file: &file, at: 0, max: 1 << 20 }.header();
    match (&read, &expected) {
        (Ok(header), Some(tensors)) => {
            let found: Vec<_> = header
                .tensors()
                .iter()
                .map(|one| (one.name.clone(), one.file_offset, one.len.get()))
                .collect();
            let mut sorted = found.clone();
            sorted.sort();
            assert_eq!(&sorted, tensors);
            assert!(found.windows(2).all(|pair| pair[0].1 <= pair[1].1), "in the order of bytes");
            let plan = plan_of([header]).unwrap();
            assert_eq!(plan.pieces().len(), tensors.len());
            assert_eq!(u128::from(plan.total().get()), sum(tensors));
            let options = ModelOptions::from(limits).headers_only(true);
            assert_eq!(&GgufHeader::read_with("file", &file, &options).unwrap(), header);
        }
        (Err(_), None) => {}
        _ => panic!("{read:?}, and the other reader says {expected:?}"),
    }
}

fn sum(tensors: &[Tensor]) -> u128 {
    tensors.iter().map(|(_, _, len)| u128::from(*len)).sum()
}

/// Name, position, length.
type Tensor = (String, u64, u64);

/// A value that was passed over; its number if it is an unsigned integer.
struct Passed {
    unsigned: Option<u64>,
}

/// The other reader: one value after the other, in wide integers, each taken from the source.
struct Plain<'a> {
    file: &'a Sparse,
    at: u128,
    max: u128,
}

impl Plain<'_> {
    fn take(&mut self, len: u128) -> Option<Vec<u8>> {
        let end = self.at + len;
        if end > self.max || end > u128::from(self.file.len) {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.file.read_exact_at(u64::try_from(self.at).unwrap(), &mut bytes).unwrap();
        self.at = end;
        Some(bytes)
    }

    fn number(&mut self, width: usize) -> Option<u64> {
        let bytes = self.take(u128::try_from(width).unwrap())?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn name(&mut self) -> Option<String> {
        let len = self.number(8)?;
        if len > 1024 {
            return None;
        }
        String::from_utf8(self.take(len.into())?).ok()
    }

    fn value(&mut self, of: u64, depth: usize) -> Option<Passed> {
        let width = match of {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                let len = self.number(8)?;
                self.take(len.into())?;
                return Some(Passed { unsigned: None });
            }
            9 if depth < 8 => {
                let (of, count) = (self.number(4)?, self.number(8)?);
                // Also of an empty list.
                if of > 12 {
                    return None;
                }
                for _ in 0..count {
                    self.value(of, depth + 1)?;
                }
                return Some(Passed { unsigned: None });
            }
            _ => return None,
        };
        let number = self.number(width)?;
        if of == 7 && number > 1 {
            return None;
        }
        Some(Passed { unsigned: [0, 2, 4, 10].contains(&of).then_some(number) })
    }

    fn header(mut self) -> Option<Vec<Tensor>> {
        if self.take(4)? != b"GGUF" || ![2, 3].contains(&self.number(4)?) {
            return None;
        }
        let (tensor_count, key_count) = (self.number(8)?, self.number(8)?);
        if tensor_count > 1 << 18 || key_count > 1 << 16 {
            return None;
        }
        let (mut keys, mut alignment) = (BTreeSet::new(), 32);
        for _ in 0..key_count {
            let key = self.name()?;
            let of = self.number(4)?;
            let Passed { unsigned: value } = self.value(of, 0)?;
            if key == "general.alignment" {
                alignment = value.filter(|one| one.is_power_of_two() && *one < 1 << 32)?;
            }
            if !keys.insert(key) {
                return None;
            }
        }
        let mut table = Vec::new();
        for _ in 0..tensor_count {
            table.push(self.entry(alignment)?);
        }
        let start = self.at.div_ceil(alignment.into()) * u128::from(alignment);
        let mut tensors = Vec::new();
        for (name, offset, len) in table {
            let at = start + u128::from(offset);
            if at + len > u128::from(self.file.len) {
                return None;
            }
            tensors.push((name, u64::try_from(at).unwrap(), u64::try_from(len).unwrap()));
        }
        tensors.sort();
        if tensors.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        let mut spans: Vec<_> = tensors.iter().filter(|one| one.2 > 0).collect();
        spans.sort_by_key(|one| one.1);
        if spans.windows(2).any(|pair| pair[0].1 + pair[0].2 > pair[1].1) {
            return None;
        }
        // An empty tensor lies in no other.
        let inside = |at: u64| spans.iter().any(|one| one.1 < at && at < one.1 + one.2);
        if tensors.iter().any(|one| one.2 == 0 && inside(one.1)) {
            return None;
        }
        Some(tensors)
    }

    fn entry(&mut self, alignment: u64) -> Option<(String, u64, u128)> {
        let name = self.name()?;
        let rank = self.number(4)?;
        if rank > 64 {
            return None;
        }
        let mut dims = Vec::new();
        for _ in 0..rank {
            dims.push(self.number(8)?);
        }
        let format = TensorFormat::from_ggml_type(u32::try_from(self.number(4)?).unwrap())?;
        let (block, bytes) = match format {
            TensorFormat::Plain(dtype) => (1, u128::from(dtype.bits() / 8)),
            TensorFormat::Block(block) => (block.block_len(), u128::from(block.block_bytes())),
            _ => return None,
        };
        if !dims.first().copied().unwrap_or(1).is_multiple_of(block) {
            return None;
        }
        let mut count = u128::from(!dims.contains(&0));
        for dim in dims {
            count = count.checked_mul(u128::from(dim)).filter(|count| *count <= u64::MAX.into())?;
        }
        let len = count / u128::from(block) * bytes;
        let offset = self.number(8)?;
        if len > u64::MAX.into() || !offset.is_multiple_of(alignment) {
            return None;
        }
        Some((name, offset, len))
    }
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let [small, aligned, ..] = specimens();
    vec![
        ("whole", [&[0][..], &small].concat()),
        ("aligned", [&[0][..], &aligned].concat()),
        ("magic", b"\0GGUF\x03\0\0\0".to_vec()),
        ("small", vec![1, 0]),
        ("version-2", vec![1, 1]),
        ("nested", vec![1, 2]),
        ("huge", vec![5, 3]),
        ("huge-cut", vec![1, 3]),
        // The counts of tensors and keys, as a number of eight bytes.
        ("tensors", vec![1, 0, 6, 8, 0, 3, 25]),
        ("keys", vec![5, 0, 6, 16, 0, 3, 13]),
        ("key-twice", vec![1, 0, 5, 24, 0, 24, 0, 40, 0]),
        ("bit", vec![1, 1, 0, 40, 0, 3]),
        ("cut", vec![1, 0, 7, 60, 0]),
    ]
}
