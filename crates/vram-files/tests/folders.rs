//! Folders that may be written and entered, and not read: what is written there is finished.
//!
//! Root reads every folder, so the work runs in a child process, as an ordinary user.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use vram_files::{Inputs, KeySource, Overwrite, WholeFile, create_key_file};
use vram_seal::SealKey;

const CHILD: &str = "VRAM_FILES_FOLDER_CHILD";
const NOBODY: u32 = 65_534;

fn child(folder: &Path) {
    assert!(fs::read_dir(folder).is_err(), "the folder cannot be read");
    for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
        let target = folder.join("file");
        let mut file = WholeFile::create(&target, 0o600, overwrite, Inputs::default()).unwrap();
        std::io::Write::write_all(&mut file, b"whole").unwrap();
        file.publish().unwrap();
        assert_eq!(fs::read(target).unwrap(), b"whole");
    }
    let key = SealKey::random().unwrap();
    create_key_file(&folder.join("key"), &key).unwrap();
    assert_eq!(KeySource::File(folder.join("key")).load().unwrap().id(), key.id());
}

#[test]
fn a_folder_that_cannot_be_read_does_not_fail_a_finished_file() {
    if let Some(folder) = std::env::var_os(CHILD) {
        return child(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("drop");
    fs::create_dir(&inner).unwrap();
    let is_root = fs::metadata(&inner).unwrap().uid() == 0;
    // A copy of this program, where an ordinary user may run it.
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if is_root {
        chown(&inner, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o300)).unwrap();
    let mut command = Command::new(program);
    command
        .args(["--exact", "a_folder_that_cannot_be_read_does_not_fail_a_finished_file"])
        .env(CHILD, &inner)
        .current_dir("/");
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    let run = command.output().unwrap();
    assert!(
        run.status.success(),
        "{}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(text.contains("1 passed"), "{text}");
}
