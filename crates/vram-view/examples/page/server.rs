//! A server of the live page, as small as an example can be: one thread for each connection, on loopback.

use core::time::Duration;
use std::io::{BufRead as _, BufReader, Result, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::node::Node;

/// Serves until the process is ended.
pub(crate) fn serve(node: &Node, port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("http://{}/", listener.local_addr()?);
    thread::scope(|scope| {
        for client in listener.incoming() {
            let client = client?;
            // A client that goes away ends its own connection alone.
            scope.spawn(move || answer(client, node));
        }
        Ok(())
    })
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

fn answer(mut client: TcpStream, node: &Node) -> Result<()> {
    let mut request = String::new();
    let mut lines = BufReader::new(client.try_clone()?);
    lines.read_line(&mut request)?;
    let mut header = String::new();
    while lines.read_line(&mut header)? > 2 {
        header.clear();
    }
    let body = match request.split(' ').nth(1) {
        Some("/") => ("text/html; charset=utf-8", vram_view::live_page()),
        Some("/snapshot") => ("application/json", node.snapshot(now()).to_string()),
        Some("/metrics") => ("text/plain; version=0.0.4", METRICS.to_owned()),
        Some("/events") => return events(&mut client),
        _ => {
            return client.write_all(
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        }
    };
    let (kind, body) = body;
    let policy = vram_view::LIVE_POLICY;
    write!(
        client,
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ncontent-security-policy: \
         {policy}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// An event each half second.
fn events(client: &mut TcpStream) -> Result<()> {
    client.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\nconnection: close\r\n\r\n",
    )?;
    for seq in 0_u64.. {
        let (name, more) = match seq % 4 {
            0 => ("verified", r#""gpu":0,"bytes":3145728"#),
            1 => ("altered", r#""gpu":1,"segments":{"first":[3],"count":1}"#),
            2 => ("moved", r#""from":0,"to":1,"bytes":1048576"#),
            _ => ("sealed", r#""gpu":1,"bytes":4096"#),
        };
        if seq % 8 == 4 {
            // An event of the server itself.
            write!(
                client,
                "event: lease_began\ndata: {{\"event\":\"lease_began\",\"lease\":1,\"model\":\"llama\",\"holder\":\"worker-7\"}}\n\n"
            )?;
        }
        let at = now();
        write!(
            client,
            "event: {name}\nid: {seq}\ndata: {{\"seq\":{seq},\"at\":{at},\"model_id\":\"<b onclick=\
             'window.hacked=1'>llama\",\"kind\":{{\"event\":\"{name}\",{more}}}}}\n\n"
        )?;
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

const METRICS: &str = "# TYPE vram_scrub_running gauge\nvram_scrub_running 1\nvram_scrub_paused 0\n\
vram_scrub_kept 1\nvram_scrub_passes_total 12\nvram_scrub_bytes_total 1099511627776\n";
