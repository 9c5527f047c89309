//! Where output goes: never over a file that the same command reads, through links, and to `-`.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Bench, Ran, blake3, mode, set_mode};

const SEAL: [&str; 6] = ["seal", "content", "--key-file", "key", "--model-id", "m"];
const UNSEAL: [&str; 6] = ["unseal", "image", "--key-file", "key", "--model-id", "m"];

impl Bench {
    /// Runs the program with this standard input.
    fn run_with_input(&self, args: &[&str], input: impl Into<Stdio>) -> std::process::Output {
        self.command(args).stdin(input).spawn().unwrap().wait_with_output().unwrap()
    }

    /// Runs the program with these bytes in a pipe as standard input.
    fn run_piped(&self, args: &[&str], input: &[u8]) -> std::process::Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // Some tests make the program end before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    fn open(&self, name: &str) -> File {
        File::open(self.path(name)).unwrap()
    }
}

#[test]
fn no_output_replaces_a_file_that_the_same_command_reads() {
    let bench = Bench::new();
    bench.write("meta", "m".repeat(100));
    bench.sealed(b"plain", "image", &["--metadata", "meta"]);
    let inputs = ["content", "key", "meta", "image"];
    for input in inputs {
        fs::hard_link(bench.path(input), bench.path(&format!("hard-{input}"))).unwrap();
        symlink(input, bench.path(&format!("soft-{input}"))).unwrap();
    }
    let before: Vec<_> = inputs.iter().map(|name| fs::read(bench.path(name)).unwrap()).collect();
    let names = bench.names();
    for (command, reads) in [(&SEAL[..], &inputs[..3]), (&UNSEAL[..], &inputs[1..])] {
        for input in reads {
            for way in ["", "./", "hard-", "soft-"] {
                for force in [&[][..], &["--force"]] {
                    let target = format!("{way}{input}");
                    let more = ["--metadata", "meta", "-o", &target];
                    let args = [command, &more, force].concat();
                    bench.run(args).expect_error(2, &["over itself", input]);
                }
            }
        }
    }
    let after: Vec<_> = inputs.iter().map(|name| fs::read(bench.path(name)).unwrap()).collect();
    assert!(before == after);
    assert_eq!(bench.names(), names);
}

/// Runs a shell in a mount namespace of its own with nothing in `/proc`. `None` where the system
/// does not let this user do that.
fn without_proc(bench: &Bench, script: &str) -> Option<Ran> {
    let base = bench.command([""; 0]);
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        let hidden = format!("mount -t tmpfs none /proc && {script}");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &hidden, "sh"]);
        command.arg(base.get_program()).current_dir(bench.path("")).stdin(Stdio::null());
        command.output().ok()
    };
    run("true")?.status.success().then(|| Ran::of(run(script).unwrap()))
}

#[test]
fn without_proc_no_output_replaces_what_was_read_from_a_descriptor() {
    let bench = Bench::new();
    let image = fs::read(bench.sealed(b"plain", "image", &[])).unwrap();
    let key = fs::read(bench.path("key")).unwrap();
    for script in [
        r#"exec "$1" seal content --key-fd 3 --model-id m -o key --force 3<key"#,
        r#"exec "$1" seal content --key-fd 0 --model-id m -o key --force <key"#,
        r#"exec "$1" unseal image --key-fd 3 --model-id m -o - 3<key >>key"#,
        r#"exec "$1" seal - --key-file key --model-id m -o image --force <image"#,
    ] {
        let Some(ran) = without_proc(&bench, script) else { return };
        ran.expect_error(2, &["over itself"]);
        assert!(fs::read(bench.path("key")).unwrap() == key, "{script}");
        assert!(fs::read(bench.path("image")).unwrap() == image, "{script}");
    }
    let script = r#"exec "$1" seal content --key-fd 3 --model-id m -o new 3<key"#;
    without_proc(&bench, script).unwrap().expect_code(0);
}

#[test]
fn an_output_that_is_a_link_is_written_where_the_link_leads() {
    let bench = Bench::new();
    bench.sealed(b"plain", "image", &[]);
    fs::create_dir(bench.path("sub")).unwrap();
    symlink("sub/file", bench.path("dangling")).unwrap();
    symlink("dangling", bench.path("out")).unwrap();
    // The first time the target does not exist, the second time it is a file.
    for _ in 0..2 {
        bench.run([&UNSEAL[..], &["-o", "out"]].concat()).expect_code(0);
        assert_eq!(fs::read(bench.path("sub/file")).unwrap(), b"plain");
        assert_eq!(mode(&bench.path("sub/file")), 0o600);
        assert_eq!(fs::read_link(bench.path("out")).unwrap(), Path::new("dangling"));
        fs::write(bench.path("sub/file"), "old").unwrap();
    }
    assert_eq!(bench.names(), ["content", "dangling", "image", "key", "out", "sub"]);
}

