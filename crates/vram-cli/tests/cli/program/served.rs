//! The program as a server and as its clients: `vram serve`, `ps`, `top`, `stop`, `ctl`.

use core::time::Duration;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::Value;

use super::schema::check;
use crate::support::{Bench, Ran};

/// The schemas of the commands here.
pub(crate) const SCHEMAS: [&str; 10] = [
    "ctl-drain",
    "ctl-lease",
    "ctl-model",
    "ctl-repair",
    "ctl-reset",
    "ctl-verify",
    "ps",
    "serve",
    "serve-check",
    "stop",
];

/// A server that runs in the folder of a bench.
struct Served<'b> {
    bench: &'b Bench,
    server: Option<Child>,
    /// Reads what the server tells, to its end.
    told: Option<JoinHandle<String>>,
}

const CONFIG: &str = "
token_file = \"token\"
drain = \"20s\"
[[device]]
device = \"host:16MiB\"
[[device]]
device = \"host:16MiB\"
[[model]]
name = \"a\"
path = \"a.safetensors\"
gpu = 0
[[model]]
name = \"b\"
path = \"b.safetensors\"
gpu = 1
[[model]]
name = \"c\"
path = \"c.safetensors\"
pin = true
";

impl<'b> Served<'b> {
    fn start(bench: &'b Bench, more: &[&str]) -> Self {
        for name in ["a", "b", "c"] {
            let name = format!("{name}.safetensors");
            if !bench.path(&name).exists() {
                bench.model(&name, 1500);
            }
        }
        let socket = bench.path("serve.sock");
        bench.write("vram.toml", format!("listen = \"unix:{}\"{CONFIG}", socket.display()));
        let mut command = bench.command([&["serve"], more].concat());
        let mut child = command.spawn().unwrap();
        if more.is_empty() {
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.next().unwrap().unwrap().starts_with("listens on unix:"));
            // What comes later is read to its end, so that the server does not wait for it.
            thread::spawn(move || lines.for_each(drop));
        }
        let mut stderr = child.stderr.take().unwrap();
        let told = thread::spawn(move || {
            let mut told = String::new();
            stderr.read_to_string(&mut told).unwrap();
            told
        });
        let served = Self { bench, server: Some(child), told: Some(told) };
        served.wait(|document| document["ready"] == true);
        served
    }

    /// A command that talks to the server.
    fn command(&self, line: &str) -> Command {
        let mut command = self.bench.command(line.split(' '));
        command
            .env("VRAM_SERVER", format!("unix:{}", self.bench.path("serve.sock").display()))
            .env("VRAM_TOKEN_FILE", self.bench.path("token"));
        command
    }

    fn run(&self, line: &str) -> Ran {
        Ran::of(self.command(line).output().unwrap())
    }

    #[track_caller]
    fn json(&self, line: &str) -> (String, Value) {
        check(&self.run(&format!("{line} --json")).expect_code(0).stdout)
    }

    /// Waits until the listing is so.
    #[track_caller]
    fn wait(&self, is_so: impl Fn(&Value) -> bool) {
        let start = Instant::now();
        loop {
            let ran = self.run("ps --json");
            if ran.code == Some(0) && is_so(&check(&ran.stdout).1) {
                return;
            }
            assert!(start.elapsed() < Duration::from_mins(1), "{} {}", ran.stdout, ran.stderr);
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, name: &str) {
        signal_to(self.server.as_ref().unwrap(), name);
    }

    fn ended(mut self) -> Ran {
        let mut ran = Ran::of(self.server.take().unwrap().wait_with_output().unwrap());
        ran.stderr = self.told.take().unwrap().join().unwrap();
        ran
    }
}

fn signal_to(process: &Child, name: &str) {
    let id = process.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A pipe holds 64 KiB: a collector of logs that hangs must not stop the server.
#[test]
fn a_server_whose_log_nobody_reads_goes_on() {
    let bench = Bench::new();
    let mut served = Served::start(&bench, &[]);
    served.server.as_mut().unwrap().kill().unwrap();
    drop(served);
    let mut child = bench.command(["serve", "-vvv", "--json"]).spawn().unwrap();
    let served = Served { bench: &bench, server: None, told: None };
    served.wait(|document| document["ready"] == true);
    for _ in 0..40 {
        served.run("ctl verify a").expect_code(0);
        served.run("ctl pin a").expect_code(0);
    }
    signal_to(&child, "-TERM");
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(30), "it waits for its reader");
        thread::sleep(Duration::from_millis(20));
    }
    // As much as the pipe holds, up to a line: it was full.
    let mut told = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut told).unwrap();
    assert!(told.len() >= 60 << 10, "{} bytes", told.len());
}

