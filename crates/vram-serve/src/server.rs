//! A server from its start to its end: what it opens, in which order, and how it is stopped.

pub(crate) mod prepare;
mod threads;

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use vram_residency::{Device, KeySource, SealKey, create_key_file};

use self::prepare::{Prepared, Ready, TokenFile};
use crate::config::{Config, Listen};
use crate::engine::Engine;
use crate::engine::sharing::still_open;
use crate::http::{Counts, State, Stop, Token, begin_drain, force_drain, router};
use crate::lane::{Lane, Shared};
use crate::net::{Bound, Bounds, bind, serve};
use crate::report::{ServeError, ServeReport};

/// A server that listens and has its devices. [`run`](Self::run) serves.
pub struct Server {
    runtime: Runtime,
    state: Arc<State>,
    report: watch::Sender<Option<ServeReport>>,
    bound: Vec<Bound>,
    tls: Option<TlsAcceptor>,
    config: Config,
    token_is_new: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

/// Stops a server, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<State>);

impl Stopper {
    /// Begins to drain: leases are waited for as long as the configuration says.
    pub fn drain(&self) {
        begin_drain(&self.0, self.0.drain);
    }

    /// Waits for leases no longer. A model that another process uses in place is still not freed, and
    /// the server goes on until that process has let go or has ended.
    pub fn now(&self) {
        begin_drain(&self.0, Duration::ZERO);
    }

    /// Ends the server whatever is held. What another process then does with memory that it has open is
    /// undefined: end that process instead.
    pub fn force(&self) {
        force_drain(&self.0);
    }
}

/// How long the manager waits for calls that are under way when the server ends.
const CLOSE_WAIT: Duration = Duration::from_secs(10);
/// How long connections have to take their last answer.
const GOODBYE: Duration = Duration::from_secs(3);
/// How long a load at the start may take.
const LOAD_WAIT: Duration = Duration::from_hours(24);
/// How often leases are counted when the server is to end.
const LOOK: Duration = Duration::from_millis(20);
/// Connections that are told at the same time that the server is full.
const REFUSALS: usize = 256;
/// Descriptors that are kept for model files, the log and the system.
const DESCRIPTORS_KEPT: u64 = 128;

impl Server {
    /// Reads token and key, opens the addresses, and takes the devices. Loads nothing yet.
    ///
    /// # Arguments
    ///
    /// * `devices`: open, in the order of [`Config::devices`].
    ///
    /// # Errors
    ///
    /// [`ServeError`]; nothing stays open then.
    pub fn start(config: Config, devices: Vec<Arc<dyn Device>>) -> Result<Self, ServeError> {
        let Ready { token, tls, key, devices } = Prepared::of(&config, Ok(devices)).ready()?;
        let token_is_new = matches!(token, TokenFile::ToMake);
        raise_descriptors();
        let runtime = threads::runtime().map_err(ServeError::threads)?;
        let bound = runtime.block_on(async {
            let mut bound = Vec::new();
            for listen in config.listen() {
                bound.push(bind(&listen).await?);
            }
            Ok(bound)
        });
        let bound = bound.map_err(|crate::net::BindError { listen, error }| ServeError::Bind {
            listen,
            error,
        })?;
        let engine = Arc::new(Engine::new(&config, devices, key)?);
        // Last: a start that fails makes none.
        let token = match token {
            TokenFile::There(secret) => Token::of(&secret),
            TokenFile::ToMake => new_token(&config.token_file())?,
        };
        let (report, reports) = watch::channel(None);
        let limits = &config.limits;
        let state = Arc::new(State {
            engine,
            token,
            stop: watch::channel(Stop::No).0,
            report: reports,
            counts: Counts::default(),
            call_deadline: limits.call_deadline,
            receive: limits.receive,
            drain: config.drain,
            event_readers: Arc::new(Semaphore::new(limits.event_readers)),
            metrics: Shared::default(),
            snapshot: Shared::default(),
            models: Shared::default(),
        });
        Ok(Self { runtime, state, report, bound, tls, config, token_is_new })
    }

    /// The addresses, with the port that the system chose for port 0.
    #[must_use]
    pub fn addresses(&self) -> Vec<Listen> {
        self.bound.iter().map(Bound::address).collect()
    }

    /// Whether the token file was made just now.
    #[must_use]
    pub const fn token_is_new(&self) -> bool {
        self.token_is_new
    }

    /// What stops the server.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.state))
    }

    /// Loads the configured models and serves, until a drain has ended. A model that cannot be loaded
    /// is told in listings, events and `/readyz`; the others serve.
    #[must_use]
    pub fn run(self) -> ServeReport {
        let Self { runtime, state, report, bound, tls, config, .. } = self;
        let ended = runtime.block_on(all(state, report, bound, tls, &config));
        // What still runs was given its time.
        runtime.shutdown_timeout(GOODBYE);
        ended
    }
}

