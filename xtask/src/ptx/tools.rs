//! Programs that make something of the kernels: none of them is needed for anything else.

use core::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::FOLDER;
use super::table::{Module, TARGET, VERSION};

/// A program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tool {
    Clang,
    Ptxas,
    Nvdisasm,
}

/// A program that starts.
#[derive(Debug)]
pub(super) struct Found {
    /// The command.
    pub(super) name: String,
    /// The first line of what it says of its version.
    pub(super) version: String,
}

/// A program that does not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    name: &'static str,
    variable: &'static str,
    install: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, variable, install } = self;
        write!(f, "NOT RUN: no {name}; install it with `{install}`, or name it in {variable}")
    }
}

impl Tool {
    const fn missing(self) -> Missing {
        match self {
            Self::Clang => Missing {
                name: "clang-19",
                variable: "VRAM_CLANG",
                install: "apt-get install --no-install-recommends clang-19",
            },
            Self::Ptxas => Missing {
                name: "ptxas",
                variable: "VRAM_PTXAS",
                install: "pip install nvidia-cuda-nvcc-cu12",
            },
            Self::Nvdisasm => Missing {
                name: "nvdisasm",
                variable: "VRAM_NVDISASM",
                install: "pip install nvidia-cuda-nvdisasm",
            },
        }
    }

    /// The program: named in its variable, or found by its name.
    pub(super) fn find(self) -> Result<Found, Missing> {
        let missing = self.missing();
        let named = std::env::var(missing.variable).ok().filter(|name| !name.is_empty());
        let name = named.unwrap_or_else(|| missing.name.to_owned());
        let asked = Command::new(&name)
            .arg("--version")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        match asked {
            Ok(output) if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stdout);
                let version = text.lines().next().unwrap_or(&name).to_owned();
                Ok(Found { name, version })
            }
            _ => Err(missing),
        }
    }
}

impl Found {
    /// Runs it; its output, if it succeeded.
    fn run(&self, args: &[&str]) -> Result<Output, String> {
        let line = format!("{} {}", self.name, args.join(" "));
        println!("$ {line}");
        let output = Command::new(&self.name).args(args).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("`{line}` cannot be started: {error}"))?;
        if output.status.success() {
            Ok(output)
        } else {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("{}\n  repeat with: {line}\n{errors}", output.status))
        }
    }
}

/// The PTX of a module.
pub(super) fn compile(clang: &Found, module: &Module, folder: &Path) -> Result<Vec<u8>, String> {
    let source = format!("{FOLDER}/{}.cu", module.name);
    let target = folder.join(module.name).with_extension("ptx");
    let place = target.display().to_string();
    let architecture = format!("--cuda-gpu-arch={TARGET}");
    let version = format!("+ptx{}", VERSION.replace('.', ""));
    let output = clang.run(&[
        "-x",
        "cuda",
        "--cuda-device-only",
        "-nocudainc",
        "-nocudalib",
        "-S",
        "-O3",
        "-std=c++17",
        "-Wall",
        "-Werror",
        &architecture,
        "-Xclang",
        "-target-feature",
        "-Xclang",
        &version,
        "-o",
        &place,
        &source,
    ])?;
    drop(output);
    fs::read(&target).map_err(|error| format!("{place}: {error}"))
}

/// What a kernel needs of a multiprocessor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Used {
    kernel: String,
    registers: u32,
    /// Bytes that are written to memory, or read from there, for lack of registers.
    spilled: u64,
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, registers, spilled } = self;
        write!(f, "{kernel}: {registers} registers, {spilled} bytes spilled")
    }
}

impl Used {
    /// What is too much.
    pub(super) fn finding(&self, registers_max: u32) -> Option<String> {
        let too_much = self.registers > registers_max || self.spilled > 0;
        too_much.then(|| format!("{self}; at most {registers_max} registers, and no spills"))
    }
}

/// Assembles a module for a card, to `folder`, and tells what its kernels need.
pub(super) fn assemble(
    ptxas: &Found,
    module: &Module,
    ptx: &Path,
    card: &str,
    folder: &Path,
) -> Result<Vec<Used>, String> {
    let source = ptx.display().to_string();
    let target = assembled(module.name, card, folder);
    let architecture = format!("-arch={card}");
    let output = ptxas.run(&["-O3", "-v", &architecture, &source, "-o", &target])?;
    // One of the two, by version.
    let text = [output.stdout, output.stderr].concat();
    let used = used(&String::from_utf8_lossy(&text));
    if used.len() == module.kernels.len() {
        Ok(used)
    } else {
        Err(format!("ptxas tells of {} kernels of {}", used.len(), module.name))
    }
}

fn assembled(module: &str, card: &str, folder: &Path) -> String {
    folder.join(format!("{module}.{card}.cubin")).display().to_string()
}

/// Reads what ptxas tells with `-v`.
fn used(text: &str) -> Vec<Used> {
    let mut list: Vec<Used> = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or(rest).to_owned();
            list.push(Used { kernel, registers: u32::MAX, spilled: u64::MAX });
        }
        let Some(current) = list.last_mut() else { continue };
        if line.contains("bytes spill stores") {
            let spilled = ["bytes spill stores", "bytes spill loads"].map(|what| {
                let (before, _) = line.split_once(what)?;
                before.split_whitespace().next_back()?.parse::<u64>().ok()
            });
            current.spilled = match spilled {
                [Some(stores), Some(loads)] => stores.saturating_add(loads),
                _ => u64::MAX,
            };
        }
        if let Some((_, rest)) = line.split_once("Used ") {
            let count = rest.split_whitespace().next().and_then(|count| count.parse().ok());
            current.registers = count.unwrap_or(u32::MAX);
        }
    }
    list
}

/// The instructions of a module that was assembled.
pub(super) fn disassemble(
    nvdisasm: &Found,
    module: &str,
    card: &str,
    folder: &Path,
) -> Result<String, String> {
    let output = nvdisasm.run(&["-c", &assembled(module, card, folder)])?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_80'
ptxas info    : Function properties for one
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 16384 bytes smem, 380 bytes cmem[0]
ptxas info    : Compiling entry function 'two' for 'sm_80'
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 65 registers";

    #[test]
    fn registers_and_spills_are_read_and_judged() {
        let list = used(TOLD);
        let kernels: Vec<_> =
            list.iter().map(|used| (used.kernel.as_str(), used.registers, used.spilled)).collect();
        assert_eq!(kernels, [("one", 48, 0), ("two", 65, 16)]);
        let findings: Vec<_> = list.iter().map(|used| used.finding(64).is_some()).collect();
        assert_eq!(findings, [false, true]);
        // What is not told is too much.
        let list = used("Compiling entry function 'three' for 'sm_80'");
        assert!(list.first().unwrap().finding(64).is_some());
    }

    #[test]
    fn a_missing_tool_is_told_with_how_to_get_it() {
        let told = Tool::Ptxas.missing().to_string();
        assert!(told.starts_with("NOT RUN") && told.contains("VRAM_PTXAS"), "{told}");
    }
}