#[test]
fn an_output_that_leads_to_a_device_a_pipe_or_a_folder_is_refused_and_the_link_stays() {
    let bench = Bench::new();
    bench.sealed(b"plain", "image", &[]);
    let leads = ["/dev/null", "/dev/stdout", ".", "/dev/no-such-device", "/proc/no-such-process"];
    for leads_to in leads {
        symlink(leads_to, bench.path("out")).unwrap();
        for command in [&SEAL[..], &UNSEAL[..]] {
            for target in ["out", leads_to] {
                bench.run([command, &["-o", target]].concat()).expect_error(2, &[target]);
            }
        }
        bench.run(["keygen", "-o", "out"]).expect_error(2, &["out"]);
        assert_eq!(fs::read_link(bench.path("out")).unwrap(), Path::new(leads_to));
        fs::remove_file(bench.path("out")).unwrap();
    }
    assert_eq!(bench.names(), ["content", "image", "key"]);
}

#[test]
fn a_file_that_looks_like_a_key_is_replaced_only_with_force() {
    let bench = Bench::new();
    bench.sealed(b"plain", "image", &[]);
    let other = fs::read(bench.key("other")).unwrap();
    for command in [&SEAL[..], &UNSEAL[..]] {
        bench
            .run([command, &["-o", "other"]].concat())
            .expect_error(2, &["other", "key file", "--force"]);
        assert_eq!(fs::read(bench.path("other")).unwrap(), other);
    }
    bench.run([&UNSEAL[..], &["-o", "other", "--force"]].concat()).expect_code(0);
    assert_eq!(fs::read(bench.path("other")).unwrap(), b"plain");

    for guarded in [0o700, 0o440, 0o640] {
        bench.write("guarded", &other);
        set_mode(&bench.path("guarded"), guarded);
        bench.run([&UNSEAL[..], &["-o", "guarded"]].concat()).expect_error(2, &["key file"]);
        fs::remove_file(bench.path("guarded")).unwrap();
    }
    // No command takes it for a key as it is, and it is a key all the same.
    for command in [&SEAL[..], &UNSEAL[..]] {
        bench.write("public", &other);
        set_mode(&bench.path("public"), 0o644);
        bench.run([command, &["-o", "public"]].concat()).expect_error(2, &["key file", "--force"]);
        assert_eq!(fs::read(bench.path("public")).unwrap(), other);
    }
    bench.write("public", "-".repeat(64));
    bench.run([&UNSEAL[..], &["-o", "public"]].concat()).expect_code(0);
}

#[test]
fn a_dash_is_standard_input_and_output_and_messages_go_to_standard_error() {
    let bench = Bench::new();
    let plain: Vec<u8> = (0_u32..).flat_map(u32::to_le_bytes).take(700_001).collect();
    let image = fs::read(bench.sealed(&plain, "image", &[])).unwrap();
    let digest = blake3(&plain).to_string();
    let seal = ["seal", "-", "--key-file", "key", "--model-id", "m", "-o", "-"];
    let unseal = ["unseal", "-", "--key-file", "key", "--model-id", "m", "-o", "-"];
    let verify = ["verify", "-", "--key-file", "key", "--model-id", "m"];
    for piped in [true, false] {
        let run = |args: &[&str], input: &[u8], file: &str| {
            if piped {
                bench.run_piped(args, input)
            } else {
                bench.run_with_input(args, bench.open(file))
            }
        };
        let sealed = run(&seal, &plain, "content");
        assert!(sealed.status.success() && sealed.stdout == image);
        let said = String::from_utf8(sealed.stderr).unwrap();
        assert!(said.contains(&digest) && said.contains("standard output"), "{said}");

        let opened = run(&unseal, &image, "image");
        assert!(opened.status.success() && opened.stdout == plain);
        assert!(String::from_utf8(opened.stderr).unwrap().contains(&digest));

        let verified = Ran::of(run(&verify, &image, "image")).expect_code(0);
        assert!(verified.stdout.starts_with("standard input: sound"), "{}", verified.stdout);
        let inspected = Ran::of(run(&["inspect", "-"], &image, "image")).expect_code(0);
        assert!(inspected.stdout.contains("Nothing of this is proven"), "{}", inspected.stdout);
    }
    assert_eq!(bench.names(), ["content", "image", "key"]);
}

