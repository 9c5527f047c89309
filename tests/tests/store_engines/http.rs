//! A server of files that lies: HTTP/1.1, one request a connection.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the server does to sealed images.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lie {
    None,
    /// Another value of one byte.
    Flip(usize),
    /// As `Flip`, unless the request asks to pass caches.
    Stale(usize),
    /// Fewer bytes than announced, then the end of the connection: so many times.
    Cut(u64),
    /// Fewer bytes, announced as such.
    Short,
    /// More bytes than asked for.
    Long,
    /// Other bytes than the range that was asked for.
    Elsewhere,
    /// Another length of the whole.
    OtherTotal,
    /// This status, so many times.
    Status(u16, u64),
    /// No answer, so many times.
    Silent(u64),
    /// The whole object, whatever range was asked for.
    Whole,
    /// An error whose text does not end.
    EndlessError,
    /// A byte now and then.
    Trickle,
}

/// Bytes of errors without an end that were sent.
pub(crate) static ENDLESS: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Server {
    pub(crate) address: String,
}

impl Server {
    /// Serves a folder from now on, until the process ends.
    pub(crate) fn start(folder: &Path, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (folder, count) = (folder.to_path_buf(), Arc::new(AtomicU64::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, count) = (folder.clone(), Arc::clone(&count));
                std::thread::spawn(move || drop(answer(stream, &folder, lie, &count)));
            }
        });
        Self { address }
    }
}

fn answer(
    mut stream: TcpStream,
    folder: &Path,
    lie: Lie,
    count: &AtomicU64,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let (mut range, mut fresh) = (None, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(asked) = header.strip_prefix("range: bytes=") {
            let (from, to) = asked.split_once('-').unwrap();
            range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap() + 1));
        }
        fresh |= header == "cache-control: no-cache";
    }
    let path = first.split(' ').nth(1).unwrap_or("/").trim_start_matches('/');
    let file: PathBuf = folder.join(path);
    let Ok(mut bytes) = std::fs::read(&file) else {
        return stream.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    };
    let image = file.extension().is_some_and(|ending| ending == "vseal");
    let lie = if image { lie } else { Lie::None };
    let asked = if image { count.fetch_add(1, Ordering::Relaxed) } else { 0 };
    match lie {
        Lie::Flip(at) => bytes[at] ^= 1,
        Lie::Stale(at) if !fresh => bytes[at] ^= 1,
        Lie::Status(status, times) if asked < times => {
            let head =
                format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return stream.write_all(head.as_bytes());
        }
        Lie::EndlessError => {
            stream.write_all(b"HTTP/1.1 403 No\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b'x'; 4096])?;
                ENDLESS.fetch_add(4096, Ordering::Relaxed);
            }
        }
        Lie::Silent(times) if asked < times => {
            std::thread::sleep(Duration::from_secs(20));
            return Ok(());
        }
        _ => {}
    }
    let len = bytes.len();
    let (from, to) = range.map_or((0, len), |(from, to)| (from.min(len), to.min(len)));
    let mut body = bytes[from..to].to_vec();
    let mut total = len;
    let (mut head_from, mut head_to) = (from, to);
    match lie {
        Lie::Short => {
            body.truncate(body.len() / 2);
            head_to = from + body.len();
        }
        Lie::Long => body.push(0),
        Lie::Elsewhere if from > 0 => body = bytes[from - 1..to - 1].to_vec(),
        Lie::OtherTotal => total += 1,
        Lie::Whole => {
            body.clone_from(&bytes);
            (head_from, head_to) = (0, len);
        }
        _ => {}
    }
    let status = if range.is_some() && !matches!(lie, Lie::Whole) {
        format!(
            "206 Partial Content\r\nContent-Range: bytes {head_from}-{}/{total}",
            head_to.saturating_sub(1)
        )
    } else {
        "200 OK".to_owned()
    };
    let mut announced = body.len();
    if matches!(lie, Lie::Cut(times) if asked < times) {
        announced = body.len();
        body.truncate(body.len() / 2);
    }
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    if matches!(lie, Lie::Trickle) {
        for byte in body {
            stream.write_all(&[byte])?;
            std::thread::sleep(Duration::from_millis(50));
        }
        return Ok(());
    }
    stream.write_all(&body)
}
