//! A `SeaweedFS` server with its S3 gateway, on ports that the system gives, ended with its guard.

use core::time::Duration;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Where `scripts/engines` puts the server.
const PROGRAM: &str = "target/engines/weed";
const BUCKET: &str = "vram";
/// Of a server that lives as long as one command, on the loopback device.
const ACCESS: &str = "tests";
const SECRET: &str = "of-no-worth";
/// How long the server may take to start.
const START_MAX: Duration = Duration::from_secs(90);

/// A running server. Dropping it ends the process and removes its files.
pub(super) struct SeaweedFs {
    child: Child,
    folder: PathBuf,
    s3: u16,
}

impl SeaweedFs {
    /// Starts a server; `None`, and a line, if the program is not there.
    pub(super) fn start() -> Result<Option<Self>, String> {
        if !Path::new(PROGRAM).exists() {
            println!("NOT RUN store::seaweedfs: no {PROGRAM} (scripts/engines)");
            return Ok(None);
        }
        let folder = PathBuf::from(format!("target/store/{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        // Who may do what: the one identity of the tests.
        let identity = format!(
            r#"{{"identities":[{{"name":"tests","credentials":[{{"accessKey":"{ACCESS}","secretKey":"{SECRET}"}}],"actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
        );
        let config = folder.join("s3.json");
        fs::write(&config, identity).map_err(|error| format!("{}: {error}", config.display()))?;
        let ports = free_ports()?;
        let [master, master_rpc, volume, volume_rpc, filer, filer_rpc, s3, s3_rpc] = ports;
        let log = File::create(folder.join("log")).map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(PROGRAM);
        command.arg("server").arg(format!("-dir={}", folder.display()));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=64", "-filer", "-s3"]);
        command.arg(format!("-s3.config={}", config.display()));
        command.args(["-s3.autoCreateBucket", "-master.volumeSizeLimitMB=256"]);
        for (name, port) in [
            ("master.port", master),
            ("master.port.grpc", master_rpc),
            ("volume.port", volume),
            ("volume.port.grpc", volume_rpc),
            ("filer.port", filer),
            ("filer.port.grpc", filer_rpc),
            ("s3.port", s3),
            ("s3.port.grpc", s3_rpc),
        ] {
            command.arg(format!("-{name}={port}"));
        }
        // Gateways for tables, which are not used.
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().map_err(|error| format!("{PROGRAM}: {error}"))?;
        let mut server = Self { child, folder, s3 };
        server.wait()?;
        println!("seaweedfs: S3 on 127.0.0.1:{s3}");
        Ok(Some(server))
    }

    /// Waits until the gateway takes connections.
    fn wait(&mut self) -> Result<(), String> {
        let began = Instant::now();
        while began.elapsed() < START_MAX {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(5).collect();
                return Err(format!("seaweedfs ended with {status}: {}", last.join(" / ")));
            }
            if TcpStream::connect(("127.0.0.1", self.s3)).is_ok() {
                // The gateway answers before the volumes have joined; they take a heartbeat.
                std::thread::sleep(Duration::from_secs(5));
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("seaweedfs did not start in time".to_owned())
    }

    /// The variables that lead a client to this server.
    pub(super) fn variables(&self) -> [(&'static str, String); 6] {
        [
            ("VRAM_STORE_S3", format!("s3://{BUCKET}")),
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.s3)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _status = self.child.wait();
        let _left = fs::remove_dir_all(&self.folder);
    }
}

/// Ports that are free now.
fn free_ports() -> Result<[u16; 8], String> {
    let mut listeners = Vec::new();
    let mut ports = [0; 8];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        *port = listener.local_addr().map_err(|error| error.to_string())?.port();
        // All at once, so that no port is given twice.
        listeners.push(listener);
    }
    Ok(ports)
}
