//! A server in this process, and a client that sends what a test says, byte for byte.

use core::net::SocketAddr;
use core::time::Duration;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;
use vram_residency::device::fault::{FaultDevice, FaultPlan};
use vram_residency::model::synth::{LlamaShape, SynthModel};
use vram_residency::{ByteLen, Device, DeviceOffset, GpuIndex, HostDevice};
use vram_serve::{Config, Listen, ServeReport, Server, Stopper};

/// A server with two host devices of 16 MiB, and models `a`, `b` and `c` of about 2 MiB in its folder.
pub(crate) struct Rig {
    folder: Option<TempDir>,
    pub(crate) devices: Vec<Arc<FaultDevice>>,
    pub(crate) tcp: SocketAddr,
    pub(crate) unix: PathBuf,
    pub(crate) token: String,
    pub(crate) stopper: Stopper,
    thread: Option<JoinHandle<ServeReport>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// Models that a configuration names.
pub(crate) const THREE: &str = "
[[model]]
name = \"a\"
path = \"a.safetensors\"
gpu = 0
protection = \"authenticated\"

[[model]]
name = \"b\"
path = \"b.safetensors\"
gpu = 1

[[model]]
name = \"c\"
files = [\"c.safetensors\"]
pin = true
";

/// Writes the model files, and returns the folder.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (seed, name) in ["a", "b", "c"].into_iter().enumerate() {
        let shape = LlamaShape::about(ByteLen::new(2 << 20));
        let path = folder.path().join(format!("{name}.safetensors"));
        let seed = u64::try_from(seed).unwrap();
        SynthModel::llama(&shape, seed).unwrap().write_file(&path).unwrap();
    }
    folder
}

impl Rig {
    /// A server whose configuration has these lines besides its devices and addresses. The lines
    /// before the first table come first.
    pub(crate) fn with(lines: &str) -> Self {
        Self::in_folder(folder(), lines)
    }

    pub(crate) fn in_folder(folder: TempDir, lines: &str) -> Self {
        let unix = folder.path().join("run/serve.sock");
        let (top, tables) = lines.split_at(lines.find('[').unwrap_or(lines.len()));
        let text = format!(
            "listen = [\"127.0.0.1:0\", \"unix:{}\"]\ntoken_file = \"state/token\"\n{top}\n\
             [[device]]\ndevice = \"host:16MiB\"\n[[device]]\ndevice = \"host:16MiB\"\n{tables}",
            unix.display()
        );
        let config = Config::parse(&text, "vram.toml", folder.path()).unwrap();
        let devices: Vec<_> = (0..2)
            .map(|index| {
                let inner = HostDevice::new(GpuIndex::new(index), ByteLen::new(16 << 20)).unwrap();
                FaultDevice::new(Arc::new(inner), FaultPlan::new(u64::from(index)))
            })
            .collect();
        let open = devices.iter().map(opened).collect();
        let server = Server::start(config, open).unwrap();
        let Listen::Tcp(tcp) = server.addresses()[0].clone() else { panic!("not TCP") };
        let token = fs::read_to_string(folder.path().join("state/token")).unwrap();
        let stopper = server.stopper();
        let thread = Some(thread::spawn(move || server.run()));
        let folder = Some(folder);
        Self { folder, devices, tcp, unix, token: token.trim().to_owned(), stopper, thread }
    }

    /// Three models, all of them loaded.
    pub(crate) fn three() -> Self {
        let rig = Self::with(THREE);
        rig.wait_ready();
        rig
    }

    pub(crate) fn wait_ready(&self) {
        wait(|| self.get("/readyz").status == 200);
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.tcp).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    pub(crate) fn connect_unix(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.unix).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    pub(crate) fn get_json(&self, path: &str) -> Value {
        self.get(path).json()
    }

