//! P56: a key comes from exactly one place that the user names, and a group may read its file only
//! where the user says so.

use std::fs::{self, File};
use std::process::Command;

use crate::support::{Bench, Ran, set_mode};

const VERIFY: [&str; 4] = ["verify", "image", "--model-id", "m"];

/// The program, started by a shell that opens and closes descriptors.
pub(super) fn in_shell(bench: &Bench, line: &str) -> Ran {
    let vram = env!("CARGO_BIN_EXE_vram");
    let mut shell = Command::new("sh");
    // At the beginning of a word: `VRAM_…` is a variable.
    let line = line.replace("VRAM ", &format!("'{vram}' "));
    shell.args(["-c", &line]);
    shell.current_dir(bench.path(".")).env("VRAM_CUDA_DRIVER", "/nowhere/libcuda.so.1");
    Ran::of(shell.output().unwrap())
}

#[test]
fn one_key_is_taken_from_a_file_a_variable_a_descriptor_and_a_credential() {
    let bench = Bench::new();
    bench.sealed(b"weights", "image", &[]);
    let digits = fs::read_to_string(bench.path("key")).unwrap().trim().to_owned();
    let verify = |option: &[&str]| {
        let mut command = bench.command([&VERIFY, option].concat());
        command.env("SEAL_KEY", &digits).env("CREDENTIALS_DIRECTORY", bench.path("."));
        command.stdin(File::open(bench.path("key")).unwrap());
        Ran::of(command.output().unwrap())
    };
    for option in [
        ["--key-file", "key"],
        ["--key-env", "SEAL_KEY"],
        ["--key-fd", "0"],
        ["--key-credential", "key"],
    ] {
        let ran = verify(&option).expect_code(0);
        assert!(!ran.stdout.contains(&digits) && !ran.stderr.contains(&digits));
    }
    in_shell(&bench, "exec VRAM verify image --model-id m --key-fd 7 7<key").expect_code(0);
    in_shell(&bench, "cat key | VRAM verify image --model-id m --key-fd 0").expect_code(0);
    in_shell(&bench, "VRAM seal - --model-id m --key-fd 3 -o two 3<key <content").expect_code(0);
    assert!(fs::read(bench.path("two")).unwrap() == fs::read(bench.path("image")).unwrap());

    for (option, words) in [
        (["--key-env", "NO_SUCH_KEY"], ["NO_SUCH_KEY", "not set"]),
        (["--key-fd", "77"], ["descriptor 77", "Bad file descriptor"]),
        (["--key-fd", "1"], ["--key-fd 1", "3<FILE"]),
        (["--key-credential", "missing"], ["missing", "No such file"]),
        (["--key-credential", "../key"], ["../key", "LoadCredential="]),
    ] {
        let ran = verify(&option).expect_error(2, &words);
        assert!(!ran.stderr.contains(&digits), "{}", ran.stderr);
    }
    // A value that is no key is not shown: it may be one with a typing error.
    let mut command = bench.command([&VERIFY[..], &["--key-env", "SEAL_KEY"]].concat());
    let ran = Ran::of(command.env("SEAL_KEY", &digits[..63]).output().unwrap());
    let ran = ran.expect_error(2, &["SEAL_KEY", "vram keygen"]);
    assert!(!ran.stderr.contains(&digits[..8]), "{}", ran.stderr);
}

#[test]
fn a_key_has_one_origin_and_no_second_one() {
    let bench = Bench::new();
    bench.sealed(b"weights", "image", &[]);
    for command in [
        &VERIFY[..],
        &["unseal", "image", "--model-id", "m", "-o", "back"],
        &["seal", "content", "--model-id", "m", "-o", "two"],
    ] {
        for keys in [
            &[][..],
            &["--key-file", "key", "--key-env", "KEY"],
            &["--key-file", "key", "--key-fd", "3"],
            &["--key-fd", "3", "--key-credential", "key"],
            &["--key-mode", "group-readable", "--key-env", "KEY"],
            &["--key-file", "key", "--key-mode", "anybody"],
        ] {
            let ran = bench.run([command, keys].concat()).expect_code(2);
            assert!(ran.stderr.contains("--key-"), "{keys:?}: {}", ran.stderr);
        }
    }
    assert_eq!(bench.names(), ["content", "image", "key"]);
    // A load needs no key, but takes no two either.
    bench.model("m.safetensors", 300);
    let load = ["load", "m.safetensors", "--device", "host:9MiB"];
    bench.run(load).expect_code(0);
    bench.run([&load[..], &["--key-env", "A", "--key-file", "key"]].concat()).expect_code(2);
    // Standard input cannot be both.
    let both = ["verify", "-", "--model-id", "m", "--key-fd", "0"];
    bench.run(both).expect_error(2, &["--key-fd 0", "3<FILE"]);
}

#[test]
fn a_group_may_read_a_key_file_only_if_that_is_said() {
    let bench = Bench::new();
    bench.sealed(b"weights", "image", &[]);
    let private = [&VERIFY[..], &["--key-file", "key"]].concat();
    let grouped = [&private[..], &["--key-mode", "group-readable"]].concat();
    for mode in [0o440, 0o640] {
        set_mode(&bench.path("key"), mode);
        bench.run(&private).expect_error(2, &["chmod 600", "--key-mode group-readable"]);
        bench.run(&grouped).expect_code(0);
    }
    for mode in [0o444, 0o460, 0o604] {
        set_mode(&bench.path("key"), mode);
        let ran = bench.run(&private).expect_error(2, &["chmod 600"]);
        assert!(!ran.stderr.contains("group-readable"), "{}", ran.stderr);
        bench.run(&grouped).expect_error(2, &["wanted 0640", "chmod 640"]);
    }
    set_mode(&bench.path("key"), 0o400);
    bench.run(&private).expect_code(0);
    bench.run(&grouped).expect_code(0);
}

#[test]
fn no_output_replaces_the_file_behind_a_descriptor_or_a_credential() {
    let bench = Bench::new();
    bench.sealed(b"weights", "image", &[]);
    let key = fs::read(bench.path("key")).unwrap();
    let unseal = "VRAM unseal image --model-id m -o key --force";
    in_shell(&bench, &format!("{unseal} --key-fd 5 5<key")).expect_error(2, &["over itself"]);
    let ran = in_shell(&bench, &format!("CREDENTIALS_DIRECTORY=. {unseal} --key-credential key"));
    ran.expect_error(2, &["over itself"]);
    assert!(fs::read(bench.path("key")).unwrap() == key);
}
