//! What operators use: the page, the soak, the bench, completions, manual pages, logs.

use core::time::Duration;
use std::fs::{self, File};
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::interrupted::signal;
use crate::support::{Bench, Ran};

/// A snapshot of a demonstration, with one altered shard.
fn snapshot(bench: &Bench) -> String {
    bench.run(["demo", "--size", "8MiB", "--snapshot", "snapshot"]).expect_code(0);
    fs::read_to_string(bench.path("snapshot")).unwrap()
}

/// The snapshot that stands in a page.
fn in_page(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"snapshot\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

/// Property P121.
#[test]
fn a_page_holds_the_snapshot_that_it_was_made_of_and_connects_nowhere() {
    let bench = Bench::new();
    let text = snapshot(&bench);
    let original: Value = serde_json::from_str(&text).unwrap();
    let shards = original["state"]["shards"].as_array().unwrap();
    assert!(shards.iter().any(|shard| !shard["quarantine"].is_null()), "{text}");
    assert!(shards.iter().all(|shard| shard["offset"].is_u64()), "{text}");
    bench.run(["view", "snapshot", "-o", "view.html"]).expect_code(0);
    let page = fs::read_to_string(bench.path("view.html")).unwrap();
    assert!(page.contains("connect-src 'none'"));
    assert_eq!(in_page(&page), original);

    // The same from standard input to standard output.
    let input = File::open(bench.path("snapshot")).unwrap();
    let ran = Ran::of(bench.command(["view", "-", "-o", "-"]).stdin(input).output().unwrap());
    assert_eq!(ran.expect_code(0).stdout, page);
    // A name that is markup elsewhere.
    let name = "</script><script>alert(1)</script>";
    bench.write("hostile", text.replace("\"llama\"", &format!("\"{name}\"")));
    bench.run(["view", "hostile", "-o", "hostile.html"]).expect_code(0);
    let page = fs::read_to_string(bench.path("hostile.html")).unwrap();
    assert!(!page.contains("<script>alert"));
    assert!(in_page(&page).to_string().contains(name));
}

#[test]
fn no_page_replaces_its_snapshot_also_through_a_link() {
    let bench = Bench::new();
    let text = snapshot(&bench);
    symlink("snapshot", bench.path("link")).unwrap();
    for output in ["snapshot", "link", "./snapshot"] {
        bench.run(["view", "snapshot", "-o", output]).expect_error(2, &["cannot write"]);
    }
    let append = File::options().append(true).open(bench.path("snapshot")).unwrap();
    let mut command = bench.command(["view", "snapshot", "-o", "-"]);
    let ran = Ran::of(command.stdout(append).output().unwrap());
    ran.expect_error(2, &["over itself"]);
    assert_eq!(fs::read_to_string(bench.path("snapshot")).unwrap(), text);
    // What is no snapshot leaves no page.
    bench.write("other", r#"{"at":1,"state":{"gpus":[],"shards":[]},"counters":{}}"#);
    bench.run(["view", "other", "-o", "new.html"]).expect_error(2, &["no snapshot", "missing"]);
    assert!(!bench.path("new.html").exists());
}

/// Property P122, with the unit tests of `vram soak`.
#[test]
fn a_soak_tells_what_it_tested_and_finds_the_bits_that_it_flips() {
    let bench = Bench::new();
    let devices = ["--device", "host:4MiB", "--device", "host:4MiB"];
    let line = ["soak", "--for", "3s", "--seed", "5", "--flip"];
    let ran = bench.run(line.iter().chain(&devices)).expect_code(0);
    for word in ["fill", "move", "park", "wake", "flipped on purpose", "verdict: sound", "next: "] {
        assert!(ran.stdout.contains(word), "{word}: {}", ran.stdout);
    }
    assert!(ran.stderr.contains("seed 5"), "{}", ran.stderr);
    let ran = bench.run(["soak", "--device", "host:100TiB", "--for", "1s"]);
    ran.expect_error(3, &["available", "--size"]);
}

#[test]
fn ctrl_c_ends_a_soak_with_the_verdict_so_far() {
    let bench = Bench::new();
    let line = ["soak", "--for", "1h", "--device", "host:4MiB", "--json"];
    let child = bench.command(line).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    signal(&child, "-INT");
    let ran = Ran::of(child.wait_with_output().unwrap()).expect_code(130);
    let (_, document) = crate::program::schema::check(&ran.stdout);
    assert_eq!(document["verdict"], "interrupted");
    assert_eq!(document["error"]["exit_code"], 130);
    assert_eq!(document["capacity_restored"], true);
    ran.expect_error_line(&["interrupted"]);
}

#[test]
fn a_bench_names_its_device_and_measures_beside_memcpy() {
    let bench = Bench::new();
    let ran = bench.run(["bench", "--quick", "--size", "2MiB"]).expect_code(0);
    for word in ["memcpy, one thread", "1.00", "copy to the device", "seal, encrypted", "unseal"] {
        assert!(ran.stdout.contains(word), "{word}: {}", ran.stdout);
    }
}

#[test]
fn completions_and_manual_pages_are_made_of_the_command_line() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.run(["completions", shell]).expect_code(0).stdout;
        assert!(script.contains("soak") && script.contains("key-file"), "{shell}");
    }
    bench.run(["man", "--out", "share/man1"]).expect_code(0);
    bench.run(["man", "--out", "share/man1"]).expect_code(0);
    let page = fs::read_to_string(bench.path("share/man1/vram-load.1")).unwrap();
    assert!(page.contains("vram\\-load") && page.contains("protection"), "{page}");
}

