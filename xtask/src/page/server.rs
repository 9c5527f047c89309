//! The example of `vram-view` as a server of the live page.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running server. Dropping it ends the process.
pub(super) struct Server {
    child: Child,
    /// Its address, as in `http://127.0.0.1:8080/`.
    pub(super) address: String,
}

impl Server {
    /// Starts it on a port; 0 for any that is free.
    pub(super) fn start(program: &Path, port: &str) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.args(["--serve", "--port", port]).stdout(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let mut address = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut address).map_err(|error| error.to_string())?;
        }
        let address = address.trim().to_owned();
        let server = Self { child, address };
        if server.address.starts_with("http://") {
            Ok(server)
        } else {
            Err("the server of the page does not say where it listens".to_owned())
        }
    }

    /// Its port.
    pub(super) fn port(&self) -> String {
        self.address.rsplit(':').next().unwrap_or_default().trim_end_matches('/').to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
