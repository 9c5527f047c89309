//! Readers that do not go on until the test says so, and answers that must come in time: a test of
//! who waits for whom must not hang itself.

use core::time::Duration;
use std::io::{self, Write};
use std::sync::{Arc, mpsc};
use std::thread;

use vram_residency::{SealedShard, VramError, VramManager};

/// How long a test waits for an answer that needs no time.
const PATIENCE: Duration = Duration::from_secs(20);

/// A thread that reads a shard and stands still inside its writer. It goes on when this is dropped.
#[derive(Debug)]
pub struct SlowReader {
    go_on: mpsc::Sender<()>,
    outcome: mpsc::Receiver<Result<(), VramError>>,
}

struct Stuck {
    entered: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The test may have ended; then nobody wants the bytes.
        let _gone = self.entered.send(());
        let _gone = self.go_on.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SlowReader {
    /// Returns once the reader is inside its writer.
    #[must_use]
    pub fn of(manager: &Arc<VramManager>, shard: &SealedShard) -> Self {
        let (entered, inside) = mpsc::channel();
        let (go, go_on) = mpsc::channel();
        let (answer, outcome) = mpsc::channel();
        let (manager, shard) = (Arc::clone(manager), shard.clone());
        thread::spawn(move || {
            let _gone = answer.send(manager.unseal_to(&shard, Stuck { entered, go_on }));
        });
        inside.recv_timeout(PATIENCE).expect("the reader never reached its writer");
        Self { go_on: go, outcome }
    }

    /// Lets the reader go on, and returns its outcome.
    ///
    /// # Errors
    ///
    /// Those of the read.
    pub fn end(self) -> Result<(), VramError> {
        drop(self.go_on);
        self.outcome.recv_timeout(PATIENCE).expect("the reader does not end")
    }
}

/// Runs `work` on a thread of its own and returns its answer, which must come in time. A thread that
/// does not answer is left behind.
pub fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    begin(work).recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: no answer"))
}

/// Runs `work` on a thread of its own.
pub fn begin<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (answer, outcome) = mpsc::channel();
    thread::spawn(move || {
        let _gone = answer.send(work());
    });
    outcome
}
