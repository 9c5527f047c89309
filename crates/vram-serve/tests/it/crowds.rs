//! P116: a crowd gets answers, within the bound, and beyond it a polite refusal; memory stays flat.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::thread;

use vram_serve::client::{Client, ClientError};

use crate::support::{Rig, request, talk, wait};

/// Set in the process that one test starts for itself.
pub(crate) const ALONE: &str = "VRAM_TEST_ALONE";

/// Bytes of memory that this process has.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_thousand_connections_are_held_open_and_each_is_answered() {
    let rig = Rig::three();
    let idle: Vec<TcpStream> = (0..1200).map(|_| rig.connect()).collect();
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for part in idle.chunks(150) {
            let answered = &answered;
            scope.spawn(move || {
                for stream in part {
                    let path = ["/metrics", "/healthz", "/v1/models", "/snapshot"]
                        [answered.load(Ordering::Relaxed) % 4];
                    let text = request("GET", path, &[], "");
                    talk(stream.try_clone().unwrap(), text.as_bytes()).expect(200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(answered.into_inner(), 1200);
}

#[test]
fn connections_beyond_the_bound_are_told_so_at_once_and_the_others_are_served() {
    let rig = Rig::with("[limits]\nconnections = 50\n");
    let mut first = rig.connect();
    std::io::Write::write_all(&mut first, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    crate::support::read_until(&mut first, "ok\n");
    let held: Vec<TcpStream> = (0..49).map(|_| rig.connect()).collect();
    wait(|| {
        let answer = talk(rig.connect(), request("GET", "/healthz", &[], "").as_bytes());
        answer.status == 503 && answer.head.contains("retry-after") && {
            answer.expect_problem(503, "too-many-connections");
            true
        }
    });
    // One that is in is served.
    std::io::Write::write_all(&mut first, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    crate::support::read_until(&mut first, "ok\n");
    drop(held);
    wait(|| rig.get("/healthz").status == 200);
}

/// Whatever it asks for, and however fast it asks.
#[test]
fn a_client_beyond_the_bound_is_told_so_in_the_words_of_the_server() {
    let rig = Rig::with("[limits]\nconnections = 1\n");
    let client = Client::new(format!("http://{}", rig.tcp).parse().unwrap()).unwrap();
    let _held = rig.connect();
    let refusal = |path| match client.get::<serde_json::Value>(path) {
        Err(ClientError::Refused(problem)) => Some(problem.code.clone()),
        Ok(_) => None,
        Err(other) => panic!("{path}: {other}"),
    };
    wait(|| refusal("/readyz").is_some());
    for path in ["/readyz", "/v1/models"].into_iter().cycle().take(40) {
        assert_eq!(refusal(path).as_deref(), Some("too-many-connections"));
    }
}

#[test]
fn ten_thousand_connections_asked_of_it_cost_no_memory_that_stays() {
    // Memory is that of a process: this test has one of its own.
    if std::env::var_os(ALONE).is_none() {
        let name = "crowds::ten_thousand_connections_asked_of_it_cost_no_memory_that_stays";
        let alone = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(ALONE, "1")
            .status();
        assert!(alone.unwrap().success());
        return;
    }
    let rig = Rig::with("[limits]\nconnections = 64\n");
    let ask = |count: usize| {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..count / 8 {
                        let Ok(mut stream) = TcpStream::connect(rig.tcp) else { continue };
                        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                        let _ = stream.read(&mut [0; 64]);
                    }
                });
            }
        });
    };
    ask(2000);
    let before = resident();
    ask(10_000);
    wait(|| rig.get("/healthz").status == 200);
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
    let metrics = rig.get("/metrics").body;
    assert!(metrics.contains("vram_serve_open_connections 1\n"), "{metrics}");
}
