//! The committed trampolines are those of the `cust_raw` in use.

#[macro_use]
extern crate vram_testkit;

use std::io::Write as _;

#[path = "../generator/bindings.rs"]
mod bindings;
#[path = "../generator/render.rs"]
mod render;

use bindings::{Bindings, Failure};

const COMMITTED: &str = include_str!("../src/trampolines.rs");

#[test]
fn the_committed_trampolines_are_current() {
    let bindings = match Bindings::locate() {
        Ok(bindings) => bindings,
        Err(Failure::NoCargo(reason)) => {
            // Written past the test harness, which would hide it: a skipped test is never silent.
            let line =
                format!("SKIPPED the_committed_trampolines_are_current: no cargo: {reason}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return;
        }
        Err(Failure::Broken(reason)) => panic!("cust_raw's bindings cannot be read: {reason}"),
    };
    assert_eq!(bindings.functions.len(), 353, "as many as cust_raw 0.11.3 declares");
    assert_eq!(bindings.codes.len(), 87);
    let current = render::render(&bindings).unwrap();
    let first = current.lines().zip(COMMITTED.lines()).find(|(new, old)| new != old);
    assert!(
        current == COMMITTED,
        "src/trampolines.rs is not current (first difference: {first:?}); run \
         `cargo run -p cuda-shim --example generate`"
    );
}

#[test]
fn what_the_reader_does_not_understand_is_an_error() {
    let codes = "#[repr(i32)]\npub enum cudaError_enum {\n    CUDA_SUCCESS = 0,\n}\n";
    let read = |function: &str| Bindings::parse("0".to_owned(), &format!("{codes}{function}"));
    assert!(read("pub fn cuOne(a: ::std::os::raw::c_int) -> CUresult;").is_ok());
    for broken in [
        "pub fn cuOne(a: CUstranger) -> CUresult;",
        "pub fn cuOne(a: ::std::os::raw::c_int);",
        "pub fn cuOne(a) -> CUresult;",
        "",
    ] {
        assert!(read(broken).is_err(), "{broken}");
    }
    let by_value = read("pub struct S {\n}\npub fn cuOne(a: S) -> CUresult;").unwrap();
    assert!(render::render(&by_value).is_err(), "a struct by value needs a type of its own");
}
