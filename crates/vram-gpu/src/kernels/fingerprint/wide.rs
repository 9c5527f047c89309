//! The first level of fingerprints with vector instructions. The one file outside of `cuda/` in
//! which this crate says `unsafe`: such instructions are called only where the processor has them,
//! and vectors are loaded from arrays that are exactly as long.

#![expect(clippy::cast_ptr_alignment, reason = "these loads and stores need no alignment")]

use core::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_loadu_si128, _mm256_add_epi32, _mm256_cvtepi8_epi16,
    _mm256_cvtepu8_epi16, _mm256_madd_epi16, _mm256_setzero_si256, _mm256_storeu_si256,
    _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_setzero_si512, _mm512_storeu_si512,
};

use core::slice;

use super::Form;
use super::sums::{COLUMNS, Column, ROW_LEN, ROWS, STEP_LEN, Sums};

/// Steps that are worked on together.
const GROUP: usize = 8;

/// With products of bytes in 512-bit vectors; none where the processor has no such instructions.
pub(super) fn avx512(bytes: &[u8], columns: &[[Column; COLUMNS]]) -> Option<Sums> {
    // SAFETY: `with_vnni` needs the two features that `is_usable` asks the processor for.
    Form::Avx512Vnni.is_usable().then(|| unsafe { with_vnni(bytes, columns) })
}

/// With products of 16-bit numbers in 256-bit vectors; none where there are no such instructions.
pub(super) fn avx2(bytes: &[u8], columns: &[[Column; COLUMNS]]) -> Option<Sums> {
    // SAFETY: `with_avx2` needs the feature that `is_usable` asks the processor for.
    Form::Avx2.is_usable().then(|| unsafe { with_avx2(bytes, columns) })
}

/// The steps of a span, and room for the last one if it is short.
fn steps<'a>(
    bytes: &'a [u8],
    short: &'a mut [u8; STEP_LEN],
) -> (&'a [[u8; STEP_LEN]], Option<&'a [u8; STEP_LEN]>) {
    let (whole, rest) = bytes.as_chunks();
    for (byte, at) in rest.iter().zip(short.iter_mut()) {
        *at = *byte;
    }
    (whole, (!rest.is_empty()).then_some(&*short))
}

#[expect(clippy::large_stack_arrays, reason = "32 KiB, as much as the nearest cache holds")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn with_vnni(bytes: &[u8], columns: &[[Column; COLUMNS]]) -> Sums {
    let mut short = [0; STEP_LEN];
    let (whole, last) = steps(bytes, &mut short);
    let mut vectors = [[_mm512_setzero_si512(); COLUMNS]; ROWS];
    // A few steps at a time, whose bytes and columns stay in the nearest cache; two rows at a time,
    // whose sums stay in registers while a column is loaded once for both.
    let last = last.map(slice::from_ref).unwrap_or_default();
    let groups = whole.chunks(GROUP).chain([last]).scan(0, |at, steps| {
        let first = *at;
        *at += steps.len();
        Some((steps, columns.get(first..)?))
    });
    for (steps, columns) in groups {
        for (pair, vectors) in vectors.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [mut first, mut second] = *vectors;
            for (step, columns) in steps.iter().zip(columns) {
                let rows = step.as_chunks::<ROW_LEN>().0.as_chunks::<2>().0;
                let Some([one, two]) = rows.get(pair) else { continue };
                let (one, two) = (load512(one), load512(two));
                for ((column, first), second) in columns.iter().zip(&mut first).zip(&mut second) {
                    let column = load512(&column.0.map(i8::cast_unsigned));
                    *first = _mm512_dpbusd_epi32(*first, one, column);
                    *second = _mm512_dpbusd_epi32(*second, two, column);
                }
            }
            *vectors = [first, second];
        }
    }
    let mut sums = [[[0; COLUMNS]; 2]; ROWS];
    for (sums, vectors) in sums.iter_mut().zip(&vectors) {
        let [even, odd] = sums;
        for ((vector, even), odd) in vectors.iter().zip(even).zip(odd) {
            // The words of the four threads of a card that loaded the row.
            let words = store512(*vector);
            let [a, b, c, d] = words.as_chunks::<4>().0.iter().fold([0; 4], added);
            *even = a.wrapping_add(c);
            *odd = b.wrapping_add(d);
        }
    }
    sums
}

#[target_feature(enable = "avx2")]
fn with_avx2(bytes: &[u8], columns: &[[Column; COLUMNS]]) -> Sums {
    let mut short = [0; STEP_LEN];
    let (whole, last) = steps(bytes, &mut short);
    let mut sums = [[[0; COLUMNS]; 2]; ROWS];
    for (row, sums) in sums.iter_mut().enumerate() {
        let mut vectors = [_mm256_setzero_si256(); COLUMNS];
        for (step, columns) in whole.iter().chain(last).zip(columns) {
            let Some(row) = step.as_chunks::<ROW_LEN>().0.get(row) else { continue };
            let mut quarters = [_mm256_setzero_si256(); 4];
            for (quarter, bytes) in quarters.iter_mut().zip(row.as_chunks().0) {
                *quarter = _mm256_cvtepu8_epi16(load128(bytes));
            }
            for (column, vector) in columns.iter().zip(&mut vectors) {
                let column = column.0.map(i8::cast_unsigned);
                for (quarter, keys) in quarters.iter().zip(column.as_chunks().0) {
                    let keys = _mm256_cvtepi8_epi16(load128(keys));
                    *vector = _mm256_add_epi32(*vector, _mm256_madd_epi16(*quarter, keys));
                }
            }
        }
        let [even, odd] = sums;
        for ((vector, even), odd) in vectors.into_iter().zip(even).zip(odd) {
            // Two sums for each word.
            let parts = store256(vector);
            let [a, b, c, d] = parts.as_chunks::<4>().0.iter().fold([0; 4], added);
            *even = a.wrapping_add(b);
            *odd = c.wrapping_add(d);
        }
    }
    sums
}

/// The sums of equal places.
fn added(mut sums: [u32; 4], parts: &[u32; 4]) -> [u32; 4] {
    for (sum, part) in sums.iter_mut().zip(parts) {
        *sum = sum.wrapping_add(*part);
    }
    sums
}

#[target_feature(enable = "avx512f")]
fn load512(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads 64 bytes, which the array has; no alignment is needed.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast::<__m512i>()) }
}

#[target_feature(enable = "avx512f")]
fn store512(vector: __m512i) -> [u32; 16] {
    let mut parts = [0; 16];
    // SAFETY: writes 64 bytes, which the array has; no alignment is needed.
    unsafe { _mm512_storeu_si512(parts.as_mut_ptr().cast::<__m512i>(), vector) };
    parts
}

#[target_feature(enable = "avx2")]
fn load128(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: reads 16 bytes, which the array has; no alignment is needed.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast::<__m128i>()) }
}

#[target_feature(enable = "avx2")]
fn store256(vector: __m256i) -> [u32; 8] {
    let mut parts = [0; 8];
    // SAFETY: writes 32 bytes, which the array has; no alignment is needed.
    unsafe { _mm256_storeu_si256(parts.as_mut_ptr().cast::<__m256i>(), vector) };
    parts
}
