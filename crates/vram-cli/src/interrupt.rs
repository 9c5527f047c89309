//! Ctrl-C, and the termination signals of services: stop, clean up, exit 130. A file that may not grow.

use core::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::{io, process};

use vram_residency::CancelToken;

use crate::failure::{Failure, Kind};

/// A token that the next signal cancels. A second signal ends the process at once.
///
/// The driver frees the device memory of this process in either case. After a second signal, the
/// process neither wipes it first nor removes temporary files.
pub(crate) fn token() -> Result<CancelToken, Failure> {
    let token = CancelToken::new();
    let cancelled = token.clone();
    ctrlc::set_handler(move || {
        if cancelled.is_cancelled() {
            process::exit(i32::from(Kind::Interrupted.code()));
        }
        cancelled.cancel();
    })
    .map_err(Failure::no_signals)?;
    Ok(token)
}

/// Makes a write past the limit of this process on files (`ulimit -f`) an error, which is told, and not the
/// end of the process without a word.
pub(crate) fn fail_past_file_limit() -> io::Result<()> {
    // Any handler does that. Nobody reads what it sets.
    let passed = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, passed).map(|_id| ())
}

/// Fails if the user asked to stop.
pub(crate) fn check(token: &CancelToken) -> Result<(), Failure> {
    if token.is_cancelled() { Err(Failure::interrupted()) } else { Ok(()) }
}
