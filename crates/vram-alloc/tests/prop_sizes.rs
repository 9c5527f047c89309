//! Property: tensor sizes and plans agree with unbounded integers, and `fits` with placing.
//!
//! Method: sizes are recomputed element by element rule in `u128`; a plan's `fits` is compared with
//! what an arena and a ledger really do.

#![expect(clippy::arithmetic_side_effects, reason = "the reference works in u128")]

#[macro_use]
extern crate vram_testkit;

use proptest::collection::vec;
use proptest::prelude::*;
use vram_alloc::{
    Alignment, Arena, BlockFormat, ByteLen, Dtype, Fit, Ledger, ModelPlan, PIECE_COUNT_MAX, Piece,
    PlanError, SizeError, TensorFormat, fits, tensor_bytes,
};

fn dimension() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..100_u64,
        4 => (0..64_u64).prop_map(|blocks| blocks * 256),
        1 => any::<u64>(),
        1 => (0..64_u32).prop_map(|power| 1 << power),
    ]
}

fn format() -> impl Strategy<Value = TensorFormat> {
    prop_oneof![
        prop::sample::select(Dtype::ALL).prop_map(TensorFormat::Plain),
        prop::sample::select(BlockFormat::ALL).prop_map(TensorFormat::Block),
    ]
}

/// The exact product, or `None` above 2¹²⁷ (no input reaches the gap between).
fn product(shape: &[u64]) -> Option<u128> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1_u128, |count, &len| count.checked_mul(u128::from(len)))
}

