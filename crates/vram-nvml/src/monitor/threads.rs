//! The threads of a monitor: one asks for figures, one watches for XIDs.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use vram_alloc::DeviceUuid;

use super::options::{MonitorOptions, OnXid, Xids};
use super::state::Shared;
use crate::library::{Library, NoLibrary, XidReceiver};
use crate::xid::XidWatch;

/// Starts the threads. Without cards there is nothing to ask.
pub(super) fn start(shared: &Arc<Shared>, options: MonitorOptions) {
    let MonitorOptions { cards, every, library, xids } = options;
    if cards.is_empty() {
        return;
    }
    if !Library::BUILT {
        shared.lock().give_up(NoLibrary::NotBuilt);
        return;
    }
    let on_xid = match xids {
        Xids::No => None,
        Xids::Kept => Some(None),
        Xids::Told(on_xid) => Some(Some(on_xid)),
    };
    if let Some(on_xid) = on_xid {
        let watch = Watch { shared: Arc::clone(shared), on_xid };
        let (cards, library) = (cards.clone(), library.clone());
        let run = move || watch.run(&cards, every, library.as_ref());
        if let Err(error) = thread::Builder::new().name("vram-nvml-xid".to_owned()).spawn(run) {
            tracing::warn!(%error, "XIDs are not watched");
        }
    }
    let own = Arc::clone(shared);
    let run = move || {
        let work = || ask(&own, &cards, every, library.as_ref());
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            ended(&own, "the thread that asks panicked");
        }
    };
    if let Err(error) = thread::Builder::new().name("vram-nvml".to_owned()).spawn(run) {
        ended(shared, &format!("no thread: {error}"));
    }
}

fn ended(shared: &Shared, why: &str) {
    shared.lock().library = Err(NoLibrary::Ended(why.to_owned()));
    shared.tell();
}

/// Asks for all figures, again and again, until the monitor ends.
fn ask(shared: &Shared, cards: &[DeviceUuid], every: Duration, named: Option<&PathBuf>) {
    let mut library = None;
    loop {
        shared.lock().begin();
        let opened = match library.take() {
            Some(opened) => Ok(opened),
            None => open(named).inspect(|library| {
                let driver = library.driver();
                shared.lock().library = Ok(Some(driver.unwrap_or_else(|why| why)));
            }),
        };
        match opened {
            Ok(opened) => {
                for &card in cards {
                    // The call that may hang: nothing is locked.
                    let told = opened.read(card);
                    shared.lock().put(card, told);
                    shared.tell();
                }
                library = Some(opened);
            }
            Err(why) => {
                tracing::debug!(%why, "no figures of the cards");
                shared.lock().library = Err(why);
            }
        }
        shared.lock().finish();
        shared.tell();
        if shared.wait(every, super::state::State::is_asked).ended() {
            return;
        }
    }
}

/// Opens the library, and says so.
fn open(named: Option<&PathBuf>) -> Result<Library, NoLibrary> {
    Library::open(named.map(PathBuf::as_path))
}

/// The watch for XIDs.
struct Watch {
    shared: Arc<Shared>,
    on_xid: Option<OnXid>,
}

impl Watch {
    fn run(&self, cards: &[DeviceUuid], every: Duration, named: Option<&PathBuf>) {
        loop {
            let watched = catch_unwind(AssertUnwindSafe(|| match open(named) {
                Ok(library) => library.watch(cards, self),
                Err(why) => self.none(cards, &why.to_string()),
            }));
            if watched.is_err() {
                self.none(cards, "the thread that watches panicked");
                return;
            }
            if self.pause(every) {
                return;
            }
        }
    }

    fn none(&self, cards: &[DeviceUuid], why: &str) {
        for &card in cards {
            self.state(card, XidWatch::NotOffered(why.to_owned()));
        }
    }
}

impl XidReceiver for Watch {
    fn seen(&self, card: DeviceUuid, xid: u64) {
        let event = self.shared.lock().xids.add(card, xid);
        self.shared.tell();
        let meaning = crate::xid::meaning(xid);
        tracing::error!(%card, xid, what = meaning.what, next = meaning.next, "XID");
        if let Some(on_xid) = &self.on_xid
            && catch_unwind(AssertUnwindSafe(|| on_xid(&event))).is_err()
        {
            tracing::error!(%card, xid, "the receiver of XIDs panicked");
        }
    }

    fn state(&self, card: DeviceUuid, watch: XidWatch) {
        let why = match &watch {
            XidWatch::NotOffered(why) => Some(why.clone()),
            _ => None,
        };
        let changed = self.shared.lock().set_watch(card, watch);
        self.shared.tell();
        if let (true, Some(why)) = (changed, why) {
            tracing::debug!(%card, %why, "XIDs of this card are not seen");
        }
    }

    fn pause(&self, span: Duration) -> bool {
        self.shared.wait(span, |_| false).ended()
    }
}
