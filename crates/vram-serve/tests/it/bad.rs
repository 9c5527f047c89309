//! P114: no request, however bad or slow, gets more than an answer that says why, and none holds up
//! the others.

use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::Instant;

use crate::support::{Rig, request, talk, wait};

#[test]
fn what_cannot_be_understood_is_answered_with_a_problem_that_names_it() {
    let rig = Rig::with("");
    let json = "Content-Type: application/json";
    let token = format!("Authorization: Bearer {}", rig.token);
    let ask = |method: &str, path: &str, headers: &[&str], body: &str| {
        let headers = [&[&*token], headers].concat();
        talk(rig.connect(), request(method, path, &headers, body).as_bytes())
    };
    ask("GET", "/nothing", &[], "").expect_problem(404, "no-such-route");
    ask("POST", "/v1/models/a/explode", &[json], "{}").expect_problem(404, "no-such-route");
    ask("DELETE", "/v1/models/a", &[], "").expect_problem(405, "no-such-method");
    ask("POST", "/metrics", &[], "").expect_problem(405, "no-such-method");
    ask("POST", "/v1/models/a/load", &["Content-Type: text/xml"], "<a/>")
        .expect_problem(415, "not-json");
    for (body, names) in [
        ("{", "EOF"),
        ("{\"pth\":\"/x\"}", "pth"),
        ("{\"path\":7}", "7"),
        ("[1]", "invalid"),
        ("[]", "expected an object"),
        (" \n[null, [], 0, false, 0, null]", "expected an object"),
        ("nul", "body"),
        ("{\"gpu\":-1}", "-1"),
        ("{\"protection\":\"none\"}", "none"),
    ] {
        let problem = ask("POST", "/v1/models/a/load", &[json], body);
        let problem = problem.expect_problem(400, "bad-request");
        assert!(problem["message"].as_str().unwrap().contains(names), "{problem}");
    }
    // Of a call without a body, and of one that answers as long as it holds a model.
    for path in
        ["/v1/models/a/repair", "/v1/models/a/park", "/v1/leases", "/v1/drain", "/v1/gpus/0/reset"]
    {
        let problem = ask("POST", path, &[json], "[]").expect_problem(400, "bad-request");
        assert!(problem["message"].as_str().unwrap().contains("expected an object"), "{problem}");
    }
    ask("POST", "/v1/models/a/load?deadline_ms=soon", &[json], "{}")
        .expect_problem(400, "bad-request");
    ask("POST", "/v1/models/a/load?dead=1", &[json], "{}").expect_problem(400, "bad-request");
    ask("GET", "/readyz?x=1", &[], "").expect_problem(400, "bad-request");
    ask("GET", "/v1/models/%FF", &[], "").expect_problem(400, "bad-request");
    let many = format!("{{\"files\":[\"{}\"]}}", "x".repeat(70_000));
    ask("POST", "/v1/models/a/load", &[json], &many).expect_problem(413, "too-large");
    let deep = "[".repeat(60_000);
    ask("POST", "/v1/models/a/load", &[json], &deep).expect_problem(400, "bad-request");
    // A name that no listing bears.
    let path = rig.path("a.safetensors");
    let body = serde_json::json!({"path": path}).to_string();
    for name in ["%0A", &"x".repeat(2000)] {
        ask("POST", &format!("/v1/models/{name}/load"), &[json], &body)
            .expect_problem(400, "bad-request");
    }
}

#[test]
fn what_is_no_request_ends_its_connection_and_nothing_else() {
    let rig = Rig::with("");
    let long =
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many =
        format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(500));
    let lying = "POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n";
    for bytes in [
        &b"\0\0\0\0"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
        lying.as_bytes(),
        b"POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    ] {
        let answer = talk(rig.connect(), bytes);
        assert!([0, 400, 401, 404, 414, 431, 505].contains(&answer.status), "{answer:?}");
        rig.get("/healthz").expect(200);
    }
    // Two requests in one packet are two answers.
    let both = format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n{}",
        request("GET", "/healthz", &[], "")
    );
    assert_eq!(talk(rig.connect(), both.as_bytes()).body.matches("ok\n").count(), 2);
}

#[test]
fn a_client_that_sends_or_takes_too_slowly_is_let_go() {
    let rig = Rig::with("[limits]\nreceive = \"300ms\"\nsend = \"300ms\"\n");
    let open = |rig: &Rig| {
        let metrics = rig.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("vram_serve_open_connections "));
        line.unwrap().rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    // Nothing at all; half a head; a byte at a time.
    let start = Instant::now();
    let mut silent = rig.connect();
    let mut half = rig.connect();
    half.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc").unwrap();
    let mut drip = rig.connect();
    let dripping = std::thread::spawn(move || {
        for byte in b"GET /healthz HTTP/1.1\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
            .iter()
            .cycle()
        {
            if drip.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    for stream in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    dripping.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // A head, and then not the body.
    let token = format!("Authorization: Bearer {}", rig.token);
    let headers = [&*token, "Content-Type: application/json", "Content-Length: 100"];
    let answer = talk(rig.connect(), request("POST", "/v1/drain", &headers, "").as_bytes());
    answer.expect_problem(408, "too-slow");
    // Answers without end, of which nothing is taken.
    let mut greedy = rig.connect();
    let asks = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000);
    greedy.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let _ = greedy.write_all(asks.as_bytes());
    wait(|| open(&rig) == 1);
    drop(greedy);
}

#[test]
fn a_connection_that_is_half_closed_is_over_and_costs_nothing() {
    let rig = Rig::with("");
    for bytes in [&b""[..], b"GET /healthz", b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut stream = rig.connect();
        stream.write_all(bytes).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    rig.get("/healthz").expect(200);
}