async fn all(
    state: Arc<State>,
    report: watch::Sender<Option<ServeReport>>,
    bound: Vec<Bound>,
    tls: Option<TlsAcceptor>,
    config: &Config,
) -> ServeReport {
    let (over, is_over) = watch::channel(false);
    let limits = &config.limits;
    let peers = config.models.iter().any(|model| model.share);
    let bounds = Bounds {
        places: Arc::new(Semaphore::new(connections(limits.connections, peers))),
        refusals: Arc::new(Semaphore::new(REFUSALS)),
        receive: limits.receive,
        send: limits.send,
        peers,
        over: is_over,
    };
    let routes = router(Arc::clone(&state));
    let mut listeners = JoinSet::new();
    for one in bound {
        let remote = matches!(one.address(), Listen::Tcp(address) if !is_loopback(address));
        let tls = tls.clone().filter(|_| remote);
        let (routes, state) = (routes.clone(), Arc::clone(&state));
        listeners.spawn(serve(one, tls, routes, state, bounds.clone()));
    }
    let loads = tokio::spawn(load_all(Arc::clone(&state)));
    let leases_cut = drained(&state).await;
    loads.abort();
    let engine = Arc::clone(&state.engine);
    let closed = tokio::task::spawn_blocking(move || {
        engine.let_go();
        engine.manager.close(CLOSE_WAIT)
    });
    let ended = match closed.await {
        Ok(closed) => ServeReport::of(&closed, leases_cut),
        Err(panicked) => ServeReport::of_panic(&panicked.to_string(), leases_cut),
    };
    // Calls of `/v1/drain` answer with it.
    report.send_replace(Some(ended.clone()));
    over.send_replace(true);
    while listeners.join_next().await.is_some() {}
    // Each connection holds a receiver until it has ended.
    drop(bounds);
    let _ = timeout(GOODBYE, over.closed()).await;
    ended
}

/// Loads the configured models: those of the same sources one after the other, since each uses all threads,
/// and beside those of other sources, which a source that hangs does not hold up.
async fn load_all(state: Arc<State>) {
    let mut by_sources: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for model in state.engine.configured() {
        by_sources.entry((model.store, model.mirrors)).or_default().push(model.name);
    }
    // Threads of their own: calls are not to wait for a source either.
    let lane = Lane::new(by_sources.len().min(LOADS_MAX), by_sources.len());
    let lane = lane.unwrap_or_else(|_no_threads| state.engine.heavy.clone());
    let (state, lane) = (&state, &lane);
    let loads = by_sources.into_values().map(|names| async move {
        for name in names {
            let (engine, model) = (Arc::clone(&state.engine), name.clone());
            match lane.run(LOAD_WAIT, move || engine.load_at_start(&model)).await {
                Ok(()) => tracing::info!(model = %name, "loaded"),
                Err(problem) => {
                    tracing::error!(model = %name, code = %problem.code, "{}", problem.message);
                }
            }
        }
    });
    let _all: Vec<()> = futures_util::future::join_all(loads).await;
}

/// Loads at the start that run at once, at most.
const LOADS_MAX: usize = 16;

/// Waits until the server is to stop, and then for its leases, until the deadline. Cuts what is left,
/// and returns how many.
async fn drained(state: &State) -> usize {
    let mut stop = state.stop.subscribe();
    let _ = stop.wait_for(|stop| *stop != Stop::No).await;
    let began = Instant::now();
    let leases = &state.engine.leases;
    loop {
        let deadline = match *stop.borrow() {
            Stop::Draining(deadline) => deadline,
            Stop::No | Stop::Now | Stop::Forced => Duration::ZERO,
        };
        if leases.count() == 0 || began.elapsed() >= deadline {
            break;
        }
        sleep(LOOK).await;
    }
    let cut = leases.count_connected();
    state.stop.send_if_modified(|stop| {
        let over = *stop != Stop::Forced;
        *stop = if over { Stop::Now } else { Stop::Forced };
        over
    });
    // Each stream of a lease ends by itself now; one whose client takes nothing is not waited for.
    let gone = async {
        while leases.count_connected() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = timeout(Duration::from_secs(1), gone).await;
    cut.saturating_add(closed(state).await)
}

/// Goes on until no process has memory of a model open: freeing it before is undefined by the driver's
/// manual. A drain by HTTP was answered with who has it. Returns how many leases were cut by force.
async fn closed(state: &State) -> usize {
    /// How often the processes are told in the log.
    const TELL: Duration = Duration::from_secs(30);

    let leases = &state.engine.leases;
    let mut stop = state.stop.subscribe();
    loop {
        let open = leases.open();
        if open.is_empty() {
            return leases.forced();
        }
        let problem = still_open(&open);
        tracing::error!(next = %problem.next, "{}", problem.message);
        let ended = async {
            while !leases.open().is_empty() {
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = ended => return leases.forced(),
            () = sleep(TELL) => {}
            // What keeps the leases lets them go now.
            _ = stop.wait_for(|stop| *stop == Stop::Forced) => break,
        }
    }
    let gone = async {
        while !leases.open().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = timeout(Duration::from_secs(1), gone).await;
    leases.forced()
}

/// Makes the token file.
fn new_token(file: &Path) -> Result<Token, ServeError> {
    if let Some(folder) = file.parent() {
        // A failure shows when the file is made.
        let _ = private_folder(folder);
    }
    let secret: SealKey = KeySource::Random.load().map_err(ServeError::Token)?;
    create_key_file(file, &secret).map_err(ServeError::Token)?;
    Ok(Token::of(&secret))
}

fn private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

const fn is_loopback(address: SocketAddr) -> bool {
    address.ip().is_loopback()
}

/// Lets this process open as many descriptors as it may.
fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // If not, fewer connections are accepted.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// The bound of connections: the configured one, or what the descriptors of this process allow.
fn connections(wanted: usize, peers: bool) -> usize {
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return wanted };
    let refused = u64::try_from(REFUSALS).unwrap_or(0);
    let kept = DESCRIPTORS_KEPT.saturating_add(refused);
    let left = descriptors.saturating_sub(kept);
    // The process at the other end takes a descriptor, too.
    let left = if peers { left / 2 } else { left };
    let most = usize::try_from(left).unwrap_or(usize::MAX);
    if most < wanted {
        tracing::warn!(wanted, most, "fewer descriptors than connections");
    }
    wanted.min(most.max(1))
}