#[test]
fn a_server_is_listed_changed_and_drained_by_commands_and_each_answers_by_its_schema() {
    let bench = Bench::new();
    let mut seen = BTreeSet::new();
    // Quiet: nobody reads what it tells, and a reset tells of each shard.
    let served = Served::start(&bench, &["--json", "-q"]);
    let (name, document) = served.json("ps");
    assert_eq!(document["models"].as_array().unwrap().len(), 3);
    seen.insert(name);
    for (line, member, value) in [
        ("ctl verify a --level full", "sound", Value::from(true)),
        ("ctl repair a", "segments", 0.into()),
        ("ctl park a", "state", "parked".into()),
        ("ctl wake a --gpu 1", "state", "resident".into()),
        ("ctl migrate a --gpu 0", "state", "resident".into()),
        ("ctl pin a", "pinned", true.into()),
        ("ctl unpin a", "pinned", false.into()),
        ("ctl reset 0 --force", "failed", Value::Array(Vec::new())),
        ("stop a", "wiped", true.into()),
        ("ctl load a --priority 3", "priority", 3.into()),
        ("ctl load d b.safetensors --protection authenticated", "configured", false.into()),
        ("stop d --wait 1s", "model", "d".into()),
        ("top --count 2 --every 10ms", "ready", true.into()),
    ] {
        let (name, document) = served.json(line);
        assert_eq!(document[member], value, "{line}: {document}");
        seen.insert(name);
    }
    let (name, check) = check(&bench.run(["serve", "--check", "--json"]).expect_code(0).stdout);
    assert_eq!(check["usable"], true);
    seen.insert(name);
    // People read the same.
    let shown = served.run("ps").expect_code(0).stdout;
    assert!(shown.starts_with("ready\n") && shown.contains("resident"), "{shown}");
    assert!(served.run("ctl verify b").expect_code(0).stdout.starts_with("b: sound"));

    served.run("ctl reset 1").expect_error(2, &["is not lost", "--force"]);
    let again = served.run("ctl load b").expect_error(2, &["is resident", "`vram stop NAME`"]);
    assert!(!again.stderr.contains("park"), "{}", again.stderr);

    // A worker that lets go when it is told.
    let worker = served.command("ctl lease b --holder w --json").spawn().unwrap();
    served.wait(|document| document["leases"].as_array().unwrap().len() == 1);
    served.run("stop b").expect_error(2, &["model \"b\": ", "is in use", "`vram ps`"]);
    let (name, report) = served.json("ctl drain --deadline 300ms");
    assert_eq!((&report["complete"], &report["leases_cut"]), (&true.into(), &1.into()));
    seen.insert(name);
    // It did not let go: its lease was taken from it, which is no success.
    let cut = Ran::of(worker.wait_with_output().unwrap()).expect_code(4);
    let (name, document) = super::schema::check(&cut.stdout);
    assert_eq!((&document["how"], &document["last"]["event"]), (&"cut".into(), &"cut".into()));
    assert_eq!(document["error"]["code"], "lease-cut", "{document}");
    seen.insert(name);
    let ended = served.ended().expect_code(0);
    seen.insert(super::schema::check(&ended.stdout).0);
    assert_eq!(seen, SCHEMAS.iter().map(|&name| name.to_owned()).collect());
}

