#![doc = include_str!("../README.md")]

use std::sync::OnceLock;

pub use cuda_sim_engine::*;

/// Installs the simulated driver as the CUDA driver of this process, once; further calls do
/// nothing.
///
/// # Panics
///
/// If the process has loaded another driver already, because a driver call was made before. Call
/// this first.
#[expect(clippy::panic, reason = "a test on the wrong driver must not go on")]
pub fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        // SAFETY: the resolver returns functions of the engine, which live as long as the process.
        // Their types are those of `cuda_shim::abi`: in a test of this crate the compiler compares
        // them.
        let installed = unsafe { cuda_shim::install("simulated driver", resolve) };
        if let Err(reason) = installed {
            panic!("the simulated driver comes too late: {reason}");
        }
    });
}
