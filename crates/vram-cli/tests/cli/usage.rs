//! The command line itself: help, errors, exit codes.

use crate::support::Bench;

#[test]
fn help_goes_to_standard_output_and_lists_every_command_and_exit_code() {
    let bench = Bench::new();
    let help = bench.run(["--help"]).expect_code(0).stdout;
    for command in ["load", "devices", "demo", "seal", "unseal", "verify", "inspect", "keygen"] {
        assert!(help.contains(&format!("  {command}")), "{help}");
        let own = bench.run([command, "--help"]).expect_code(0);
        assert!(own.stdout.contains("Usage: vram"), "{}", own.stdout);
    }
    assert!(help.contains("Exit codes"), "{help}");
    let version = bench.run(["--version"]).expect_code(0).stdout;
    assert!(version.starts_with("vram "), "{version}");
}

#[test]
fn a_mistake_on_the_command_line_is_exit_code_2() {
    let bench = Bench::new();
    for mistake in [
        &[][..],
        &["frobnicate"],
        &["load"],
        &["load", "--no-such-option", "f"],
        &["seal", "f"],
        &["seal", "f", "--key-file", "k", "--model-id", "m"],
        &["unseal", "i", "-o", "o"],
        &["verify"],
        &["inspect"],
        &["keygen"],
        &["load", "f", "--gpu", "-1"],
        &["load", "f", "--gpu", "4294967296"],
        &["load", "f", "--protection", "none"],
        &["seal", "f", "--key-file", "k", "--model-id", "m", "-o", "o", "--segment", "1000"],
        &["seal", "f", "--key-file", "k", "--model-id", "m", "-o", "o", "--suite", "rot13"],
        &["seal", "f", "--key-file", "k", "--model-id", "m", "-o", "o", "--shard-index", "-1"],
    ] {
        let ran = bench.run(mistake).expect_code(2);
        assert_eq!(ran.stdout, "", "{mistake:?}");
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
    assert!(bench.names().is_empty());
}

#[test]
fn paths_of_any_bytes_are_taken() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let bench = Bench::new();
    let odd = OsStr::from_bytes(b"od\xffd\n.safetensors");
    let path = bench.model("m.safetensors", 200);
    std::fs::rename(path, bench.path("m.safetensors").with_file_name(odd)).unwrap();
    let ran = bench
        .run([OsStr::new("load"), odd, OsStr::new("--device"), OsStr::new("host:9MiB")])
        .expect_code(0);
    // As in `b3sum`: escaped, and marked by a backslash at the beginning of the line.
    let last = ran.stdout.lines().last().unwrap();
    assert!(last.starts_with('\\') && last.ends_with("\\n.safetensors"), "{last}");
}

/// Files of a process in `/proc` belong to root once it cannot be dumped. Root owns them anyhow, so
/// the program runs as another user.
#[cfg(target_os = "linux")]
#[test]
fn the_program_denies_core_dumps_of_itself_unless_told_otherwise() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;
    use std::process::Stdio;

    let bench = Bench::new();
    let program = bench.path("program");
    std::fs::copy(env!("CARGO_BIN_EXE_vram"), &program).unwrap();
    let everyone = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, everyone.clone()).unwrap();
    std::fs::set_permissions(program.parent().unwrap(), everyone).unwrap();
    let me = std::fs::metadata(&program).unwrap().uid();
    let user = if me == 0 { 65_534 } else { me };
    for (options, owner) in [(&[][..], 0), (&["--allow-core-dumps"][..], user)] {
        let mut command = std::process::Command::new(&program);
        command
            .args(options)
            // It waits for an image on standard input.
            .args(["inspect", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if me == 0 {
            command.uid(user).gid(user);
        }
        // Another test may have started a process while the copy was open for writing here: such a
        // process holds it for a moment.
        let mut child = loop {
            match command.spawn() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(core::time::Duration::from_millis(10));
                }
                started => break started.unwrap(),
            }
        };
        let status = format!("/proc/{}/status", child.id());
        let belongs_to_owner = || {
            std::thread::sleep(core::time::Duration::from_millis(10));
            std::fs::metadata(&status).is_ok_and(|found| found.uid() == owner)
        };
        // The files belong to the program's user until it denies core dumps.
        let found = if owner == 0 {
            (0..1000).any(|_| belongs_to_owner())
        } else {
            (0..50).all(|_| belongs_to_owner())
        };
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(found, "with {options:?}");
    }
}
