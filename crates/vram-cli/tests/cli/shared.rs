//! P150 to P153: a model of `vram serve` in the memory of a worker process, over a driver that both load.
//!
//! A worker is this test's program again, told by a variable what to do.

use core::time::Duration;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use vram_residency::device::{CudaDevice, DeviceMemory, DeviceRange};
use vram_residency::{ByteLen, Device as _, DeviceOffset, GpuIndex};
use vram_serve::client::{Client, ClientError, SharedModel, SharedTensor};

use crate::cuda::driver;
use crate::support::Bench;

#[path = "../../examples/worker.rs"]
#[expect(dead_code, reason = "its main function; a test runs the rest")]
mod example;

const CARD: &str = "capacity=256MiB,uuid=8932f937d72c4106c12f20bd9faed9f6";
const ROLE: &str = "VRAM_TEST_ROLE";

/// A server on one simulated card, with a model that is shared and one that is not.
struct Served {
    bench: Bench,
    server: Child,
}

impl Served {
    fn start(card: &str, device: &str) -> Self {
        let bench = Bench::new();
        bench.write("a.safetensors", model());
        let socket = bench.path("serve.sock");
        bench.write(
            "vram.toml",
            format!(
                "listen = [\"unix:{}\", \"127.0.0.1:0\"]\ntoken_file = \"token\"\ndrain = \"300ms\"\n\
                 [[device]]\ndevice = \"{device}\"\n\
                 [[model]]\nname = \"a\"\npath = \"a.safetensors\"\n\
                 protection = \"authenticated\"\nshare = true\n\
                 [[model]]\nname = \"secret\"\npath = \"a.safetensors\"\n",
                socket.display()
            ),
        );
        let mut command = bench.command(["serve"]);
        command
            .env("VRAM_CUDA_DRIVER", driver())
            .env_remove("CUDA_SIM_INIT")
            .env("CUDA_SIM_DEVICES", card)
            .env("CUDA_SIM_MISUSE", bench.path("misuse"))
            .stderr(Stdio::inherit());
        let served = Self { server: command.spawn().unwrap(), bench };
        served.wait(|served| {
            let ready = |client: Client| client.get::<Value>("/readyz");
            served.bench.path("token").exists()
                && ready(served.client()).is_ok_and(|answer| answer["ready"] == true)
        });
        served
    }

    fn on_card() -> Self {
        Self::start(CARD, "cuda:0")
    }

    fn socket(&self) -> PathBuf {
        self.bench.path("serve.sock")
    }

    fn client(&self) -> Client {
        client(&self.socket(), &self.bench.path("token"))
    }

    #[track_caller]
    fn wait(&self, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < Duration::from_mins(1), "it never came");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn leases(&self) -> Vec<Value> {
        let listed: Value = self.client().get("/v1/leases").unwrap();
        listed["leases"].as_array().unwrap().clone()
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.client().post(path, body)
    }

