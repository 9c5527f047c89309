//! The cost of a trampoline: the driver's function called directly, and through the shim.

use core::ffi::{CStr, c_uint, c_void};
use core::hint::black_box;
use core::ptr::NonNull;

use criterion::{Criterion, criterion_group, criterion_main};

unsafe extern "C" fn init(flags: c_uint) -> u32 {
    flags & 1
}

fn resolve(name: &CStr) -> Option<NonNull<c_void>> {
    let init: cuda_shim::abi::cuInit = init;
    #[expect(clippy::as_conversions, reason = "a function becomes an address by `as` only")]
    let address = init as *const () as *mut c_void;
    (name == c"cuInit").then(|| NonNull::new(address)).flatten()
}

fn call(c: &mut Criterion) {
    // SAFETY: the only address that `resolve` returns is that of a function of `cuInit`'s type. A
    // second installation is refused, and the first one stays.
    let _ = unsafe { cuda_shim::install("one function", resolve) };
    let mut group = c.benchmark_group("call");
    group.bench_function("direct", |b| {
        let direct: cuda_shim::abi::cuInit = black_box(init);
        // SAFETY: it takes any number.
        b.iter(|| unsafe { direct(black_box(0)) });
    });
    group.bench_function("trampoline", |b| {
        // SAFETY: it takes any number.
        b.iter(|| unsafe { cust::sys::cuInit(black_box(0)) });
    });
    group.bench_function("trampoline_failing", |b| {
        // SAFETY: it takes any number.
        b.iter(|| unsafe { cust::sys::cuInit(black_box(1)) });
    });
    group.finish();
}

criterion_group!(benches, call);
criterion_main!(benches);
