#![doc = include_str!("../README.md")]

use std::sync::OnceLock;

pub use cuda_sim_engine::*;

/// Makes the simulated driver the CUDA driver of this process, once; calling again is fine.
///
/// # Panics
///
/// If the process has another driver already: a driver call was made before this one, and settled
/// on a library. Call this first.
#[expect(clippy::panic, reason = "a test on the wrong driver must not go on")]
pub fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        // SAFETY: the resolver answers functions of the engine, which live as long as the process.
        // Their types are those of `cuda_shim::abi`: a test of this crate has the compiler compare
        // them.
        let installed = unsafe { cuda_shim::install("simulated driver", resolve) };
        if let Err(reason) = installed {
            panic!("the simulated driver comes too late: {reason}");
        }
    });
}
