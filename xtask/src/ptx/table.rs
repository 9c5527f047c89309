//! What the kernels have to be: which there are, and what is passed to them.

/// A source in `crates/vram-gpu/kernels`, and the kernels in it.
pub(super) struct Module {
    /// Without an ending.
    pub(super) name: &'static str,
    pub(super) kernels: &'static [Kernel],
}

/// A kernel and the bytes of each of its parameters, in their order, as the code that launches it passes
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    pub(super) parameters: &'static [usize],
}

/// `.version`: what drivers read from 470 on (CUDA 11.4).
pub(super) const VERSION: &str = "7.4";
/// `.target`: cards from A100 on.
pub(super) const TARGET: &str = "sm_80";
/// Threads of a block.
pub(super) const THREADS: &str = ".maxntid 256, 1, 1";

/// Targets that the assembler is asked for.
pub(super) const CARDS: [&str; 2] = ["sm_80", "sm_90"];
/// The most registers of a thread: four blocks then share a multiprocessor.
pub(super) const REGISTERS_MAX: u32 = 64;
/// The most instructions of the logic unit in the loop of BLAKE3 over one block of 64 bytes. Rounds
/// alone take 448: 8 quarters of 8 operations in each of 7 rounds.
pub(super) const HASH_LOOP_MAX: usize = 465;

/// Addresses and words.
const ADDRESS: usize = 8;
const WORD: usize = 4;

pub(super) const MODULES: [Module; 3] = [
    Module {
        name: "blake3",
        kernels: &[
            Kernel { name: "blake3_items", parameters: &[ADDRESS, ADDRESS, WORD] },
            Kernel { name: "blake3_merge", parameters: &[ADDRESS, ADDRESS, ADDRESS, WORD] },
        ],
    },
    Module {
        name: "fingerprint",
        kernels: &[
            Kernel { name: "fingerprint", parameters: &[ADDRESS, WORD, ADDRESS, ADDRESS] },
            Kernel {
                name: "fingerprint_renew",
                parameters: &[ADDRESS, WORD, ADDRESS, ADDRESS, ADDRESS],
            },
        ],
    },
    Module {
        name: "chacha",
        kernels: &[
            Kernel { name: "chacha_open", parameters: &[ADDRESS, ADDRESS, ADDRESS, ADDRESS, WORD] },
            Kernel { name: "chacha_seal", parameters: &[ADDRESS, ADDRESS, ADDRESS, WORD] },
            Kernel { name: "chacha_tag", parameters: &[ADDRESS, ADDRESS, ADDRESS, WORD] },
        ],
    },
];

/// What the text of a module says otherwise than the table.
pub(super) fn differences(module: &Module, text: &str) -> Vec<String> {
    let mut differences = Vec::new();
    for head in
        [format!(".version {VERSION}"), format!(".target {TARGET}"), ".address_size 64".to_owned()]
    {
        if !text.lines().any(|line| line == head) {
            differences.push(format!("{}.ptx: no line `{head}`", module.name));
        }
    }
    let declared: Vec<(&str, Vec<usize>)> =
        text.split(".visible .entry ").skip(1).map(declared).collect();
    for kernel in module.kernels {
        match declared.iter().find(|(name, _)| *name == kernel.name) {
            None => differences.push(format!("{}.ptx has no kernel {}", module.name, kernel.name)),
            Some((_, sizes)) if sizes != kernel.parameters => differences.push(format!(
                "kernel {} takes parameters of {sizes:?} bytes, not {:?}",
                kernel.name, kernel.parameters
            )),
            Some(_) => {}
        }
    }
    for (name, _) in &declared {
        if !module.kernels.iter().any(|kernel| kernel.name == *name) {
            differences.push(format!("{}.ptx has a kernel {name} of no table", module.name));
        }
    }
    let bounds = text.lines().filter(|line| *line == THREADS).count();
    if bounds != declared.len() {
        differences.push(format!("{}.ptx: a kernel has not `{THREADS}`", module.name));
    }
    differences
}

/// The name of a kernel and the bytes of its parameters; 0 for a kind that is in no table.
fn declared(text: &str) -> (&str, Vec<usize>) {
    let (name, rest) = text.split_once('(').unwrap_or((text, ""));
    let (list, _) = rest.split_once(')').unwrap_or((rest, ""));
    let sizes = list.lines().filter_map(|line| line.trim().strip_prefix(".param "));
    let sizes = sizes.map(|line| match line.split_whitespace().next() {
        Some(".u64") => ADDRESS,
        Some(".u32") => WORD,
        _ => 0,
    });
    (name.trim(), sizes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(module: &Module) -> String {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/vram-gpu/kernels");
        std::fs::read_to_string(format!("{folder}/{}.ptx", module.name)).unwrap()
    }

    #[test]
    fn the_kernels_are_those_of_the_table() {
        for module in &MODULES {
            assert_eq!(differences(module, &committed(module)), Vec::<String>::new());
        }
    }

    #[test]
    fn every_other_head_kernel_or_parameter_is_told() {
        for module in &MODULES {
            let text = committed(module);
            let first = module.kernels.first().unwrap().name;
            for (from, to, told) in [
                (".version 7.4", ".version 7.8", "no line `.version 7.4`"),
                (".target sm_80", ".target sm_90", "no line `.target sm_80`"),
                (".address_size 64", ".address_size 32", "no line `.address_size 64`"),
                (&format!(".entry {first}("), ".entry another(", "has no kernel"),
                (&format!(".entry {first}("), ".entry another(", "of no table"),
                (&format!(".param .u64 {first}_param_0"), ".param .u32 x", "takes parameters"),
                (".maxntid 256", ".maxntid 512", "a kernel has not `.maxntid 256"),
            ] {
                let found = differences(module, &text.replacen(from, to, 1)).concat();
                assert!(found.contains(told), "{from} as {to}: {found}");
            }
        }
    }
}
