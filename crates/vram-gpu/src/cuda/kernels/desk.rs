//! Where the users of a device ask for its kernels: starts their loading, and knows how far it is.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use super::super::context::Port;
use super::loading;
use super::offer::Offer;
use crate::kernels::{Kernels, NoKernels};
use crate::{DeviceInfo, codes};

/// The existing desks, by ordinal: a device loads its kernels once, however many values it has.
static DESKS: Mutex<BTreeMap<u32, Weak<Desk>>> = Mutex::new(BTreeMap::new());

/// A code that says nothing: loading ended with a fault of ours.
const UNKNOWN: u32 = 999;

/// How long a refusal for want of memory stands before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The kernels of a device. Dropping it waits for the thread that loads them.
pub(in crate::cuda) struct Desk {
    shared: Arc<Shared>,
    loader: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread that loads has too.
struct Shared {
    port: Port,
    /// The last user is gone: nothing more is loaded.
    over: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Which epoch of the device's memory the rest is about.
    epoch: u64,
    found: Found,
    /// Whether a thread is loading.
    running: bool,
}

enum Found {
    /// Nobody asked yet.
    Nothing,
    /// The ciphers may follow.
    Offer(Arc<Offer>),
    /// They are not offered.
    No(NoKernels),
    /// There was no room for their scratch memory then.
    NoRoom(Instant),
}

impl Desk {
    /// The desk of a device; makes it if there is none.
    pub(in crate::cuda) fn of(port: &Port, ordinal: u32, info: &DeviceInfo) -> Arc<Self> {
        let mut desks = lock(&DESKS);
        // It keeps the device's core, so that it is of the same one.
        if let Some(desk) = desks.get(&ordinal).and_then(Weak::upgrade) {
            return desk;
        }
        // A card or driver that is too old stays so.
        let found = loading::refusal(info).map_or(Found::Nothing, Found::No);
        let epoch = match found {
            Found::No(_) => FOR_EVER,
            _ => port.core.epoch(),
        };
        let state = Mutex::new(State { epoch, found, running: false });
        let (over, changed) = (AtomicBool::new(false), Condvar::new());
        let shared = Arc::new(Shared { port: port.clone(), over, state, changed });
        let desk = Arc::new(Self { shared, loader: Mutex::new(None) });
        desks.insert(ordinal, Arc::downgrade(&desk));
        desk
    }

    /// The kernels, or why there are none. Starts loading them if that helps, and waits for nothing.
    pub(in crate::cuda) fn kernels(&self) -> Result<Arc<dyn Kernels>, NoKernels> {
        let (answer, start) = self.shared.ask();
        if start {
            self.start();
        }
        answer
    }

    /// As [`kernels`](Self::kernels), after everything is loaded, but no later than this.
    pub(in crate::cuda) fn wait(&self, most: Duration) -> Result<Arc<dyn Kernels>, NoKernels> {
        let begun = Instant::now();
        loop {
            let (answer, start) = self.shared.ask();
            let left = most.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return answer;
            }
            if start {
                self.start();
            }
            let state = lock(&self.shared.state);
            if state.running {
                drop(self.shared.changed.wait_timeout(state, left));
            } else if !start {
                return answer;
            }
        }
    }

    /// After a reset: loads them again, if anybody has asked for them before.
    pub(in crate::cuda) fn renew(&self) {
        let asked = {
            let state = lock(&self.shared.state);
            state.running || !matches!(state.found, Found::Nothing)
        };
        if asked {
            let _of_now = self.kernels();
        }
    }

    /// Starts a thread that loads, unless one runs, or has ended since its caller asked.
    fn start(&self) {
        let mut loader = lock(&self.loader);
        if !self.shared.ask().1 || core::mem::replace(&mut lock(&self.shared.state).running, true) {
            return;
        }
        if let Some(before) = loader.take() {
            // It has said that it is done.
            let _ended = before.join();
        }
        let shared = Arc::clone(&self.shared);
        let name = "vram-kernels".to_owned();
        match std::thread::Builder::new().name(name).spawn(move || shared.load_whatever_happens()) {
            Ok(thread) => *loader = Some(thread),
            Err(error) => {
                tracing::warn!(%error, "no thread to load kernels");
                self.shared.settle(Some(Found::NoRoom(Instant::now())));
            }
        }
    }
}

