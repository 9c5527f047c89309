//! Blocks: warps that meet at barriers.

use super::global::Global;
use super::instruction::Kernel;
use super::shared::Shared;
use super::warp::{Scene, Stand, Warp};
use super::{LANES, Trap};
use crate::shape::LaunchShape;

/// Runs a launch, one block after the other.
pub(crate) fn run(
    kernel: &Kernel,
    shape: LaunchShape,
    parameters: &[Vec<u8>],
    step_limit: u64,
    global: &mut Global<'_>,
) -> Result<(), Trap> {
    let mut bytes = Vec::new();
    for ((at, _), parameter) in kernel.parameters.iter().zip(parameters) {
        bytes.resize(*at, 0);
        bytes.extend(parameter);
    }
    let threads = LaunchShape::new([1; 3], shape.block, 0).thread_count() as u32;
    let mut shared = Shared::new(kernel);
    let mut warps: Vec<Warp> =
        (0..threads).step_by(LANES).map(|first| Warp::new(kernel, first)).collect();
    let blocks = LaunchShape::new(shape.grid, [1; 3], 0).thread_count();
    for number in 0..blocks {
        let [x, y, _] = shape.grid.map(u64::from);
        let block = [number % x, number / x % y, number / x / y].map(|at| at as u32);
        shared.poison(number);
        for warp in &mut warps {
            warp.reset(kernel, threads);
        }
        let mut scene = Scene {
            kernel,
            shape,
            block,
            parameters: &bytes,
            step_limit,
            global,
            shared: &mut shared,
        };
        run_block(&mut warps, &mut scene)?;
    }
    Ok(())
}

fn run_block(warps: &mut [Warp], scene: &mut Scene<'_, '_>) -> Result<(), Trap> {
    loop {
        let mut met = None;
        for warp in warps.iter_mut() {
            let stand = warp.run(scene)?;
            let first = *met.get_or_insert(stand);
            if stand != first {
                let at = match (stand, first) {
                    (Stand::Barrier(at), _) | (_, Stand::Barrier(at)) => at,
                    (Stand::Done, Stand::Done) => 0,
                };
                let what = "not all threads of the block meet here".to_owned();
                return Err(warp.trap(scene, at, 0, Trap::apart(what)));
            }
        }
        if met.is_none_or(|stand| stand == Stand::Done) {
            return Ok(());
        }
        scene.shared.next_phase();
    }
}
