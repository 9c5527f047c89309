//! The hashes by which a browser knows the script and the style of the page.
//!
//! A test compares them with the files, and writes this file anew with `VRAM_BLESS=1`.

/// The SHA-256 of the style, in base 64.
macro_rules! style {
    () => {
        "0obUoqfay+BLXrYV6r6+nXwYG37UnD1g3C23IIjILHw="
    };
}

/// The SHA-256 of the script, in base 64.
macro_rules! script {
    () => {
        "cLFEZA54EhpZxNBak9tBo2cnxIU7D4Ozfnh6JeRAADA="
    };
}

/// The policy of a page whose connections go to `$connect`.
macro_rules! policy {
    ($connect:literal) => {
        concat!(
            "default-src 'none'; script-src 'sha256-",
            $crate::hashes::script!(),
            "'; style-src 'sha256-",
            $crate::hashes::style!(),
            "'; img-src data:; connect-src ",
            $connect,
            "; base-uri 'none'; form-action 'none'"
        )
    };
}

pub(crate) use {policy, script, style};
