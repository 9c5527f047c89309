//! P110: who may do what. Reads on this machine need no token; control calls do, wherever they come
//! from; the token appears nowhere. P111: elsewhere than on this machine there is only TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use vram_serve::client::{Client, ClientError, Server as Address};
use vram_serve::{Config, Listen, Server};

use crate::support::{Answer, Rig, request, talk};

/// All control calls.
const CONTROL: [&str; 11] = [
    "/v1/models/a/load",
    "/v1/models/a/verify",
    "/v1/models/a/repair",
    "/v1/models/a/park",
    "/v1/models/a/wake",
    "/v1/models/a/migrate",
    "/v1/models/a/pin",
    "/v1/models/a/unpin",
    "/v1/models/a/free",
    "/v1/leases",
    "/v1/drain",
];

const READS: [&str; 8] = [
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/snapshot",
    "/openapi.json",
    "/v1/models",
    "/v1/leases",
];

#[test]
fn control_calls_need_the_token_over_every_door_and_no_answer_or_figure_shows_it() {
    let rig = Rig::three();
    let mut answers: Vec<Answer> = Vec::new();
    let almost = rig.token.replace('0', "1").replace('a', "b");
    for path in CONTROL {
        for given in ["", "Bearer", &almost, &rig.token[1..], "Bearer x y"] {
            let header = format!("Authorization: Bearer {given}");
            let headers: &[&str] = if given.is_empty() { &[] } else { &[&header] };
            let text = request("POST", path, headers, "{}");
            answers.push(talk(rig.connect(), text.as_bytes()));
            answers.push(talk(rig.connect_unix(), text.as_bytes()));
        }
    }
    for answer in &answers {
        answer.expect_problem(401, "unauthorized");
        assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
    }
    assert!(rig.model("a")["state"] == "resident" && rig.get("/readyz").status == 200);
    for path in READS {
        answers.push(rig.get(path).expect(200));
        answers.push(talk(rig.connect_unix(), request("GET", path, &[], "").as_bytes()));
    }
    // With the token: a mistake in each place where a request could be quoted.
    answers.push(rig.post("/v1/models/nowhere/park", ""));
    answers.push(rig.post("/v1/leases", &rig.token));
    answers.push(rig.post("/v1/models/a/load?deadline_ms=x", "{}"));
    for answer in &answers {
        assert!(!answer.body.contains(&rig.token) && !answer.head.contains(&rig.token));
        assert!(!answer.body.contains(&almost), "{answer:?}");
    }
    let metrics = rig.get("/metrics").body;
    assert!(metrics.contains(&format!("vram_serve_unauthorized_total {}\n", CONTROL.len() * 10)));
}

#[test]
fn a_page_under_another_name_does_not_read_what_programs_of_this_machine_may() {
    let rig = Rig::with("");
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", ""] {
        let answer = rig.ask("GET", "/v1/models", &[&format!("Host: {host}")], "");
        answer.expect_problem(421, "wrong-host");
    }
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1:8726", "[::1]:1", "127.0.0.2"] {
        rig.ask("GET", "/v1/models", &[&format!("Host: {host}")], "").expect(200);
    }
}

#[test]
fn the_token_is_made_once_for_its_owner_alone_and_a_file_that_others_can_read_is_refused() {
    let rig = Rig::with("");
    let file = rig.path("state/token");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), rig.token.len()), (0o600, 64));
    assert_eq!(mode(&rig.unix), 0o600);
    assert_eq!(mode(rig.unix.parent().unwrap()), 0o700);

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let text = format!(
        "listen = \"127.0.0.1:0\"\ntoken_file = \"{}\"\n[[device]]\ndevice = \"host:1MiB\"\n",
        file.display()
    );
    let config = Config::parse(&text, "vram.toml", &rig.path("")).unwrap();
    let refused = Server::start(config, Vec::new()).unwrap_err().to_string();
    assert!(refused.contains("0644") && refused.contains("chmod"), "{refused}");
    assert!(!refused.contains(&rig.token));
}