    /// Starts a worker, which prints a line when it has the model open.
    fn worker(&self, role: &str) -> Worker {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shared::a_worker", "--nocapture", "--include-ignored"])
            .env(ROLE, role)
            .env("VRAM_TEST_FOLDER", self.bench.path(""))
            .env("VRAM_CUDA_DRIVER", driver())
            .env_remove("CUDA_SIM_INIT")
            .env("CUDA_SIM_DEVICES", CARD)
            .env("CUDA_SIM_MISUSE", self.bench.path("misuse"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Worker { child, lines }
    }

    /// Ends the server by a drain, and checks that the driver saw no misuse from any process.
    fn end(mut self) {
        let report = self.post("/v1/drain", &json!({})).unwrap();
        assert_eq!(report["complete"], true, "{report}");
        assert!(self.server.wait().unwrap().success());
        assert_eq!(self.misuse(), "");
    }

    fn misuse(&self) -> String {
        std::fs::read_to_string(self.bench.path("misuse")).unwrap_or_default()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A safetensors file of four tensors, one without bytes and one of exactly a page.
fn model() -> Vec<u8> {
    let lens = [3_000_000, 10, 0, 2 << 20];
    let mut header = serde_json::Map::new();
    let mut start = 0;
    for (at, len) in lens.into_iter().enumerate() {
        let shape: [usize; 2] = [len / 2, 2];
        let tensor = json!({"dtype": "U8", "shape": shape, "data_offsets": [start, start + len]});
        header.insert(format!("t{at}"), tensor);
        start += len;
    }
    let mut text = Value::from(header).to_string();
    while text.len() % 8 != 0 {
        text.push(' ');
    }
    let mut file = u64::try_from(text.len()).unwrap().to_le_bytes().to_vec();
    file.extend(text.into_bytes());
    file.extend((0..start).map(|at| (at % 251).to_le_bytes()[0]));
    file
}

struct Worker {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Worker {
    #[track_caller]
    fn says(&mut self, wanted: &str) {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if line.trim_end().ends_with(wanted) {
                return;
            }
            line.clear();
        }
        panic!("the worker never said {wanted:?}");
    }

    fn tell(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b".").unwrap();
    }

    fn ended(mut self) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

fn client(socket: &Path, token: &Path) -> Client {
    let address = format!("unix:{}", socket.display()).parse().unwrap();
    Client::new(address).unwrap().token_file(token.to_owned()).unwrap()
}

#[track_caller]
fn refused<T>(result: Result<T, ClientError>, status: u16, code: &str) -> String {
    match result {
        Err(ClientError::Refused(problem)) => {
            assert_eq!((problem.status, &*problem.code), (status, code), "{problem:?}");
            format!("{} {}", problem.message, problem.next)
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

/// All memory of a model, opened; what holds no bytes is left out.
fn open(shared: &SharedModel) -> Vec<Box<dyn DeviceMemory>> {
    let device = CudaDevice::open(0, GpuIndex::new(0)).unwrap();
    let handles = shared.tensors.iter().filter_map(SharedTensor::share_handle);
    handles.map(|handle| device.open_shared(&handle).unwrap()).collect()
}

fn wait_for_word() {
    std::io::stdin().read_exact(&mut [0]).unwrap();
}

/// Not a test of its own: the worker processes of the tests below.
#[test]
#[ignore = "runs in processes that the tests below start"]
fn a_worker() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let folder = PathBuf::from(std::env::var_os("VRAM_TEST_FOLDER").unwrap());
    let (socket, token) = (folder.join("serve.sock"), folder.join("token"));
    if role == "compares" {
        let file = folder.join("a.safetensors");
        let bytes = example::run(socket.to_str().unwrap(), &token, "a", &file).unwrap();
        println!("{bytes} bytes");
        return;
    }
    let client = client(&socket, &token);
    let shared = client.share("a", "worker").unwrap();
    let memory = open(&shared);
    println!("open");
    wait_for_word();
    match &*role {
        "lets go" => {
            drop(memory);
            client.end_shared(shared.lease).unwrap();
        }
        "writes" => {
            let tensor = shared.tensors.iter().position(|tensor| tensor.bytes > 4096).unwrap();
            let at = DeviceOffset::new(1000);
            let memory = &memory[tensor];
            let at = DeviceRange::checked(at, ByteLen::new(3), memory.len()).unwrap();
            memory.write(at, b"own").unwrap();
            println!("written");
            wait_for_word();
        }
        other => panic!("{other}"),
    }
}

/// P150. Two real processes, and the bytes are in one place.
#[test]
fn a_worker_reads_in_place_what_the_file_has_and_ends_its_lease() {
    let served = Served::on_card();
    let mut worker = served.worker("compares");
    worker.says("bytes");
    worker.ended();
    assert!(served.leases().is_empty());
    let file: Value = served.client().get("/v1/models/a").unwrap();
    assert_eq!((&file["state"], &file["quarantined"]), (&"resident".into(), &0.into()));
    served.post("/v1/models/a/park", &json!({})).unwrap();
    served.end();
}

/// P151. The lease hangs on the process and on its word, and on nothing else.
#[test]
fn what_a_worker_has_open_is_not_freed_until_it_says_so_or_is_gone() {
    let served = Served::on_card();
    let mut worker = served.worker("lets go");
    worker.says("open");
    // The connection by which it asked is closed by now: each call has its own.
    let [lease] = &served.leases()[..] else { panic!("one lease") };
    assert_eq!((&lease["model"], &lease["pid"]), (&"a".into(), &worker.child.id().into()));
    let pid = format!("process {}", worker.child.id());
    for call in ["park", "free"] {
        let words =
            refused(served.post(&format!("/v1/models/a/{call}"), &json!({})), 409, "in-use");
        assert!(words.contains(&pid), "{words}");
    }
    // Nobody else can say that it has closed the memory.
    let end = format!("/v1/leases/{}/end", lease["lease"]);
    let words = refused(served.post(&end, &json!({})), 403, "not-yours");
    assert!(words.contains(&pid), "{words}");
    refused(served.post("/v1/leases/99/end", &json!({})), 404, "no-such-lease");
    let figures: String = metrics(&served);
    assert!(figures.contains("vram_serve_shared_leases 1"), "{figures}");
    worker.tell();
    worker.ended();
    assert!(served.leases().is_empty());

    // Killed: no word is said, and what it had open is closed by its end.
    let mut worker = served.worker("lets go");
    worker.says("open");
    worker.child.kill().unwrap();
    worker.child.wait().unwrap();
    served.wait(|served| served.leases().is_empty());
    served.post("/v1/models/a/park", &json!({})).unwrap();
    served.post("/v1/models/a/wake", &json!({})).unwrap();
    served.end();
}

/// P151. A drain frees nothing that is open elsewhere, says who has it, and ends when that is over.
#[test]
fn a_drain_names_the_process_that_has_memory_open_and_ends_with_it() {
    let served = Served::on_card();
    let mut worker = served.worker("lets go");
    worker.says("open");
    let words = refused(served.post("/v1/drain", &json!({})), 409, "in-use");
    let pid = format!("process {}", worker.child.id());
    assert!(words.contains(&pid) && words.contains("stop these processes"), "{words}");
    // Asked again, it says so again; and it serves who asks.
    refused(served.post("/v1/drain", &json!({"deadline_ms": 0})), 409, "in-use");
    assert_eq!(served.leases().len(), 1);
    refused(served.client().share("a", "late"), 503, "draining");
    worker.tell();
    worker.ended();
    let mut served = served;
    assert!(served.server.wait().unwrap().success());
    assert_eq!(served.misuse(), "");
}

/// P151. By force it ends all the same, and the driver is misused: that is what force says.
#[test]
fn a_drain_by_force_frees_what_is_open_elsewhere() {
    let mut served = Served::on_card();
    let mut worker = served.worker("lets go");
    worker.says("open");
    let report = served.post("/v1/drain", &json!({"force": true})).unwrap();
    assert_eq!((&report["complete"], &report["leases_cut"]), (&true.into(), &1.into()));
    assert!(served.server.wait().unwrap().success());
    assert!(served.misuse().contains("FreedWhileOpen"), "{}", served.misuse());
    worker.child.kill().unwrap();
    worker.child.wait().unwrap();
}

/// P152. What a worker writes is found as any alteration is.
#[test]
fn what_a_worker_writes_is_found_by_a_check_and_the_model_is_in_quarantine() {
    let served = Served::on_card();
    let verify = || served.post("/v1/models/a/verify", &json!({})).unwrap();
    let mut worker = served.worker("writes");
    worker.says("open");
    assert_eq!(verify()["sound"], true);
    worker.tell();
    worker.says("written");
    let verdict = verify();
    assert_eq!(verdict["sound"], false, "{verdict}");
    assert_eq!(verdict["altered"].as_array().unwrap().len(), 1);
    let model: Value = served.client().get("/v1/models/a").unwrap();
    assert_eq!(model["quarantined"], 1, "{model}");
    refused(served.client().share("a", "another"), 409, "quarantined");
    worker.tell();
    worker.ended();
    served.wait(|served| served.leases().is_empty());
    served.post("/v1/models/a/repair", &json!({})).unwrap();
    assert_eq!(verify()["sound"], true);
    served.end();
}

/// P153. Nothing is shared that the configuration, the place or the device does not allow.
#[test]
fn what_cannot_be_shared_is_refused_with_the_reason() {
    let served = Served::on_card();
    let words = refused(served.client().share("secret", "w"), 403, "not-shared");
    assert!(words.contains("share = true"), "{words}");
    refused(served.client().share("nowhere", "w"), 404, "no-such-model");
    // Over TCP there is no process to know.
    let words = refused(tcp(&served).share("a", "w"), 403, "not-local");
    assert!(words.contains("Unix socket"), "{words}");
    assert!(served.leases().is_empty());
    served.end();

    let served = Served::start(&format!("{CARD},ipc=false"), "cuda:0");
    let words = refused(served.client().share("a", "w"), 422, "device");
    assert!(words.contains("does not support"), "{words}");
    assert!(served.leases().is_empty(), "a refusal holds nothing");
    served.end();

    let served = Served::start(CARD, "host:256MiB");
    let words = refused(served.client().share("a", "w"), 422, "device");
    assert!(words.contains("this kind of device"), "{words}");
    served.end();
}

/// A client over TCP: the address is one of those that the server has open.
fn tcp(served: &Served) -> Client {
    let port = std::fs::read_to_string(format!("/proc/{}/net/tcp", served.server.id())).unwrap();
    let sockets = sockets_of(served.server.id());
    let of_server = port.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields[3] == "0A" && sockets.contains(&fields[9].to_owned());
        let (_, port) = fields[1].split_once(':')?;
        listens.then(|| u16::from_str_radix(port, 16).unwrap())
    });
    let address = format!("127.0.0.1:{}", of_server.unwrap()).parse().unwrap();
    Client::new(address).unwrap().token_file(served.bench.path("token")).unwrap()
}

/// The sockets that a process has open, by their numbers in the system.
fn sockets_of(process: u32) -> Vec<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let name = |link: PathBuf| {
        let text = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        Some(text.to_owned())
    };
    links.filter_map(name).collect()
}

fn metrics(served: &Served) -> String {
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
