//! A log that a thread of its own writes: who logs never waits for who reads.

use core::time::Duration;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait; one more is lost.
const LINES_MAX: usize = 1 << 16;
/// How long the last lines may take.
const LAST: Duration = Duration::from_secs(1);

enum Entry {
    Line(Vec<u8>),
    /// The last entry: answered when all before it is written.
    End(Sender<()>),
}

/// Where lines are put. Clones share one queue.
#[derive(Clone)]
pub(super) struct Queue(SyncSender<Entry>);

/// Has the last lines written when it is dropped.
pub(crate) struct Writer(SyncSender<Entry>);

/// Starts the thread.
///
/// # Arguments
///
/// * `target`: opens what is written to, on that thread.
///
/// # Errors
///
/// The system's, if it refuses a thread.
pub(super) fn start<W: Write>(
    target: impl FnOnce() -> W + Send + 'static,
) -> io::Result<(Queue, Writer)> {
    let (lines, queued) = sync_channel(LINES_MAX);
    let write = move || write(&queued, target());
    thread::Builder::new().name("vram-log".to_owned()).spawn(write)?;
    Ok((Queue(lines.clone()), Writer(lines)))
}

fn write(queued: &Receiver<Entry>, mut target: impl Write) {
    while let Ok(entry) = queued.recv() {
        match entry {
            // A log that cannot be written has nowhere to say so.
            Entry::Line(line) => drop(target.write_all(&line)),
            Entry::End(written) => {
                let _ = target.flush();
                let _ = written.send(());
                return;
            }
        }
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Full: the line is lost. Over: the process ends.
        let _ = self.0.try_send(Entry::Line(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let (written, all) = channel();
        // A queue that is full is not being written.
        if self.0.try_send(Entry::End(written)).is_ok() {
            let _ = all.recv_timeout(LAST);
        }
    }
}
