//! The threads on which stores and files are asked.
//!
//! The kernel can block a call on a file for as long as it likes, as it does where a network file system
//! hangs, and nothing ends such a call. So it runs on a thread of its own, with buffers of its own, and the
//! thread that waits for it goes on at its deadline: the blocked one is left behind until the kernel lets it
//! go. How many can be left behind is bounded.

use core::time::Duration;
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use crate::error::StoreError;

/// Calls on files that can be under way at once, those that were left behind included. Below the number
/// of threads that the runtime has for them.
const FILE_CALLS_MAX: usize = 256;

/// A place for each call on files.
static FILE_CALLS: Semaphore = Semaphore::const_new(FILE_CALLS_MAX);

/// A task that runs. Dropping it ends the task.
pub(crate) struct Started<T> {
    task: tokio::task::AbortHandle,
    answer: Receiver<T>,
}

impl<T: Send + 'static> Started<T> {
    pub(crate) fn new(
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (sender, answer) = sync_channel(1);
        let task = async move {
            let value = future.await;
            // The receiver is gone if nobody waits any more.
            let _nobody_waits = sender.send(value);
        };
        let task = runtime()?.spawn(task).abort_handle();
        Ok(Self { task, answer })
    }
}

impl<T> Started<T> {
    /// Its answer, if it comes within this time.
    pub(super) fn answer_within(&mut self, time: Duration) -> Result<T, RecvTimeoutError> {
        self.answer.recv_timeout(time)
    }
}

impl<T> Drop for Started<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs calls on files on a thread that is left behind if they take longer than `patience`. `work` must
/// own what it reads into, as the type demands: it may still write there when its caller is gone.
///
/// # Errors
///
/// [`io::ErrorKind::TimedOut`] after `patience`; those of `work`.
pub(crate) async fn on_files<T: Send + 'static>(
    patience: Option<Duration>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let answer = async {
        let place = FILE_CALLS.acquire().await.map_err(io::Error::other)?;
        let work = move || {
            let _place = place;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    };
    let Some(patience) = patience else { return answer.await };
    tokio::time::timeout(patience, answer).await.unwrap_or_else(|_elapsed| Err(hangs(patience)))
}

/// As [`on_files`], for a caller that waits without options: when a store is opened.
///
/// # Errors
///
/// Those of [`on_files`].
pub(crate) fn within<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let mut started = Started::new(on_files(Some(patience), work)).map_err(io::Error::other)?;
    // The task ends by itself; a little later, if all threads are busy.
    let answer = started.answer_within(patience.saturating_mul(2));
    answer.unwrap_or_else(|_no_answer| Err(hangs(patience)))
}

fn hangs(patience: Duration) -> io::Error {
    let under_way = FILE_CALLS_MAX.saturating_sub(FILE_CALLS.available_permits());
    let calls = if under_way == 1 { "1 call is" } else { &format!("{under_way} calls are") };
    let why = format!(
        "no answer of the file system within {patience:?}; {calls} under way, of at most \
         {FILE_CALLS_MAX}"
    );
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// The threads of all stores of the process. They live as long as it: dropping a runtime waits for calls
/// that the kernel blocks, and panics within another runtime. The process ends without waiting for them.
fn runtime() -> Result<&'static Runtime, StoreError> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let build = || {
        let threads = std::thread::available_parallelism().map_or(2, |count| count.get().min(4));
        Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(FILE_CALLS_MAX.saturating_mul(2))
            .thread_name("vram-store")
            .enable_all()
            .build()
            .ok()
    };
    let runtime = RUNTIME.get_or_init(build).as_ref();
    runtime.ok_or_else(|| StoreError::config("the system has no more threads for a store"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use vram_files::CancelToken;

    use super::*;
    use crate::options::StoreOptions;

    /// A read that does not come back, as one of a network file system that hangs.
    #[test]
    fn a_call_of_the_kernel_that_does_not_come_back_is_left_behind() {
        let (wake, sleeping) = channel::<()>();
        let (told, back) = channel();
        let sleeping = std::sync::Arc::new(std::sync::Mutex::new(sleeping));
        let hang = move |name: &'static str| {
            let (sleeping, told) = (sleeping.clone(), told.clone());
            move || {
                let mut buffer = vec![0_u8; 100];
                let _woken = sleeping.lock().unwrap().recv();
                // Its caller is gone: this buffer is its own.
                buffer.fill(1);
                told.send(name).unwrap();
                Ok(buffer)
            }
        };
        let began = Instant::now();
        let options = StoreOptions::new().deadline(Duration::from_millis(50));
        let late = options.on_files(hang("deadline"));
        assert!(matches!(late, Err(StoreError::Deadline { .. })), "{late:?}");
        let token = CancelToken::new();
        let options = StoreOptions::new().cancel(token.clone());
        let cancelling = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            token.cancel();
        });
        let stopped = options.on_files(hang("cancel"));
        assert!(matches!(stopped, Err(StoreError::Cancelled)), "{stopped:?}");
        cancelling.join().unwrap();
        let stalled = within(Duration::from_millis(50), hang("stall")).unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
        assert!(stalled.to_string().contains("calls are under way"), "{stalled}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // The others go on meanwhile.
        assert_eq!(StoreOptions::new().on_files(|| Ok(7)).unwrap().unwrap(), 7);
        for _ in 0..3 {
            wake.send(()).unwrap();
        }
        let mut all: Vec<_> = (0..3).map(|_| back.recv().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, ["cancel", "deadline", "stall"]);
    }
}
