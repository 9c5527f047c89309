//! Where driver functions come from: an installed resolver, or a loaded library.

use core::error::Error;
use core::ffi::{CStr, c_void};
use core::fmt;
use core::ptr::NonNull;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;

/// The environment variable whose value replaces the driver library: a path or a file name.
///
/// Set but empty counts as not set. If the named library cannot be used, there is no driver: the
/// shim tries no other, so that a misspelt path is noticed.
pub const DRIVER_VARIABLE: &str = "VRAM_CUDA_DRIVER";

/// Tried in this order by the system's own search; the second after [`FOLDERS`].
#[cfg(not(windows))]
const LIBRARIES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];
#[cfg(windows)]
const LIBRARIES: [&str; 1] = ["nvcuda.dll"];

/// Where the driver lies on machines whose loader does not know it: containers, distributions with
/// a folder for each architecture, the Linux of Windows, `NixOS`. They come before `libcuda.so`,
/// which may be a stub.
const FOLDERS: &[&str] = if cfg!(target_os = "linux") {
    &[
        "/usr/local/nvidia/lib64",
        "/usr/local/nvidia/lib",
        if cfg!(target_arch = "aarch64") {
            "/usr/lib/aarch64-linux-gnu"
        } else {
            "/usr/lib/x86_64-linux-gnu"
        },
        "/usr/lib64",
        "/usr/lib/wsl/lib",
        "/run/opengl-driver/lib",
    ]
} else {
    &[]
};

/// `CUDA_ERROR_STUB_LIBRARY`: what each function of a toolkit's stub answers.
const STUB_LIBRARY: i32 = 34;

/// Returns the address of a driver function by its exported name, or `None` if there is none.
///
/// The shim calls it on the first use of each function, from any thread. It must not call a `cu*`
/// function itself.
pub type Resolver = fn(&CStr) -> Option<NonNull<c_void>>;

/// Why [`install`] changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The driver was chosen before: by another `install`, or by the first driver call.
    #[error("the CUDA driver of this process is settled already: {0}")]
    Settled(String),
}

/// One library that could not be used as the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Name or path passed to the loader.
    pub library: String,
    /// The loader's error, or the missing symbol.
    pub reason: String,
}

/// The CUDA driver of this process, or its absence. `Display` prints it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverState {
    /// A resolver within the process, installed under this name.
    Installed {
        /// The name passed to [`install`].
        name: &'static str,
    },
    /// A library, loaded.
    Loaded {
        /// Name or path passed to the loader.
        library: String,
        /// The file it was loaded from, if the system reports it.
        file: Option<PathBuf>,
    },
    /// No driver: `cuInit` answers 100 (no device), everything else 3 (not initialised).
    Missing {
        /// The attempts, in order.
        attempts: Vec<Attempt>,
    },
}

impl DriverState {
    /// Returns true if there is a driver to call.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        !matches!(self, Self::Missing { .. })
    }
}

impl fmt::Display for DriverState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed { name } => write!(f, "CUDA driver within the process: {name}"),
            Self::Loaded { library, file: Some(file) } => {
                write!(f, "CUDA driver {library}, loaded from {}", file.display())
            }
            Self::Loaded { library, file: None } => write!(f, "CUDA driver {library}, loaded"),
            Self::Missing { attempts } => {
                f.write_str("no CUDA driver")?;
                for (index, Attempt { library, reason }) in attempts.iter().enumerate() {
                    let before = if index == 0 { ": " } else { "; " };
                    write!(f, "{before}{library}: {reason}")?;
                }
                Ok(())
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Driver {
    source: Source,
    state: DriverState,
}

#[derive(Debug)]
enum Source {
    Resolver(Resolver),
    /// Never unloaded: addresses of its functions are kept, and NVIDIA's driver leaves threads.
    Library(Library),
    None,
}

static DRIVER: OnceLock<Driver> = OnceLock::new();

/// Makes `resolver` this process's driver, instead of a library.
///
/// # Arguments
///
/// * `name`: the name of the driver in [`driver`].
/// * `resolver`: see [`Resolver`].
///
/// # Errors
///
/// [`InstallError::Settled`] if a driver was installed before, or if any `cu*` function or
/// [`driver`] was called before. Installing the same resolver twice is an error too: a caller that
/// may come second asks [`driver`] which one is installed.
///
/// # Safety
///
/// Every address that `resolver` returns is that of a function that lives as long as the process
/// and has the type that [`abi`](crate::abi) gives for the name.
pub unsafe fn install(name: &'static str, resolver: Resolver) -> Result<(), InstallError> {
    let mut fresh = false;
    let settled = DRIVER.get_or_init(|| {
        fresh = true;
        let state = DriverState::Installed { name };
        Driver { source: Source::Resolver(resolver), state }
    });
    if fresh { Ok(()) } else { Err(InstallError::Settled(settled.state.to_string())) }
}

/// Returns the driver of this process. Loads the library if no driver was chosen before.
#[must_use]
pub fn driver() -> &'static DriverState {
    &settled().state
}

