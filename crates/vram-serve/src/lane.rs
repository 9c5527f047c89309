//! Calls that block, on a bounded number of threads, with a bounded number of waiting calls, each with
//! a deadline. Answers that many clients ask for at once, rendered once.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::{Arc, OnceLock, PoisonError, mpsc};
use std::time::Instant;
use std::{io, thread};

use axum::body::Bytes;
use axum::http::StatusCode;
use tokio::sync::{Mutex, Semaphore, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant as Moment, timeout_at};

use crate::problem::Problem;

/// Runs calls that block, on threads of its own: so many at a time, and so many more that wait.
///
/// Few threads also keep memory flat: an allocator keeps what a thread has freed for that thread.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    jobs: mpsc::Sender<Job>,
    running: Arc<Semaphore>,
    /// Places of running and waiting calls.
    admitted: Arc<Semaphore>,
    places: usize,
    threads: usize,
}

type Job = Box<dyn FnOnce() + Send>;

/// Whether somebody waits for a call. One of both sides comes first: the call ends, or its caller gives up.
#[derive(Debug, Default)]
pub(crate) struct Awaited(OnceLock<End>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ended,
    GivenUp,
}

impl Awaited {
    /// The call has its result. False if its caller has given up before.
    pub(crate) fn end(&self) -> bool {
        *self.0.get_or_init(|| End::Ended) == End::Ended
    }

    /// The caller waits no longer. False if the call had its result before.
    fn give_up(&self) -> bool {
        *self.0.get_or_init(|| End::GivenUp) == End::GivenUp
    }
}

impl Lane {
    /// Starts the threads, which end with the last clone of the lane.
    pub(crate) fn new(threads: usize, waiting: usize) -> io::Result<Self> {
        let places = threads.saturating_add(waiting).min(Semaphore::MAX_PERMITS);
        let (jobs, taken) = mpsc::channel::<Job>();
        let taken = Arc::new(std::sync::Mutex::new(taken));
        for _ in 0..threads {
            let taken = Arc::clone(&taken);
            thread::Builder::new().name("vram-calls".to_owned()).spawn(move || {
                loop {
                    let job = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    job();
                }
            })?;
        }
        Ok(Self {
            jobs,
            running: Arc::new(Semaphore::new(threads)),
            admitted: Arc::new(Semaphore::new(places)),
            places,
            threads,
        })
    }

    /// Runs `work` on a thread that may block. The call keeps its place until `work` has ended, also
    /// after its deadline, and also if the client has gone.
    ///
    /// # Errors
    ///
    /// 429 if too many calls wait already, 503 at the deadline, 500 if `work` panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.run_for(deadline, &Awaited::default(), work).await
    }

    /// As [`run`](Self::run), for work that is undone if its caller has given up before it
    /// [ends](Awaited::end): one that has ended then is answered, also after the deadline.
    pub(crate) async fn run_for<T: Send + 'static>(
        &self,
        deadline: Duration,
        awaited: &Awaited,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let full = |_no_place| self.full();
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(full)?;
        let until = Moment::now().checked_add(deadline).unwrap_or_else(far);
        let turn = Arc::clone(&self.running).acquire_owned();
        let turn = match timeout_at(until, turn).await {
            // A turn that is had at once is no time.
            Ok(Ok(_)) if Moment::now() >= until => return Err(Problem::deadline(deadline, false)),
            Ok(Ok(turn)) => turn,
            Ok(Err(_closed)) => return Err(Problem::draining()),
            Err(_elapsed) => return Err(Problem::deadline(deadline, false)),
        };
        let (answer, answered) = oneshot::channel();
        let job = move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            drop((turn, admitted));
            // What nobody waits for any more is dropped here.
            let _ = answer.send(outcome);
        };
        self.jobs.send(Box::new(job)).map_err(|_no_thread| Problem::draining())?;
        let mut answered = core::pin::pin!(answered);
        let answer = match timeout_at(until, answered.as_mut()).await {
            Ok(answer) => answer,
            Err(_elapsed) if awaited.give_up() => return Err(Problem::deadline(deadline, true)),
            // It ended at the last moment.
            Err(_elapsed) => answered.await,
        };
        if let Ok(Ok(outcome)) = answer {
            return outcome;
        }
        tracing::error!("a call panicked");
        Err(Problem::internal("the call panicked; what it had taken was given back"))
    }

    fn full(&self) -> Problem {
        let waiting = self.places.saturating_sub(self.threads);
        Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-calls",
            format!("{} calls are running and {waiting} are waiting", self.threads),
            "try again when some have ended",
        )
        .retry_in(1)
    }

    /// The number of calls that run or wait.
    pub(crate) fn calls(&self) -> usize {
        self.places.saturating_sub(self.admitted.available_permits())
    }
}

