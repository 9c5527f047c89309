//! What the threads of a monitor and its readers share. The lock is held for moments only, never
//! during a call of the library.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use vram_alloc::DeviceUuid;

use super::answer::{Answer, Reading};
use super::options::{MonitorOptions, Xids};
use crate::card::CardHealth;
use crate::library::NoLibrary;
use crate::xid::{XidCount, XidEvent, XidWatch};

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    /// The version of the driver, `None` before the first answer, or why there is no library.
    pub(super) library: Result<Option<String>, NoLibrary>,
    pub(super) cards: BTreeMap<DeviceUuid, Last>,
    watches: BTreeMap<DeviceUuid, XidWatch>,
    pub(super) xids: XidLog,
    began: Instant,
    /// When the question was asked that the library has now.
    asking: Option<Instant>,
    /// Questions asked for, and those that were answered.
    asked: u64,
    answered: u64,
    ended: bool,
}

/// The last answer on one card.
#[derive(Debug)]
pub(super) enum Last {
    None,
    Some(Instant, Box<Result<CardHealth, String>>),
}

/// The XIDs that were seen.
#[derive(Debug, Default)]
pub(super) struct XidLog {
    recent: VecDeque<XidEvent>,
    counts: BTreeMap<DeviceUuid, Kinds>,
    next: u64,
}

#[derive(Debug, Default)]
struct Kinds {
    by_number: BTreeMap<u64, u64>,
    others: u64,
}

impl Shared {
    pub(super) fn new(options: &MonitorOptions) -> Self {
        let watch = match options.xids {
            Xids::No => XidWatch::NotAsked,
            Xids::Kept | Xids::Told(_) => XidWatch::Starting,
        };
        let cards = || options.cards.iter().copied();
        let state = State {
            library: Ok(None),
            cards: cards().map(|card| (card, Last::None)).collect(),
            watches: cards().map(|card| (card, watch.clone())).collect(),
            xids: XidLog::default(),
            began: Instant::now(),
            asking: None,
            asked: 1,
            answered: 0,
            ended: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self) {
        self.changed.notify_all();
    }

    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.tell();
    }