/// The driver, if there is one.
pub(crate) fn active() -> Option<&'static Driver> {
    let driver = settled();
    driver.state.is_present().then_some(driver)
}

impl Driver {
    pub(crate) fn look_up(&self, name: &CStr) -> Option<NonNull<c_void>> {
        match &self.source {
            Source::Resolver(resolver) => resolver(name),
            Source::Library(library) => symbol(library, name),
            Source::None => None,
        }
    }
}

fn settled() -> &'static Driver {
    DRIVER.get_or_init(load)
}

fn load() -> Driver {
    let named = std::env::var_os(DRIVER_VARIABLE).filter(|value| !value.is_empty());
    let libraries = named.map_or_else(|| candidates(Path::is_file), |library| vec![library]);
    let mut attempts = Vec::new();
    for library in libraries {
        let shown = library.to_string_lossy().into_owned();
        // SAFETY: loading runs the library's initialisers. The library is the machine's CUDA
        // driver, or the one that the owner of the process named in its place; both may run any
        // code in this process anyway.
        match unsafe { Library::new(&library) } {
            Ok(loaded) => {
                if let Some(address) = symbol(&loaded, c"cuInit") {
                    if is_stub(&loaded) {
                        let reason = format!(
                            "the stub library of a toolkit, not a driver{}",
                            file_of(address).map_or_else(String::new, |file| {
                                format!(" (loaded from {})", file.display())
                            })
                        );
                        attempts.push(Attempt { library: shown, reason });
                        continue;
                    }
                    let state = DriverState::Loaded { library: shown, file: file_of(address) };
                    return Driver { source: Source::Library(loaded), state };
                }
                let reason = "loaded, but it is no CUDA driver: it has no cuInit".to_owned();
                attempts.push(Attempt { library: shown, reason });
            }
            Err(error) => attempts.push(Attempt { library: shown, reason: in_full(&error) }),
        }
    }
    Driver { source: Source::None, state: DriverState::Missing { attempts } }
}

/// The libraries to try, in order: names for the system's search, and files that are there.
fn candidates(is_there: impl Fn(&Path) -> bool) -> Vec<OsString> {
    let [first, rest @ ..] = LIBRARIES;
    let files = FOLDERS.iter().map(|folder| Path::new(folder).join(first));
    let files = files.filter(|file| is_there(file)).map(PathBuf::into_os_string);
    [first.into()].into_iter().chain(files).chain(rest.map(OsString::from)).collect()
}

/// Whether a library with the driver's names is one that programs are linked with, and no driver.
fn is_stub(library: &Library) -> bool {
    let Some(address) = symbol(library, c"cuDriverGetVersion") else { return false };
    // SAFETY: a library that has `cuInit` has the driver's functions, and this one has this type in
    // every version of the driver.
    let version = unsafe {
        core::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut i32) -> i32>(address.as_ptr())
    };
    let mut found = 0;
    // SAFETY: `found` is valid for writing; the function may be called before `cuInit`.
    let code = unsafe { version(&raw mut found) };
    code == STUB_LIBRARY
}

/// An error with its causes, which contain the loader's own message.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn symbol(library: &Library, name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the symbol is used as an untyped address only; the code that calls it adds the type.
    let found = unsafe { library.get::<*mut c_void>(name.to_bytes_with_nul()) }.ok()?;
    NonNull::new(*found)
}

/// The file that holds `address`, according to the system's own map of the process.
#[cfg(target_os = "linux")]
fn file_of(address: NonNull<c_void>) -> Option<PathBuf> {
    let address = address.addr().get();
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        // 7f12a0000000-7f12a0001000 r-xp 00000000 fd:00 1234   /usr/lib/libcuda.so.550.54
        let (start, rest) = line.split_once('-')?;
        let (end, rest) = rest.split_once(' ')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let file = rest.get(rest.find('/')?..)?;
        (start..end).contains(&address).then(|| PathBuf::from(file))
    })
}

#[cfg(not(target_os = "linux"))]
fn file_of(_address: NonNull<c_void>) -> Option<PathBuf> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_there_come_before_the_name_that_may_be_a_stub() {
        assert_eq!(candidates(|_| false), ["libcuda.so.1", "libcuda.so"]);
        let there = |path: &Path| path.starts_with("/usr/local/nvidia") || path.starts_with("/run");
        let found = candidates(there);
        let wanted = [
            "libcuda.so.1",
            "/usr/local/nvidia/lib64/libcuda.so.1",
            "/usr/local/nvidia/lib/libcuda.so.1",
            "/run/opengl-driver/lib/libcuda.so.1",
            "libcuda.so",
        ];
        assert_eq!(found, wanted);
    }
}