    /// A control call, with the token.
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        let token = format!("Authorization: Bearer {}", self.token);
        self.ask("POST", path, &[&token, "Content-Type: application/json"], body)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let text = request(method, path, headers, body);
        talk(self.connect(), text.as_bytes())
    }

    /// The view of one model.
    pub(crate) fn model(&self, name: &str) -> Value {
        self.get_json(&format!("/v1/models/{name}"))
    }

    /// Begins a lease, and returns its connection after the first line.
    pub(crate) fn lease(&self, model: &str, holder: &str) -> TcpStream {
        let mut stream = self.connect();
        let body = format!("{{\"model\":\"{model}\",\"holder\":\"{holder}\"}}");
        let token = format!("Authorization: Bearer {}", self.token);
        let headers = [&*token, "Content-Type: application/json"];
        let text = request("POST", "/v1/leases", &headers, &body);
        stream.write_all(text.as_bytes()).unwrap();
        read_until(&mut stream, "\"leased\"");
        stream
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.as_ref().unwrap().path().join(name)
    }

    /// Waits for the end, and returns the folder.
    pub(crate) fn give_folder(mut self) -> TempDir {
        assert!(self.thread.take().unwrap().join().unwrap().complete);
        self.folder.take().unwrap()
    }

    /// Waits for the end, and returns the report.
    pub(crate) fn ended(mut self) -> ServeReport {
        self.thread.take().unwrap().join().unwrap()
    }

    /// Where the end of model `a` lies on device 0. It lies there as plaintext.
    pub(crate) fn end_of_a(&self) -> DeviceOffset {
        let file = fs::read(self.path("a.safetensors")).unwrap();
        let end = &file[file.len() - 64..];
        // In small parts, so that the search itself leaves nothing in memory. Tensors lie at granules.
        (0..16_u64 << 4)
            .find_map(|part| {
                let start = part << 16;
                let len = ByteLen::new((1 << 16) + 64);
                let memory = self.devices[0].inspect(None, DeviceOffset::new(start), len).ok()?;
                let at = memory.windows(64).position(|window| window == end)?;
                Some(DeviceOffset::new(start + u64::try_from(at).unwrap()))
            })
            .unwrap()
    }

    pub(crate) fn leases(&self) -> usize {
        self.get_json("/v1/leases")["leases"].as_array().unwrap().len()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stopper.now();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !thread::panicking() {
                assert!(ended.unwrap().complete, "not all was given back");
            }
        }
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A problem object with this status and code.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.head.contains("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self:?}");
        for field in ["message", "next"] {
            assert!(!problem[field].as_str().unwrap().is_empty(), "{self:?}");
        }
        assert!(problem["retryable"].is_boolean(), "{self:?}");
        problem
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

fn opened(device: &Arc<FaultDevice>) -> Arc<dyn Device> {
    Arc::<FaultDevice>::clone(device)
}

/// A request that closes its connection.
pub(crate) fn request(method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        text += "Host: localhost\r\n";
    }
    for header in headers {
        text.extend([header, "\r\n"]);
    }
    if !body.is_empty() {
        text.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
    }
    format!("{text}\r\n{body}")
}

/// Sends bytes, and reads the answer to its end.
pub(crate) fn talk(mut stream: impl Wire, bytes: &[u8]) -> Answer {
    // A server that refuses early does not take all of it.
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let mut buffer = vec![0; 65536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
        }
    }
    parse(&all)
}

pub(crate) fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let head = head.to_ascii_lowercase();
    let body =
        if head.contains("transfer-encoding: chunked") { dechunk(body) } else { body.into() };
    Answer { status, head, body }
}

fn dechunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 || rest.len() < size {
            break;
        }
        body += &rest[..size];
        text = rest[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    body
}

/// Reads until these words came. Returns all that was read.
#[track_caller]
pub(crate) fn read_until(stream: &mut impl Read, words: &str) -> String {
    let mut all = String::new();
    let mut byte = [0; 4096];
    while !all.contains(words) {
        match stream.read(&mut byte) {
            Ok(0) => panic!("it ended before {words:?}: {all}"),
            Ok(count) => all += &String::from_utf8_lossy(&byte[..count]),
            Err(error) => panic!("{error} before {words:?}: {all}"),
        }
    }
    all
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "it never came");
        thread::sleep(Duration::from_millis(10));
    }
}
