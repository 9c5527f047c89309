//! A day of a server in a minute, told as a transcript: three models on two devices, a worker in
//! another process that is killed, a park, a wake, a move, a flipped bit that is found and repaired, a
//! drain; and a thousand clients beside it.
//!
//! ```text
//! VRAM_TEST_SECONDS=60 cargo test -p vram-serve --test it transcript -- --nocapture
//! ```

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::crowds::{ALONE, resident};
use crate::leases;
use crate::support::{Rig, wait};

/// Threads that ask for the clients.
const THREADS: usize = 4;
/// What they ask for.
const PATHS: [&str; 5] = ["/healthz", "/metrics", "/v1/models", "/v1/leases", "/snapshot"];
/// What the second half may leave in memory: the pages of two devices of 16 MiB that were not touched
/// before, and some of the heap. A minute and more of it leaves next to nothing.
const GROWTH_MAX: u64 = 40 << 20;

/// How long the crowd asks at least.
fn time() -> Duration {
    let seconds = std::env::var("VRAM_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// A thousand clients, where there is time for them.
fn clients() -> usize {
    if time() < Duration::from_secs(10) { 200 } else { 1000 }
}

/// What happened, with the time since the beginning.
struct Told(Instant);

impl Told {
    #[expect(clippy::print_stdout, reason = "a transcript is printed")]
    fn tell(&self, what: &str) {
        println!("{:7.2} s  {what}", self.0.elapsed().as_secs_f64());
    }

    /// Makes a control call, and tells its answer.
    #[track_caller]
    fn call(&self, rig: &Rig, path: &str, body: &str, status: u16) -> serde_json::Value {
        let answer = rig.post(path, body).expect(status).json();
        let said = ["code", "state", "sound", "segments", "gpu", "message"]
            .iter()
            .filter_map(|field| answer.get(field).map(|value| format!(" {field} {value}")));
        self.tell(&format!("POST {path} {body} -> {status}{}", said.collect::<String>()));
        answer
    }
}

#[test]
fn a_day_of_a_server_beside_a_thousand_clients_loses_nothing_and_memory_stays_flat() {
    // Memory is that of a process: this test has one of its own.
    if std::env::var_os(ALONE).is_none() {
        let name = "transcript::a_day_of_a_server_beside_a_thousand_clients_loses_nothing_and_memory_stays_flat";
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let alone = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").status();
        assert!(alone.unwrap().success());
        return;
    }
    let told = Told(Instant::now());
    let rig = Rig::three();
    told.tell("three models are resident on two devices");
    let crowd = Crowd::default();
    let report = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| crowd.ask(&rig))).collect();
        // A panic here must end the crowd, too.
        let _ends = Ends(&crowd.over);
        let each_twice = 2 * u64::try_from(clients()).unwrap();
        wait(|| crowd.answered.load(Ordering::Relaxed) >= each_twice);
        told.tell(&format!("{} clients ask, and each was answered twice", clients()));
        // Until every page of the devices was touched, and every thread has its share of the heap.
        let before = days(&rig, &told, &crowd, time() / 2);
        let after = days(&rig, &told, &crowd, time());
        assert!(after.saturating_sub(before) < GROWTH_MAX, "{before} bytes, then {after}");
        crowd.over.store(true, Ordering::Relaxed);
        let clients: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        told.tell(&format!(
            "{clients} clients had {} answers, each of them right",
            crowd.answered.load(Ordering::Relaxed)
        ));
        told.call(&rig, "/v1/drain", "{\"deadline_ms\":20000}", 200)
    });
    told.tell(&format!("drained: {report}"));
    assert_eq!((&report["complete"], &report["leases_cut"]), (&true.into(), &0.into()));
    let devices = rig.devices.clone();
    assert!(rig.ended().complete);
    assert!(devices.iter().all(|device| device.live().is_empty()), "device memory is left");
    told.tell("no device memory is left");
}