#[test]
fn standard_output_gets_nothing_of_an_altered_image() {
    let bench = Bench::new();
    let plain = vec![7; 40_000];
    let mut image = fs::read(bench.sealed(&plain, "image", &["--segment", "4096"])).unwrap();
    *image.last_mut().unwrap() ^= 1;
    bench.write("image", image);
    bench.run([&UNSEAL[..], &["-o", "-"]].concat()).expect_error(1, &["image", "segment 9"]);
}

#[test]
fn standard_output_that_goes_to_an_input_is_refused() {
    let bench = Bench::new();
    bench.sealed(b"plain", "image", &[]);
    let to_stdout = |command: &[&'static str]| [command, &["-o", "-"]].concat();
    let to_file = |command: &[&'static str]| [command, &["-o", "other"]].concat();
    for (command, input) in [
        (to_stdout(&SEAL), "content"),
        (to_stdout(&SEAL), "key"),
        (to_stdout(&UNSEAL), "image"),
        (to_stdout(&UNSEAL), "key"),
        // What these commands report would be written over it.
        (to_file(&SEAL), "content"),
        (to_file(&UNSEAL), "key"),
        (vec!["verify", "image", "--key-file", "key", "--model-id", "m"], "image"),
        (vec!["verify", "image", "--key-file", "key", "--model-id", "m"], "key"),
        (vec!["inspect", "image"], "image"),
    ] {
        let before = fs::read(bench.path(input)).unwrap();
        let append = File::options().append(true).open(bench.path(input)).unwrap();
        let ran = Ran::of(bench.command(&command).stdout(append).output().unwrap());
        ran.expect_error(2, &[input, "over itself"]);
        assert_eq!(fs::read(bench.path(input)).unwrap(), before, "{command:?}");
    }
    assert!(!bench.path("other").exists());
}

/// Somebody saves what a killed process left. The next output in that folder removes such files.
#[test]
fn a_leftover_that_a_command_reads_is_not_removed() {
    let bench = Bench::new();
    bench.sealed(b"plain", "image", &[]);
    let (content, key) = (".vram-7-7.partial", ".vram-8-8.partial");
    fs::copy(bench.path("content"), bench.path(content)).unwrap();
    fs::copy(bench.path("key"), bench.path(key)).unwrap();
    bench.write(".vram-9-9.partial", b"left");
    let args = ["seal", content, "--key-file", key, "--model-id", "m", "-o", "image"];
    bench.run(args).expect_code(0);
    assert!(bench.path(content).exists() && bench.path(key).exists());
    assert!(!bench.path(".vram-9-9.partial").exists());
}

/// What stands before the image was read by another program; the rest is copied before it is opened.
#[test]
fn a_file_that_is_standard_input_from_some_offset_on_is_not_replaced() {
    let bench = Bench::new();
    let image = bench.sealed(b"plain", "image", &[]);
    let mut boxed = b"a header\n".to_vec();
    boxed.extend(fs::read(image).unwrap());
    for (command, to) in [("unseal", "box"), ("seal", "box"), ("unseal", "./box")] {
        bench.write("box", &boxed);
        let mut input = bench.open("box");
        input.seek(SeekFrom::Start(9)).unwrap();
        let args = [command, "-", "--key-file", "key", "--model-id", "m", "-o", to, "--force"];
        Ran::of(bench.run_with_input(&args, input)).expect_error(2, &["over itself"]);
        assert!(fs::read(bench.path("box")).unwrap() == boxed, "{command} {to}");
    }
}

#[test]
fn a_key_is_not_written_to_standard_output() {
    let bench = Bench::new();
    bench.run(["keygen", "-o", "-"]).expect_error(2, &["standard output"]);
    assert!(bench.names().is_empty());
    bench.run(["keygen", "-o", "./-"]).expect_code(0);
    assert_eq!(bench.names(), ["-"]);
}

#[test]
fn what_an_earlier_run_left_does_not_stand_in_the_way() {
    let bench = Bench::new();
    bench.sealed(b"plain", "image", &[]);
    // As a killed run leaves it, on a file system where every file needs a name.
    bench.write(".vram-1-0123456789abcdef.partial", "plain");
    bench.write("out", "old");
    bench.run([&UNSEAL[..], &["-o", "out"]].concat()).expect_code(0);
    assert_eq!(bench.names(), ["content", "image", "key", "out"]);
}
