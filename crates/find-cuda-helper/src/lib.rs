#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

/// Asks for no CUDA toolkit and no linker flag.
///
/// The original searches the machine for a toolkit, panics if there is none, and links `libcuda`.
/// This one only tells cargo that the calling build script has no other input.
#[expect(clippy::print_stdout, reason = "standard output is how a build script talks to cargo")]
pub fn include_cuda() {
    println!("cargo:rerun-if-changed=build.rs");
}
