//! Servers of files: redirects, and what is said when nobody answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use vram_store::object_store::memory::InMemory;
use vram_store::object_store::{GetOptions, GetRange, ObjectStore};
use vram_store::{Pull, Store, StoreOptions, Wanted};

use crate::support::{MODEL, World, content, load, quick};

/// A request: its method, its path and the lines of its head.
type Asked = (String, String, Vec<String>);

/// A server on this machine, and all that it was asked. It stays until the tests end.
fn server(
    answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<Asked>>>::default();
    let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            thread::spawn(move || serve(&stream.unwrap(), &log, &*answer));
        }
    });
    (address, asked)
}

fn serve(mut stream: &TcpStream, log: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> Vec<u8>) {
    let mut lines = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_ascii_lowercase());
    }
    if head.is_empty() {
        return;
    }
    let len = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    lines.read_exact(&mut vec![0; len.unwrap_or(0)]).unwrap();
    let first = head.remove(0);
    let mut words = first.split(' ').map(str::to_owned);
    let asked = (words.next().unwrap(), words.next().unwrap(), head);
    log.lock().unwrap().push(asked.clone());
    let _gone = stream.write_all(&answer(&asked));
}

/// An answer of the objects of a store.
fn object(objects: &InMemory, (method, path, head): &Asked) -> Vec<u8> {
    let range = head.iter().find_map(|line| {
        let (start, end) = line.strip_prefix("range: bytes=")?.split_once('-')?;
        Some(start.parse().unwrap()..end.parse::<u64>().unwrap() + 1)
    });
    let options = GetOptions::new().with_range(range.clone().map(GetRange::Bounded));
    let read = async {
        let found = objects.get_opts(&path.trim_start_matches('/').into(), options).await.ok()?;
        let (range, size) = (found.range.clone(), found.meta.size);
        Some((range, size, found.bytes().await.ok()?))
    };
    let Some((found, size, bytes)) = futures_util::FutureExt::now_or_never(read).unwrap() else {
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            .to_vec();
    };
    let status = match range {
        Some(_) => format!(
            "206 Partial Content\r\nContent-Range: bytes {}-{}/{size}",
            found.start,
            found.end - 1
        ),
        None => "200 OK".to_owned(),
    };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"x\"\r\nLast-Modified: Sat, 28 Nov 2026 08:00:00 \
         GMT\r\nConnection: close\r\n\r\n",
        bytes.len()
    )
    .into_bytes();
    if method == "get" {
        answer.extend_from_slice(&bytes);
    }
    answer
}

fn redirect(to: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn a_read_is_followed_to_another_host_and_a_write_is_not() {
    let world = World::new();
    world.push(vec![world.file("model", 300_000)]);
    let manifest = world.manifest(7);
    let objects = Arc::clone(&world.objects);
    let (there, _) = server(move |asked| object(&objects, asked));
    let to = there.clone();
    let (address, _) = server(move |(_, path, _)| redirect(&format!("{to}{path}")));
    let store = Store::open(&address).unwrap();
    let wanted = Wanted { model: MODEL, revision: 7, pin: Some(manifest.id()) };
    let found = store.manifest(&wanted, &world.keys, &quick()).unwrap();
    let pull = Pull::new(&found, &world.keys, b"", &store).options(quick());
    assert_eq!(load(&pull, 0).unwrap(), content("model", 300_000));

    let checked = store.check(&quick()).unwrap();
    let write = &checked.trials[0];
    assert_eq!(write.good, Some(false), "{checked:?}");
    assert!(write.seen.contains(&format!("it redirects to {there}, ")), "{checked:?}");
}

#[test]
fn an_error_ends_with_its_root() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let store = Store::open(&address).unwrap();
    let refused = store.list_manifests(None, &StoreOptions::new()).unwrap_err().to_string();
    assert!(refused.ends_with("Connection refused (os error 111)"), "{refused}");
}

/// The next store of the same address in this process knows that it stalled.
#[test]
fn a_silent_server_is_remembered_by_its_address() {
    let world = World::new();
    world.push(vec![world.file("model", 1000)]);
    let manifest = world.manifest(7);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<TcpStream>>>::default();
    let taken = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            taken.lock().unwrap().push(stream.unwrap());
        }
    });
    for _ in 0..3 {
        let mirror = Store::open(&address).unwrap();
        let pull = Pull::new(&manifest, &world.keys, b"", &world.store).mirror(&mirror);
        let pull = pull.options(quick());
        assert_eq!(load(&pull, 0).unwrap(), content("model", 1000));
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
}