proptest! {
    #[test]
    fn a_tensor_takes_what_its_elements_take(format in format(), shape in vec(dimension(), 0..5)) {
        let count = product(&shape).filter(|&count| count <= u128::from(u64::MAX));
        let answer = tensor_bytes(format, &shape);
        match (format, count) {
            (_, None) => prop_assert_eq!(answer, Err(SizeError::TooLarge)),
            (TensorFormat::Plain(dtype), Some(count)) => {
                let bits = count * u128::from(dtype.bits());
                match answer {
                    Ok(len) => prop_assert_eq!(u128::from(len.get()) * 8, bits),
                    Err(SizeError::PartialByte { .. }) => prop_assert!(bits % 8 != 0),
                    Err(_) => prop_assert!(bits / 8 > u128::from(u64::MAX)),
                }
            }
            (TensorFormat::Block(block), Some(count)) => {
                let row_len = shape.last().copied().unwrap_or(1);
                let block_len = u128::from(block.block_len());
                match answer {
                    Ok(len) => {
                        prop_assert_eq!(u128::from(row_len) % block_len, 0);
                        prop_assert_eq!(
                            u128::from(len.get()),
                            count / block_len * u128::from(block.block_bytes())
                        );
                    }
                    Err(SizeError::PartialBlock { .. }) => {
                        prop_assert!(u128::from(row_len) % block_len != 0);
                    }
                    Err(_) => prop_assert!(
                        count / block_len * u128::from(block.block_bytes()) > u128::from(u64::MAX)
                    ),
                }
            }
            (other, _) => prop_assert!(false, "a format without a rule: {other}"),
        }
    }

    #[test]
    fn a_plan_adds_up_its_pieces(lens in vec(prop_oneof![9 => 0..100_000_u64, 1 => any::<u64>()], 0..12)) {
        let pieces = lens.iter().enumerate()
            .map(|(index, &len)| Piece::new(format!("t{index}"), 0, 0, ByteLen::new(len)));
        let total: u128 = lens.iter().map(|&len| u128::from(len)).sum();
        let footprint: u128 = lens.iter().map(|&len| u128::from(len).div_ceil(256) * 256).sum();
        match ModelPlan::new(pieces) {
            Ok(plan) => {
                prop_assert_eq!(u128::from(plan.total().get()), total);
                prop_assert_eq!(u128::from(plan.footprint().get()), footprint);
                prop_assert_eq!(plan.largest().get(), lens.iter().copied().max().unwrap_or(0));
                prop_assert_eq!(plan.is_empty(), lens.is_empty());
            }
            Err(error) => {
                prop_assert!(footprint > u128::from(u64::MAX), "{error}");
                let is_too_large = matches!(error, PlanError::TooLarge { .. });
                prop_assert!(is_too_large);
            }
        }
    }

    /// The parts of a tensor follow one another and cover it, and none is larger than the maximum.
    #[test]
    fn a_split_plan_covers_the_same_bytes(
        lens in vec(0..20_000_u64, 0..6),
        max in prop_oneof![256..600_u64, 256..30_000_u64],
    ) {
        let mut offset = 7;
        let pieces: Vec<_> = lens.iter().enumerate().map(|(index, &len)| {
            let piece = Piece::new(format!("t{index}"), 3, offset, ByteLen::new(len));
            offset += len;
            piece
        }).collect();
        let plan = ModelPlan::new(pieces.clone()).unwrap();
        let split = plan.split(ByteLen::new(max)).unwrap();
        prop_assert_eq!(split.total(), plan.total());
        prop_assert_eq!(split.footprint(), plan.footprint());
        prop_assert!(split.largest().get() <= max);

        let mut parts = split.pieces().iter();
        for piece in &pieces {
            let mut at = piece.source_offset;
            let mut part = 0;
            loop {
                let next = parts.next().unwrap();
                prop_assert_eq!((&next.name, next.file), (&piece.name, 3));
                prop_assert_eq!((next.source_offset, next.part), (at, part));
                at += next.len.get();
                part += 1;
                if part == next.part_count {
                    break;
                }
                prop_assert!(!next.len.is_zero());
                prop_assert!(next.len.get().is_multiple_of(256));
            }
            prop_assert_eq!(at, piece.source_offset + piece.len.get());
        }
        prop_assert!(parts.next().is_none());
        // Splitting again to the same size changes nothing; splitting finer is refused by name.
        prop_assert_eq!(&split.split(ByteLen::new(max)).unwrap(), &split);
    }

    /// `fits` says yes exactly if placing and reserving everything works.
    #[test]
    fn what_fits_can_be_placed_and_what_does_not_cannot(
        capacity in 0..40_000_u64,
        headroom in prop_oneof![3 => Just(0_u64), 1 => 0..40_000_u64],
        resident in vec(1..4000_u64, 0..10),
        lens in vec(0..9000_u64, 0..8),
        power in 0..13_u32,
    ) {
        let align = Alignment::new(1 << power).unwrap();
        let mut arena = Arena::new(ByteLen::new(capacity)).unwrap();
        let ledger = Ledger::new(ByteLen::new(capacity)).unwrap();
        let mut held = Vec::new();
        for (index, &len) in resident.iter().enumerate() {
            if let Ok(placement) = arena.place(ByteLen::new(len), Alignment::ONE) {
                let charge = ledger.reserve(placement.footprint()).unwrap().commit();
                held.push((index, placement, charge));
            }
        }
        for (index, placement, charge) in held {
            if index % 2 == 0 {
                arena.release(placement).unwrap();
                drop(charge);
            } else {
                charge.keep();
            }
        }
        ledger.set_headroom(ByteLen::new(headroom));
        let plan = ModelPlan::new(
            lens.iter().enumerate().map(|(i, &len)| Piece::new(format!("t{i}"), 0, 0, ByteLen::new(len))),
        ).unwrap();

        let before = arena.report();
        let answer = fits(&plan, &arena, ledger.capacity().room(), align);
        prop_assert_eq!(arena.report(), before);

        let mut reserved = Vec::new();
        let placed_all = plan.pieces().iter().all(|piece| {
            arena.place(piece.len, align).is_ok_and(|placement| {
                ledger.reserve(placement.footprint()).map(|r| reserved.push(r)).is_ok()
            })
        });
        prop_assert_eq!(answer.is_yes(), placed_all, "{}", answer);
        if let Fit::Fits { footprint } = answer {
            let taken: u64 = reserved.iter().map(|r| r.len().get()).sum();
            prop_assert_eq!(taken, footprint.get());
        }
    }
}

