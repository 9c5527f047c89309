//! Writes `src/trampolines.rs` from the bindings of `cust_raw`, or checks that it is current.
//!
//! ```text
//! cargo run -p cuda-shim --example generate              writes the file
//! cargo run -p cuda-shim --example generate -- --check   fails if the file is not current
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::path::Path;
use std::process::ExitCode;

#[path = "../generator/bindings.rs"]
mod bindings;
#[path = "../generator/render.rs"]
mod render;

use bindings::{Bindings, Failure};

fn main() -> ExitCode {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        other => {
            eprintln!("unknown options {other:?}; the only one is --check");
            return ExitCode::from(2);
        }
    };
    match generate(check) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn generate(check: bool) -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join("trampolines.rs");
    let bindings = Bindings::locate().map_err(|failure| match failure {
        Failure::NoCargo(reason) => format!("cargo does not start: {reason}"),
        Failure::Broken(reason) => format!("the bindings of cust_raw cannot be read: {reason}"),
    })?;
    let text = render::render(&bindings)?;
    let count = bindings.functions.len();
    let version = &bindings.version;
    if !check {
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        return Ok(format!("{}: {count} functions of cust_raw {version}", path.display()));
    }
    let present = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    if present == text {
        Ok(format!("{} is current: {count} functions of cust_raw {version}", path.display()))
    } else {
        Err(format!(
            "{} is not what cust_raw {version} gives; run `cargo run -p cuda-shim --example \
             generate`",
            path.display()
        ))
    }
}
