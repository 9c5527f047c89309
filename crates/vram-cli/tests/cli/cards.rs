//! What NVIDIA's management library says of cards, in lists, in errors and in a server: the simulated
//! library beside the simulated driver.

use core::time::Duration;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::cuda::driver;
use crate::program::schema::check;
use crate::support::{Bench, Ran};

const UUID: &str = "0102030405060708090a0b0c0d0e0f10";
const CARD: &str = "GPU-01020304-0506-0708-090a-0b0c0d0e0f10";

/// The library, copied into the folder of a bench.
fn library(bench: &Bench) -> PathBuf {
    bench.path("libnvidia-ml.so.1")
}

/// A bench whose library answers this of the card.
fn bench_with(answers: &str) -> Bench {
    let bench = Bench::new();
    let own = std::env::current_exe().unwrap();
    let mut places = own.ancestors().map(|folder| folder.join("libnvml_sim_so.so"));
    fs::copy(places.find(|path| path.is_file()).unwrap(), library(&bench)).unwrap();
    say(&bench, answers);
    bench
}

fn say(bench: &Bench, answers: &str) {
    bench.write("fresh", format!("card {CARD} {answers}"));
    fs::rename(bench.path("fresh"), bench.path("libnvidia-ml.so.1.txt")).unwrap();
}

/// The program on a driver with this one card.
fn on(bench: &Bench, card: &str, args: &[&str]) -> Command {
    let mut command = bench.command(args);
    command
        .env("VRAM_CUDA_DRIVER", driver())
        .env("VRAM_NVML_LIBRARY", library(bench))
        .env_remove("CUDA_SIM_INIT")
        .env("CUDA_SIM_DEVICES", format!("name=H200,uuid={UUID},{card}"));
    command
}

fn run(bench: &Bench, card: &str, args: &[&str]) -> Ran {
    Ran::of(on(bench, card, args).output().unwrap())
}

fn devices(bench: &Bench) -> Value {
    let ran = run(bench, "capacity=64MiB", &["devices", "--json"]).expect_code(0);
    check(&ran.stdout).1["devices"][0]["card"].clone()
}

#[test]
fn devices_show_what_the_management_library_says_of_each_card() {
    let bench = bench_with("volatile=3/1 remapped=1/0/pending process=71:1048576:/usr/bin/python3");
    let card = devices(&bench);
    assert_eq!(card["state"], "told", "{card}");
    let health = &card["health"];
    let known = |value: Value| serde_json::json!({ "state": "known", "value": value });
    assert_eq!(health["ecc_volatile"]["corrected"], known(3.into()));
    assert_eq!(health["ecc_volatile"]["uncorrected"], known(1.into()));
    assert_eq!(health["ecc_aggregate"]["corrected"]["state"], "unsupported");
    assert_eq!(health["remapped"]["pending"], known(true.into()));
    let holder = &health["holders"]["value"]["first"][0];
    assert_eq!((&holder["pid"], &holder["bytes"]), (&71.into(), &known((1 << 20).into())));
    let shown = run(&bench, "capacity=64MiB", &["devices"]).expect_code(0).stdout;
    for said in [
        "cuda:0  ECC errors since the driver was loaded: 3 corrected, 1 uncorrected",
        "not on this card",
        "waiting: yes",
        "python3 (pid 71) holds",
    ] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
}

#[test]
fn a_library_that_is_absent_or_hangs_is_said_and_stops_nothing() {
    let bench = bench_with("volatile=0/0");
    fs::remove_file(library(&bench)).unwrap();
    let card = devices(&bench);
    assert_eq!(
        (&card["state"], &card["why"]["state"]),
        (&"no_library".into(), &"not_installed".into())
    );
    let shown = run(&bench, "capacity=64MiB", &["devices"]).expect_code(0).stdout;
    assert!(shown.contains("holders are known: NVIDIA's management library"), "{shown}");

    let bench = bench_with("volatile=0/0 hang=nvmlDeviceGetTotalEccErrors");
    let began = Instant::now();
    assert_eq!(devices(&bench)["state"], "late");
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
}