/// Every block format is as ggml defines it: number, weights and bytes of a block.
///
/// Source: `GGML_QUANT_SIZES` in gguf-py/gguf/constants.py of <https://github.com/ggml-org/llama.cpp>
/// (whose figures are sums of the fields of the structures in ggml-common.h), and
/// `sizeof(block_q8_1)`, 2 + 2 + 32, from that header.
#[test]
fn block_formats_have_the_sizes_of_ggml() {
    let expected = [
        (2, "Q4_0", 32, 2 + 16),
        (3, "Q4_1", 32, 2 + 2 + 16),
        (6, "Q5_0", 32, 2 + 4 + 16),
        (7, "Q5_1", 32, 2 + 2 + 4 + 16),
        (8, "Q8_0", 32, 2 + 32),
        (9, "Q8_1", 32, 2 + 2 + 32),
        (10, "Q2_K", 256, 2 + 2 + 256 / 16 + 256 / 4),
        (11, "Q3_K", 256, 2 + 256 / 4 + 256 / 8 + 12),
        (12, "Q4_K", 256, 2 + 2 + 256 / 2 + 12),
        (13, "Q5_K", 256, 2 + 2 + 256 / 2 + 256 / 8 + 12),
        (14, "Q6_K", 256, 2 + 256 / 2 + 256 / 4 + 256 / 16),
        (15, "Q8_K", 256, 4 + 256 + 256 / 8),
        (16, "IQ2_XXS", 256, 2 + 256 / 4),
        (17, "IQ2_XS", 256, 2 + 256 / 4 + 256 / 32),
        (18, "IQ3_XXS", 256, 2 + 256 / 4 + 256 / 8),
        (19, "IQ1_S", 256, 2 + 256 / 8 + 256 / 16),
        (20, "IQ4_NL", 32, 2 + 16),
        (21, "IQ3_S", 256, 2 + 256 / 4 + 256 / 8 + 256 / 32 + 4),
        (22, "IQ2_S", 256, 2 + 256 / 4 + 256 / 16),
        (23, "IQ4_XS", 256, 2 + 2 + 256 / 2 + 256 / 64),
        (29, "IQ1_M", 256, 256 / 8 + 256 / 16 + 256 / 32),
        (34, "TQ1_0", 256, 2 + 4 * 13),
        (35, "TQ2_0", 256, 2 + 64),
        (39, "MXFP4", 32, 1 + 16),
        (40, "NVFP4", 64, 4 + 32),
        (41, "Q1_0", 128, 2 + 16),
        (42, "Q2_0", 64, 2 + 16),
    ];
    assert_eq!(BlockFormat::ALL.len(), expected.len());
    for (number, name, len, bytes) in expected {
        let format = BlockFormat::from_ggml_type(number).unwrap();
        assert_eq!(format.ggml_type(), number);
        assert_eq!((format.name(), format.block_len(), format.block_bytes()), (name, len, bytes));
    }
    for withdrawn in [0, 1, 4, 5, 24, 30, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
        assert_eq!(BlockFormat::from_ggml_type(withdrawn), None, "{withdrawn}");
    }
    let plain = [0, 1, 24, 25, 26, 27, 28, 30]
        .map(|number| TensorFormat::from_ggml_type(number).unwrap().to_string());
    assert_eq!(plain, ["F32", "F16", "I8", "I16", "I32", "I64", "F64", "BF16"]);
    assert_eq!(TensorFormat::from_ggml_type(4), None);
}

#[test]
fn every_dtype_is_found_by_its_safetensors_name() {
    for &dtype in Dtype::ALL {
        assert_eq!(Dtype::from_safetensors_name(dtype.name()), Some(dtype));
    }
    assert_eq!(Dtype::from_safetensors_name("bf16"), None);
    assert_eq!(Dtype::from_safetensors_name("F8"), None);
}

