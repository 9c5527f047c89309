//! Property P7 and G5: units and bounds agree with unbounded integers on every input.
//!
//! Method: the reference recomputes the answer in `u128`, where nothing can wrap. Inputs are
//! drawn near the edges (0, capacity, `u64::MAX`) as often as uniformly, since a uniform `u64`
//! hits an off-by-one with probability 2⁻⁶⁴.

#![expect(clippy::arithmetic_side_effects, reason = "the reference works in u128")]

#[macro_use]
extern crate vram_testkit;

use proptest::prelude::*;
use vram_alloc::{
    Alignment, BoundsError, ByteLen, ByteOffset, ByteRange, DeviceOffset, DeviceRange,
    checked_shard_size,
};

/// A `u64` that is, half of the time, within two of `0`, `pivot` or `u64::MAX`.
fn near(pivot: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => any::<u64>(),
        1 => 0..=2_u64,
        1 => pivot.saturating_sub(2)..=pivot.saturating_add(2),
        1 => u64::MAX - 2..=u64::MAX,
    ]
}

fn access() -> impl Strategy<Value = (u64, u64, u64)> {
    near(0).prop_flat_map(|capacity| (near(capacity), near(capacity), Just(capacity)))
}

proptest! {
    #[test]
    fn checked_agrees_with_unbounded_integers((offset, len, capacity) in access()) {
        let end = u128::from(offset) + u128::from(len);
        let (len, capacity) = (ByteLen::new(len), ByteLen::new(capacity));
        let ours = ByteRange::checked(ByteOffset::new(offset), len, capacity);
        let device = DeviceRange::checked(DeviceOffset::new(offset), len, capacity);

        match (ours, device) {
            (Ok(range), Ok(device)) => {
                prop_assert!(end <= u128::from(capacity.get()));
                prop_assert_eq!(range.start().get(), offset);
                prop_assert_eq!(u128::from(range.end().get()), end);
                prop_assert_eq!(range.len(), len);
                prop_assert_eq!(range.is_empty(), len.is_zero());
                prop_assert_eq!(device.start().get(), offset);
                prop_assert_eq!(device.len(), len);
            }
            (Err(error), Err(device)) => {
                prop_assert_eq!(error, device);
                match error {
                    BoundsError::Overflow { .. } => prop_assert!(end > u128::from(u64::MAX)),
                    BoundsError::OutOfBounds { .. } => {
                        prop_assert!(end <= u128::from(u64::MAX));
                        prop_assert!(end > u128::from(capacity.get()));
                    }
                    other => prop_assert!(false, "unexpected refusal: {other}"),
                }
            }
            (ours, device) => prop_assert!(false, "{ours:?} and {device:?}"),
        }
    }

    #[test]
    fn a_slice_lies_inside_its_range(
        (offset, len) in (any::<u64>(), any::<u64>()),
        (sub_offset, sub_len) in near(4096).prop_flat_map(|pivot| (near(pivot), near(pivot))),
    ) {
        let len = len.min(u64::MAX - offset);
        let outer = DeviceRange::checked(DeviceOffset::new(offset), ByteLen::new(len), ByteLen::MAX)
            .unwrap();
        let sub_len = sub_len.min(u64::MAX - sub_offset);
        let sub =
            ByteRange::checked(ByteOffset::new(sub_offset), ByteLen::new(sub_len), ByteLen::MAX)
                .unwrap();
        match outer.slice(sub) {
            Ok(inner) => {
                prop_assert!(sub.end().get() <= len);
                prop_assert_eq!(inner.start().get() - offset, sub_offset);
                prop_assert_eq!(inner.len(), sub.len());
                prop_assert!(inner.end() <= outer.end());
            }
            Err(error) => {
                prop_assert!(sub.end().get() > len);
                prop_assert_eq!(error, BoundsError::OutOfBounds {
                    offset: sub_offset, len: sub.len(), capacity: outer.len(),
                });
            }
        }
    }

    /// G5: MiB to bytes saturates and never wraps, and is exact if it fits.
    #[test]
    fn mib_to_bytes_is_exact_or_saturates(mib in near(1 << 44)) {
        let exact = u128::from(mib) << 20;
        let saturated = u64::try_from(exact).unwrap_or(u64::MAX);
        prop_assert_eq!(ByteLen::from_mib_saturating(mib).get(), saturated);
        let checked = ByteLen::checked_from_mib(mib).map(|len| u128::from(len.get()));
        prop_assert_eq!(checked, Some(exact).filter(|&exact| exact <= u128::from(u64::MAX)));
    }

    /// G5: shard size plus overhead never overflows.
    #[test]
    fn a_shard_size_is_exact_or_none((len, overhead) in near(0).prop_flat_map(|p| (near(p), near(u64::MAX - p)))) {
        let exact = u128::from(len) + u128::from(overhead);
        let sum = checked_shard_size(ByteLen::new(len), ByteLen::new(overhead));
        prop_assert_eq!(
            sum.map(|sum| u128::from(sum.get())),
            Some(exact).filter(|&exact| exact <= u128::from(u64::MAX))
        );
    }

    #[test]
    fn unit_arithmetic_agrees_with_unbounded_integers((a, b) in near(0).prop_flat_map(|p| (near(p), near(p)))) {
        let wide = |value: Option<ByteLen>| value.map(|len| u128::from(len.get()));
        let fits = |exact: u128| Some(exact).filter(|&exact| exact <= u128::from(u64::MAX));
        let (x, y) = (ByteLen::new(a), ByteLen::new(b));
        let (wide_a, wide_b) = (u128::from(a), u128::from(b));
        prop_assert_eq!(wide(x.checked_add(y)), fits(wide_a + wide_b));
        prop_assert_eq!(wide(x.checked_mul(b)), fits(wide_a * wide_b));
        prop_assert_eq!(wide(x.checked_sub(y)), wide_a.checked_sub(wide_b));
        prop_assert_eq!(x.saturating_sub(y).get(), a.saturating_sub(b));
        prop_assert_eq!(x.saturating_add(y).get(), a.saturating_add(b));
        prop_assert_eq!(x < y, a < b);
        let (start, end) = (DeviceOffset::new(a), DeviceOffset::new(b));
        prop_assert_eq!(wide(end.checked_since(start)), wide_b.checked_sub(wide_a));
    }

    #[test]
    fn rounding_up_agrees_with_unbounded_integers(len in near(0), power in 0..64_u32) {
        let align = Alignment::new(1 << power).unwrap();
        let step = u128::from(align.get());
        let exact = u128::from(len).div_ceil(step) * step;
        prop_assert_eq!(
            ByteLen::new(len).round_up(align).map(|len| u128::from(len.get())),
            Some(exact).filter(|&exact| exact <= u128::from(u64::MAX))
        );
    }

    #[test]
    fn only_powers_of_two_are_alignments(bytes in near(1 << 20)) {
        prop_assert_eq!(Alignment::new(bytes).is_ok(), (0..64).any(|power| bytes == 1 << power));
    }

    /// FromStr reads what Display writes in brackets. The rounded figure is never more than the
    /// length, and never a tenth less.
    #[test]
    fn a_length_reads_as_it_is_written(bytes in near(1 << 30)) {
        let shown = ByteLen::new(bytes).to_string();
        let exact = shown.split(['(', ')']).nth(1).unwrap_or(&shown);
        prop_assert_eq!(exact.parse::<ByteLen>().unwrap().get(), bytes);
        if let Some((rounded, _)) = shown.split_once(" (") {
            let (figure, unit) = rounded.split_once(' ').unwrap();
            let power = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
                .iter().position(|name| *name == unit).unwrap() + 1;
            let unit = 1_u128 << (10 * power);
            let (whole, tenth) = figure.split_once('.').unwrap();
            let tenths = whole.parse::<u128>().unwrap() * 10 + tenth.parse::<u128>().unwrap();
            prop_assert!(tenths * unit <= u128::from(bytes) * 10);
            prop_assert!((tenths + 1) * unit > u128::from(bytes) * 10);
        }
    }

    #[test]
    fn any_text_is_read_or_refused_and_never_panics(text in "[0-9.]{0,24} ?[a-zA-Zµ]{0,5}") {
        let _ = text.parse::<ByteLen>();
    }
}

