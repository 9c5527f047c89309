//! The matrix instruction `mma.m16n8k32`: bytes times signed bytes, summed exactly in words that wrap.
//!
//! Source: NVIDIA, PTX ISA, "Matrix fragments for mma.m16n8k32".

use super::LANES;
use super::alu::Registers;

/// Runs it on all lanes of a warp.
pub(super) fn multiply(registers: &mut Registers, at: &[u32; 14]) {
    let word = |of: usize, lane: usize| registers.words[at[of] as usize][lane].to_le_bytes();
    let mut left = [[0_i16; 32]; 16];
    // By columns.
    let mut right = [[0_i16; 32]; 8];
    for lane in 0..LANES {
        let (group, within) = (lane / 4, lane % 4);
        for byte in 0..4 {
            let column = 4 * within + byte;
            for half in 0..2 {
                left[group + 8 * half][column] = word(4 + half, lane)[byte].into();
                left[group + 8 * half][16 + column] = word(6 + half, lane)[byte].into();
                right[group][16 * half + column] = word(8 + half, lane)[byte].cast_signed().into();
            }
        }
    }
    let mut sums = [[0_u32; LANES]; 4];
    for lane in 0..LANES {
        for (place, sum) in sums.iter_mut().enumerate() {
            let (row, column) = (lane / 4 + 8 * (place / 2), 2 * (lane % 4) + place % 2);
            let products = left[row].iter().zip(&right[column]);
            let product: i32 = products.map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
            let addend = registers.words[at[10 + place] as usize][lane];
            sum[lane] = addend.wrapping_add(product.cast_unsigned());
        }
    }
    for (place, sum) in sums.into_iter().enumerate() {
        registers.words[at[place] as usize] = sum;
    }
}
