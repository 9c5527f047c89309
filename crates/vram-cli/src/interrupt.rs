//! Ctrl-C, and the polite signals that services get: stop, clean up, exit 130.

use std::process;

use vram_residency::CancelToken;

use crate::failure::{Failure, Kind};

/// A token that the next signal cancels. A second signal ends the process at once.
///
/// Device memory of this process goes with it either way; what the second signal gives up is
/// wiping it first, and removing temporary files.
pub(crate) fn token() -> Result<CancelToken, Failure> {
    let token = CancelToken::new();
    let cancelled = token.clone();
    ctrlc::set_handler(move || {
        if cancelled.is_cancelled() {
            process::exit(i32::from(Kind::Interrupted.code()));
        }
        cancelled.cancel();
    })
    .map_err(|error| Failure::input(format!("cannot watch for Ctrl-C: {error}")))?;
    Ok(token)
}

/// Fails if the user asked to stop.
pub(crate) fn check(token: &CancelToken) -> Result<(), Failure> {
    if token.is_cancelled() { Err(Failure::interrupted()) } else { Ok(()) }
}