#[test]
fn beyond_loopback_there_is_only_tls_and_reads_need_the_token_too() {
    let bare = "listen = \"0.0.0.0:0\"\n[[device]]\ndevice = \"host:1MiB\"\n";
    let refused = Config::parse(bare, "vram.toml", "/".as_ref()).unwrap_err().to_string();
    assert!(refused.contains("0.0.0.0:0") && refused.contains("[tls]"), "{refused}");

    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
    let key = folder.path().join("key.pem");
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let text = format!("{bare}[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n")
        .replace("[[device]]", "token_file = \"token\"\n[[device]]");
    let start = || {
        let config = Config::parse(&text, "vram.toml", folder.path()).unwrap();
        let device = vram_residency::HostDevice::new(
            vram_residency::GpuIndex::new(0),
            vram_residency::ByteLen::MIB,
        );
        Server::start(config, vec![std::sync::Arc::new(device.unwrap())])
    };
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(start().unwrap_err().to_string().contains("chmod 600"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    let server = start().unwrap();
    let Listen::Tcp(address) = server.addresses()[0].clone() else { panic!("not TCP") };
    let stopper = server.stopper();
    let thread = std::thread::spawn(move || server.run());
    let client = || {
        let named: Address = format!("https://localhost:{}", address.port()).parse().unwrap();
        let named = named.trusting(Some(folder.path().join("cert.pem")));
        Client::new(named).unwrap().patience(core::time::Duration::from_secs(20))
    };
    let ready: serde_json::Value = client().get("/readyz").unwrap();
    assert_eq!(ready["ready"], true);
    match client().get::<serde_json::Value>("/v1/models") {
        Err(ClientError::Refused(problem)) => assert_eq!(problem.status, 401),
        other => panic!("{other:?}"),
    }
    let with_token = client().token_file(folder.path().join("token")).unwrap();
    let models: serde_json::Value = with_token.get("/v1/models").unwrap();
    assert!(models["models"].as_array().unwrap().is_empty());
    // Without TLS there is no answer of HTTP.
    let plain = std::net::TcpStream::connect(("127.0.0.1", address.port())).unwrap();
    assert_eq!(talk(plain, request("GET", "/healthz", &[], "").as_bytes()).status, 0);
    stopper.now();
    assert!(thread.join().unwrap().complete);
}

#[test]
fn a_second_server_takes_no_socket_from_the_first_and_a_dead_ones_socket_is_taken_over() {
    let rig = Rig::with("");
    let start = |path: &std::path::Path| {
        let text = format!(
            "listen = \"unix:{}\"\ntoken_file = \"state/token\"\n[[device]]\ndevice = \"host:1MiB\"",
            path.display()
        );
        let config = Config::parse(&text, "vram.toml", &rig.path("")).unwrap();
        let device = vram_residency::HostDevice::new(
            vram_residency::GpuIndex::new(0),
            vram_residency::ByteLen::MIB,
        );
        Server::start(config, vec![std::sync::Arc::new(device.unwrap())])
    };
    assert!(start(&rig.unix).unwrap_err().to_string().contains("another server listens there"));
    let file = rig.path("file");
    fs::write(&file, "x").unwrap();
    assert!(start(&file).unwrap_err().to_string().contains("no socket"));
    assert_eq!(fs::read(&file).unwrap(), b"x");
    // What a server that was killed leaves.
    let stale = rig.path("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    drop(start(&stale).unwrap());
    assert!(!stale.exists());
    // The same socket answers curl, where there is one.
    let curl = Command::new("curl")
        .args(["-s", "--unix-socket", rig.unix.to_str().unwrap(), "http://localhost/healthz"])
        .output();
    if let Ok(curl) = curl {
        assert_eq!(curl.stdout, b"ok\n");
    }
}