#[test]
fn standard_error_is_quiet_or_told_in_detail_or_json_as_asked() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    let load = |more: &str, code: i32| {
        let line = format!("load m.safetensors --device host:9MiB {more}");
        bench.run(line.split_whitespace()).expect_code(code).stderr
    };
    assert_eq!(load("", 0), "");
    assert!(load("-v", 0).contains("INFO"));
    assert!(load("-vv", 0).len() > load("-v", 0).len());
    let key = "seal m.safetensors --model-id m --key-file key -o image";
    bench.key("key");
    assert!(bench.run(key.split(' ')).expect_code(0).stderr.starts_with("vram: sealed"));
    assert_eq!(bench.run(key.split(' ').chain(["-q"])).expect_code(0).stderr, "");
    bench.run(["load", "missing", "-q"]).expect_error(2, &["missing"]);

    let lines = |stderr: &str| -> Vec<Value> {
        stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let ran = bench.run(key.split(' ').chain(["--log-format", "json"])).expect_code(0);
    let notes = lines(&ran.stderr);
    let said = |line: &Value| line["fields"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(notes.iter().any(|line| said(line).starts_with("sealed m.safetensors")), "{notes:?}");
    assert!(
        notes.iter().all(|line| line["target"] == "vram_cli"),
        "the library's are not asked for"
    );
    let mut command = bench.command(["load", "missing", "--log-format", "json"]);
    let ran = Ran::of(command.env("RUST_LOG", "off").output().unwrap()).expect_code(2);
    assert_eq!(lines(&ran.stderr).len(), 1, "{}", ran.stderr);
    let ran = bench.run(["load", "missing", "--log-format", "json", "-q"]).expect_code(2);
    let [error] = &lines(&ran.stderr)[..] else { panic!("{}", ran.stderr) };
    assert_eq!(error["level"], "ERROR");
    assert!(said(error).contains("missing") && said(error).contains("check the path"));
    // A command line that cannot be read, too.
    for form in [&["--log-format", "json"][..], &["--log-format=json"]] {
        let ran = bench.run([&["load", "m", "--no-such"], form].concat()).expect_code(2);
        let [error] = &lines(&ran.stderr)[..] else { panic!("{}", ran.stderr) };
        assert!(said(error).contains("--no-such") && said(error).contains("--help"), "{error}");
    }
}
