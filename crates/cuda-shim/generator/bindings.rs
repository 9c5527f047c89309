//! Reads the bindings of `cust_raw`: the functions it declares, their types, the codes it knows.
//!
//! The bindings are bindgen's output, so their shape is regular and a reader of a hundred lines
//! suffices. Whatever it does not understand is an error, never skipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One `cu*` function, its types lowered to those of the calling convention.
#[derive(Debug)]
pub(crate) struct Function {
    /// The name that the driver exports.
    pub(crate) name: String,
    /// Name and lowered Rust type of each parameter.
    pub(crate) parameters: Vec<(String, String)>,
}

/// The content of the generated file.
#[derive(Debug)]
pub(crate) struct Bindings {
    /// Version of the `cust_raw` package that was read.
    pub(crate) version: String,
    /// In the order of declaration.
    pub(crate) functions: Vec<Function>,
    /// Every code of `CUresult`, in ascending order.
    pub(crate) codes: BTreeMap<u32, String>,
}

/// Why the bindings could not be read.
#[derive(Debug)]
pub(crate) enum Failure {
    /// `cargo` could not be started: the machine has no Rust, which is no fault of the project.
    NoCargo(String),
    /// Any other failure.
    Broken(String),
}

impl Bindings {
    /// Finds `cust_raw` through `cargo metadata` and reads it.
    pub(crate) fn locate() -> Result<Self, Failure> {
        let (version, path) = package()?;
        let source = std::fs::read_to_string(&path)
            .map_err(|e| Failure::Broken(format!("{}: {e}", path.display())))?;
        Self::parse(version, &source).map_err(Failure::Broken)
    }

    /// Reads the text of `cust_raw/src/cuda.rs`.
    pub(crate) fn parse(version: String, source: &str) -> Result<Self, String> {
        let types = Types::read(source);
        let mut functions = Vec::new();
        for declaration in source.split("pub fn cu").skip(1) {
            let (name, rest) = declaration.split_once('(').ok_or("a function without `(`")?;
            let name = format!("cu{name}");
            let (parameters, rest) =
                rest.split_once(')').ok_or_else(|| format!("{name}: no `)`"))?;
            if !rest.trim_start().starts_with("-> CUresult;") {
                return Err(format!("{name}: does not return CUresult"));
            }
            functions.push(Function { parameters: types.lower_all(&name, parameters)?, name });
        }
        let codes = codes(source)?;
        if functions.is_empty() || codes.is_empty() {
            return Err("no function or no code found in the bindings".to_owned());
        }
        Ok(Self { version, functions, codes })
    }
}

fn package() -> Result<(String, PathBuf), Failure> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    // Only this host's packages: those of other platforms may never have been downloaded.
    let mut call = Command::new(cargo);
    call.args(["metadata", "--format-version", "1", "--offline", "--filter-platform", HOST])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    let output = call.output().map_err(|e| Failure::NoCargo(e.to_string()))?;
    if !output.status.success() {
        return Err(Failure::Broken(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|e| Failure::Broken(e.to_string()))?;
    let packages = metadata
        .get("packages")
        .and_then(serde_json::Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let found = packages.iter().find(|package| text(package, "name") == Some("cust_raw"));
    match found.map(|package| (text(package, "version"), text(package, "manifest_path"))) {
        Some((Some(version), Some(manifest))) => {
            Ok((version.to_owned(), Path::new(manifest).with_file_name("src").join("cuda.rs")))
        }
        _ => Err(Failure::Broken("`cargo metadata` lists no package cust_raw".to_owned())),
    }
}

fn text<'a>(package: &'a serde_json::Value, field: &str) -> Option<&'a str> {
    package.get(field)?.as_str()
}

/// The target whose packages are certainly downloaded: the one that this program was built for.
const HOST: &str = if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
    "x86_64-unknown-linux-gnu"
} else if cfg!(all(target_arch = "aarch64", target_os = "linux")) {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-pc-windows-msvc"
};