    /// Waits until the state is so, the monitor has ended, or the time is over.
    pub(super) fn wait(
        &self,
        most: Duration,
        is_so: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let waits = |state: &mut State| !state.ended && !is_so(state);
        let waited = self.changed.wait_timeout_while(self.lock(), most, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl State {
    /// Whether there is an answer on this card, or none is to be waited for.
    pub(super) fn is_settled(&self, card: DeviceUuid) -> bool {
        self.library.is_err() || !matches!(self.cards.get(&card), Some(Last::None))
    }

    pub(super) fn answer(&self, card: DeviceUuid, now: Instant) -> Answer {
        let Some(last) = self.cards.get(&card) else { return Answer::NotWatched };
        if let Err(why) = &self.library {
            return Answer::NoLibrary { why: why.clone() };
        }
        match last {
            Last::None => Answer::Late { waited: now.saturating_duration_since(self.began) },
            Last::Some(at, told) => {
                let age = now.saturating_duration_since(*at);
                match &**told {
                    Ok(health) => Answer::Told(Box::new(Reading { health: health.clone(), age })),
                    Err(why) => Answer::NoCard { why: why.clone(), age },
                }
            }
        }
    }

    pub(super) fn age(&self, card: DeviceUuid, now: Instant) -> Option<Duration> {
        match self.cards.get(&card)? {
            Last::None => None,
            Last::Some(at, _) => Some(now.saturating_duration_since(*at)),
        }
    }

    /// Whether the library has had a question for longer than this.
    pub(super) fn hangs(&self, most: Duration, now: Instant) -> bool {
        self.asking.is_some_and(|asked| now.saturating_duration_since(asked) > most)
    }

    /// Asks for an answer that begins after this call.
    pub(super) fn ask(&mut self) -> u64 {
        // The question that the library has now began before.
        let under_way = u64::from(self.asking.is_some());
        self.asked = self.asked.max(self.answered.saturating_add(under_way).saturating_add(1));
        self.asked
    }

    pub(super) const fn answered(&self, ticket: u64) -> bool {
        self.answered >= ticket || self.library.is_err()
    }

    pub(super) const fn ended(&self) -> bool {
        self.ended
    }

    /// Whether a question waits for the library.
    pub(super) const fn is_asked(&self) -> bool {
        self.asked > self.answered
    }

    /// A question goes to the library.
    pub(super) fn begin(&mut self) {
        self.asking = Some(Instant::now());
    }

    /// It has been answered, for all cards.
    pub(super) fn finish(&mut self) {
        self.asking = None;
        self.answered = self.answered.saturating_add(1);
        self.asked = self.asked.max(self.answered);
    }

    pub(super) fn put(&mut self, card: DeviceUuid, told: Result<CardHealth, String>) {
        self.cards.insert(card, Last::Some(Instant::now(), Box::new(told)));
    }

    pub(super) fn watch_of(&self, card: DeviceUuid) -> XidWatch {
        self.watches.get(&card).cloned().unwrap_or(XidWatch::NotAsked)
    }

    /// There is no library, and none is looked for.
    pub(super) fn give_up(&mut self, why: NoLibrary) {
        for watch in self.watches.values_mut().filter(|watch| **watch == XidWatch::Starting) {
            *watch = XidWatch::NotOffered(why.to_string());
        }
        self.library = Err(why);
    }

    /// Returns true if it was different.
    pub(super) fn set_watch(&mut self, card: DeviceUuid, watch: XidWatch) -> bool {
        self.watches.insert(card, watch.clone()) != Some(watch)
    }
}

impl XidLog {
    /// Events that are kept.
    const KEPT: usize = 256;
    /// Kinds of one card that are counted apart.
    const KINDS: usize = 64;

    pub(super) fn add(&mut self, card: DeviceUuid, xid: u64) -> XidEvent {
        let event = XidEvent { card, xid, seen: SystemTime::now(), number: self.next };
        self.next = self.next.saturating_add(1);
        if self.recent.len() >= Self::KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(event.clone());
        let kinds = self.counts.entry(card).or_default();
        let known = kinds.by_number.contains_key(&xid);
        let count = if known || kinds.by_number.len() < Self::KINDS {
            kinds.by_number.entry(xid).or_default()
        } else {
            &mut kinds.others
        };
        *count = count.saturating_add(1);
        event
    }

    pub(super) fn counts(&self, card: DeviceUuid) -> Vec<XidCount> {
        let Some(kinds) = self.counts.get(&card) else { return Vec::new() };
        let by_number = kinds.by_number.iter();
        let mut counts: Vec<_> =
            by_number.map(|(&xid, &count)| XidCount { xid: Some(xid), count }).collect();
        if kinds.others > 0 {
            counts.push(XidCount { xid: None, count: kinds.others });
        }
        counts
    }

    pub(super) fn recent(&self) -> Vec<XidEvent> {
        self.recent.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_xids_takes_no_more_than_its_bounds_and_each_is_counted() {
        let mut log = XidLog::default();
        let card = DeviceUuid::new([1; 16]);
        for xid in 0..10_000 {
            log.add(card, xid % 100);
        }
        assert_eq!(log.recent().len(), XidLog::KEPT);
        assert_eq!(log.recent().last().unwrap().number, 9_999);
        let counts = log.counts(card);
        assert_eq!(counts.len(), XidLog::KINDS + 1);
        assert_eq!(counts.last().unwrap(), &XidCount { xid: None, count: 3_600 });
        assert_eq!(counts.iter().map(|one| one.count).sum::<u64>(), 10_000);
        assert!(log.counts(DeviceUuid::new([2; 16])).is_empty());
    }

    #[test]
    fn a_question_that_is_under_way_does_not_answer_one_that_comes_later() {
        let shared = Shared::new(&MonitorOptions::new([DeviceUuid::new([1; 16])]));
        let mut state = shared.lock();
        assert!(state.is_asked());
        state.begin();
        let ticket = state.ask();
        state.finish();
        assert!(!state.answered(ticket) && state.is_asked());
        state.begin();
        state.finish();
        assert!(state.answered(ticket) && !state.is_asked());
    }
}
