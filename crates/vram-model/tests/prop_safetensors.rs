//! Properties: arbitrary bytes are either refused or give a header that keeps its promises; files
//! written by the reference implementation are read back unchanged.
//!
//! Method: random files, valid files, and valid files with a few bytes or JSON figures changed,
//! which reach the later checks. The reference is the `safetensors` crate, which gets the whole
//! file.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, on figures of its own"
)]

#[macro_use]
extern crate vram_testkit;

use proptest::collection::vec;
use proptest::prelude::*;
use safetensors::SafeTensors;
use vram_alloc::ByteLen;
use vram_model::synth::{LlamaShape, SynthModel};
use vram_model::{Limits, SafetensorsHeader, plan_of};

/// Files from the reference writer.
fn sound() -> impl Strategy<Value = Vec<u8>> {
    let dtype = prop_oneof![
        Just(safetensors::Dtype::U8),
        Just(safetensors::Dtype::BF16),
        Just(safetensors::Dtype::F32),
        Just(safetensors::Dtype::I64)
    ];
    vec((dtype, vec(0_usize..5, 0..4)), 0..6).prop_map(|tensors| {
        let data: Vec<_> = tensors
            .iter()
            .enumerate()
            .map(|(index, (dtype, shape))| {
                let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
                (
                    format!("t{index}"),
                    *dtype,
                    shape.clone(),
                    vec![u8::try_from(index).unwrap(); len],
                )
            })
            .collect();
        let views = data.iter().map(|(name, dtype, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            (name.clone(), view)
        });
        safetensors::serialize(views, None).unwrap()
    })
}

/// Valid files with some bytes replaced, removed or added.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let edits = vec((any::<prop::sample::Index>(), 0_u8..4, any::<u8>()), 1..6);
    (sound(), edits).prop_map(|(mut bytes, edits)| {
        for (place, kind, value) in edits {
            if bytes.is_empty() {
                break;
            }
            // Two of three edits change the header, where the checks are made.
            let at = place.index(if value % 3 == 0 { bytes.len() } else { bytes.len().min(120) });
            match kind {
                0 => bytes[at] = value,
                // Another digit: the JSON stays valid, with a wrong figure.
                1 if bytes[at].is_ascii_digit() => bytes[at] = b'0' + value % 10,
                1 => bytes[at] ^= 1 << (value % 8),
                2 => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, value),
            }
        }
        bytes
    })
}

/// The promises of every accepted header, for any file.
fn promises_hold(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(header) = SafetensorsHeader::read("x", bytes, &Limits::default()) else {
        return Ok(false);
    };
    let len = u64::try_from(bytes.len()).unwrap();
    prop_assert_eq!(header.file_len().get(), len);
    let mut next = header.data_offset();
    let mut names = std::collections::HashSet::new();
    for tensor in header.tensors() {
        prop_assert_eq!(tensor.file_offset, next);
        next += tensor.len.get();
        prop_assert!(names.insert(&tensor.name));
    }
    prop_assert_eq!(next, len);
    let plan = plan_of([&header]).unwrap();
    prop_assert_eq!(plan.total(), header.data_len());
    prop_assert_eq!(plan.pieces().len(), header.tensors().len());
    Ok(true)
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_keep_the_promises(bytes in vec(any::<u8>(), 0..300)) {
        promises_hold(&bytes)?;
    }

    #[test]
    fn any_text_behind_an_honest_length_is_refused_or_keeps_the_promises(
        text in "\\{[\"a-c_:{}\\[\\],0-9U8F324dtypeshaoff ]{0,80}",
        data in 0_usize..20,
    ) {
        let mut bytes = u64::try_from(text.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        promises_hold(&bytes)?;
    }

    #[test]
    fn what_is_accepted_after_damage_the_reference_accepts_too(bytes in damaged()) {
        if promises_hold(&bytes)? {
            prop_assert!(SafeTensors::deserialize(&bytes).is_ok());
        }
    }

    #[test]
    fn what_the_reference_writes_is_read_back_the_same(bytes in sound()) {
        let header = SafetensorsHeader::read("x", &bytes, &Limits::default()).unwrap();
        let reference = SafeTensors::deserialize(&bytes).unwrap();
        prop_assert_eq!(header.tensors().len(), reference.len());
        for tensor in header.tensors() {
            let view = reference.tensor(&tensor.name).unwrap();
            let start = usize::try_from(tensor.file_offset).unwrap();
            let len = usize::try_from(tensor.len.get()).unwrap();
            prop_assert_eq!(&bytes[start..start + len], view.data());
            let shape: Vec<usize> =
                tensor.shape.iter().map(|&dim| usize::try_from(dim).unwrap()).collect();
            prop_assert_eq!(&shape[..], view.shape());
        }
    }

    #[test]
    fn every_strict_prefix_of_a_sound_file_is_refused(
        bytes in sound(), cut in any::<prop::sample::Index>(),
    ) {
        let prefix = &bytes[..cut.index(bytes.len())];
        prop_assert!(SafetensorsHeader::read("x", prefix, &Limits::default()).is_err());
    }

    #[test]
    fn a_made_up_model_of_any_size_is_sound_and_as_long_as_it_said(
        kib in 0_u64..2048, seed in any::<u64>(),
    ) {
        let shape = LlamaShape::about(ByteLen::new(kib << 10));
        let model = SynthModel::llama(&shape, seed).unwrap();
        let mut bytes = Vec::new();
        model.write_to(&mut bytes).unwrap();
        prop_assert_eq!(ByteLen::from_usize(bytes.len()), model.file_len());
        prop_assert!(promises_hold(&bytes)?);
        let mut again = Vec::new();
        SynthModel::llama(&shape, seed).unwrap().write_to(&mut again).unwrap();
        prop_assert!(bytes == again);
    }
}