/// The boundary itself, spelled out, so that a reader sees the rule without running anything.
#[test]
fn an_empty_read_at_the_end_is_allowed_and_one_byte_is_not() {
    let capacity = ByteLen::new(4096);
    let at_end = ByteOffset::new(4096);
    assert!(ByteRange::checked(at_end, ByteLen::ZERO, capacity).is_ok());
    assert!(matches!(
        ByteRange::checked(at_end, ByteLen::new(1), capacity),
        Err(BoundsError::OutOfBounds { .. })
    ));
    assert!(ByteRange::whole(ByteLen::MAX).to_usize_range().is_some_and(|r| r.end == usize::MAX));
}

#[test]
fn sizes_are_read_as_people_write_them() {
    for (text, bytes) in [
        ("0", 0),
        ("1000", 1000),
        (" 64 KiB ", 64 << 10),
        ("512MiB", 512 << 20),
        ("8GiB", 8 << 30),
        ("8gib", 8 << 30),
        ("1.5GiB", 3 << 29),
        ("0.5 KiB", 512),
        ("1.0 B", 1),
        ("512Mi", 512 << 20),
        ("8Gi", 8 << 30),
        ("1.5 ki", 1536),
        ("2Ti", 2 << 40),
        ("2 TiB", 2 << 40),
        ("80GB", 80_000_000_000),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(text.parse::<ByteLen>().unwrap().get(), bytes, "{text}");
    }
    for (text, says) in [
        ("", "is not a size"),
        ("GiB", "is not a size"),
        (".5GiB", "is not a size"),
        ("5.GiB", "is not a size"),
        ("1.2.3", "is not a size"),
        ("-1", "is not a size"),
        ("8G", "write 8GB for powers of 1000, or 8GiB"),
        ("1.5 m", "write 1.5MB for powers of 1000, or 1.5MiB"),
        ("8 GiBs", "is not a unit"),
        ("1_000", "is not a unit"),
        ("0.3", "whole number of bytes"),
        ("1.000000000000000001 KB", "whole number of bytes"),
        ("1.00000000000000000000000000001 GiB", "whole number of bytes"),
        ("18446744073709551616", "more than 2^64 - 1"),
        ("16777216 TiB", "more than 2^64 - 1"),
        ("16777215.99999999999999 TiB", "whole number of bytes"),
    ] {
        let error = text.parse::<ByteLen>().unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn lengths_are_written_for_people_and_exactly() {
    for (bytes, shown) in [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB (1024 bytes)"),
        (1536, "1.5 KiB (1536 bytes)"),
        ((1 << 20) - 1, "1023.9 KiB (1048575 bytes)"),
        (12 << 20, "12.0 MiB (12582912 bytes)"),
        (u64::MAX, "15.9 EiB (18446744073709551615 bytes)"),
    ] {
        assert_eq!(ByteLen::new(bytes).to_string(), shown);
    }
}
