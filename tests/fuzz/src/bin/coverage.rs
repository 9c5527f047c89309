//! The target that `VRAM_FUZZ_TARGET` names, for libFuzzer. `cargo xtask fuzz` builds and runs it.
//!
//! This file does not forbid `unsafe`, as every other file of this crate does: the macro below defines
//! the function that libFuzzer calls, under the name by which it looks for it.

#![no_main]
#![expect(clippy::expect_used, reason = "without a target there is nothing to run")]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use vram_fuzz::{Target, target};

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fuzz_target!(init: {
    let name = std::env::var("VRAM_FUZZ_TARGET").unwrap_or_default();
    let found = target(&name);
    CHOSEN.get_or_init(|| found.expect("VRAM_FUZZ_TARGET names a target"));
}, |data: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        (target.run)(data);
    }
});
