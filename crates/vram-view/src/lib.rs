#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod data;
mod hashes;
mod parts;

pub use data::ViewError;

/// The page that asks a server on its own origin: `/snapshot` for the JSON of a `Snapshot`, `/events` for
/// server-sent events, and `/metrics` for the figures of the scrubber, without which it works too.
///
/// Serve it as `text/html; charset=utf-8` with the header `Content-Security-Policy:` [`LIVE_POLICY`].
///
/// # Examples
///
/// ```
/// let page = vram_view::live_page();
/// assert!(page.starts_with("<!doctype html>"));
/// ```
#[must_use]
pub fn live_page() -> String {
    parts::page(LIVE_POLICY, "vram: live", None)
}

/// A page with one snapshot in it, for a file: it asks nobody for anything.
///
/// # Arguments
///
/// * `snapshot`: the JSON of a `Snapshot` of the facade (feature `serde`), as `/snapshot` answers it. Names
///   in it may hold any character: none of them becomes markup or script.
///
/// # Errors
///
/// [`ViewError::Json`] if it is no JSON, [`ViewError::NotASnapshot`] if it is another document.
///
/// # Examples
///
/// ```
/// let snapshot = r#"{"at":0,"state":{"gpus":[],"shards":[]},"counters":{}}"#;
/// let page = vram_view::static_page(snapshot)?;
/// assert!(page.contains("connect-src 'none'"));
/// # Ok::<(), vram_view::ViewError>(())
/// ```
pub fn static_page(snapshot: &str) -> Result<String, ViewError> {
    let data = data::embedded(snapshot)?;
    Ok(parts::page(STATIC_POLICY, "vram: snapshot", Some(&data)))
}

/// The policy of the live page: its own script and style, known by their hashes, and connections to its own
/// origin. It stands in the page as well.
pub const LIVE_POLICY: &str = hashes::policy!("'self'");

/// The policy of a static page: as [`LIVE_POLICY`], and no connection at all.
pub const STATIC_POLICY: &str = hashes::policy!("'none'");