/// The shapes of Llama-3-8B add up to the 16 060 522 496 bytes of its published files.
#[test]
fn a_real_model_takes_its_published_size() {
    let bf16 = |shape: &[u64]| tensor_bytes(TensorFormat::Plain(Dtype::BF16), shape).unwrap().get();
    let layer = 2 * bf16(&[4096, 4096])
        + 2 * bf16(&[1024, 4096])
        + 3 * bf16(&[14_336, 4096])
        + 2 * bf16(&[4096]);
    assert_eq!(32 * layer + 2 * bf16(&[128_256, 4096]) + bf16(&[4096]), 16_060_522_496);
}

#[test]
fn odd_shapes_have_a_size_or_a_reason() {
    let bf16 = TensorFormat::Plain(Dtype::BF16);
    let q4k = TensorFormat::Block(BlockFormat::Q4K);
    assert_eq!(tensor_bytes(bf16, &[]).unwrap().get(), 2, "a scalar");
    assert_eq!(tensor_bytes(bf16, &[u64::MAX, u64::MAX, 0]).unwrap(), ByteLen::ZERO);
    assert_eq!(tensor_bytes(bf16, &[1 << 63]), Err(SizeError::TooLarge));
    assert_eq!(tensor_bytes(q4k, &[3, 512]).unwrap().get(), 3 * 2 * 144);
    assert_eq!(tensor_bytes(q4k, &[5, 0]).unwrap(), ByteLen::ZERO);
    // The product would divide; the row does not.
    let refused = tensor_bytes(q4k, &[512, 3]).unwrap_err();
    assert_eq!(refused.to_string(), "a row of 3 elements does not divide into Q4_K blocks of 256");
    assert!(tensor_bytes(q4k, &[]).is_err(), "a scalar is no block");
    let f4 = TensorFormat::Plain(Dtype::F4);
    assert_eq!(tensor_bytes(f4, &[2, 3]).unwrap().get(), 3);
    assert!(matches!(tensor_bytes(f4, &[3]), Err(SizeError::PartialByte { count: 3, .. })));
}

#[test]
fn a_plan_that_contradicts_itself_is_refused() {
    let bytes = ByteLen::new(8);
    let piece = |name: &str| Piece::new(name, 0, 0, bytes);
    let bf16 = TensorFormat::Plain(Dtype::BF16);
    let refused = |pieces: Vec<Piece>| ModelPlan::new(pieces).unwrap_err();

    assert_eq!(
        refused(vec![piece("a"), piece("b"), piece("a")]),
        PlanError::Duplicate { name: "a".into(), part: 0 }
    );
    assert!(ModelPlan::new([piece("a").part_of(0, 2), piece("a").part_of(1, 2)]).is_ok());
    assert!(matches!(refused(vec![piece("a").part_of(2, 2)]), PlanError::NoSuchPart { .. }));
    assert!(matches!(refused(vec![piece("a").part_of(0, 0)]), PlanError::NoSuchPart { .. }));
    assert_eq!(
        refused(vec![piece("a").stored_as(bf16, [2, 3])]),
        PlanError::LengthMismatch { name: "a".into(), len: bytes, expected: ByteLen::new(12) }
    );
    assert!(ModelPlan::new([piece("a").stored_as(bf16, [2, 2])]).is_ok());
    assert!(ModelPlan::new([piece("a").stored_as(bf16, [2, 3]).part_of(0, 2)]).is_ok());
    assert!(matches!(
        refused(vec![piece("a").stored_as(bf16, [u64::MAX])]),
        PlanError::Size { error: SizeError::TooLarge, .. }
    ));
    assert!(matches!(
        refused(vec![Piece::new("a", 0, u64::MAX, ByteLen::new(1))]),
        PlanError::SourceOverflow { .. }
    ));
}