#[test]
fn sigterm_drains_reports_and_exits_0_and_a_worker_that_was_killed_is_not_waited_for() {
    let bench = Bench::new();
    let served = Served::start(&bench, &["--json"]);
    let mut dead = served.command("ctl lease a --holder dead").spawn().unwrap();
    let mut slow = served.command("ctl lease b --holder slow").spawn().unwrap();
    served.wait(|document| document["leases"].as_array().unwrap().len() == 2);
    // SIGKILL: its connection is all that tells of it.
    dead.kill().unwrap();
    dead.wait().unwrap();
    served.wait(|document| document["leases"].as_array().unwrap().len() == 1);
    served.run("stop a").expect_code(0);

    served.signal("-TERM");
    served.wait(|document| document["draining"] == true);
    served.run("ctl park c").expect_error(2, &["being stopped"]);
    let start = Instant::now();
    slow.kill().unwrap();
    slow.wait().unwrap();
    let ended = served.ended().expect_code(0);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let (_, report) = check(&ended.stdout);
    assert_eq!((&report["complete"], &report["leases_cut"]), (&true.into(), &0.into()));
    assert!(!bench.path("serve.sock").exists());
}

#[test]
fn a_server_that_is_killed_is_started_again_and_has_its_models_back() {
    let bench = Bench::new();
    let served = Served::start(&bench, &[]);
    let token = std::fs::read(bench.path("token")).unwrap();
    served.signal("-KILL");
    drop(served);
    let again = Served::start(&bench, &[]);
    assert_eq!(std::fs::read(bench.path("token")).unwrap(), token);
    assert_eq!(again.json("ps").1["models"][2]["pinned"], true);
    // Two signals: the second does not wait.
    let worker = again.command("ctl lease a").spawn().unwrap();
    again.wait(|document| document["leases"].as_array().unwrap().len() == 1);
    again.signal("-TERM");
    again.wait(|document| document["draining"] == true);
    again.signal("-TERM");
    let ended = again.ended().expect_code(0);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    Ran::of(worker.wait_with_output().unwrap()).expect_code(4);
}

#[test]
fn a_lease_ends_well_by_a_signal_to_its_holder_and_badly_when_its_server_dies() {
    let bench = Bench::new();
    let served = Served::start(&bench, &["--json"]);
    let held = || {
        let mut worker = served.command("ctl lease a --holder w --json").spawn().unwrap();
        let told = BufReader::new(worker.stderr.take().unwrap()).lines().next();
        assert!(told.unwrap().unwrap().contains("is leased by"));
        worker
    };
    for signal in ["-TERM", "-INT"] {
        let worker = held();
        signal_to(&worker, signal);
        let ended = Ran::of(worker.wait_with_output().unwrap()).expect_code(0);
        let (_, document) = check(&ended.stdout);
        assert_eq!(document["how"], "by_holder", "{document}");
        served.wait(|document| document["leases"].as_array().unwrap().is_empty());
    }
    let worker = held();
    served.signal("-KILL");
    let ended = Ran::of(worker.wait_with_output().unwrap()).expect_code(4);
    let (_, document) = check(&ended.stdout);
    assert_eq!(
        (&document["how"], &document["error"]["code"]),
        (&"broken".into(), &"lease-broken".into())
    );
}

#[test]
fn what_a_server_does_is_told_as_text_or_as_json_or_not_at_all() {
    for (options, what) in [
        (&["--json"][..], ": loaded model=a"),
        (&["--json", "--log-format", "json"], "\"target\":\"vram_serve"),
        (&["--json", "-q"], ""),
    ] {
        let bench = Bench::new();
        let served = Served::start(&bench, options);
        served.run("ctl park a").expect_code(0);
        served.run("ctl park nowhere").expect_code(2);
        // What is asked for by force is no error of the server's.
        served.run("ctl reset 1 --force").expect_code(0);
        served.signal("-TERM");
        let told = served.ended().expect_code(0).stderr;
        if what.is_empty() {
            assert_eq!(told, "", "{options:?}");
        } else {
            assert!(told.contains(what), "{options:?}: {told}");
            let calls: Vec<_> = told.lines().filter(|line| line.contains("control call")).collect();
            assert_eq!(calls.len(), 3, "{told}");
            assert!(told.contains("WARN") && !told.contains("ERROR"), "{told}");
            for (line, parts) in
                calls.iter().zip([["park", "\"a\"", "ok"], ["park", "nowhere", "no-such-model"]])
            {
                for part in parts.iter().chain(&["unix", "ms"]) {
                    assert!(line.contains(part), "{part}: {line}");
                }
            }
            let token = std::fs::read_to_string(bench.path("token")).unwrap();
            assert!(!told.contains(token.trim()));
        }
        if options.contains(&"json") {
            assert!(told.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{told}");
        }
    }
}
