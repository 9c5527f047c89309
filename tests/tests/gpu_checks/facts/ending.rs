//! Facts that end this process's use of a GPU: each in a process of its own, on request
//! (`--ignored`), after all other checks.

use cust::context::CurrentContext;

use crate::facts::{ordinals, raw};
use crate::plain::context;
use crate::rows::row;

/// Writes to the address that it is given.
const STRAY: &core::ffi::CStr = c".version 6.0
.target sm_70
.address_size 64
.visible .entry vram_stray_write(.param .u64 place)
{
    .reg .u64 %a;
    ld.param.u64 %a, [place];
    st.global.u64 [%a], %a;
    ret;
}
";

fn fact(ordinal: u32, what: &str, answer: &dyn core::fmt::Display) {
    row("fact", &[&format_args!("cuda:{ordinal}"), &what, answer]);
}

/// Retains the context again; the driver's code if it refuses.
fn retain(ordinal: u32) -> Result<cust::context::Context, u32> {
    let device = cust::device::Device::get_device(ordinal).unwrap();
    cust::context::Context::new(device).map_err(|_code| cuda_shim::last_raw_code())
}

#[test]
#[ignore = "the reset ends other uses of the GPU in this process"]
fn a_planned_reset_empties_the_device_and_gives_it_back() {
    for ordinal in ordinals() {
        let first = context(ordinal);
        let mut bytes = Vec::new();
        let pages = raw::pages(&mut bytes, 1 << 20);
        assert_eq!(raw::lock(pages), 0);
        core::mem::forget(raw::buffer(1 << 20));
        let (answer, took) = raw::in_us(|| raw::reset(ordinal));
        fact(ordinal, "reset", &format_args!("code {answer}, {took} us"));
        assert_eq!(answer, 0);
        // Given up before it is taken again, as the CUDA device does.
        let same = first.as_raw();
        let released = cust::context::Context::drop(first).map_err(|(_error, context)| {
            core::mem::forget(context);
            cuda_shim::last_raw_code()
        });
        fact(ordinal, "release after the reset", &format_args!("{released:?}"));
        let (again, took) = raw::in_us(|| retain(ordinal));
        let again = again.unwrap();
        CurrentContext::set_current(&again).unwrap();
        let same = again.as_raw() == same;
        fact(ordinal, "retain after it", &format_args!("{took} us, the same handle: {same}"));
        let locked = raw::lock(pages);
        fact(ordinal, "the pages locked again", &format_args!("code {locked}; 712: still locked"));
        let (usable, answer) = raw::in_us(|| cust::memory::mem_get_info().is_ok());
        fact(ordinal, "first question", &format_args!("answered {usable}, {answer} us"));
        assert!(usable, "the context is not usable after a reset");
        let unlocked = raw::unlock(pages);
        fact(ordinal, "unlocked", &format_args!("code {unlocked}"));
    }
}

#[test]
#[ignore = "the GPU takes no more calls of this process"]
fn after_an_illegal_address_every_call_fails_and_a_reset_is_tried() {
    for ordinal in ordinals() {
        let held = context(ordinal);
        let buffer = raw::buffer(4096);
        let stray = match raw::kernel(STRAY, c"vram_stray_write") {
            Ok(stray) => stray,
            Err(code) => panic!("the driver does not load the kernel: code {code}"),
        };
        // SAFETY: the kernel has one parameter; the fault that it causes is the purpose of this
        // process.
        let launched = unsafe { raw::launch(stray, 64) };
        let waited = CurrentContext::synchronize().map_err(|_code| cuda_shim::last_raw_code());
        fact(ordinal, "a stray write", &format_args!("launch {launched}, wait {waited:?}"));
        let waited = waited.unwrap_err();
        assert!(vram_gpu::codes::is_sticky(waited), "code {waited} leaves the GPU in use");
        let asked = cust::memory::mem_get_info().map_err(|_code| cuda_shim::last_raw_code());
        fact(ordinal, "memory figures after it", &format_args!("{:?}", asked.map(drop)));
        let (reset, took) = raw::in_us(|| raw::reset(ordinal));
        fact(ordinal, "reset after it", &format_args!("code {reset}, {took} us"));
        let again = retain(ordinal);
        let answer = again.as_ref().map(drop).map_err(|code| *code);
        fact(ordinal, "retain after that", &format_args!("{answer:?}"));
        // Nothing of this is given back: whatever the driver would answer.
        core::mem::forget((held, buffer, again));
    }
}