/// The epoch of what no reset changes.
const FOR_EVER: u64 = u64::MAX;

impl Shared {
    /// The answer of now, and whether loading would help.
    fn ask(&self) -> (Result<Arc<dyn Kernels>, NoKernels>, bool) {
        let core = &self.port.core;
        let state = lock(&self.state);
        if state.epoch != FOR_EVER {
            if let Some(code) = core.lost() {
                return (Err(NoKernels::Lost { code }), false);
            }
            if state.epoch != core.epoch() {
                return (Err(NoKernels::Loading), true);
            }
        }
        match &state.found {
            Found::Nothing => (Err(NoKernels::Loading), true),
            Found::Offer(offer) if offer.life.is_wrong() => {
                (Err(NoKernels::WrongAnswer { kernel: "open" }), false)
            }
            Found::Offer(offer) => {
                let offer: Arc<dyn Kernels> = Arc::<Offer>::clone(offer);
                (Ok(offer), false)
            }
            Found::No(why) => (Err(*why), false),
            Found::NoRoom(since) => {
                let no_room = NoKernels::Refused { code: codes::OUT_OF_MEMORY };
                (Err(no_room), since.elapsed() >= AGAIN_AFTER)
            }
        }
    }

    /// The work of the thread. Should it panic, nobody waits for it for ever.
    fn load_whatever_happens(&self) {
        let load = core::panic::AssertUnwindSafe(|| self.load());
        if std::panic::catch_unwind(load).is_err() {
            self.settle(Some(Found::No(NoKernels::Refused { code: UNKNOWN })));
        }
    }

    fn load(&self) {
        // What is left of the life before is given up first.
        let before = {
            let mut state = lock(&self.state);
            let epoch = self.port.core.epoch();
            if state.epoch == epoch {
                Found::Nothing
            } else {
                state.epoch = epoch;
                core::mem::replace(&mut state.found, Found::Nothing)
            }
        };
        drop(before);
        if self.over.load(Ordering::Acquire) {
            return self.settle(None);
        }
        match loading::first(&self.port).map(Arc::new) {
            Ok(offer) => {
                {
                    let mut state = lock(&self.state);
                    // A reset may have come between.
                    state.epoch = offer.life.epoch();
                    state.found = Found::Offer(Arc::clone(&offer));
                }
                if self.over.load(Ordering::Acquire) {
                    return self.settle(None);
                }
                let found = match loading::ciphers(&self.port, &offer) {
                    Ok(all) => Some(Found::Offer(Arc::new(all))),
                    // A kernel that computes wrong makes all of them suspect.
                    Err(wrong @ NoKernels::WrongAnswer { .. }) => Some(Found::No(wrong)),
                    // Where the driver refuses the ciphers, the others are as good as before.
                    Err(why) => {
                        tracing::warn!(gpu = %self.port.gpu, %why, "no ciphers on the device");
                        None
                    }
                };
                drop(offer);
                self.settle(found);
            }
            Err(NoKernels::Refused { code: codes::OUT_OF_MEMORY }) => {
                self.settle(Some(Found::NoRoom(Instant::now())));
            }
            Err(why) => {
                tracing::warn!(gpu = %self.port.gpu, %why, "no kernels on the device");
                self.settle(Some(Found::No(why)));
            }
        }
    }

    /// Loading has ended. What is not offered any more is given back before anybody learns so.
    fn settle(&self, found: Option<Found>) {
        let before = found.map(|found| core::mem::replace(&mut lock(&self.state).found, found));
        drop(before);
        lock(&self.state).running = false;
        self.changed.notify_all();
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        let loader = self.loader.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(loader) = loader {
            let _ended = loader.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
