//! What was heard of a place lately: whether it stalled, what it answered, since when it is waited for.
//!
//! All stores of one address in the process share it: the next request need not find out again.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::Cause;

/// How long a place that stalled is asked last.
const LATE: Duration = Duration::from_mins(5);

/// What was heard of one place.
#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    stalled: Option<Instant>,
    last: Option<(Instant, String)>,
    /// Requests under way by their numbers: since when nothing came, and whether anything came before.
    waiting: BTreeMap<u64, (Instant, bool)>,
    number: u64,
}

impl Record {
    /// The record of an address.
    pub(super) fn of(name: &Arc<str>) -> Arc<Self> {
        static KNOWN: Mutex<BTreeMap<Arc<str>, Arc<Record>>> = Mutex::new(BTreeMap::new());
        let mut known = lock(&KNOWN);
        known.retain(|_, one| Arc::strong_count(one) > 1 || one.is_late());
        Arc::clone(known.entry(Arc::clone(name)).or_default())
    }

    /// Whether it stalled lately: others are asked first.
    pub(crate) fn is_late(&self) -> bool {
        lock(&self.0).stalled.is_some_and(|at| at.elapsed() < LATE)
    }

    /// Whether it stalled since then.
    pub(crate) fn stalled_since(&self, began: Instant) -> bool {
        lock(&self.0).stalled.is_some_and(|at| at >= began)
    }

    /// Begins a request.
    pub(crate) fn ask(self: &Arc<Self>) -> Asking {
        let mut heard = lock(&self.0);
        let number = heard.number;
        heard.number = number.wrapping_add(1);
        heard.waiting.insert(number, (Instant::now(), false));
        Asking { record: Arc::clone(self), number }
    }

    /// The request that has waited longest for its next byte: how long, and whether any came before.
    fn silent(&self) -> Option<(Duration, bool)> {
        let heard = lock(&self.0);
        heard.waiting.values().min().map(|(since, any)| (since.elapsed(), *any))
    }

    /// What a call that began then has of it.
    pub(crate) fn said(&self, began: Instant) -> String {
        let silent = self.silent();
        let last = lock(&self.0).last.clone().filter(|(at, _)| *at >= began);
        match (silent, last) {
            (Some((silent, true)), _) if silent < Duration::from_secs(1) => "it was sending".into(),
            (Some((silent, true)), _) => format!("nothing more came for {}", short(silent)),
            (Some((silent, false)), Some((_, last))) => {
                format!("{last}; then no answer for {}", short(silent))
            }
            (Some((silent, false)), None) => format!("no answer for {}", short(silent)),
            (None, Some((_, last))) => last,
            (None, None) => "not asked yet".into(),
        }
    }
}

/// A request that is under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Asking {
    record: Arc<Record>,
    number: u64,
}

impl Asking {
    /// Notes that bytes came.
    pub(crate) fn heard(&self) {
        lock(&self.record.0).waiting.insert(self.number, (Instant::now(), true));
    }

    /// Notes what became of it.
    pub(crate) fn answered(&self, what: &str) {
        lock(&self.record.0).last = Some((Instant::now(), what.to_owned()));
    }

    /// Notes that no answer came in time.
    pub(crate) fn stalled(&self, what: &str) {
        self.answered(what);
        lock(&self.record.0).stalled = Some(Instant::now());
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        lock(&self.record.0).waiting.remove(&self.number);
    }
}

/// The places that a call asks.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Vec<Place>>);

#[derive(Debug)]
struct Place {
    name: Arc<str>,
    record: Arc<Record>,
    /// Whether it was told that it is waited for.
    told: bool,
}

impl Places {
    pub(crate) fn note(&self, name: &Arc<str>, record: &Arc<Record>) {
        let mut places = lock(&self.0);
        if !places.iter().any(|one| Arc::ptr_eq(&one.record, record)) {
            let (name, record) = (Arc::clone(name), Arc::clone(record));
            places.push(Place { name, record, told: false });
        }
    }

    /// What a call that ends at its deadline has of each. One that let it wait for half of its time is asked
    /// last by the next.
    pub(crate) fn at_deadline(&self, began: Instant, within: Duration) -> Vec<Cause> {
        let cause = |place: &Place| {
            let why = place.record.said(began);
            let long = within.checked_div(2).unwrap_or(within);
            if place.record.silent().is_some_and(|(silent, _)| silent >= long) {
                lock(&place.record.0).stalled = Some(Instant::now());
            }
            Cause::Failed { source: Arc::clone(&place.name), why }
        };
        lock(&self.0).iter().map(cause).collect()
    }

    /// A place of which nothing has come for so long, and how long; each is given out once.
    pub(crate) fn silent_for(&self, long: Duration) -> Option<(Arc<str>, Duration)> {
        let mut places = lock(&self.0);
        let place = places.iter_mut().filter(|one| !one.told);
        let mut silent = place.filter_map(|one| {
            let silent = one.record.silent().map(|(silent, _)| silent)?;
            (silent >= long).then_some((one, silent))
        });
        let (place, silent) = silent.next()?;
        place.told = true;
        Some((Arc::clone(&place.name), silent))
    }
}

/// A time for people.
fn short(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{}ms", time.subsec_millis()),
        seconds => format!("{seconds}s"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_known_by_its_address_while_it_is_in_use_or_late() {
        let name: Arc<str> = Arc::from("a place of this test");
        let one = Record::of(&name);
        assert!(Arc::ptr_eq(&one, &Record::of(&name)));
        assert!(!one.is_late());
        one.ask().answered("it is not there");
        assert!(!one.is_late());
        let began = Instant::now();
        one.ask().stalled("no answer within 1s");
        assert!(one.is_late() && one.stalled_since(began));
        assert!(!one.stalled_since(Instant::now() + Duration::from_secs(1)));
        drop(one);
        assert!(Record::of(&name).is_late(), "the next store of this address");
    }

    #[test]
    fn what_is_said_of_a_place_is_what_was_heard_of_it() {
        let (record, began) = (Arc::<Record>::default(), Instant::now());
        assert_eq!(record.said(began), "not asked yet");
        let asking = record.ask();
        assert!(record.said(began).starts_with("no answer for "), "{}", record.said(began));
        asking.heard();
        assert_eq!(record.said(began), "it was sending");
        asking.answered("503");
        drop(asking);
        assert_eq!(record.said(began), "503");
        let _asking = record.ask();
        assert!(record.said(began).starts_with("503; then no answer for "));
        assert_eq!(short(Duration::from_micros(4_912_345)), "4s");
        assert_eq!(short(Duration::from_micros(912_345)), "912ms");
    }
}
