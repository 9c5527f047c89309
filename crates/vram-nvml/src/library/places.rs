//! Where the library lies.

use std::ffi::OsString;
use std::path::Path;

use super::LIBRARY_VARIABLE;

const NAME: &str = "libnvidia-ml.so.1";

/// Where it lies on machines whose loader does not know it: as for the driver, which is installed
/// with it.
const FOLDERS: &[&str] = &[
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
];

/// The libraries to try, in order: the one that was named, or the system's and files that are there.
pub(super) fn candidates(named: Option<&Path>) -> Vec<OsString> {
    let variable = || std::env::var_os(LIBRARY_VARIABLE).filter(|value| !value.is_empty());
    match named.map(|path| path.as_os_str().to_owned()).or_else(variable) {
        Some(one) => vec![one],
        None => of_system(Path::is_file),
    }
}

fn of_system(is_there: impl Fn(&Path) -> bool) -> Vec<OsString> {
    let files = FOLDERS.iter().map(|folder| Path::new(folder).join(NAME));
    let files = files.filter(|file| is_there(file)).map(Into::into);
    core::iter::once(NAME.into()).chain(files).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_asked_first_and_then_the_files_that_are_there() {
        assert_eq!(of_system(|_| false), [NAME]);
        let found = of_system(|path| path.starts_with("/usr/lib64"));
        assert_eq!(found, [NAME, "/usr/lib64/libnvidia-ml.so.1"]);
        let named = candidates(Some(Path::new("/nowhere/a.so")));
        assert_eq!(named, ["/nowhere/a.so"], "no other is tried");
    }
}
