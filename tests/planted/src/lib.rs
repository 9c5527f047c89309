#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use std::sync::OnceLock;

/// The variable that names the change that is on.
const VARIABLE: &str = "VRAM_PLANTED";

/// Returns whether the change with this name is on.
///
/// Each place reads the variable once: afterwards it costs one load.
#[macro_export]
macro_rules! on {
    ($name:literal) => {{
        static SWITCH: $crate::Switch = $crate::Switch::new($name);
        SWITCH.is_on()
    }};
}

/// One place in the code that behaves in two ways.
#[derive(Debug)]
pub struct Switch {
    name: &'static str,
    on: OnceLock<bool>,
}

impl Switch {
    /// The switch of a change.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, on: OnceLock::new() }
    }

    /// Returns whether its change is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self.on.get_or_init(|| std::env::var_os(VARIABLE).is_some_and(|name| name == self.name))
    }
}