#[test]
fn a_card_without_room_says_who_holds_it_and_one_that_fails_what_is_wrong_with_it() {
    let bench = bench_with("volatile=0/2 remapped=0/1/pending process=71:65011712:/opt/trainer");
    bench.model("m.safetensors", 3000);
    let load = ["load", "m.safetensors", "--device", "cuda:0"];
    let words = ["others hold 62.0 MiB (trainer (pid 71) holds "];
    run(&bench, "capacity=64MiB,foreign=62MiB", &load).expect_error(3, &words);
    let words = ["214", "2 uncorrectable ECC errors", "rows wait to be remapped: reset the card"];
    run(&bench, "capacity=64MiB,fail=in:3:214", &load).expect_error(4, &words);
}

/// A server on the card, which ends with this value.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server on the card, and waits until it listens.
fn serve(bench: &Bench, card: &str) -> Served {
    let socket = bench.path("serve.sock");
    let config = format!(
        "listen = \"unix:{}\"\ntoken_file = \"token\"\n[[device]]\ndevice = \"cuda:0\"\n\
         budget = \"32MiB\"\n",
        socket.display()
    );
    bench.write("vram.toml", config);
    let mut child = on(bench, card, &["serve"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("listens on unix:"));
    thread::spawn(move || lines.for_each(drop));
    Served(child)
}

/// A request whose answer goes on; its reads end after a minute.
fn ask(bench: &Bench, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(bench.path("serve.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn metrics(bench: &Bench) -> String {
    let mut text = String::new();
    ask(bench, "/metrics").read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_server_has_the_figures_of_its_cards_and_tells_each_xid() {
    let bench = bench_with("volatile=0/7 retired=no");
    let _served = serve(&bench, "capacity=64MiB");
    let mut events = BufReader::new(ask(&bench, "/events"));
    let mut line = String::new();
    while line.trim() != "" || line.is_empty() {
        line.clear();
        assert!(events.read_line(&mut line).unwrap() > 0);
    }
    let labels = format!("gpu=\"0\",uuid=\"{CARD}\"");
    let wait = |what: &str| {
        let began = Instant::now();
        loop {
            let text = metrics(&bench);
            if text.contains(what) {
                return text;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "{what}: {text}");
            thread::sleep(Duration::from_millis(50));
        }
    };
    let counted = format!(
        "vram_card_ecc_errors_total{{{labels},life=\"volatile\",kind=\"uncorrected\"}} 7\n"
    );
    let text = wait(&counted);
    assert!(text.contains(&format!("vram_card_retired_pages_pending{{{labels}}} 0\n")), "{text}");
    // The card has no rows to remap: no sample, not a zero.
    assert!(!text.contains("vram_card_remap_pending{"), "{text}");
    wait(&format!("vram_card_xid_watched{{{labels}}} 1\n"));
    say(&bench, "volatile=0/8 retired=no xid=94@0");
    wait(&format!("vram_card_xids_total{{{labels},xid=\"94\"}} 1\n"));
    let event = loop {
        line.clear();
        assert!(events.read_line(&mut line).unwrap() > 0);
        if let Some(data) = line.strip_prefix("data: ").filter(|data| data.contains("\"xid\"")) {
            break serde_json::from_str::<Value>(data).unwrap();
        }
    };
    assert_eq!((&event["event"], &event["xid"]), (&"xid".into(), &94.into()), "{event}");
    assert_eq!(event["uuid"], CARD);
    assert!(event["what"].as_str().unwrap().contains("contained"), "{event}");
    assert!(event["next"].as_str().unwrap().contains("reset"), "{event}");
}

#[test]
fn while_the_library_hangs_a_server_answers_and_its_figures_grow_old() {
    let bench = bench_with("volatile=0/0 hang=nvmlInit_v2");
    let _served = serve(&bench, "capacity=64MiB");
    let began = Instant::now();
    let labels = format!("gpu=\"0\",uuid=\"{CARD}\"");
    for _ in 0..20 {
        let text = metrics(&bench);
        assert!(text.contains(&format!("vram_card_told{{{labels}}} 0\n")), "{text}");
        assert!(!text.contains("vram_card_ecc_errors_total{"), "{text}");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    say(&bench, "volatile=0/0");
}
