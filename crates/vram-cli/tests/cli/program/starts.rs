//! A server that cannot start says why at once, and by its exit code whether a later start may succeed: 2 is a
//! mistake that only its operator can mend, which a service unit does not try again.

use std::net::TcpListener;
use std::process::Command;

use crate::support::{Bench, Ran, set_mode};

const DEVICE: &str = "[[device]]\ndevice = \"host:1MiB\"\n";

/// The program, as a user who may have `threads` threads beside the first, or as many as there are.
fn serve_with(bench: &Bench, threads: Option<u32>, more: &[&str]) -> Ran {
    // A user of this test alone, whose other processes none counts; root has no such bound.
    let user = "--reuid=65431 --regid=65431 --clear-groups";
    let limit = threads.map_or_else(String::new, |count| format!("prlimit --nproc={} ", count + 1));
    let line = format!("exec setpriv {user} {limit}timeout 60 \"$0\" serve \"$@\"");
    let mut command = Command::new("sh");
    let program = bench.command([""; 0]);
    command.args(["-c", &line]).arg(bench.path("vram")).args(more);
    command
        .current_dir(bench.path(""))
        .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    loop {
        let ran = Ran::of(command.output().unwrap());
        // Another test may have started a process while the copy was open for writing here.
        if ran.code != Some(126) {
            return ran;
        }
    }
}

#[test]
fn a_server_without_threads_says_so_at_once_and_may_be_started_again() {
    if !rustix::process::getuid().is_root() {
        // The bound is one of a user, who has other processes: only root can be another one.
        return;
    }
    let bench = Bench::new();
    std::fs::copy(env!("CARGO_BIN_EXE_vram"), bench.path("vram")).unwrap();
    set_mode(&bench.path("vram"), 0o755);
    set_mode(&bench.path(""), 0o777);
    bench.write("vram.toml", format!("listen = \"127.0.0.1:0\"\ntoken_file = \"token\"\n{DEVICE}"));
    for threads in [1, 2, 3, 4, 6, 9, 13, 16] {
        for more in [&[][..], &["--json"], &["--log-format", "json"]] {
            let ran = serve_with(&bench, Some(threads), more);
            let told = format!("{threads} {more:?}: {} {}", ran.stdout, ran.stderr);
            assert_eq!(ran.code, Some(4), "{told}");
            assert!(ran.stderr.contains("could not start a thread: "), "{told}");
            assert!(ran.stderr.contains("LimitNPROC="), "{told}");
            assert!(!ran.stderr.contains("panicked"), "{told}");
            assert_eq!(ran.stderr.lines().count(), 1, "{told}");
        }
    }
}

#[test]
fn what_may_pass_is_tried_again_and_a_mistake_is_not() {
    let bench = Bench::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = |top: &str, code: i32, words: &[&str]| {
        bench.write("vram.toml", format!("token_file = \"token\"\n{top}\n{DEVICE}"));
        bench.run(["serve"]).expect_error(code, words);
    };
    start(&format!("listen = \"{}\"", taken.local_addr().unwrap()), 4, &["in use", "stop what"]);
    let socket = std::os::unix::net::UnixListener::bind(bench.path("socket")).unwrap();
    let listen = |name: &str| format!("listen = \"unix:{}\"", bench.path(name).display());
    start(&listen("socket"), 4, &["another server listens there"]);
    drop(socket);
    start(&listen("vram.toml"), 2, &["no socket"]);
    bench.write("odd", "x");
    start("token_file2 = 1", 2, &["token_file2"]);
    // No server is there, as one that does not answer.
    let ps = |server: &str| bench.run(["ps", "--server", server]);
    ps("unix:/nowhere/serve.sock").expect_error(4, &["cannot reach", "vram serve"]);
    ps("https://localhost:1").expect_error(2, &["token"]);
}
