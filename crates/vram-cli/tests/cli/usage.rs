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
    let ran = bench.run([OsStr::new("load"), odd]).expect_code(0);
    // As in `b3sum`: escaped, and marked by a backslash at the beginning of the line.
    let last = ran.stdout.lines().last().unwrap();
    assert!(last.starts_with('\\') && last.ends_with("\\n.safetensors"), "{last}");
}
