//! Blocks: warps that meet at barriers.

use super::global::Global;
use super::instruction::Kernel;
use super::shared::Shared;
use super::warp::{Scene, Stand, Warp};
use super::{LANES, Trap};
use crate::code;
use crate::report::MisuseKind;
use crate::shape::LaunchShape;

/// What a launch has to keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The most instructions of a warp in a block.
    pub(crate) step_limit: u64,
    /// Whether each block has to set its shared memory to zero.
    pub(crate) zero_shared: bool,
}

/// Runs a launch, one block after the other.
pub(crate) fn run(
    kernel: &Kernel,
    shape: LaunchShape,
    parameters: &[Vec<u8>],
    rules: Rules,
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
            step_limit: rules.step_limit,
            global,
            shared: &mut shared,
        };
        run_block(&mut warps, &mut scene)?;
        if let (true, Some(at)) = (rules.zero_shared, shared.first_set()) {
            return Err(Trap::left(kernel, block, at));
        }
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

impl Trap {
    fn left(kernel: &Kernel, block: [u32; 3], at: usize) -> Self {
        Self {
            code: code::LAUNCH_FAILED,
            kind: MisuseKind::SharedLeft,
            detail: format!(
                "shared byte {at:#x} is not zero at the end of block {block:?} in kernel {}",
                kernel.name
            ),
        }
    }
}