fn codes(source: &str) -> Result<BTreeMap<u32, String>, String> {
    let (_, body) =
        source.split_once("pub enum cudaError_enum {").ok_or("no enum cudaError_enum")?;
    let (body, _) = body.split_once('}').ok_or("enum cudaError_enum does not end")?;
    let mut codes = BTreeMap::new();
    for line in body.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line
            .trim_end_matches(',')
            .split_once(" = ")
            .ok_or_else(|| format!("cudaError_enum: `{line}`"))?;
        let value = value.parse().map_err(|e| format!("cudaError_enum: `{line}`: {e}"))?;
        codes.insert(value, name.to_owned());
    }
    Ok(codes)
}

/// The type aliases, enums and structs of the bindings.
struct Types<'a> {
    aliases: BTreeMap<&'a str, &'a str>,
    /// Name of each enum, with the integer that represents it.
    enums: BTreeMap<&'a str, &'a str>,
    structs: Vec<&'a str>,
}

impl<'a> Types<'a> {
    fn read(source: &'a str) -> Self {
        let mut types =
            Self { aliases: BTreeMap::new(), enums: BTreeMap::new(), structs: Vec::new() };
        for item in source.split("pub type ").skip(1) {
            if let Some((name, target)) = item.split_once('=') {
                let target = target.split_once(';').map_or(target, |(target, _)| target);
                types.aliases.insert(name.trim(), target.trim());
            }
        }
        for item in source.split("pub use self::").skip(1) {
            let alias = item.split_once(';').and_then(|(item, _)| item.split_once(" as "));
            if let Some((target, name)) = alias {
                types.aliases.insert(name, target);
            }
        }
        let mut repr = "";
        for line in source.lines() {
            if let Some(found) = line.strip_prefix("#[repr(").and_then(|l| l.strip_suffix(")]")) {
                repr = found;
            } else if let Some(name) =
                line.strip_prefix("pub enum ").and_then(|l| l.strip_suffix(" {"))
            {
                types.enums.insert(name, repr);
            } else if let Some(name) = line
                .strip_prefix("pub struct ")
                .or_else(|| line.strip_prefix("pub union "))
                .and_then(|l| l.strip_suffix(" {"))
            {
                types.structs.push(name);
            }
        }
        types
    }

    fn lower_all(&self, function: &str, list: &str) -> Result<Vec<(String, String)>, String> {
        list.split(',')
            .map(str::trim)
            .filter(|parameter| !parameter.is_empty())
            .map(|parameter| {
                let (name, kind) = parameter
                    .split_once(": ")
                    .ok_or_else(|| format!("{function}: parameter `{parameter}`"))?;
                let kind = self.lower(kind).map_err(|e| format!("{function}: {name}: {e}"))?;
                Ok((name.to_owned(), kind))
            })
            .collect()
    }

    /// The type in the calling convention: aliases resolved, enums as their integers. Pointees stay
    /// if they are scalars or pointers, and are erased if they are structs.
    fn lower(&self, kind: &str) -> Result<String, String> {
        for prefix in ["*mut ", "*const "] {
            if let Some(pointee) = kind.strip_prefix(prefix) {
                let pointee = self.lower(pointee)?;
                let erased = if pointee.starts_with("Ipc") { "c_void".to_owned() } else { pointee };
                return Ok(format!("{prefix}{erased}"));
            }
        }
        if let Some(scalar) = kind.strip_prefix("::std::os::raw::") {
            return Ok(scalar.replace("c_ulonglong", "u64"));
        }
        if let Some(target) = self.aliases.get(kind) {
            return self.lower(target);
        }
        if let Some(repr) = self.enums.get(kind) {
            return match *repr {
                "i32" => Ok("c_int".to_owned()),
                "u32" => Ok("c_uint".to_owned()),
                other => Err(format!("enum {kind} is represented as `{other}`")),
            };
        }
        match kind {
            "usize" | "f32" => Ok(kind.to_owned()),
            // A nullable function pointer has the size and the class of a pointer.
            _ if kind.starts_with("::std::option::Option<") => Ok("*mut c_void".to_owned()),
            // The only two structs that are passed by value: 64 bytes each, so in memory.
            "CUipcMemHandle_st" => Ok("IpcMemHandle".to_owned()),
            "CUipcEventHandle_st" => Ok("IpcEventHandle".to_owned()),
            // Only ever behind a pointer: `render` refuses `c_void` by value.
            _ if self.structs.contains(&kind) => Ok("c_void".to_owned()),
            _ => Err(format!("type `{kind}` is not known")),
        }
    }
}