/// A hostile length costs neither memory nor time.
#[test]
fn a_plan_is_not_cut_into_more_pieces_than_a_host_can_bear() {
    let huge = ModelPlan::new([Piece::new("a", 0, 0, ByteLen::new(1 << 60))]).unwrap();
    let refused = huge.split(ByteLen::new(256)).unwrap_err();
    assert_eq!(refused, PlanError::TooManyPieces { count: 1 << 52 });
    assert!(matches!(huge.split(ByteLen::new(255)), Err(PlanError::MaxTooSmall { .. })));
    assert_eq!(huge.split(ByteLen::MAX).unwrap(), huge);

    let endless = (0_u64..).map(|index| Piece::new(index.to_string(), 0, 0, ByteLen::ZERO));
    let refused = ModelPlan::new(endless.take(PIECE_COUNT_MAX + 5)).unwrap_err();
    assert!(matches!(refused, PlanError::TooManyPieces { .. }));

    let halves = ModelPlan::new(
        (0..2).map(|part| Piece::new("a", 0, 0, ByteLen::new(1000)).part_of(part, 2)),
    )
    .unwrap();
    assert!(matches!(halves.split(ByteLen::new(512)), Err(PlanError::AlreadyCut { part: 0, .. })));
}

/// A plan's footprint is in whole granules, and a region may end inside one: neither hides the
/// other.
#[test]
fn a_fit_is_exact_to_the_last_short_granule() {
    let bytes = ByteLen::new;
    let plan = ModelPlan::new([Piece::new("a", 0, 0, bytes(1000))]).unwrap();
    assert_eq!(plan.footprint(), bytes(1024));

    let short = Arena::new(bytes(1000)).unwrap();
    let answer = fits(&plan, &short, bytes(1000), Alignment::GRANULE);
    assert_eq!(answer, Fit::Fits { footprint: bytes(1000) });

    let long = Arena::new(bytes(4096)).unwrap();
    let answer = fits(&plan, &long, bytes(1023), Alignment::GRANULE);
    assert!(matches!(answer, Fit::ShortOf { needed, piece: None, .. } if needed == bytes(1024)));
    assert!(fits(&plan, &long, bytes(1024), Alignment::GRANULE).is_yes());
    assert!(fits(&ModelPlan::default(), &long, ByteLen::ZERO, Alignment::GRANULE).is_yes());
}

#[test]
fn the_answer_says_what_is_short() {
    let mut arena = Arena::new(ByteLen::new(4096)).unwrap();
    let plan = ModelPlan::new([Piece::new("embed", 0, 0, ByteLen::new(1000))]).unwrap();
    let whole = fits(&plan, &arena, ByteLen::new(512), Alignment::GRANULE);
    assert_eq!(
        whole.to_string(),
        "the model needs 1.0 KiB (1024 bytes), there is room for 512 bytes"
    );
    let parts: Vec<_> =
        (0..8).map(|_| arena.place(ByteLen::new(512), Alignment::GRANULE).unwrap()).collect();
    for (index, placement) in parts.into_iter().enumerate() {
        if index % 2 == 0 {
            arena.release(placement).unwrap();
        }
    }
    let piece = fits(&plan, &arena, ByteLen::new(2048), Alignment::GRANULE);
    assert_eq!(
        piece.to_string(),
        "tensor \"embed\" needs 1000 bytes in one piece, the largest hole left is 512 bytes (room \
         2.0 KiB (2048 bytes))"
    );
}

/// Each number that a format is written as is read as that format.
#[test]
fn every_format_of_gguf_files_has_the_number_that_it_is_read_by() {
    let plain = Dtype::ALL.iter().map(|dtype| TensorFormat::Plain(*dtype));
    let block = BlockFormat::ALL.iter().map(|format| TensorFormat::Block(*format));
    let mut count = 0;
    for format in plain.chain(block) {
        let Some(number) = format.ggml_type() else { continue };
        assert_eq!(TensorFormat::from_ggml_type(number), Some(format), "{format}");
        count += 1;
    }
    let known = (0..1000).filter(|number| TensorFormat::from_ggml_type(*number).is_some());
    assert_eq!(count, known.count());
}