/// Ends the crowd when dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The same day again and again, once at least. Returns the bytes of memory at the end.
fn days(rig: &Rig, told: &Told, crowd: &Crowd, until: Duration) -> u64 {
    let mut days = 0;
    while days == 0 || told.0.elapsed() < until {
        day(rig, told);
        days += 1;
    }
    let bytes = crowd.at_rest(resident);
    told.tell(&format!("{days} times: {bytes} bytes of memory"));
    bytes
}

/// What happens to the models.
fn day(rig: &Rig, told: &Told) {
    let mut worker = leases::worker(rig);
    told.tell(&format!("process {} leases model a", worker.id()));
    told.call(rig, "/v1/models/a/park", "", 409);
    worker.kill().unwrap();
    worker.wait().unwrap();
    wait(|| rig.leases() == 0);
    told.tell("it was killed: its lease is gone");
    told.call(rig, "/v1/models/a/park", "", 200);
    told.call(rig, "/v1/models/a/wake", "{\"gpu\":0}", 200);
    told.call(rig, "/v1/models/b/migrate", "{\"gpu\":0}", 200);
    told.call(rig, "/v1/models/b/migrate", "{\"gpu\":1}", 200);

    let at = rig.end_of_a();
    rig.devices[0].flip_bit_at(None, at, 3).unwrap();
    told.tell(&format!("a bit flips in device 0, at {} bytes", at.get()));
    assert_eq!(told.call(rig, "/v1/models/a/verify", "", 200)["sound"], false);
    told.call(rig, "/v1/leases", "{\"model\":\"a\"}", 409);
    assert_eq!(told.call(rig, "/v1/models/a/repair", "", 200)["segments"], 1);
    for model in ["a", "b", "c"] {
        let path = format!("/v1/models/{model}/verify");
        assert_eq!(told.call(rig, &path, "", 200)["sound"], true);
    }
    rig.get("/readyz").expect(200);
}

/// Clients that keep their connections and ask in turn.
#[derive(Default)]
struct Crowd {
    over: AtomicBool,
    rests: AtomicBool,
    resting: AtomicUsize,
    answered: AtomicU64,
}

impl Crowd {
    /// Asks for the clients of one thread until it is over, and returns their number.
    fn ask(&self, rig: &Rig) -> usize {
        let mut clients: Vec<TcpStream> = (0..clients() / THREADS).map(|_| rig.connect()).collect();
        let mut turn = 0;
        while !self.over.load(Ordering::Relaxed) {
            let paths = PATHS.iter().cycle().skip(turn);
            // All of them ask before the first is answered.
            for (client, path) in clients.iter_mut().zip(paths.clone()) {
                let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                client.write_all(text.as_bytes()).unwrap();
            }
            for (client, path) in clients.iter_mut().zip(paths) {
                is_right(path, &answer(client));
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            turn += 1;
            self.resting.fetch_add(1, Ordering::SeqCst);
            while self.rests.load(Ordering::SeqCst) && !self.over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            self.resting.fetch_sub(1, Ordering::SeqCst);
        }
        clients.len()
    }

    /// Looks while all clients are connected and none of them is being answered.
    fn at_rest<T>(&self, look: impl Fn() -> T) -> T {
        self.rests.store(true, Ordering::SeqCst);
        wait(|| self.resting.load(Ordering::SeqCst) == THREADS);
        let seen = look();
        self.rests.store(false, Ordering::SeqCst);
        seen
    }
}

/// The whole answer on a connection that is kept.
fn answer(client: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        let count = client.read(&mut buffer).unwrap();
        assert!(count > 0, "the server hung up");
        all.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&all);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
        });
        if body.len() >= length.unwrap().parse().unwrap() {
            return text.into_owned();
        }
    }
}

/// Whether an answer is what was asked for.
fn is_right(path: &str, answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    let holds = match path {
        "/healthz" => answer.ends_with("ok\n"),
        "/metrics" => answer.contains("vram_serve_open_connections"),
        "/snapshot" => answer.contains("\"gpus\""),
        // Whatever happens to a model, it is listed.
        "/v1/models" => ["\"a\"", "\"b\"", "\"c\""].iter().all(|name| answer.contains(name)),
        _ => answer.contains("\"leases\""),
    };
    assert!(holds, "{path}: {answer}");
}
