//! Complaints of users of other systems: each test reproduces one complaint, and shows that it
//! cannot happen here. The issues that describe it are listed above each test.

mod bytes;
mod room;

use vram_residency::{ByteLen, ModelPlan, Piece, VramManager};

const KIB: u64 = 1024;

fn plan(lens: &[usize]) -> ModelPlan {
    let mut offset = 0;
    let pieces = lens.iter().enumerate().map(|(number, len)| {
        let len = u64::try_from(*len).unwrap();
        offset += len;
        Piece::new(format!("tensor.{number}"), 0, offset - len, ByteLen::new(len))
    });
    ModelPlan::new(pieces).unwrap()
}

fn used(manager: &VramManager, gpu: u32) -> u64 {
    manager.capacity(gpu).unwrap().used.get()
}