/// Waits until a watched value is so, or its sender has gone.
pub(crate) async fn until<T>(watched: &mut watch::Receiver<T>, is_so: impl FnMut(&T) -> bool) {
    // The value itself is locked while it is looked at: not beyond this line.
    let _ = watched.wait_for(is_so).await;
}

/// A moment that no call lives to see.
fn far() -> Moment {
    let now = Moment::now();
    now.checked_add(Duration::from_hours(8760)).unwrap_or(now)
}

/// An answer that is rendered once for all that ask for it at the same time. Each caller receives a
/// rendering that began after its request arrived.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl Shared {
    pub(crate) async fn get(
        &self,
        render: impl FnOnce() -> Result<Vec<u8>, Problem> + Send + 'static,
    ) -> Result<Bytes, Problem> {
        let arrived = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((began, bytes)) = &*last
            && *began >= arrived
        {
            return Ok(bytes.clone());
        }
        let began = Instant::now();
        let rendered = spawn_blocking(render).await;
        let rendered =
            rendered.map_err(|_panicked| Problem::internal("the figures could not be read"))?;
        let bytes = Bytes::from(rendered?);
        *last = Some((began, bytes.clone()));
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap()
    }

    #[test]
    fn a_call_beyond_the_bound_is_refused_at_once_and_one_that_waits_too_long_does_not_begin() {
        runtime().block_on(async {
            let lane = Lane::new(1, 1).unwrap();
            let (go, wait) = mpsc::channel::<()>();
            let first = tokio::spawn({
                let lane = lane.clone();
                async move {
                    let work = move || wait.recv().map_err(|_gone| Problem::internal("gone"));
                    lane.run(Duration::from_secs(30), work).await
                }
            });
            while lane.calls() < 1 {
                tokio::task::yield_now().await;
            }
            let second = tokio::spawn({
                let lane = lane.clone();
                async move { lane.run(Duration::from_millis(200), || Ok(())).await }
            });
            while lane.calls() < 2 {
                tokio::task::yield_now().await;
            }
            let refused = lane.run(Duration::from_secs(30), || Ok(())).await.unwrap_err();
            assert_eq!((refused.status, refused.retryable), (429, true));
            let waited = second.await.unwrap().unwrap_err();
            assert_eq!((waited.status, waited.code.as_str()), (503, "deadline"));
            go.send(()).unwrap();
            first.await.unwrap().unwrap();
            lane.run(Duration::from_secs(30), || Ok(())).await.unwrap();
        });
    }

    #[test]
    fn a_call_that_panics_or_outlasts_its_deadline_gives_its_place_back() {
        runtime().block_on(async {
            let lane = Lane::new(1, 0).unwrap();
            let panicked = lane.run(Duration::from_secs(30), || -> Result<(), _> { panic!("!") });
            assert_eq!(panicked.await.unwrap_err().code, "internal");
            let (go, wait) = mpsc::channel::<()>();
            let work = move || wait.recv().map_err(|_gone| Problem::internal("gone"));
            let overdue = lane.run(Duration::from_millis(20), work).await.unwrap_err();
            assert_eq!(overdue.code, "deadline");
            assert_eq!(lane.calls(), 1);
            go.send(()).unwrap();
            while lane.calls() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            lane.run(Duration::from_secs(30), || Ok(())).await.unwrap();
        });
    }

    #[test]
    fn who_asks_at_once_shares_a_rendering_and_who_asks_later_sees_what_is_new() {
        runtime().block_on(async {
            let (shared, count) = (Arc::new(Shared::default()), Arc::new(Mutex::new(0_u32)));
            let ask = |shared: Arc<Shared>, count: Arc<Mutex<u32>>| async move {
                shared
                    .get(move || {
                        thread::sleep(Duration::from_millis(20));
                        *count.blocking_lock() += 1;
                        Ok(Vec::new())
                    })
                    .await
            };
            let many: Vec<_> = (0..200)
                .map(|_| tokio::spawn(ask(Arc::clone(&shared), Arc::clone(&count))))
                .collect();
            for one in many {
                one.await.unwrap().unwrap();
            }
            let renderings = *count.lock().await;
            assert!(renderings <= 10, "{renderings}");
            ask(Arc::clone(&shared), Arc::clone(&count)).await.unwrap();
            assert_eq!(*count.lock().await, renderings + 1);
        });
    }
}
