//! Runs one hot path as often as asked, for `cargo xtask counts`: the instructions of many calls less
//! those of a few are those of the path, without what comes before and after.

#![expect(clippy::print_stderr, reason = "a command-line program prints")]

use core::hint::black_box;
use std::process::ExitCode;

use vram_seal::{
    Expected, Opener, SealContext, SealError, SealKey, SealParams, Threads, seal_in_place, verify,
};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_default();
    let times = args.next().and_then(|times| times.parse().ok()).unwrap_or(1);
    let done = match path.as_str() {
        // Without a name, as the examples are run: each of them once.
        "" => seals(times).is_ok() && verifies(times).is_ok(),
        "seal-4096" => seals(times).is_ok(),
        "verify-4096" => verifies(times).is_ok(),
        _ => false,
    };
    if done {
        return ExitCode::SUCCESS;
    }
    eprintln!("usage: counted seal-4096|verify-4096 TIMES");
    ExitCode::FAILURE
}

fn seals(times: u32) -> Result<(), SealError> {
    let (key, context) = (SealKey::from_bytes(&[7; 32]), SealContext::new("counted")?);
    let mut data = vec![1; 4096];
    for _ in 0..times {
        let params = SealParams::new();
        black_box(seal_in_place(&key, &context, params, Threads::ONE, black_box(&mut data))?);
    }
    Ok(())
}

fn verifies(times: u32) -> Result<(), SealError> {
    let (key, context) = (SealKey::from_bytes(&[7; 32]), SealContext::new("counted")?);
    let mut data = vec![1; 4096];
    let sealed = seal_in_place(&key, &context, SealParams::new(), Threads::ONE, &mut data)?;
    let opener = Opener::open(&key, &sealed.record, sealed.tags, &Expected::from(&context))?;
    for _ in 0..times {
        black_box(verify(&opener, Threads::ONE, black_box(&data))?);
    }
    Ok(())
}
