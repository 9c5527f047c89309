//! `cargo xtask ptx`: the PTX of the kernels from their sources, and whether it is what it should be.
//!
//! PTX is committed, so that nothing here is needed to build the workspace. What needs a tool that
//! is not there is not checked, and the output says so.

mod sass;
mod table;
mod tools;

use std::path::{Path, PathBuf};
use std::{fs, io};

use self::table::{CARDS, HASH_LOOP_MAX, MODULES, Module, REGISTERS_MAX};
use self::tools::Tool;
use crate::{arguments, workspace};

/// Where sources and PTX are.
const FOLDER: &str = "crates/vram-gpu/kernels";

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    check: bool,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { check: false };
        for flag in args {
            match flag.as_str() {
                "--check" => options.check = true,
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        Ok(options)
    }

    /// As CI runs it.
    pub(crate) const fn for_ci() -> Self {
        Self { check: true }
    }
}

/// Writes the PTX, or checks it.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let folder = workspace::target_folder()?.join("ptx");
    fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
    if options.check { check(&folder) } else { write(&folder) }
}

fn write(folder: &Path) -> Result<(), String> {
    let clang = Tool::Clang.find().map_err(|missing| missing.to_string())?;
    for module in &MODULES {
        let made = tools::compile(&clang, module, folder)?;
        let place = committed(module);
        let before = fs::read(&place).unwrap_or_default();
        if before == made {
            println!("{}: as it was", place.display());
        } else {
            fs::write(&place, made).map_err(|error| failed(&place, &error))?;
            println!("{}: written", place.display());
        }
    }
    Ok(())
}

/// Runs all checks, also after one has failed.
fn check(folder: &Path) -> Result<(), String> {
    let mut findings = Vec::new();
    for module in &MODULES {
        let place = committed(module);
        let text = fs::read_to_string(&place).map_err(|error| failed(&place, &error))?;
        let differences = table::differences(module, &text);
        if differences.is_empty() {
            println!(
                "{}: heads and {} kernels as the table says",
                module.name,
                module.kernels.len()
            );
        }
        findings.extend(differences);
    }
    match Tool::Clang.find() {
        Err(missing) => println!("the PTX beside its sources: {missing}"),
        Ok(clang) => {
            for module in &MODULES {
                let made = tools::compile(&clang, module, folder)?;
                let place = committed(module);
                if fs::read(&place).map_err(|error| failed(&place, &error))? == made {
                    println!(
                        "{}: the bytes that its source makes ({})",
                        module.name, clang.version
                    );
                } else {
                    findings.push(format!(
                        "{} is not what {} makes of its source: `cargo xtask ptx` writes it",
                        place.display(),
                        clang.version
                    ));
                }
            }
        }
    }
    match Tool::Ptxas.find() {
        Err(missing) => println!("registers and spills: {missing}"),
        Ok(ptxas) => {
            for (module, card) in MODULES.iter().flat_map(|m| CARDS.map(|card| (m, card))) {
                for used in tools::assemble(&ptxas, module, &committed(module), card, folder)? {
                    println!("{card} {used}");
                    findings.extend(used.finding(REGISTERS_MAX));
                }
            }
            findings.extend(hash_loop(folder)?);
        }
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(format!("the kernels are not as they should be:\n  {}", findings.join("\n  ")))
    }
}

/// Counts the instructions of the loop that hashes. Only called when it was assembled.
fn hash_loop(folder: &Path) -> Result<Vec<String>, String> {
    let disassembler = match Tool::Nvdisasm.find() {
        Ok(disassembler) => disassembler,
        Err(missing) => {
            println!("instructions of the loop of blake3_items: {missing}");
            return Ok(Vec::new());
        }
    };
    let mut findings = Vec::new();
    for card in CARDS {
        let text = tools::disassemble(&disassembler, "blake3", card, folder)?;
        let count = sass::hash_loop(&text).ok_or("no loop that loads a block in blake3_items")?;
        println!("{card} blake3_items: {count} instructions of the logic unit a block of 64 bytes");
        if count > HASH_LOOP_MAX {
            findings.push(format!("{card}: {count} of them, and {HASH_LOOP_MAX} are the most"));
        }
    }
    Ok(findings)
}

fn committed(module: &Module) -> PathBuf {
    Path::new(FOLDER).join(module.name).with_extension("ptx")
}

fn failed(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_strangers_refused() {
        let parse = |text: &str| Options::parse(text.split_whitespace().map(str::to_owned));
        assert_eq!(parse(""), Ok(Options { check: false }));
        assert_eq!(parse("--check"), Ok(Options::for_ci()));
        assert!(parse("--chek").is_err());
    }
}
